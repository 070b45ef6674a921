"""The arena that is told is one that TensorFlow Lite Micro runs the file in; the estimate is none too small."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from converter import micro
from converter.benchmarking import random_inputs
from converter.conversion import convert
from converter.runtimes.local import LocalRuntime
from ir.profile import TFLM

pytestmark = pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed: extra tflm")
layers = keras.layers


def small(branches: bool) -> bytes:
    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3), batch_size=1)
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    if branches:
        y = layers.Concatenate()([layers.DepthwiseConv2D(3, padding="same")(y), layers.MaxPooling2D(1)(y), y])
    y = layers.Softmax()(layers.Dense(10)(layers.Flatten()(y)))
    data = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    return convert(keras.Model(x, y), target="tflm", calibration_data=[data], pipeline="fast", prove=False).model


@pytest.mark.parametrize("branches", [False, True])
def test_the_arena_is_enough_and_half_of_it_is_not(branches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(branches)
    needs = micro.micro_needs(model)
    assert needs.measured and {"AddConv2D", "AddSoftmax"} <= set(needs.register)
    assert runs(model, needs.arena_bytes) and not runs(model, needs.arena_bytes // 2)
    monkeypatch.setattr(micro, "_measured", lambda model: None)
    estimate = micro.micro_needs(model)
    assert not estimate.measured and needs.arena_bytes <= estimate.arena_bytes < 2 * needs.arena_bytes + 4096
    assert "estimated" in str(estimate)


def runs(model: bytes, arena_bytes: int) -> bool:
    """Whether TensorFlow Lite Micro runs a file in an arena of this size."""
    from tflite_micro.python.tflite_micro import runtime

    try:
        interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena_bytes)
        interpreter.set_input(random_inputs(model)[0], 0)
        interpreter.invoke()
    except RuntimeError:
        return False
    return True


def test_the_estimate_for_the_shipped_network_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path(__file__).parent / "shipped"
    model = convert(
        shipped / "digits_mobilenet_v2.keras", target="tflm", pipeline="data_free_fast", preprocess="tf",
        prove=False, check=False,
    ).model  # fmt: skip
    used = micro.micro_needs(model).arena_bytes
    monkeypatch.setattr(micro, "_measured", lambda model: None)
    assert used <= micro.micro_needs(model).arena_bytes < 2 * used
