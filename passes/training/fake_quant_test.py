"""Fake quantization against `ir.quantization` and against plain straight-through formulas."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from ir.keras_ops import K
from ir.quantization import QuantParams, asymmetric, symmetric
from passes.training import fake_quant as fq


class Holder(keras.Model):
    """Gradients by Keras, on whatever backend: variables, one loss."""

    def __init__(self, starts: list[np.ndarray], function: Any) -> None:
        super().__init__()
        self.parts = [
            self.add_weight(shape=np.shape(s), initializer=keras.initializers.Constant(s), name=f"v{i}")
            for i, s in enumerate(starts)
        ]
        self.function = function

    def call(self, _: Any) -> Any:
        return self.function(*[K.convert_to_tensor(p) for p in self.parts])


def gradients(function: Any, *starts: np.ndarray) -> list[np.ndarray]:
    """By a step of plain gradient descent with rate 1: the start minus what the variable became."""
    starts = tuple(np.asarray(s, np.float32) for s in starts)
    model = Holder(list(starts), function)
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=lambda _, y: K.sum(y), jit_compile=False)
    model.fit(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), verbose=0)
    return [s - K.convert_to_numpy(p) for s, p in zip(starts, model.parts, strict=True)]


X = np.random.default_rng(0).normal(0, 1.5, (4, 5, 6)).astype(np.float32)
G = np.random.default_rng(1).normal(0, 1, X.shape).astype(np.float32)


@pytest.mark.parametrize(
    "params", [asymmetric(-1.0, 2.0), asymmetric(0.0, 3.0), asymmetric(-4.0, 4.0, bits=4), symmetric(2.0)]
)
def test_forward_is_the_map_of_the_parameters(params: QuantParams) -> None:
    y = fq.fake_quantize(X, params.scale, np.float32(params.zero_point), params.qmin, params.qmax)
    # Ties aside (none here) the same integers; the product with the scale is rounded to float32.
    assert np.allclose(K.convert_to_numpy(y), params.dequantize(params.quantize(X)), rtol=0, atol=1e-6)


def test_gradients_are_those_of_straight_through_rounding() -> None:
    params = asymmetric(-1.0, 2.0)
    qmin, qmax = float(params.qmin), float(params.qmax)

    def plain(x: Any, scale: Any, zero_point: Any) -> Any:
        q = K.clip(fq.round_through(x / scale) + zero_point, qmin, qmax)
        return (q - zero_point) * scale * G

    def fused(x: Any, scale: Any, zero_point: Any) -> Any:
        return fq.fake_quantize(x, scale, zero_point, params.qmin, params.qmax) * G

    start = (X, params.scale, np.float32(params.zero_point))
    expected, found = gradients(plain, *start), gradients(fused, *start)
    assert np.allclose(found[0], expected[0], rtol=0, atol=1e-6)
    # Sums of 120 products, rearranged, divided by a scale of 0.012.
    assert np.allclose(found[1], expected[1], rtol=1e-3, atol=1e-2)
    assert np.allclose(found[2], expected[2], rtol=1e-3, atol=1e-4)


def test_gradient_of_a_scale_is_lsqs() -> None:
    v = np.float32([0.3, -0.8, 2.7, 130.0, -140.0])
    (_, found, _) = gradients(lambda x, s, z: fq.fake_quantize(x, s, z, -127, 127), v, np.float32(1.0), np.float32(0.0))
    assert found == pytest.approx(-0.3 + (-0.2) + 0.3 + 127 - 127, abs=1e-4)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, 6.0), (-3.0, 0.0), (-0.01, 5.0), (0.5, 2.0)])
def test_start_of_asymmetric_thresholds_is_the_calibrated_range(low: float, high: float) -> None:
    expected = asymmetric(low, high)
    limits = fq.asymmetric_limits(min(low, 0.0), high - min(low, 0.0), 0.0, 1.0, low < 0)
    scale, zero_point = fq.asymmetric_scale(*map(K.convert_to_tensor, limits), -128, 127)
    assert float(scale) == pytest.approx(float(expected.scale), rel=1e-6)
    assert float(zero_point) == float(expected.zero_point)


def test_thresholds_keep_their_limits() -> None:
    low, high = fq.asymmetric_limits(-1.0, 3.0, -5.0, 0.1, True)
    assert (float(low), float(high)) == pytest.approx((-1.6, 0.0))  # the shift stops at -0.2 R, the width at 0.5 R
    low, high = fq.asymmetric_limits(0.0, 3.0, -5.0, 7.0, False)
    assert (float(low), float(high)) == pytest.approx((0.0, 3.0))
    scales = K.convert_to_numpy(fq.symmetric_scale(np.float32([1.0, 2.0]), np.float32([0.1, 3.0]), 127))
    assert scales == pytest.approx(np.array([0.5, 2.0]) / 127)


def test_zero_point_is_a_whole_number_that_stands_for_zero() -> None:
    for low, high in np.random.default_rng(2).uniform((-3, 0), (0, 3), (20, 2)).astype(np.float32):
        scale, zero_point = fq.asymmetric_scale(K.convert_to_tensor(low), K.convert_to_tensor(high), -128, 127)
        assert float(zero_point) == np.round(float(zero_point))
        assert float(fq.fake_quantize(np.zeros((1, 1), np.float32), scale, zero_point, -128, 127)[0, 0]) == 0.0


def test_weights_in_vector_mode() -> None:
    w = np.float32([[0.4, -1.2], [30.0, -80.0]])
    scale = np.float32([[0.01], [0.5]])
    q = K.convert_to_numpy(fq.weight_steps(w, scale, (-127, 127)))
    assert np.array_equal(q, [[40, -120], [60, -127]])


def test_gradient_scale() -> None:
    (found,) = gradients(lambda x: fq.scale_gradient(x * x, 0.25), np.float32([3.0]))
    assert found == pytest.approx([1.5])


def test_bias_grid_and_least_scale() -> None:
    b = np.float32([0.123, -7.0])
    y = K.convert_to_numpy(fq.fake_quantize_bias(b, np.float32(0.01)))
    assert y == pytest.approx([0.12, -7.0])
    least = K.convert_to_numpy(fq.least_weight_scale(b, np.float32(0.5), 100.0))
    assert least == pytest.approx([0.00246, 0.14])
