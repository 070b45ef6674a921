"""What the float network's activations look like on calibration data, collected in a stream.

One run of the graph gives per sample and channel the smallest and largest value and the mean of every activation;
a second one, on request, histograms. Only these summaries are kept, never the activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ir.errors import DataError
from ir.execute import batchable, compiled, eager, few_batches, rows_at_a_time, run_float, runner
from ir.graph import Graph, Value
from ir.keras_ops import K
from passes.contract.base import HELD_OUT, ByFold, Context, FittingSamples, Samples, Statistics

BINS = 2048
_SMALL = 1 << 19  # numbers of a tensor: of more a backend finds the largest sooner than NumPy does


def activations(graph: Graph) -> list[Value]:
    """The float values that data flows through: inputs and results, no constants."""
    return [v for v in graph.values() if v.dtype.is_float and not v.is_constant]


def rows_of(graph: Graph, context: Context) -> int:
    """How many samples a graph takes, or can best be given, at a time."""
    together = batchable(graph)
    return rows_at_a_time(graph, context.given.batch_size) if together else max(1, graph.inputs[0].shape[0])


def stream(
    graph: Graph, samples: Samples, context: Context, what: str, batch_size: int | None = None
) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches as the graph can take them, of `batch_size` where it is given, with progress."""
    size = batch_size if batch_size and batchable(graph) else rows_of(graph, context)
    done, total = 0, len(samples)
    context.services.progress(what, 0, total)
    for batch in samples.batches(size):
        yield batch
        done += len(batch[0])
        context.services.progress(what, done, total)


def fitting(graph: Graph, context: Context) -> Samples:
    """What fitting may see; all of it where a graph takes a fixed number of samples at a time."""
    return FittingSamples(context.data) if batchable(graph) else context.data


def collect(
    graph: Graph, context: Context, values: Sequence[Value] | None = None, held_out: bool = True
) -> dict[Value, Statistics]:
    """Statistics of activations (all by default), on all samples or without those held out of fitting.

    Raises DataError if there is no data or it makes NaN.
    """
    samples = context.data if held_out else fitting(graph, context)
    return {value: parts[0] for value, parts in _collected(graph, samples, context, values, 1).items()}


def collect_folds(graph: Graph, context: Context) -> dict[Value, ByFold]:
    """Statistics of all activations in each of `HELD_OUT` folds, the first of which are the samples held out of fitting.

    Raises DataError if there is no data or it makes NaN.
    """
    found = _collected(graph, context.data, context, None, HELD_OUT)
    return {value: ByFold(tuple(parts)) for value, parts in found.items()}


def _collected(
    graph: Graph, samples: Samples, context: Context, values: Sequence[Value] | None, folds: int
) -> dict[Value, list[Statistics]]:
    requested = list(activations(graph) if values is None else values)
    few = few_batches(len(samples), rows_of(graph, context))
    run = (_eager_summaries if few else _compiled_summaries)(graph, requested)
    sums = [[_Running() for _ in range(folds)] for _ in requested]
    seen = 0
    for batch in stream(graph, samples, context, "statistics"):
        results, count = run(batch), len(batch[0])
        for fold in range(folds):
            inside = np.arange(count)[(fold - seen) % folds :: folds]
            for i, running in enumerate(sums):
                low, high, mean = (_of_samples(x, count, inside) for x in results[3 * i : 3 * i + 3])
                running[fold].add(low, high, mean, len(inside))
        seen += count
    table = {value: [part.finish() for part in parts] for value, parts in zip(requested, sums, strict=True)}
    for value, parts in table.items():
        if not all(np.isfinite(part.low).all() and np.isfinite(part.high).all() for part in parts):
            raise DataError(
                expected="finite activations",
                found="NaN or infinity",
                where=f"layer '{value.name}' on the calibration data",
                fix="check the calibration data and the model's weights",
            )
    return table


def _eager_summaries(graph: Graph, requested: Sequence[Value]) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Of small tensors by NumPy, a call of which costs a twentieth of one of a backend's: steps of a recurrent layer are thousands."""

    def summaries(tensors: list[Any]) -> list[Any]:
        found: list[Any] = []
        for x in run_float(graph, tensors, requested=requested):
            small = math.prod(x.shape) <= _SMALL
            found += _summary(K.convert_to_numpy(x), np, dtype=np.float64) if small else _summary(x, K)
        return found

    return eager(summaries)


def _compiled_summaries(graph: Graph, requested: Sequence[Value]) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    return compiled(lambda tensors: [y for x in run_float(graph, tensors, requested=requested) for y in _summary(x, K)])


def _summary(x: Any, ops: Any, **summed: Any) -> list[Any]:
    """Smallest, largest and mean of every sample and channel, `[samples, channels]` each.

    `summed`: the type in which NumPy, which adds one number after the other, adds them.
    """
    shape = (1, -1, 1) if len(x.shape) < 2 else (ops.shape(x)[0], -1, x.shape[-1])
    x = ops.reshape(x, shape)
    return [ops.min(x, axis=1), ops.max(x, axis=1), ops.mean(x, axis=1, **summed)]


def _of_samples(x: np.ndarray, count: int, chosen: np.ndarray) -> np.ndarray:
    """The rows `[rows, channels]` of the `chosen` among `count` samples; all of them where they are no sample's own."""
    return x if len(x) % count else x.reshape(count, -1, x.shape[-1])[chosen].reshape(-1, x.shape[-1])


class _Running:
    """Minimum, maximum and mean per channel, and the bounds of every sample."""

    def __init__(self) -> None:
        self.low = np.asarray(np.inf, np.float32)
        self.high = np.asarray(-np.inf, np.float32)
        self.total: np.ndarray | float = 0.0
        self.rows = 0
        self.bounds: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, low: np.ndarray, high: np.ndarray, mean: np.ndarray, samples: int) -> None:
        """`[rows, channels]` each: as many rows of each sample, or some that are no sample's own."""
        if not samples:
            return
        own = (samples, -1) if len(low) % samples == 0 else (1, -1)
        bounds = low.min(axis=1).reshape(own).min(axis=1), high.max(axis=1).reshape(own).max(axis=1)
        self.bounds.append((np.broadcast_to(bounds[0], samples), np.broadcast_to(bounds[1], samples)))
        self.low = np.minimum(self.low, low.min(axis=0))
        self.high = np.maximum(self.high, high.max(axis=0))
        self.total = self.total + mean.sum(axis=0, dtype=np.float64)
        self.rows += len(low)

    def finish(self) -> Statistics:
        lows, highs = (np.concatenate(part) for part in zip(*self.bounds, strict=True))
        return Statistics(self.low, self.high, np.asarray(self.total) / self.rows, lows, highs)


def histograms(
    graph: Graph, context: Context, statistics: dict[Value, Statistics], values: Iterable[Value]
) -> dict[Value, np.ndarray]:
    """Counts of `BINS` equal bins over the bounds of each value, by a second run over the data."""
    requested = [v for v in values if statistics[v].bounds[1] > statistics[v].bounds[0]]
    bounds = [statistics[v].bounds for v in requested]

    def count(tensors: list[Any]) -> list[Any]:
        results = run_float(graph, tensors, requested=requested)
        return [_counts(x, low, high) for x, (low, high) in zip(results, bounds, strict=True)]

    if not requested:
        return {}
    run = runner(count, len(context.data), rows_of(graph, context))
    totals = [np.zeros(BINS, np.int64) for _ in requested]
    for batch in stream(graph, context.data, context, "histograms"):
        for total, counts in zip(totals, run(batch), strict=True):
            total += counts
    return dict(zip(requested, totals, strict=True))


def _counts(x: Any, low: float, high: float) -> Any:
    index = K.cast((K.reshape(x, (-1,)) - low) * (BINS / (high - low)), "int32")
    return K.bincount(K.clip(index, 0, BINS - 1), minlength=BINS)
