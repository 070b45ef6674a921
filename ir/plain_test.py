"""Graphs come back from JSON as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ir.digest import digest
from ir.graph import Graph
from ir.ops.convolution import CONV_2D, Conv2DAttributes
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.relu import RELU6
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.plain import from_plain, to_plain
from ir.quantization import asymmetric, symmetric
from ir.types import TensorType


def network() -> Graph:
    graph, rng = Graph("net"), np.random.default_rng(0)
    x = graph.input("x", TensorType((1, 6, 6, 2), quant=asymmetric(-1, 1)))
    data = rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
    weight = graph.constant(data, "w", symmetric(np.abs(data).max(axis=(1, 2, 3)), bits=4, axis=0))
    y = graph.add(CONV_2D, [x, weight, None], Conv2DAttributes(stride_h=2, stride_w=2), "conv").output
    y = graph.add(RELU6, [y], name="relu").output
    y = graph.add(CONCATENATION, [y, y], ConcatenationAttributes(axis=3), "both").output
    graph.outputs = [graph.add(RESHAPE, [y], ReshapeAttributes(shape=(1, 54)), "flat").output]
    return graph


def test_everything_comes_back() -> None:
    graph = network()
    plain = json.loads(json.dumps(to_plain(graph)))
    found = from_plain(plain, [c.array for c in graph.constants()])
    assert digest(found) == digest(graph)
    assert all(v.producer is n for n in found.nodes for v in n.outputs)
    assert [found.unique_name(n) for n in ("conv", "w")] == [graph.copy().unique_name(n) for n in ("conv", "w")]


def test_without_arrays_constants_are_zeros_of_the_same_shape() -> None:
    found = from_plain(to_plain(network()))
    assert [(c.name, c.shape, c.array.any()) for c in found.constants()] == [("w", (3, 3, 3, 2), False)]


def test_what_describes_no_graph_is_refused() -> None:
    plain = to_plain(network())
    plain["nodes"][0]["op"] = "conv_9d"
    with pytest.raises(KeyError, match="conv_9d"):
        from_plain(plain)
    plain = to_plain(network())
    with pytest.raises(ValueError, match="zip"):
        from_plain(plain, [])
