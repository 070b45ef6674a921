"""The modes against Keras's own function, bit for bit, and the warnings of values out of range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.preprocess import (
    MODES,
    USUAL_RANGE,
    apply_mode,
    check_pixels,
    check_range,
    preprocess_name,
    usual_range,
)
from ir.errors import OptionError


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_equals_keras(mode: str, dtype: type) -> None:
    from keras.applications import imagenet_utils

    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype(dtype)
    before = pixels.copy()
    ours = apply_mode(pixels, mode)
    assert ours.dtype == np.float32
    assert np.array_equal(pixels, before)
    expected = imagenet_utils.preprocess_input(pixels.copy(), data_format="channels_last", mode=mode)
    assert np.array_equal(ours, expected)


def test_unit_and_none() -> None:
    pixels = np.asarray([[[[0, 51, 255]]]], np.uint8)
    assert np.array_equal(apply_mode(pixels, "unit"), np.asarray([[[[0, 0.2, 1]]]], np.float32))
    assert np.array_equal(apply_mode(pixels, "none"), pixels.astype(np.float32))


@pytest.mark.parametrize("mode", MODES)
def test_usual_range_is_that_of_pixels(mode: str) -> None:
    ends = apply_mode(np.asarray([[0, 0, 0], [255, 255, 255]], np.uint8), mode)
    usual = USUAL_RANGE[mode]
    # Constants of three to six digits in float32.
    assert np.isclose(ends.min(), usual.low, rtol=1e-6, atol=0)
    assert np.isclose(ends.max(), usual.high, rtol=1e-6, atol=0)


@given(st.sampled_from(MODES), st.integers(0, 2**32 - 1))
def test_pixels_of_the_right_mode_never_warn(mode: str, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 4, 4, 3), np.uint8)
    assert check_range(apply_mode(pixels, mode), mode) is None


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (np.linspace(0, 255, 48), "tf"),
        (np.linspace(0, 255, 48), "unit"),
        (np.linspace(0, 255, 48), "torch"),
        (np.linspace(0, 1, 48), "none"),
        (np.linspace(-1, 1, 48), "caffe"),
        (np.linspace(-1, 1, 48), "unit"),
        (np.linspace(-1, 1, 48) / 127.5 - 1, "tf"),
    ],
)
def test_values_of_another_mode_warn(values: np.ndarray, mode: str) -> None:
    warning = check_range((values.astype(np.float32).reshape(1, 4, 4, 3),), mode)
    assert warning is not None
    assert f"from {values.min():.4g} to {values.max():.4g}" in warning
    assert f"'{mode}'" in warning


def test_part_of_the_range_and_unknown_modes_do_not_warn() -> None:
    unit = np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    assert check_range(unit, "tf") is None
    assert check_range(unit * 255, None) is None
    assert check_range(np.zeros((1, 4), np.int32), "tf") is None


def test_only_images_are_judged_where_there_are_any() -> None:
    image = np.linspace(-1, 1, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    assert check_range((image, np.full((1, 2), 1e6, np.float32)), "tf") is None


def test_pixels_warn_where_no_mode_was_named() -> None:
    pixels = np.linspace(0, 255, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    assert "pixels of 0 to 255" in str(check_pixels([pixels]))
    for other in (pixels / 255, pixels - 1, pixels * 2, pixels.reshape(1, 48), pixels.reshape(1, 2, 2, 12)):
        assert check_pixels([other]) is None


def test_errors() -> None:
    with pytest.raises(OptionError, match=r"expected one of none, unit, tf, torch, caffe, found 'imagenet'"):
        apply_mode(np.zeros((1, 2, 2, 3)), "imagenet")
    with pytest.raises(OptionError, match="3 colour channels"):
        apply_mode(np.zeros((1, 2, 2, 1)), "torch")


def test_a_function_of_pixels() -> None:
    def halved(pixels: np.ndarray) -> np.ndarray:
        return pixels / 2

    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert np.array_equal(apply_mode(pixels, halved), pixels.astype(np.float32) / 2)
    assert preprocess_name(halved) == "halved()" and usual_range(halved) is None
    assert check_range([pixels.astype(np.float32) * 1000], halved) is None

    def spoiled(pixels: np.ndarray) -> np.ndarray:
        pixels[:] = 0
        return pixels

    apply_mode(pixels, spoiled)
    assert pixels.max() == 11, "what the function is given is its own"
    with pytest.raises(
        OptionError, match=r"preprocess=<lambda>\(\): expected numbers of shape \[1, 2, 2, 3\], as it was"
    ):
        apply_mode(pixels, lambda x: x[0])
