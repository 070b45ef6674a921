import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.quantization import LEAST_SCALE, QuantParams, asymmetric, for_weights, outward, symmetric

_REALS = st.floats(-1e4, 1e4, width=32)


@given(_REALS, _REALS, st.integers(2, 16))
def test_asymmetric_range_holds_zero_exactly_and_both_ends_within_a_step(a, b, bits):
    low, high = min(a, b), max(a, b)
    params = asymmetric(low, high, bits=bits)
    step = float(params.scale)
    assert float(params.dequantize(params.quantize(np.float32(0.0)))) == 0.0
    ends = params.dequantize(np.array([params.qmin, params.qmax]))
    assert ends[0] <= min(low, 0) + step and ends[1] >= max(high, 0) - step


@given(st.integers(2, 16), st.lists(_REALS, min_size=1, max_size=20))
def test_quantizing_twice_changes_nothing(bits, reals):
    x = np.array(reals, np.float32)
    params = symmetric(np.abs(x).max(), bits=bits)
    q = params.quantize(x)
    np.testing.assert_array_equal(params.quantize(params.dequantize(q)), q)
    assert q.min() >= -((1 << (bits - 1)) - 1), "weights use the narrow range"


def test_per_channel_scales_run_along_their_axis():
    w = np.array([[1.0, 100.0], [-2.0, 50.0]])
    params = symmetric(np.abs(w).max(axis=0), axis=1)
    np.testing.assert_array_equal(params.quantize(w), [[64, 127], [-127, 64]])


@given(_REALS, _REALS, st.integers(2, 8))
def test_weights_of_fewer_than_8_bits_use_the_lowest_integer(a, b, bits):
    low, high = np.float32(min(a, b, 0)), np.float32(max(a, b, 0))
    params = for_weights(low, high, bits=bits)
    reached = params.dequantize(np.array(params.ends))
    assert params.qmin == (-127 if bits == 8 else -(1 << (bits - 1)))
    assert reached[0] <= low * (1 - 1e-6) and reached[1] >= high * (1 - 1e-6)  # scales are float32
    if low < 0 and bits < 8 and -low >= 2 * high:
        np.testing.assert_allclose(reached[0], low, rtol=1e-6, atol=128 * LEAST_SCALE)  # no scale is below it


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 0.0},
        {"scale": np.inf},
        {"scale": np.nan},
        {"scale": 1e-42},
        {"scale": -1.0},
        {"scale": 1.0, "bits": 17},
        {"scale": 1.0, "bits": 1},
        {"scale": 1.0, "zero_point": 128},
        {"scale": [1.0, 2.0]},
        {"scale": 1.0, "axis": 0},
        {"scale": 1.0, "zero_point": -1, "signed": False},
    ],
)
def test_parameters_that_mean_nothing_are_refused(fields):
    with pytest.raises(ValueError, match=r"scale|bits|zero point"):
        QuantParams(**fields)


def test_a_range_of_no_width_still_represents_zero():
    params = asymmetric(0.0, 0.0)
    assert float(params.dequantize(params.quantize(np.zeros(1)))[0]) == 0.0


def test_outward_rounding_keeps_what_is_short_and_widens_the_rest_a_little():
    short = np.array([0.0, 6.0, -1.0, 0.75, 1023.0, -0.0009765625])
    np.testing.assert_array_equal(outward(short), short)
    x = np.random.default_rng(0).normal(size=1000) * np.exp(np.random.default_rng(1).normal(size=1000) * 9)
    wider = outward(x)
    assert (np.sign(wider) == np.sign(x)).all()
    assert (np.abs(wider) >= np.abs(x) * (1 - 2.0**-18)).all() and (np.abs(wider) <= np.abs(x) * (1 + 2.0**-9)).all()


def test_outward_rounding_forgets_the_noise_of_float_arithmetic():
    x = np.random.default_rng(0).normal(size=10000)
    assert (outward(x) != outward(x * (1 + 2.0**-23))).mean() < 1e-3
    assert outward(6.0000005) == 6.0


def test_ends_of_a_range_are_floats() -> None:
    largest = float(np.finfo(np.float32).max)
    low, high = asymmetric(-largest, largest).bounds
    assert -largest <= low < -largest / 1.01 and largest / 1.01 < high <= largest
    assert int(asymmetric(low, high).zero_point) in (-1, 0)
