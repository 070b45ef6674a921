"""Columns that share a scale with much larger ones are found in either layout, and said."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from converter.columns import Bounds, coarse_columns
from converter.conversion import convert
from converter.frontends import ModelOptions
from ir.graph import Graph
from ir.ops.activation import LOGISTIC
from ir.ops.elementwise import MUL
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.quantization import asymmetric
from ir.types import TensorType

_RNG = np.random.default_rng(0)


def _output(shape: tuple[int, ...]) -> Graph:
    graph = Graph("out")
    graph.outputs = [graph.input("y", TensorType(shape))]
    return graph


@pytest.mark.parametrize("axis", [1, 2])
def test_boxes_and_scores_in_either_layout(axis: int) -> None:
    y = np.concatenate([_RNG.uniform(0, 640, (8, 30, 4)), _RNG.uniform(0, 1, (8, 30, 3))], axis=2)
    y = y if axis == 2 else y.transpose(0, 2, 1)
    bounds = Bounds()
    for part in (y[:4], y[4:]):
        bounds.add(part)
    (found,) = coarse_columns(_output((1, *y.shape[1:])), [bounds], [asymmetric(0, 640)])
    assert found.columns == (4, 5, 6) and found.total == 7 and found.levels == pytest.approx(1 / (640 / 255), rel=0.02)


@pytest.mark.parametrize(
    ("y", "high"),
    [
        (_RNG.uniform(0, [1, 2, 3], (8, 3)), 3),  # of one size
        (_RNG.uniform(0, [640, 0], (8, 2)), 640),  # one that never varies
        (_RNG.uniform(0, [1, 1.1], (8, 2)), 1000),  # coarse as a whole
        (_RNG.uniform(600, 640, (8, 2)) * [1, 1.1], 704),
    ],
)
def test_others_are_not_said(y: np.ndarray, high: float) -> None:
    bounds = Bounds()
    bounds.add(y)
    assert not coarse_columns(_output((1, y.shape[1])), [bounds], [asymmetric(0, high)])


def test_a_conversion_warns_of_a_ruined_column_behind_a_loud_one() -> None:
    graph = Graph("detector")
    x = graph.input("x", TensorType((1, 12, 3)))
    scores = graph.add(LOGISTIC, [x], name="scores").output
    boxes = graph.add(MUL, [x, graph.constant(np.float32(300), "size")], name="boxes").output
    graph.outputs = [graph.add(CONCATENATION, [boxes, scores], ConcatenationAttributes(axis=2), "all").output]
    data = _RNG.normal(size=(40, 12, 3)).astype(np.float32)
    result = convert(graph, calibration_data=data, pipeline="fast")
    assert result.quality is not None and result.quality.sqnr_db > 30
    (warning,) = (w for w in result.warnings if "columns of output 'all'" in w)
    assert warning.startswith("3 of the 6 columns") and "--output_nodes=boxes,scores" in warning


def test_split_outputs_have_levels_of_their_own() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((8,))
    boxes = keras.layers.Rescaling(300.0)(keras.layers.Dense(4)(x))
    scores = keras.layers.Dense(6, activation="sigmoid")(x)
    model = keras.Model(x, keras.layers.Concatenate()([boxes, scores]))
    data = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    joined, split = (
        convert(model, calibration_data=data, pipeline="fast", model_options=ModelOptions(split_outputs=asked))
        for asked in (False, True)
    )
    assert "--split_outputs" in " ".join(joined.warnings) and not split.warnings
    steps = [float(v.type.params().scale) for v in split.graph.outputs]
    assert steps[0] > 1 and steps[1] == 1 / 256
