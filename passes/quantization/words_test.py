from __future__ import annotations

import numpy as np
import pytest

from ir.graph import Graph
from ir.kernels import Granularity
from ir.layer import layers
from ir.opdef import OpDef
from ir.types import DType
from ir.widths import Widths, next_widths
from passes.contract.base import Context, Given, Range, SideTables
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.quantization.widths import _RUNTIMES
from passes.quantization.words import WORDS


class _Unpacks:
    """A target with the kernels of all runtimes, and 800 bytes of records for a codebook."""

    def weight_per_channel(self, op: OpDef) -> bool:
        return True

    def runs(self, op: OpDef) -> bool:
        return True

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths | None:
        return next_widths(op, requested, granularity, _RUNTIMES)

    def codebook_bytes(self, length: int, entries: int, size: int, scales: int, name: str) -> int | None:
        return size // length + entries * length + 800


class _UnpacksNothing(_Unpacks):
    def codebook_bytes(self, length: int, entries: int, size: int, scales: int, name: str) -> int | None:
        return None


def network() -> Graph:
    """Convolutions of 9216, 2304, 9225 and again 2304 weights; the ends keep 8 bits."""
    net = Net()
    x = net.conv(net.input(6, 6, 4), 32, name="first")
    x = net.conv(x, 32, name="large")
    x = net.conv(x, 8, name="small")
    x = net.conv(net.conv(x, 41, name="wide"), 25, name="odd")
    return net.ends(net.conv(x, 2, name="last"))


def quantized(limits: _Unpacks, weight_bits: int = 2, granularity: str = "per_channel") -> tuple[Graph, Context]:
    graph = network()
    ranges = {v: Range(-2.0, 3.0) for v in graph.values() if not v.is_constant}
    context = Context(Given(limits=limits), SideTables(ranges=ranges))  # type: ignore[arg-type]
    Quantize(weight_bits=weight_bits, granularity=granularity).run(graph, context)
    return graph, context


def bits_of(graph: Graph) -> dict[str, int]:
    return {layer.name: layer.params.bits for layer in layers(graph)}


def test_words_hold_every_combination_once():
    assert WORDS.entries.shape == (256, 4) and len(np.unique(WORDS.entries, axis=0)) == 256
    assert (WORDS.entries.min(), WORDS.entries.max()) == (-2, 1)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_two_bits_are_kept_where_words_are_smaller_than_what_kernels_have(granularity):
    graph, context = quantized(_Unpacks(), granularity=granularity)
    assert bits_of(graph) == {"first": 8, "large": 2, "small": 4, "wide": 4, "odd": 4, "last": 8}  # odd: 9225 weights
    integers = {layer.name: layer.params.quantize(layer.data) for layer in layers(graph)}
    report = LowerToInteger().run(graph, context)
    (large,) = [layer for layer in layers(graph) if layer.params.codebook is not None]
    assert large.name == "large" and large.weight.dtype is DType.INT8
    np.testing.assert_array_equal(large.weight.array, integers["large"])
    assert any("weights of 2 bits" in note and "1, large" in note for note in report.notes)


def test_other_targets_and_widths_get_what_kernels_have():
    assert bits_of(quantized(_UnpacksNothing())[0])["large"] == 4
    assert bits_of(quantized(_Unpacks(), weight_bits=3)[0])["large"] == 3
