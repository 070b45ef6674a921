"""Networks whose inputs are whole numbers keep them in the file, and answer as well as the same network on floats.

The conversion proves its file on the installed runtimes.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from converter.conversion import convert
from converter.result import ConversionResult
from ir.graph import Graph
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import MUL
from ir.types import DType, TensorType

_MOST = {DType.UINT8: 256, DType.INT8: 128, DType.INT16: 1000, DType.INT32: 1000, DType.INT64: 50, DType.BOOL: 2}


def _converted(dtype: DType, most: int, numbers: np.ndarray) -> ConversionResult:
    rng = np.random.default_rng(0)
    graph = Graph("counts")
    real = graph.input("x", TensorType((1, 16), dtype))
    if not dtype.is_float:
        real = graph.add(CAST, [real], CastAttributes(in_data_type=dtype, out_data_type=DType.FLOAT32), "real").output
    scaled = graph.add(MUL, [real, graph.constant(np.float32(1 / most), "unit")], name="scaled").output
    weights = graph.constant(rng.normal(size=(8, 16)).astype(np.float32), "w")
    graph.outputs = [graph.add(FULLY_CONNECTED, [scaled, weights, None], name="y").output]
    given = numbers.astype(dtype.numpy)
    return convert(graph, calibration_data=given[:40], test_data=given[40:], pipeline="fast")


@pytest.mark.parametrize("dtype", list(_MOST), ids=lambda t: t.value)
def test_whole_numbers_are_what_the_file_takes(dtype: DType) -> None:
    numbers = np.random.default_rng(1).integers(0, _MOST[dtype], (140, 16))
    found, floats = (_converted(t, _MOST[dtype], numbers) for t in (dtype, DType.FLOAT32))
    assert (found.graph.inputs[0].dtype, found.float_operators) == (dtype, ())
    assert found.quality is not None and floats.quality is not None
    # 0.1 dB apart at most over the types; a bit lost would be 6 dB
    assert found.quality.sqnr_db > floats.quality.sqnr_db - 1


def test_numbers_that_are_places_in_a_table_too() -> None:
    """What reads the integers as they are would read a scale with them, which no kernel of theirs takes."""
    ids = keras.Input((6,), dtype="int32")
    looked_up = keras.layers.Embedding(20, 4)(keras.ops.maximum(ids, 2))
    counted = keras.layers.Dense(4)(keras.ops.cast(ids, "float32") * 0.1)
    model = keras.Model(ids, keras.layers.Dense(3)(keras.ops.mean(looked_up, axis=1) + counted))
    data = np.random.default_rng(0).integers(0, 20, (40, 6)).astype(np.int32)
    result = convert(model, calibration_data=data, pipeline="fast")
    assert result.graph.inputs[0].dtype is DType.INT32 and not result.float_operators
    assert result.quality is not None and result.quality.sqnr_db > 30  # an id that is another would leave a tenth of it
