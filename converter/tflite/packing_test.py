"""What codebooks are predicted to take in a file, against files."""

from __future__ import annotations

import numpy as np
import pytest

from converter.tflite.packing import codebook_bytes
from converter.tflite.writer import CODEBOOKS, to_bytes
from ir.codebook import Codebook
from ir.graph import Graph
from ir.ops.convolution import CONV_2D, Conv2DAttributes
from ir.quantization import QuantParams
from ir.types import DType, TensorType

LAYERS, CHANNELS = 8, 64
ENTRIES, LENGTH = 16, 4


def file_bytes(name: str, *, packed: bool) -> int:
    """Of a chain of convolutions with weights of such names; no two are alike, as equal vectors are in a file once."""
    graph, rng = Graph("net"), np.random.default_rng(0)
    scale = QuantParams(scale=np.float32(0.02), zero_point=np.int64(0))
    x = graph.input("x", TensorType((1, 4, 4, CHANNELS), DType.INT8, scale))
    for i in range(LAYERS):
        book = Codebook(entries=rng.integers(-100, 100, (ENTRIES, LENGTH)))
        q = book.decode(rng.integers(0, ENTRIES, CHANNELS**2 // LENGTH), (CHANNELS, 1, 1, CHANNELS))
        w = graph.constant(q, f"{name}{i}", QuantParams(scale=np.float32(0.01), codebook=book if packed else None))
        bias = graph.constant(
            np.full(CHANNELS, i, np.int32), f"bias{i}", QuantParams(scale=np.float32(0.0002), bits=32)
        )
        x = graph.add(CONV_2D, [x, w, bias], Conv2DAttributes(), f"layer{i}", [x.type]).output
    graph.outputs = [x]
    return len(to_bytes(graph, carriers=CODEBOOKS))


@pytest.mark.parametrize("name", ["w", "block_12_depthwise/kernel", "a/scope/" * 12])
def test_no_codebook_takes_more_than_predicted_and_none_much_less(name):
    predicted = codebook_bytes(LENGTH, ENTRIES, CHANNELS**2, 1, f"{name}0", CODEBOOKS)
    found = (file_bytes(name, packed=True) - file_bytes(name, packed=False)) / LAYERS + CHANNELS**2
    shared = len(name) + 80  # the shape of all these weights, which is there once
    assert predicted is not None and found <= predicted <= found + shared
