"""Columns of very different size in one input each get levels of their own.

An input of 8 bits has one scale for all columns of a table: a column of 0.01 beside one of 5000 is always the same
number. Where layers read such an input `x[..., columns]`, also in another shape with the same columns (a normalization
before them is folded into their weights), it becomes integers of 32 bits, which hold all columns, and every column is brought to [-1, 1] by itself before it is
quantized to 8 bits:

    n = x / S,  z_c = (n_c - m_c / S) S / r_c,  W' = W diag(r),  b' = b + W m,

`m` the middle of a column's range (0 where the range holds it, or a layer pads with zeros) and `r` half its width on data, so that
`W' z + b' = W x + b`. Columns beside each other whose `r` differ by less than a factor of 2 stay together.

It is worth it where the rounding of the input alone leaves less than 30 dB of what the layers compute,

    10 log10(sum_jc (W_jc r_c / 3)^2 / (sum_jc W_jc^2 step^2 / 12)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Value
from ir.layer import Layer, layer_of, set_constant
from ir.ops._common import Padding
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.convolution import CONV_2D, FULLY_CONNECTED
from ir.ops.elementwise import MUL, SUB
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.shape import RESHAPE
from ir.ops.slicing import SLICE, SliceAttributes
from ir.types import DType
from passes.contract.base import Context, Pass, PassReport, Preserves, Skip, numeric
from passes.measuring.statistics import collect

_LEAST_DB = 30.0
_LEVELS = 255
_TOGETHER = 2.0
_ROOM = 3  # powers of two between what was seen and the ends of int32
_NEEDED = (CAST, SUB, SLICE, MUL, CONCATENATION)


@dataclass(frozen=True, kw_only=True)
class SeparateColumns(Pass):
    """Gives the columns of an input levels of their own, by way of integers of 32 bits."""

    name: ClassVar[str] = "separate_columns"
    preserves: ClassVar[Preserves] = Preserves.FLOAT_ON_DATA

    most: int = numeric(128, least=1)  # pieces that an input is cut into

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for value in graph.own_inputs:
            layers = _readers(graph, value)
            if not layers or not context.has_data:
                continue
            statistics = collect(graph, context, [value], held_out=False)[value]
            low, high = statistics.low.astype(np.float64), statistics.high.astype(np.float64)
            columns = _Columns(low, high, moves=not any(_pads(layer) for layer in layers))
            noise = columns.decibels(layers)
            if noise >= _LEAST_DB:
                continue
            limits, pieces = context.given.limits, columns.pieces()
            if limits is not None and not all(limits.runs(op) for op in _NEEDED):
                skipped.append(Skip(value.name, f"its columns leave {noise:.1f} dB, but the target lacks operators"))
            elif len(pieces) > self.most:
                skipped.append(Skip(value.name, f"its columns leave {noise:.1f} dB, but are {len(pieces)} pieces"))
            else:
                _separate(graph, value, layers, columns)
                changed.append(f"{value.name}: {len(pieces)} pieces of 32 bits; one scale for all left {noise:.1f} dB")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


@dataclass(frozen=True)
class _Columns:
    """Bounds of each column on data, `[columns]`; `moves`: whether its middle may be moved to 0."""

    low: np.ndarray
    high: np.ndarray
    moves: bool = True

    @property
    def radius(self) -> np.ndarray:
        """Half the width of each range, or of its distance from 0 where that is to stay; 1 where nothing moves."""
        width = np.where(self.middle == 0, np.maximum(-self.low, self.high), (self.high - self.low) / 2)
        return np.where(width > 0, width, 1.0)

    @property
    def middle(self) -> np.ndarray:
        stays = ((self.low <= 0) & (self.high >= 0)) | (not self.moves)
        return np.where(stays, 0.0, (self.low + self.high) / 2)

    def decibels(self, layers: list[Layer]) -> float:
        """What the rounding of the whole input to 8 bits leaves of the layers' results."""
        step = (max(self.high.max(), 0.0) - min(self.low.min(), 0.0)) / _LEVELS
        squares = sum(_by_column(layer, np.square(layer.data.astype(np.float64))).sum(axis=0) for layer in layers)
        signal = float((squares * np.square((self.high - self.low) / 6)).sum())
        noise = float(np.sum(squares)) * step**2 / 12
        return math.inf if not signal or not noise else 10 * math.log10(signal / noise)

    def pieces(self) -> list[tuple[int, int]]:
        """Begin and end of the columns that stay together."""
        radius, edges = self.radius, [0]
        for c in range(1, len(radius)):
            inside = radius[edges[-1] : c + 1]
            if inside.max() >= _TOGETHER * inside.min():
                edges.append(c)
        return list(pairwise([*edges, len(radius)]))


def _readers(graph: Graph, value: Value) -> list[Layer]:
    """The layers that read an input, also in another shape; none where something else reads it too."""
    if not value.dtype.is_float or not value.shape or value.shape[-1] < 2 or value in graph.outputs:
        return []
    layers: list[Layer] = []
    for node in value.consumers:
        layer = layer_of(node) if node.op in (FULLY_CONNECTED, CONV_2D) else None
        if layer is not None and layer.x is value and layer.data.shape[layer.input_axis] == value.shape[-1]:
            layers.append(layer)
        elif node.op is RESHAPE and node.output.shape[-1:] == value.shape[-1:]:
            behind = _readers(graph, node.output)
            if not behind:
                return []
            layers += behind
        else:
            return []
    return layers


def _pads(layer: Layer) -> bool:
    """Whether a layer puts zeros beside its input."""
    return layer.op is CONV_2D and layer.attrs.padding is Padding.SAME


def _by_column(layer: Layer, w: np.ndarray) -> np.ndarray:
    """Weights as `[out, columns]`, those of all places of a window added up."""
    summed = np.moveaxis(w, (layer.channel_axis, layer.input_axis), (0, 1))
    return summed.reshape(*summed.shape[:2], -1).sum(axis=2)


def _separate(graph: Graph, value: Value, layers: list[Layer], columns: _Columns) -> None:
    middle, radius = columns.middle, columns.radius
    for layer in layers:
        w, b = layer.weights()
        set_constant(graph, layer.node, layer.weight_index, w * layer.along_inputs(radius), layer.weight.name)
        set_constant(graph, layer.node, layer.bias_index, b + _by_column(layer, w) @ middle, f"{layer.name}/bias")
    readers, name = value.consumers, value.name
    largest = max(-columns.low.min(), columns.high.max())
    step = 2.0 ** (math.ceil(math.log2(largest)) + _ROOM - 31)
    whole = _whole_numbers(graph, value, step)
    if np.any(middle):
        offset = graph.constant(np.rint(middle / step).astype(np.int32), f"{name}/middle", dtype=DType.INT32)
        whole = graph.add(SUB, [whole, offset], name=f"{name}/centred").output
    parts = [_piece(graph, whole, name, begin, end, step / radius[begin:end]) for begin, end in columns.pieces()]
    if len(parts) > 1:
        joined = ConcatenationAttributes(axis=len(value.shape) - 1)
        parts = [graph.add(CONCATENATION, parts, joined, f"{name}/columns").output]
    for node in readers:
        graph.set_input(node, 0, parts[0])


def _whole_numbers(graph: Graph, value: Value, step: float) -> Value:
    """`x / step`, as the integers that the file is going to take (see `passes.quantization.casts`)."""
    reciprocal = graph.constant(np.asarray(1 / step, np.float32), f"{value.name}/reciprocal")
    scaled = graph.add(MUL, [value, reciprocal], name=f"{value.name}/scaled").output
    attrs = CastAttributes(in_data_type=DType.FLOAT32, out_data_type=DType.INT32)
    return graph.add(CAST, [scaled], attrs, f"{value.name}/whole").output


def _piece(graph: Graph, whole: Value, name: str, begin: int, end: int, factor: np.ndarray) -> Value:
    """Columns `begin` to `end` as reals between -1 and 1."""
    axes = len(whole.shape)
    attrs = SliceAttributes(begin=(*(0,) * (axes - 1), begin), size=(*(-1,) * (axes - 1), end - begin))
    cut = graph.add(SLICE, [whole], attrs, f"{name}/columns_{begin}").output
    to_float = CastAttributes(in_data_type=DType.INT32, out_data_type=DType.FLOAT32)
    real = graph.add(CAST, [cut], to_float, f"{name}/real_{begin}").output
    scale = graph.constant(factor.astype(np.float32), f"{name}/factor_{begin}")
    return graph.add(MUL, [real, scale], name=f"{name}/level_{begin}").output
