"""Training of input samples by `keras.Model.fit`: what `distill_samples` runs, group by group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ir.execute import release, run_float
from ir.graph import Graph, Value
from ir.keras_ops import K
from passes.contract.base import ChannelNormal, Context, Range

_SMALLEST_LEVEL = 4  # pixels
_START = 0.6  # standard deviation of the first samples, in halves of the input's range
_FLOOR = 1e-3  # of a layer's mean deviation: constant channels have none
_VARIANCE = 1e-8  # under a root, whose slope at 0 is infinite


def distill(
    graph: Graph, context: Context, bounds: Range, *, size: int, groups: int, steps: int, learning_rate: float
) -> tuple[tuple[np.ndarray, ...], tuple[float, float]]:
    """Samples, one array per graph input, and the loss at first and in the end, averaged over the groups.

    Args:
      bounds: the reals that inputs take.
      size: samples in a group, whose statistics are those of the batch norms together.
      learning_rate: in halves of the input's range.
    """
    rng = np.random.default_rng(context.given.seed)
    model = SampleModel(graph, context.tables.normals, bounds, size)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.Adam(rate, beta_1=0.8, beta_2=0.95)
    model.compile(optimizer=optimizer, jit_compile=False)
    optimizer.build(model.trainable_variables)
    fresh = [np.array(K.convert_to_numpy(v)) for v in optimizer.variables]
    found, losses = [], []
    for group in range(groups):
        for variable, array in zip(optimizer.variables, fresh, strict=True):
            variable.assign(array)
        model.begin(rng)
        watch = _Watch(context, group * steps, groups * steps)
        model.fit(np.zeros((steps, 1), np.float32), batch_size=1, shuffle=False, verbose=0, callbacks=[watch])
        losses.append((watch.losses[0], watch.losses[-1]))
        found.append([np.array(K.convert_to_numpy(x)) for x in model.samples()])
    release(model)
    first, last = np.mean(losses, axis=0)
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True)), (float(first), float(last))


def level_shapes(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The levels of a pyramid over samples of `shape`, the finest first; only `[height, width, channels]` has several."""
    if len(shape) != 3:
        return [tuple(shape)]
    height, width, channels = shape
    count = int(math.log2(max(1.0, min(height, width) / _SMALLEST_LEVEL))) + 1
    return [(-(-height // 2**i), -(-width // 2**i), channels) for i in range(count)]


class SampleModel(keras.Model):
    """One group of samples as variables; the loss is how far their statistics are from the batch norms'.

    The samples of an input are `middle + half * clip(sum of its levels, -1, 1)`.
    """

    def __init__(self, graph: Graph, normals: Mapping[Value, ChannelNormal], limits: Range, size: int) -> None:
        super().__init__()
        self._graph = graph
        present = set(graph.values())
        self._normals = [(v, normal) for v, normal in normals.items() if v in present]
        self._middle, self._half = (limits.low + limits.high) / 2, (limits.high - limits.low) / 2
        self._levels = [
            [self.add_weight(shape=(size, *level), name=f"input_{i}_level_{k}") for k, level in enumerate(levels)]
            for i, levels in enumerate(level_shapes(v.shape[1:]) for v in graph.inputs)
        ]
        self.built = True

    def begin(self, rng: np.random.Generator) -> None:
        """Fills the levels with noise, equally strong in each: together the spectrum of natural images."""
        for levels in self._levels:
            for level in levels:
                level.assign(rng.normal(0, _START / math.sqrt(len(levels)), level.shape).astype(np.float32))

    def samples(self) -> list[Any]:
        """One tensor per graph input."""
        return [self._middle + self._half * K.clip(_summed(levels), -1.0, 1.0) for levels in self._levels]

    def call(self, step: Any) -> Any:
        return step

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        tensors = run_float(self._graph, self.samples(), requested=[v for v, _ in self._normals])
        losses = [_distance(t, normal) for t, (_, normal) in zip(tensors, self._normals, strict=True)]
        return sum(losses) / len(losses)


def _summed(levels: Sequence[Any]) -> Any:
    size = tuple(levels[0].shape[1:3])
    resize = keras.ops.image.resize
    coarse = [resize(level, size, interpolation="bilinear", data_format="channels_last") for level in levels[1:]]
    return sum(coarse, K.convert_to_tensor(levels[0]))


def _distance(x: Any, normal: ChannelNormal) -> Any:
    """Mean square of how far means and deviations of the channels of `x` are from a batch norm's, in its deviations."""
    axes = tuple(range(len(x.shape) - 1))
    unit = (normal.std + _FLOOR * normal.std.mean() + 1e-12).astype(np.float32)
    mean = K.mean(x, axis=axes)
    variance = K.maximum(K.mean(K.square(x), axis=axes) - K.square(mean), 0.0)  # K.var would keep another tensor
    deviation = K.sqrt(variance + _VARIANCE)
    off = ((mean - normal.mean.astype(np.float32)) / unit, (deviation - normal.std.astype(np.float32)) / unit)
    return sum(K.mean(K.square(x)) for x in off)


class _Watch(keras.callbacks.Callback):
    """Progress, and the losses of all steps."""

    def __init__(self, context: Context, done: int, total: int) -> None:
        super().__init__()
        self._context, self._done, self._total = context, done, total
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(float((logs or {})["loss"]))
        self._context.services.progress("samples from batch norms", self._done + batch + 1, self._total)
