"""Whether data reaches the batch norms as it did in training.

A batch norm keeps the mean and the variance that its input had while the network was trained. Data that is
preprocessed in another way, or weights that were changed, show there first: on healthy networks the median over the
channels of the first batch norm is within 0.2 standard deviations and a factor of 1.15 of what it kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.preprocess import MODES, apply_mode
from ir.errors import ConversionError
from ir.execute import batchable, run_float
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.ops.normalization import BATCH_NORM
from ir.types import given

_CHUNK = 8
_FEWEST = 64  # positions: fewer say too little about a variance
_PEAK = 4.0  # samples whose input is so much larger than the median's are a fault of their own
BROAD = 0.6  # medians beyond this many standard deviations, or powers of two, are a mismatch
_MATCH = 0.35


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One batch norm.

    Attributes:
      name: of its node; `layer` of the one that makes its input.
      first: whether no other batch norm lies before it.
      ratio: per live channel, `log2` of the measured over the kept standard deviation; `distance` of the means in
        standard deviations; `channels` their numbers.
    """

    name: str
    layer: str
    first: bool
    ratio: np.ndarray
    distance: np.ndarray
    channels: np.ndarray

    @property
    def broad(self) -> float:
        """How far the median channel is from what was kept."""
        if not len(self.ratio):
            return 0.0
        return float(max(abs(np.median(self.ratio)), np.median(self.distance)))

    @property
    def worst(self) -> tuple[int, float]:
        """The channel that is largest beyond what was kept, and by how many powers of two."""
        if not len(self.ratio):
            return 0, 0.0
        beyond = np.maximum(self.ratio, np.log2(np.maximum(self.distance, 1e-9)))
        return int(self.channels[beyond.argmax()]), float(beyond.max())


def usual_samples(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers of the samples without those few whose values are far larger than the others'."""
    keep = np.ones(len(arrays[0]), bool)
    for array in arrays:
        peaks = np.abs(array.reshape(len(array), -1)).max(axis=1)
        keep &= peaks <= _PEAK * max(float(np.median(peaks)), 1e-30)
    return np.flatnonzero(keep) if keep.mean() >= 0.75 else np.arange(len(keep))


def mismatches(graph: Graph, arrays: Sequence[np.ndarray]) -> list[Mismatch]:
    """Of every batch norm of a float graph, in order. `arrays`: the samples, one array per input."""
    nodes = [n for n in graph.nodes if n.op is BATCH_NORM and _trained(n)]
    if not nodes:
        return []
    chosen = usual_samples(arrays)
    size = _CHUNK if batchable(graph) else max(1, graph.inputs[0].shape[0])
    sums: dict[Node, list[Any]] = {n: [0.0, 0.0, 0] for n in nodes}
    by_value = {n.inputs[0]: n for n in nodes}

    def add_sums(value: Value, tensor: Any) -> Any:
        node = by_value.get(value)
        if node is not None:
            axes = tuple(range(len(tensor.shape) - 1))
            count = int(np.prod(tensor.shape[:-1]))
            entry = sums[node]
            entry[0] = entry[0] + K.convert_to_numpy(K.mean(tensor, axis=axes)).astype(np.float64) * count
            entry[1] = entry[1] + K.convert_to_numpy(K.mean(K.square(tensor), axis=axes)).astype(np.float64) * count
            entry[2] += count
        return tensor

    stop = len(chosen) if batchable(graph) else len(chosen) // size * size
    for start in range(0, stop, size):
        batch = [K.convert_to_tensor(a[chosen[start : start + size]]) for a in arrays]
        run_float(graph, batch, transform=add_sums)
    behind = _behind(graph, nodes)
    return [_compare(n, sums[n], first=n not in behind) for n in nodes if sums[n][2] >= _FEWEST]


def _trained(node: Node) -> bool:
    """Whether a batch norm has seen data: one that has not still holds zeros and ones."""
    mean, variance = (given(node.inputs, i).array for i in (3, 4))
    return bool(np.any(mean != 0) or np.any(variance != 1))


def _behind(graph: Graph, nodes: Sequence[Node]) -> set[Node]:
    """The batch norms that have another one before them."""
    reached: set[Value] = set()
    found = set()
    for node in graph.nodes:
        touched = any(v in reached for v in node.inputs)
        if touched and node in nodes:
            found.add(node)
        if touched or node in nodes:
            reached.update(node.outputs)
    return found


def _compare(node: Node, sums: Sequence[Any], first: bool) -> Mismatch:
    total, squares, count = sums
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    kept_mean, kept = (given(node.inputs, i).array.astype(np.float64) for i in (3, 4))
    epsilon = node.attrs.epsilon
    live = np.flatnonzero(np.maximum(kept, variance) > epsilon)
    x = node.input
    return Mismatch(
        name=node.name,
        layer=x.producer.name if x.producer is not None else x.name,
        first=first,
        ratio=0.5 * np.log2((variance[live] + epsilon) / (kept[live] + epsilon)),
        distance=np.abs(mean - kept_mean)[live] / np.sqrt(kept[live] + epsilon),
        channels=live,
    )


def better_mode(graph: Graph, arrays: Sequence[np.ndarray], used: str, present: float) -> str | None:
    """The preprocessing with which the first batch norm sees what it kept, if there is one; `present` as it is now."""
    if len(arrays) != 1 or arrays[0].ndim != 4:
        return None
    head = until_first(graph)
    few = arrays[0][usual_samples(arrays)[:_CHUNK]]
    best, found = min(present / 2, _MATCH), None
    for pixels in _as_pixels(_undone(few, used)):
        for mode in MODES:
            try:
                scores = [m.broad for m in mismatches(head, [apply_mode(pixels, mode)])]
            except ConversionError:  # a mode that such channels do not have
                continue
            if scores and max(scores) < best:
                best, found = max(scores), mode
    return found


def until_first(graph: Graph) -> Graph:
    """A copy that ends at the batch norms which have no other before them; without outputs, if there is none."""
    head = graph.copy()
    norms = [n for n in head.nodes if n.op is BATCH_NORM]
    behind = _behind(head, norms)
    head.outputs = [n.output for n in norms if n not in behind]
    head.prune()
    return head


def _undone(values: np.ndarray, mode: str) -> np.ndarray:
    """What a preprocessing was given, from what it made: all modes are linear."""
    if mode in ("", "none"):
        return values
    ends = apply_mode(np.array([[0.0] * values.shape[-1], [255.0] * values.shape[-1]], np.float32), mode)
    flip = values[..., ::-1] if mode == "caffe" else values
    low, high = (e[::-1] if mode == "caffe" else e for e in ends)
    return (flip - low) / (high - low) * np.float32(255)


def _as_pixels(values: np.ndarray) -> list[np.ndarray]:
    """The values as pixels in 0..255: as they are, or from 0..1 or -1..1 where they lie in that."""
    low, high = float(values.min()), float(values.max())
    readings = [values]
    if low >= -0.01 and high <= 1.01:
        readings.append(values * np.float32(255))
    if low >= -1.01 and high <= 1.01:
        readings.append((values + 1) * np.float32(127.5))
    return readings
