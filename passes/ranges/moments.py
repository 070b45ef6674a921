"""What is known of activations without data: batch-norm statistics carried through the operators after them.

A batch norm makes channel `k` normal with mean `beta[k]` and standard deviation `gamma[k]` (DFQ, section 4.2). Through
a clip to `[a, b]` the moments are those of the clipped normal (DFQ, appendix C); operators that move, choose or average
elements within channels keep them (pooling makes the deviation smaller: keeping it is the safe choice); an addition
adds means and, as if independent, variances; a concatenation of channels lists them; a linear layer without a batch
norm maps them through its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ir.graph import Graph, Node, Value
from ir.layer import Layer, layer_of
from ir.opdef import Passage
from ir.ops.elementwise import ADD
from ir.ops.joining import CONCATENATION
from ir.ops.reduction import MEAN
from ir.ops.transposed import TRANSPOSE_CONV
from passes.contract.base import Context, Range


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation per channel of the last axis, and the bounds that hold for certain."""

    mean: np.ndarray
    std: np.ndarray
    low: float = -math.inf
    high: float = math.inf

    def range(self, sigmas: float) -> Range:
        """Hull of `mean +/- sigmas std`, cut at the certain bounds (DFQ, section 4.2)."""
        low = float(np.min(self.mean - sigmas * self.std))
        high = float(np.max(self.mean + sigmas * self.std))
        return Range(max(low, self.low), min(high, self.high))


def propagate(graph: Graph, context: Context) -> dict[Value, Moments]:
    """Moments of every value for which they are known."""
    known: dict[Value, Moments] = {}
    for value in graph.inputs:
        given = context.given.input_range
        if given is not None and value.shape:
            channels = value.shape[-1]
            middle, spread = (given.low + given.high) / 2, (given.high - given.low) / math.sqrt(12)
            known[value] = Moments(np.full(channels, middle), np.full(channels, spread), given.low, given.high)
    for node in graph.nodes:
        for value in node.outputs:
            moments = _normal(value, context) or _through(node, known)
            if moments is not None:
                known[value] = moments
    return known


def _normal(value: Value, context: Context) -> Moments | None:
    normal = context.tables.normals.get(value)
    return None if normal is None else Moments(normal.mean, normal.std)


def _through(node: Node, known: dict[Value, Moments]) -> Moments | None:
    x = node.inputs[0] if node.inputs else None
    before = None if x is None else known.get(x)
    if node.op is ADD:
        return _added(node, known)
    if node.op is CONCATENATION:
        return _joined(node, known)
    if before is None:
        return None
    if node.op.fuses_as is not None:
        return clipped(before, *node.op.fuses_as.bounds)
    if layer := layer_of(node):
        return _linear(layer, before)
    return before if x is not None and _keeps(node, x) else None


def _keeps(node: Node, x: Value) -> bool:
    """Whether results are elements of the same channel (such kernels share their parameters), or their means."""
    chooses = {node.op.operands[0].name, "output"} <= set(node.op.quantization.tied) or node.op is MEAN
    return chooses and node.output.shape[-1:] == x.shape[-1:] and node.passage is Passage.FREE


def _added(node: Node, known: dict[Value, Moments]) -> Moments | None:
    parts = []
    for value in node.operands:
        if value.data is not None and value.data.size in (1, node.output.shape[-1]):
            parts.append(Moments(value.data.astype(np.float64).ravel(), np.zeros(1)))
        elif value in known:
            parts.append(known[value])
    if len(parts) != len(node.inputs):
        return None
    return Moments(sum(p.mean for p in parts), np.sqrt(sum(p.std**2 for p in parts)))  # type: ignore[arg-type]


def _joined(node: Node, known: dict[Value, Moments]) -> Moments | None:
    parts = [known[v] for v in node.inputs if v in known]
    rank = node.output.type.rank
    if len(parts) != len(node.inputs) or node.attrs.axis % rank != rank - 1:
        return None
    mean, std = np.concatenate([p.mean for p in parts]), np.concatenate([p.std for p in parts])
    return Moments(mean, std, min(p.low for p in parts), max(p.high for p in parts))


def _linear(layer: Layer, x: Moments) -> Moments | None:
    if layer.input_channels != len(x.mean):
        return None
    (w, b), share = layer.weights(), kernel_share(layer)
    mean = share * (w * layer.along_inputs(x.mean)).sum(axis=layer.within_output) + b
    variance = share * (w**2 * layer.along_inputs(x.std**2)).sum(axis=layer.within_output)
    return Moments(mean, np.sqrt(variance))


def kernel_share(layer: Layer) -> float:
    """Which part of its kernel an output of a layer meets on average: all, but for transposed convolutions' strides."""
    return 1.0 / (layer.attrs.stride_h * layer.attrs.stride_w) if layer.op is TRANSPOSE_CONV else 1.0


_erf: Callable[[np.ndarray], np.ndarray] = np.vectorize(math.erf, otypes=[np.float64])


def clipped(x: Moments, low: float, high: float) -> Moments:
    """Moments of a normal clipped to `[low, high]` (DFQ, appendix C, eq. 26 and 31; either end may be infinite)."""
    std = np.maximum(x.std, 1e-12)
    a, b = (low - x.mean) / std, (high - x.mean) / std
    pdf_a, pdf_b = _pdf(a), _pdf(b)
    cdf_a, cdf_b = _cdf(a), _cdf(b)
    inside = cdf_b - cdf_a
    ends = (low * cdf_a if np.isfinite(low) else 0.0) + (high * (1 - cdf_b) if np.isfinite(high) else 0.0)
    mean = x.mean * inside + std * (pdf_a - pdf_b) + ends
    squares = (low**2 * cdf_a if np.isfinite(low) else 0.0) + (high**2 * (1 - cdf_b) if np.isfinite(high) else 0.0)
    edge_a = pdf_a * (low + x.mean) if np.isfinite(low) else 0.0
    edge_b = pdf_b * (high + x.mean) if np.isfinite(high) else 0.0
    second = (x.mean**2 + std**2) * inside + std * (edge_a - edge_b) + squares
    return Moments(mean, np.sqrt(np.maximum(second - mean**2, 0.0)), max(low, x.low), min(high, x.high))


def _pdf(z: np.ndarray) -> np.ndarray:
    finite = np.isfinite(z)
    return np.where(finite, np.exp(-0.5 * np.square(np.where(finite, z, 0.0))), 0.0) / math.sqrt(2 * math.pi)


def _cdf(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + _erf(z / math.sqrt(2)))
