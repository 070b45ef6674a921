"""LSTM layers of Keras as integer files: one operator for all steps, whatever their number, and as the float network answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter.conversion import convert
from converter.result import ConversionResult
from converter.runtimes.local import LocalRuntime
from ir.profile import TFLM

_LEAST_DB = 28.0  # with seeds 0 to 22 these give 29.2 to 39.6
_CALIBRATION = 100
_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def _converted(layer: Callable[[Any], Any], steps: int = 12, **options: Any) -> ConversionResult:
    """Judged on walks whose logits calibration has seen the range of: one logit in a hundred beyond it costs 20 dB."""
    keras.utils.set_random_seed(0)
    x = keras.Input((steps, 6))
    model = keras.Model(x, layers.Dense(5)(layer(x)))
    data = np.cumsum(np.random.default_rng(0).normal(0, 0.3, (_CALIBRATION + 40, steps, 6)), axis=1).astype(np.float32)
    calibration, held_out = data[:_CALIBRATION], data[_CALIBRATION:]
    seen, logits = np.asarray(model(calibration)), np.asarray(model(held_out)).reshape(len(held_out), -1)
    inside = ((logits >= seen.min()) & (logits <= seen.max())).all(axis=1)
    return convert(model, calibration_data=calibration, test_data=held_out[inside], pipeline="fast", **options)


_LAYERS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "last output": (lambda x: layers.LSTM(16)(x), 1),
    "all outputs": (lambda x: layers.LSTM(8)(layers.LSTM(16, return_sequences=True, use_bias=False)(x)), 2),
    "backwards": (lambda x: layers.LSTM(16, go_backwards=True)(x), 1),
    "both ways": (lambda x: layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x), 2),
}


@pytest.mark.parametrize("name", _LAYERS)
def test_an_lstm_is_one_operator(name: str) -> None:
    layer, count = _LAYERS[name]
    result = _converted(layer)
    assert result.operators[_LSTM] == count and not result.float_operators
    assert result.quality is not None and result.quality.sqnr_db > _LEAST_DB
    assert sum("reset_all_variables()" in warning for warning in result.warnings) == 1


def test_the_size_does_not_grow_with_the_steps() -> None:
    short, long = (
        _converted(lambda x: layers.LSTM(8)(x), steps=steps, check=False, prove=False).model for steps in (4, 40)
    )
    assert len(long) - len(short) < 64


def test_a_stateful_layer_is_the_operator_too_and_needs_no_reset() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((4, 6), batch_size=1)
    model = keras.Model(x, layers.LSTM(8, stateful=True)(x))
    data = np.random.default_rng(0).normal(0, 1, (20, 4, 6)).astype(np.float32)
    result = convert(model, calibration_data=data, pipeline="fast", passes="recurrence{form=steps}")
    assert result.operators[_LSTM] == 1 and not result.warnings
    state = next(v for v in result.graph.constants() if v.name.endswith("cell_state"))
    assert float(state.type.params().scale) == 2.0**-12  # it may go on to 8, whatever samples of four steps show


@pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="TensorFlow Lite Micro is not installed")
def test_the_operator_of_16_bits_is_for_the_one_runtime_that_has_it() -> None:
    """Written out, 12 steps take 54 kB and give 44.1 dB."""
    result = _converted(lambda x: layers.LSTM(16)(x), target="tflm", activation_bits=16)
    assert result.operators[_LSTM] == 1 and len(result.model) < 7000  # 6000
    assert result.quality is not None and result.quality.sqnr_db > 40  # 43.3
    of = {proof.runtime: proof for proof in result.proof}
    assert of["tflm"].samples > 0 and not of["tflm"].differing
    assert all("it refuses UNIDIRECTIONAL" in (p.not_run or "") for name, p in of.items() if name != "tflm")


def test_where_there_is_no_kernel_it_is_written_out() -> None:
    result = _converted(lambda x: layers.LSTM(8)(x), steps=4, activation_bits=16)
    assert _LSTM not in result.operators and not result.warnings
