"""Every layer of the emitted file beside the float network on the same samples: noise, shifts, ranges, histograms.

For a layer `y = f(x, w)` three errors are summed per channel (the last axis): of its constants alone,
`f(x, Q(w)) - y`; of its output alone, `Q(y) - y`; and of the integer network as it runs, everything before it
quantized too. The float network is that of the pipeline (scaled channels, folded batch norms) before weights were
rounded; the integers come from the emulator that equals the runtime's kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.compare import to_integers, to_reals
from converter.recording import Trace
from ir.execute import batchable, run_integer, walk
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.profile import JUDGES
from ir.quantization import QuantParams
from ir.supported import able
from passes.contract.base import Progress
from passes.measuring.effects import quantized_constants, with_quantized_constants
from passes.quantization.simulate import fake_quantize

BINS = 2048
_CHUNK = 8
_BLOCK = 64


@dataclass(frozen=True)
class Twins:
    """The network three times, and which nodes stand for each other.

    Attributes:
      floats: annotated layout, float weights of before rounding.
      annotated: of each of its nodes, the same with the weights and parameters that were emitted.
      emitted: the integer graph.
      floating: of each of the emitted nodes that was there before lowering, the float node.
    """

    floats: Graph
    annotated: Mapping[Node, Node]
    emitted: Graph
    floating: Mapping[Node, Node]

    def key(self, node: Node) -> str:
        """The name under which facts of a node of the file are kept: that of the float node that it stands for."""
        return self.floating.get(node, node).name

    @property
    def together(self) -> int:
        """How many samples may run at once."""
        if batchable(self.floats) and batchable(self.emitted):
            return _CHUNK
        shape = self.floats.inputs[0].shape
        return max(1, shape[0] if shape else 1)


def make_twins(trace: Trace, emitted: Graph) -> Twins | None:
    """None where the conversion did not quantize."""
    if trace.annotated is None or trace.unrounded is None:
        return None
    twin = trace.annotated.graph.twin()
    floating = {live: twin.nodes[node] for live, node in trace.annotated.nodes.items()}
    for live, node in floating.items():
        original = trace.unrounded.nodes.get(live)
        if original is not None and original.weight is not None:
            constants = [None if v is None else _detached(v) for v in original.inputs[1:]]
            twin.graph.set_inputs(node, [node.inputs[0], *constants])
    annotated = {copied: node for node, copied in twin.nodes.items()}
    return Twins(twin.graph, annotated, emitted, floating)


def _detached(value: Value) -> Value:
    return Value(value.name, value.type, value.data)


@dataclass
class ChannelSums:
    """Running sums of one output; arrays are `[channels]`.

    Attributes:
      power, total: of the float output `y`, squared and plain; `low`, `high` its bounds, `sample_peak` the largest
        `|y|` of each sample.
      weight_noise, weight_shift: of `f(x, Q(w)) - y`, squared and plain; `output_noise` of `Q(y) - y`; `alone` of
        both; `noise` of the integer network, with `dot` and `integer_power` for the cosine.
      counts: `BINS` equal bins over `edges`; `zeros`: how many of the `size` values are 0.
    """

    count: int = 0
    power: Any = 0.0
    total: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf
    sample_peak: list[np.ndarray] = field(default_factory=list)
    weight_noise: Any = 0.0
    weight_shift: Any = 0.0
    output_noise: Any = 0.0
    alone: Any = 0.0
    noise: Any = 0.0
    dot: float = 0.0
    integer_power: float = 0.0
    clipped: int = 0
    size: int = 0
    zeros: int = 0
    counts: np.ndarray | None = None
    edges: tuple[float, float] = (0.0, 0.0)


def _rows(tensor: Any) -> np.ndarray:
    array = np.asarray(K.convert_to_numpy(tensor), np.float32)
    return array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)


def _squares(rows: np.ndarray) -> np.ndarray:
    """Sum of squares per channel: blocks in float32, which is several times faster, and their sums in float64."""
    return _blockwise(rows, "bnc,bnc->bc", rows)


def _total(rows: np.ndarray) -> np.ndarray:
    return _blockwise(rows, "bnc->bc")


def _blockwise(rows: np.ndarray, equation: str, *others: np.ndarray) -> np.ndarray:
    whole = len(rows) // _BLOCK * _BLOCK
    found = np.zeros(rows.shape[1])
    for part, size in ((slice(0, whole), _BLOCK), (slice(whole, None), 1)):
        blocks = [x[part].reshape(-1, size, rows.shape[1]) for x in (rows, *others)]
        found += np.einsum(equation, *blocks).sum(axis=0, dtype=np.float64)
    return found


class Measurement:
    """Runs the twins over samples; afterwards `table` holds the sums by node name, `inputs` those of the inputs.

    Attributes:
      integer_outputs, integer_logits, float_logits: of all samples, a list entry per output.
    """

    def __init__(self, twins: Twins, arrays: Sequence[np.ndarray], logits: Sequence[Sequence[Value]]) -> None:
        self.twins, self.arrays = twins, arrays
        self.table: dict[str, ChannelSums] = {n.name: ChannelSums() for n in twins.floats.nodes}
        self.inputs: dict[str, ChannelSums] = {v.name: ChannelSums() for v in twins.floats.inputs}
        self._requested = (
            [*twins.floats.outputs, *logits[0]],
            [*twins.emitted.outputs, *logits[1]],
        )
        self._outputs = len(twins.floats.outputs)
        self._found: tuple[list[list[np.ndarray]], list[list[np.ndarray]]] = ([], [])

    def run(self, progress: Progress) -> None:
        """Two passes: the bounds first, which the histograms of the second need."""
        size, total = self.twins.together, len(self.arrays[0])
        for what, visit in (("ranges of layers", self._bounds), ("noise of layers", self._noise)):
            for start in range(0, total, size):
                visit([a[start : start + size] for a in self.arrays])
                progress(what, min(start + size, total), total)

    @property
    def float_logits(self) -> list[np.ndarray]:
        return _joined(self._found[0])[self._outputs :]

    @property
    def integer_outputs(self) -> list[np.ndarray]:
        return _joined(self._found[1])[: self._outputs]

    @property
    def integer_logits(self) -> list[np.ndarray]:
        return _joined(self._found[1])[self._outputs :]

    def _walk(self, batch: Sequence[np.ndarray], visit: Any) -> list[Any]:
        def apply(node: Node, tensors: list[Any]) -> list[Any]:
            result = node.op.compute(node.attrs, *tensors)
            results = list(result) if isinstance(result, (tuple, list)) else [result]
            if node.output.dtype.is_float:
                visit(node, tensors, results[0])
            return results

        inputs = [K.convert_to_tensor(x) for x in batch]
        return walk(self.twins.floats, inputs, lambda v: K.convert_to_tensor(v.data), apply, None, self._requested[0])

    def _bounds(self, batch: Sequence[np.ndarray]) -> None:
        for value, array in zip(self.twins.floats.inputs, batch, strict=True):
            if value.dtype.is_float:
                _widen(self.inputs[value.name], array)
        self._walk(batch, lambda node, _, y: _widen(self.table[node.name], K.convert_to_numpy(y)))

    def _noise(self, batch: Sequence[np.ndarray]) -> None:
        emitted = self.twins.emitted
        values = [n.output for n in emitted.nodes if n in self.twins.floating]
        requested = [*values, *self._requested[1]]
        inputs = [to_integers(x, v.dtype, v.quant) for x, v in zip(batch, emitted.inputs, strict=True)]
        raw = run_integer(emitted, inputs, able(emitted, JUDGES), requested=requested)
        integers = {
            self.twins.floating[v.producer]: (y, v.quant)
            for v, y in zip(values, raw[: len(values)], strict=True)
            if v.producer
        }

        def visit(node: Node, tensors: list[Any], y: Any) -> None:
            found, annotated = integers.get(node), self.twins.annotated[node]
            reals = None if found is None else to_reals(found[0], _with_scale_of(found[1], annotated.output.quant))
            _add(self.table[node.name], annotated, tensors, y, reals)

        for value, array in zip(self.twins.floats.inputs, batch, strict=True):
            if value.dtype.is_float:
                _add_input(self.inputs[value.name], value.quant, array)
        self._found[0].append([np.asarray(K.convert_to_numpy(t)) for t in self._walk(batch, visit)])
        outputs = zip(self._requested[1], raw[len(values) :], strict=True)
        self._found[1].append([to_reals(y, v.quant) for v, y in outputs])


def _with_scale_of(emitted: QuantParams | None, annotated: QuantParams | None) -> QuantParams | None:
    """Parameters of the file with the scale of the reals: lowering renames scales where only their ratios count."""
    if emitted is None or annotated is None or emitted.per_channel or annotated.per_channel:
        return emitted
    return dataclasses.replace(emitted, scale=annotated.scale)


def _joined(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate([np.atleast_1d(p) for p in column]) for column in zip(*parts, strict=True)]


def _widen(sums: ChannelSums, array: np.ndarray) -> None:
    rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    sums.low, sums.high = np.minimum(sums.low, rows.min(axis=0)), np.maximum(sums.high, rows.max(axis=0))
    sums.sample_peak.append(np.abs(array.reshape(len(array), -1) if array.ndim else rows).max(axis=1))


def _histogram(sums: ChannelSums, rows: np.ndarray) -> None:
    low, high = float(np.min(sums.low)), float(np.max(sums.high))
    sums.edges = (low, high)
    if sums.counts is None:
        sums.counts = np.zeros(BINS, np.int64)
    width = max(high - low, 1e-30)
    index = ((rows.ravel() - np.float32(low)) * np.float32((BINS - 1) / width)).astype(np.int32)
    sums.counts += np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)


def _clipped(rows: np.ndarray, quant: QuantParams | None) -> int:
    if quant is None or quant.per_channel:
        return 0
    low, high = quant.bounds
    half = float(quant.scale) / 2
    return int(((rows < low - half) | (rows > high + half)).sum())


def _add_input(sums: ChannelSums, quant: QuantParams | None, array: np.ndarray) -> None:
    y = _rows(array)
    _histogram(sums, y)
    sums.power, sums.total = sums.power + _squares(y), sums.total + _total(y)
    sums.count, sums.size, sums.zeros = sums.count + len(y), sums.size + y.size, sums.zeros + int((y == 0).sum())
    if quant is not None:
        sums.output_noise = sums.output_noise + _squares(_rows(fake_quantize(y, quant)) - y)
        sums.clipped += _clipped(y, quant)


def _add(sums: ChannelSums, node: Node, tensors: Sequence[Any], result: Any, reals: np.ndarray | None) -> None:
    """`node` is the annotated one, `tensors` and `result` those of the float walk, `reals` what the integers say."""
    quant = node.output.quant
    y = _rows(result)
    _add_input(sums, quant, y)
    z = y
    if quantized_constants(node):
        z = _rows(with_quantized_constants(node, tensors))
        error = z - y
        sums.weight_noise = sums.weight_noise + _squares(error)
        sums.weight_shift = sums.weight_shift + _total(error)
    if quant is not None:
        sums.alone = sums.alone + _squares(_rows(fake_quantize(z, quant)) - y)
    if reals is not None and reals.size == y.size:
        x = _rows(reals)
        sums.noise = sums.noise + _squares(x - y)
        sums.dot += float(_blockwise(x, "bnc,bnc->bc", y).sum())
        sums.integer_power += float(_squares(x).sum())
