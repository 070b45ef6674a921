"""Fourier transforms: the graph of each computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError

K = keras.ops
_WINDOW = np.hamming(10).astype(np.float32)

_CASES: dict[str, Callable[[Any], Any]] = {
    "rfft": lambda x: [*K.rfft(x), *K.rfft(x, 8), *K.rfft(x, 51)],
    "irfft": lambda x: [K.irfft((x, x * x)), K.irfft((x, -x), 30), K.irfft((x, -x), 95)],
    "fft": lambda x: [*K.fft((x, x * x))],
    "fft2": lambda x: [*K.fft2((K.reshape(x, (-1, 5, 8)), K.reshape(x * x, (-1, 5, 8))))],
    "ifft2": lambda x: [*K.ifft2((K.reshape(x, (-1, 5, 8)), K.reshape(x * x, (-1, 5, 8))))],
    "stft": lambda x: [*K.stft(x, 8, 4, 8), *K.stft(x, 10, 3, 16, window="hamming", center=False)],
    "stft, other windows": lambda x: [*K.stft(x, 10, 5, 12, window=_WINDOW), *K.stft(x, 8, 4, 8, window=None)],
}


@pytest.mark.parametrize("name", _CASES)
def test_operation(name: str) -> None:
    x = keras.Input((40,))
    assert_same_function(keras.Model(x, _CASES[name](x)), tolerance=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"power_to_db": False, "mag_exp": 1.0}, {"sequence_length": 24, "top_db": 20.0}]
)
def test_mel_spectrogram(options: dict[str, Any]) -> None:
    x = keras.Input((400,))
    made = keras.layers.MelSpectrogram(
        fft_length=32, sequence_stride=16, sampling_rate=1000, num_mel_bins=6, min_freq=20, max_freq=500, **options
    )
    assert_same_function(keras.Model(x, made(x)), tolerance=1e-4)


def test_signals_of_several_channels_are_refused() -> None:
    x = keras.Input((2, 40))
    with pytest.raises(ModelError, match=r"signals \[batch, samples\], found the shape \(1, 2, 40\)"):
        from_keras(keras.Model(x, K.stft(x, 8, 4, 8)[0]))
