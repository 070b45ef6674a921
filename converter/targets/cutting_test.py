"""Where to end a network: what is advised is tried, and a conversion that follows the advice maps whole."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from converter.conversion import ConversionResult, convert
from converter.frontends import ModelOptions
from converter.targets import get_target
from converter.targets.cutting import ending_at
from converter.tflite.model_file import parse

layers = keras.layers


def network(tail: str) -> keras.Model:
    """Convolutions with a tail that the Edge TPU does not run, or runs no more after it."""
    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3), batch_size=1, name="image")
    y = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(x)
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="body")(y)
    scores = layers.Conv2D(5, 1, name="scores")(y)
    if tail == "argmax":
        return keras.Model(x, keras.ops.argmax(scores, axis=-1))
    if tail == "deeplab":
        large = layers.UpSampling2D(16, interpolation="bilinear", name="large")(scores)
        return keras.Model(x, keras.ops.argmax(large, axis=-1))
    if tail == "two heads":
        top = keras.ops.top_k(layers.Dense(6, name="classes")(layers.Flatten(name="flat")(y)), 2)[0]
        return keras.Model(x, [keras.ops.argmax(scores, axis=-1), top])
    assert tail == "early"
    z = keras.ops.reshape(keras.ops.argmax(x, axis=-1), (1, 256))
    z = layers.Dense(4)(keras.ops.cast(z, "float32"))
    return keras.Model(x, layers.Dense(3)(layers.Dense(4)(z)))


def converted(tail: str, *ends: str) -> ConversionResult:
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    return convert(
        network(tail),
        target="edgetpu",
        calibration_data=[x],
        pipeline="fast",
        prove=False,
        model_options=ModelOptions(output_nodes=ends),
    )


def advised(result: ConversionResult) -> str | None:
    found = [re.search(r"--output_nodes=(\S+)", note) for note in result.prediction.notes]
    return next((match[1] for match in found if match), None)


@pytest.mark.parametrize(
    ("tail", "names"), [("argmax", {"scores"}), ("deeplab", {"scores"}), ("two heads", {"scores", "classes"})]
)
def test_the_advised_cut_maps_whole(tail: str, names: set[str]) -> None:
    result = converted(tail)
    assert result.prediction.unmapped
    ends = advised(result)
    assert ends is not None and set(ends.split(",")) == names
    again = converted(tail, *ends.split(","))
    assert not again.prediction.unmapped and advised(again) is None
    note = next(n for n in result.prediction.notes if "--output_nodes" in n)
    assert f"all {again.prediction.mapped} operators that are left map" in note and "ARG_MAX" in note


def test_no_cut_is_advised_where_little_would_be_left() -> None:
    result = converted("early")
    assert result.prediction.unmapped and advised(result) is None


def test_a_cut_keeps_what_its_outputs_need_in_order() -> None:
    model = parse(converted("argmax").model)
    first = model.main.operators[0]
    assert ending_at(model, first.outputs).main.operators == (first,)
    assert ending_at(model, model.main.outputs) == model


def test_a_file_that_is_told_of_by_itself_is_cut_by_its_own_names() -> None:
    report = get_target("edgetpu").judge(parse(converted("argmax").model))
    assert any("--output_nodes=scores " in note for note in report.notes)
