"""Operations of Keras without an integer kernel, composed of operators that have one; and the largest of a row, exactly.

The conversion proves its file on the installed runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter.conversion import convert
from converter.runtimes.local import LocalRuntime
from ir.errors import ModelError
from ir.ops.sorting import TOP_K, TopKAttributes
from ir.profile import Runtime
from ir.types import DType, TensorType
from runtime_tests.cases import ALL_PROFILES, SAMPLES
from runtime_tests.one_op import assert_exact, one_op
from runtime_tests.pointwise import integers, quant, zero_point

K = keras.ops
_DATA = np.random.default_rng(0).normal(size=(120, 6, 8)).astype(np.float32)

# Of `x` and a layer's result `y`: int8 throughout gives 30 to 37 dB, sums and exponentials of what is rounded less.
_QUOTIENTS: dict[str, Callable[[Any, Any], Any]] = {
    "quotient": lambda x, y: y / (K.abs(x) + 1),
    "negative divisor": lambda x, y: y / (-K.abs(x) - 0.5),
    "by a root": lambda x, y: y / K.sqrt(K.mean(x * x, axis=-1, keepdims=True) + 1e-3),
    "softsign": lambda x, y: K.softsign(y * 2),
    "share of a sum": lambda x, y: K.abs(y) / K.sum(K.abs(x), axis=-1, keepdims=True),
    "reciprocal": lambda x, y: K.reciprocal(K.abs(x) + 0.2),
}
_OTHERS: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "logsumexp": (lambda x, y: K.logsumexp(y * 2, axis=-1), 30),
    "cumsum": (lambda x, y: K.cumsum(y, axis=1), 24),
    "median": (lambda x, y: K.median(y, axis=1), 28),
    "prod": (lambda x, y: K.prod(K.sigmoid(y) + 0.5, axis=1), 25),
    "arctan2": (lambda x, y: K.arctan2(y, K.abs(x) + 0.1), 28),
    "spectrum": (lambda x, y: K.square(K.rfft(y)[0]) + K.square(K.rfft(y)[1]), 24),
    "bands of a spectrum": (lambda x, y: _bands(y), 20),
    "top_k": (lambda x, y: K.top_k(y, 3)[0], 30),
    "roll": (lambda x, y: K.roll(x, 2, axis=1) + y, 30),
    "one_hot": (lambda x, y: K.one_hot(K.argmax(x, axis=-1), 8) * y, 14),  # equal integers: the first is taken
    "take_along_axis": (lambda x, y: K.take_along_axis(y, K.argmax(x, axis=-1, keepdims=True), axis=-1), 12),
}


def _bands(y: Any) -> Any:
    made = layers.MelSpectrogram(
        fft_length=16,
        sequence_stride=8,
        sampling_rate=1000,
        num_mel_bins=4,
        min_freq=20,
        max_freq=500,
        power_to_db=False,
    )
    return made(K.reshape(y, (-1, 48)))


def _assert_close(compute: Callable[[Any, Any], Any], least_db: float) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8))
    model = keras.Model(x, compute(x, layers.Dense(8)(x)))
    result = convert(model, calibration_data=_DATA[:60], test_data=_DATA[60:], pipeline="fast")
    assert not result.float_operators
    assert result.quality is not None and result.quality.sqnr_db > least_db


@pytest.mark.parametrize("name", _QUOTIENTS)
def test_quotients(name: str) -> None:
    _assert_close(_QUOTIENTS[name], 28)


@pytest.mark.parametrize("name", _OTHERS)
def test_compositions(name: str) -> None:
    _assert_close(*_OTHERS[name])


def test_a_divisor_of_both_signs_is_refused() -> None:
    x = keras.Input((6, 8))
    with pytest.raises(ModelError, match="not known to be of one sign"):
        convert(keras.Model(x, layers.Dense(8)(x) / (x + 0.01)), calibration_data=_DATA, pipeline="fast")


def test_the_mean_of_the_words_that_count() -> None:
    rng = np.random.default_rng(0)
    ids = np.where(np.arange(10) < rng.integers(1, 11, (120, 1)), rng.integers(1, 30, (120, 10)), 0)
    keras.utils.set_random_seed(0)
    x = keras.Input((10,))
    y = layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Embedding(30, 16, mask_zero=True)(x)))
    # calibrated on all: outputs of the second half reach a third further than those of the first
    result = convert(keras.Model(x, y), calibration_data=ids, test_data=ids[60:], pipeline="fast")
    assert result.quality is not None and result.quality.sqnr_db > 28 and not result.float_operators


@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_largest_are_exact(k: int, dtype: DType) -> None:
    rng = np.random.default_rng(k)
    attrs = TopKAttributes(k=k)
    reals = rng.normal(size=(1, 5, 7)).astype(np.float32)
    kernel = LocalRuntime(package="ai_edge_litert", kernels="builtin")
    expected = kernel.load(one_op(TOP_K, [TensorType(reals.shape)], attrs, None)).invoke([reals])
    for a, b in zip(expected, TOP_K.compute(attrs, reals), strict=True):
        np.testing.assert_array_equal(np.asarray(b), a)
    params = quant(0.1, zero_point(rng, dtype), dtype)
    model = one_op(TOP_K, [TensorType((1, 5, 7), dtype, params)], attrs, [params, None])
    few = rng.integers(-2, 3, (SAMPLES, 5, 7)).astype(dtype.numpy)  # many are equal
    for x in (integers(rng, (SAMPLES, 5, 7), dtype), few):
        assert_exact(model, [x], [p for p in ALL_PROFILES if p.runtime is not Runtime.TFLM])
