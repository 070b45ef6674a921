"""The predicted noise against its equations, written out with loops over channels (smooth maxima are 5 % too large)."""

from __future__ import annotations

import numpy as np
import pytest

from passes.channels.channel_noise import GRID, CutNoise, LayerNoise, TensorNoise, joined

RNG = np.random.default_rng(0)
_SMOOTH = 0.2  # a norm of exponent 40 over 100 weights is at most 12 % above the maximum, squared 26 %


def power(part: LayerNoise | TensorNoise | CutNoise, s: np.ndarray) -> float:
    return part.power(np.log(s))[0]


def expected_of_layer(
    largest: np.ndarray, s: tuple[np.ndarray, np.ndarray], f: np.ndarray, variance: np.ndarray, per_channel: bool
) -> float:
    depthwise = len(largest) < len(s[0])
    scaled = largest * s[1] / (s[0] if depthwise else s[0][:, None])
    step = scaled.max(axis=0) if per_channel else np.full(scaled.shape[1], scaled.max())
    received = variance * s[0] ** 2 if depthwise else (variance * s[0] ** 2).sum()
    return float((f * (step / s[1]) ** 2 / 12 * received).sum())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
def test_layers(depthwise: bool, per_channel: bool):
    parts, total = [], 0.0
    s = np.exp(RNG.normal(0, 0.5, 200))
    for first_row, start in ((0, 0), (60, 100)):  # both have 60 outputs
        sources, made = start + np.arange(60 if depthwise else 40), start + 30 + np.arange(60)
        largest = np.exp(RNG.normal(0, 1, (1 if depthwise else 40, 60)))
        f, variance = RNG.uniform(size=60), RNG.uniform(size=len(sources))
        parts.append(LayerNoise.of(largest, (sources, made), f, variance, per_channel=per_channel, first_row=first_row))
        total += expected_of_layer(largest, (s[sources], s[made]), f, variance, per_channel)
    found = power(joined(parts), s)
    assert total <= found * (1 + 1e-5) and found <= total * (1 + _SMOOTH)


def test_tensors():
    parts, total = [], 0.0
    s = np.exp(RNG.normal(0, 0.5, 100))
    for group in range(2):
        ids = 50 * group + np.arange(50)
        high, low, f = RNG.uniform(1, 8, 50), RNG.uniform(0.1, 2, 50), RNG.uniform(size=50)
        limit = np.full(50, np.log(6.0) if group else np.inf)
        parts.append(TensorNoise(ids, np.full(50, group), np.log(high), np.log(low), limit, f))
        reach = np.minimum(high * s[ids], np.exp(limit[0])).max() + (low * s[ids]).max()
        total += (f / s[ids] ** 2).sum() * reach**2 / 12
    found = power(joined([_in_single(p) for p in parts]), s)
    assert total <= found * (1 + 1e-5) and found <= total * (1 + _SMOOTH)


def _in_single(part: TensorNoise) -> TensorNoise:
    floats = (x.astype(np.float32) for x in (part.high, part.low, part.limit, part.weight))
    return TensorNoise(part.ids, part.group, *floats)


def test_what_is_cut_lies_between_the_points_of_the_grid():
    table = np.stack([GRID**2, np.abs(GRID)])
    s = np.exp(np.array([GRID[10], (GRID[20] + GRID[21]) / 2]))
    expected = GRID[10] ** 2 + (abs(GRID[20]) + abs(GRID[21])) / 2
    assert power(CutNoise(np.arange(2), table), s) == pytest.approx(expected, rel=1e-4)


def _layers(per_channel: bool, depthwise: bool) -> LayerNoise:
    sources, made = np.arange(12), 6 + np.arange(12)  # some channels are read and made
    largest = np.exp(RNG.normal(0, 1, (1 if depthwise else 12, 12)))
    f, variance = RNG.uniform(size=12), RNG.uniform(size=12)
    return LayerNoise.of(largest, (sources, made), f, variance, per_channel=per_channel, first_row=0)


def _tensors() -> TensorNoise:
    high, low, limit = RNG.normal(1, 1, 20), RNG.normal(0, 1, 20), np.where(np.arange(20) < 10, np.log(6.0), np.inf)
    return TensorNoise(np.arange(20) % 18, np.arange(20) // 10, high, low, limit, RNG.uniform(size=20))


@pytest.mark.parametrize(
    "part",
    [
        *(_layers(per_channel, depthwise) for per_channel in (True, False) for depthwise in (True, False)),
        _tensors(),
        CutNoise(np.arange(18), RNG.uniform(size=(18, len(GRID)))),
    ],
)
def test_gradients_are_those_of_differences(part: LayerNoise | TensorNoise | CutNoise):
    t, step = RNG.normal(0, 0.5, 18), 1e-6
    differences = [
        (part.power(t + step * unit)[0] - part.power(t - step * unit)[0]) / (2 * step) for unit in np.eye(18)
    ]
    np.testing.assert_allclose(part.power(t)[1], differences, rtol=1e-4, atol=1e-6 * part.power(t)[0])
