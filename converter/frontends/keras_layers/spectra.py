"""Fourier transforms, as products with the matrices that they are; complex numbers are pairs of tensors.

    rfft:  sum_t x[t] cos(2 pi k t / n),  -sum_t x[t] sin(2 pi k t / n)
    stft:  a convolution along time whose filters are these rows, times the window
    irfft: (1 / n) sum_k w_k (re[k] cos - im[k] sin), w_k = 2 but for the first and the last of an even n

A spectrum in 8 bits keeps what is within a factor of 100 of its loudest line, and its logarithm no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer, operation
from converter.frontends.waves import waves
from ir.graph import Value

K = keras.ops
Pair = tuple[Any, Any]


@operation("RFFT")
def rfft(b: Builder, op: Any, x: Value) -> Pair:
    size = op.fft_length or x.shape[-1]
    length = min(size, x.shape[-1])
    cosine, sine = waves(size // 2 + 1, length, size)

    def transform(v: Any) -> Pair:
        v = v[..., :length]
        return K.matmul(v, cosine.T), K.matmul(v, -sine.T)

    return _pair(b.apply(transform, x))


@operation("IRFFT")
def irfft(b: Builder, op: Any, x: Pair) -> Value:
    size = op.fft_length or 2 * (x[0].shape[-1] - 1)
    count = min(size // 2 + 1, x[0].shape[-1])
    cosine, sine = waves(count, size, size)
    twice = np.where((np.arange(count) == 0) | (2 * np.arange(count) == size), 1, 2)[:, None] / size
    parts = np.concatenate([cosine * twice, -sine * twice]).astype(np.float32)
    return b.apply(lambda re, im: K.matmul(K.concatenate([re[..., :count], im[..., :count]], -1), parts), *x)


@operation("FFT")
def fft(b: Builder, op: Any, x: Pair) -> Pair:
    return _pair(b.apply(lambda *z: _along_last(z, -1), *x))


@operation("FFT2")
def fft2(b: Builder, op: Any, x: Pair) -> Pair:
    return _pair(b.apply(lambda *z: _along_both(z, -1), *x))


@operation("IFFT2")
def ifft2(b: Builder, op: Any, x: Pair) -> Pair:
    return _pair(b.apply(lambda *z: _along_both(z, 1), *x))


def _along_both(z: Sequence[Any], sign: int) -> Pair:
    turned = tuple(K.swapaxes(part, -1, -2) for part in _along_last(z, sign))
    re, im = (K.swapaxes(part, -1, -2) for part in _along_last(turned, sign))
    return re, im


def _along_last(z: Sequence[Any], sign: int) -> Pair:
    """`sum_t (re + i im)[t] exp(sign i 2 pi k t / n)`, over n if the sign is that of the inverse."""
    size = z[0].shape[-1]
    cosine, sine = (wave / (size if sign > 0 else 1) for wave in waves(size, size, size))
    both = K.concatenate(list(z), axis=-1)
    return (
        K.matmul(both, np.concatenate([cosine, -sign * sine]).astype(np.float32)),
        K.matmul(both, np.concatenate([sign * sine, cosine]).astype(np.float32)),
    )


@operation("STFT")
def stft(b: Builder, op: Any, x: Value) -> Pair:
    if len(x.shape) != 2:
        raise b.fail("signals [batch, samples]", f"the shape {x.shape}", "reshape them before")
    if op.window is not None and not isinstance(op.window, str):
        window = np.asarray(K.convert_to_numpy(op.window), np.float64)
    else:
        window = _WINDOWS[op.window](op.sequence_length)
    size, before = op.fft_length, (op.fft_length - op.sequence_length) // 2
    window = np.pad(window, (before, size - op.sequence_length - before))
    cosine, sine = waves(size // 2 + 1, size, size)

    def transform(v: Any) -> Pair:
        if op.center:
            v = K.pad(v, [(0, 0), (size // 2, size // 2)], mode="reflect")
        v = K.expand_dims(v, -1)
        kernels = ((wave * window).T[:, None, :].astype(np.float32) for wave in (cosine, -sine))
        re, im = (K.conv(v, kernel, strides=op.sequence_stride, padding="valid") for kernel in kernels)
        return re, im

    return _pair(b.apply(transform, x))


def _raised(edge: float) -> Callable[[int], np.ndarray]:
    return lambda size: edge - (1 - edge) * np.cos(2 * math.pi * np.arange(size) / size)


_WINDOWS: dict[str | None, Callable[[int], np.ndarray]] = {
    "hann": _raised(0.5),
    "hamming": _raised(0.54),
    None: np.ones,
}


def _pair(found: Any) -> Pair:
    re, im = found
    return re, im


@layer(keras.layers.MelSpectrogram)
def mel_spectrogram(b: Builder, layer: Any, x: Value) -> Value:
    """Powers, or roots of them, of a spectrum; in bands, in decibels below the loudest of a sample."""
    bins = layer.fft_length // 2 + 1
    bands = np.asarray(
        K.convert_to_numpy(
            layer.linear_to_mel_weight_matrix(
                num_mel_bins=layer.num_mel_bins,
                num_spectrogram_bins=bins,
                sampling_rate=layer.sampling_rate,
                lower_edge_hertz=layer.min_freq,
                upper_edge_hertz=layer.max_freq,
            )
        ),
        np.float32,
    )

    def compute(v: Any) -> Any:
        re, im = K.stft(v, layer.sequence_length, layer.sequence_stride, layer.fft_length, layer.window, center=True)
        power = K.square(re) + K.square(im)
        mel = K.matmul(power if layer.mag_exp == 2 else power ** (layer.mag_exp / 2), bands)
        return K.swapaxes(decibels(mel) if layer.power_to_db else mel, -1, -2)

    def decibels(mel: Any) -> Any:
        reference = 10 * math.log10(max(abs(float(layer.ref_power)), layer.min_power))
        found = K.log10(K.maximum(mel, layer.min_power)) * 10 - reference
        return K.maximum(found, K.max(found, axis=(-1, -2), keepdims=True) - layer.top_db)

    return b.apply(compute, x)
