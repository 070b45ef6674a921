"""What a network that cleans speech listens to: frames of a voice, drawn rather than recorded.

Syllables of harmonics under three resonances, or of noise, between pauses; as loud as `loudness` and over a hiss of
-50 dB of full scale. No words, but levels, pitch, spectrum and rhythm of speech at 16 kHz: quiet frames beside loud
ones, which independent noise has not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

_RATE = 16000
_FRAME, _HOP = 512, 128  # those of DTLN (arXiv:2005.07551, section 2.1)
_HISS = 0.003


def voice(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A drawn voice, float32 [samples] between -1 and 1."""
    count = round(seconds * _RATE)
    sound, start = np.zeros(count), 0
    while start < count:
        length = min(round(rng.uniform(0.08, 0.3) * _RATE), count - start)
        if rng.uniform() < 0.8:
            part = _voiced(length, rng) if rng.uniform() < 0.75 else 0.1 * rng.normal(size=length)
            loudness = rng.uniform(0.05, 0.5)
            sound[start : start + length] = loudness * np.hanning(length) * part / np.abs(part).max()
        start += length
    return np.clip(sound + _HISS * rng.normal(size=count), -1, 1).astype(np.float32)


def _voiced(length: int, rng: np.random.Generator) -> np.ndarray:
    """Harmonics of a gliding pitch, as loud as three resonances make them."""
    pitch = rng.uniform(90, 240) * (1 + 0.1 * rng.uniform(-1, 1) * np.linspace(-1, 1, length))
    phase = 2 * np.pi * np.cumsum(pitch) / _RATE
    centres = [rng.uniform(*band) for band in ((300, 800), (900, 2200), (2300, 3200))]
    sound = np.zeros(length)
    for k in range(1, int(4000 / pitch.mean())):
        gain = sum(1 / (1 + ((k * pitch.mean() - centre) / 100) ** 2) for centre in centres)
        sound += gain / k * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
    return sound


def frames(sound: np.ndarray) -> np.ndarray:
    """Overlapping frames `[frames, 1, 512]`."""
    return np.lib.stride_tricks.sliding_window_view(sound, _FRAME)[::_HOP, None].copy()


def write(folder: Path) -> None:
    """Writes `folder/sounds/judged.npy` and `folder/sounds/calibration.npy`: other voices, ten seconds each."""
    target = folder / "sounds"
    target.mkdir(parents=True, exist_ok=True)
    for seed, kind in enumerate(("judged", "calibration")):
        np.save(target / f"{kind}.npy", frames(voice(10, np.random.default_rng(seed))))
