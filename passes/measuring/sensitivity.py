"""How much noise in each channel of a tensor moves the logits: diagonal Fisher information, without labels.

For noise `e` in a tensor `v`, small and independent from place to place, the expected square of what it moves the
logits by is `sum_c F[c] E[e_c^2]` with `F[c] = E_samples sum_places |dz / dv_c|^2`, which random projections
estimate: `|dz / dv|^2 = E_r (d(r z) / dv)^2` for normal `r`.

The backward pass of an identity delivers the sums of squares as the gradient of a variable, and one epoch of plain
gradient descent adds them up, so this runs on any Keras backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ir.execute import compiled, release, run_float
from ir.graph import Graph, Value
from ir.keras_ops import K
from passes.contract.base import Progress, Samples


@K.custom_gradient  # type: ignore[untyped-decorator]
def _watched(x: Any, sums: Any) -> Any:
    """`x`; its gradient's squares (or products of channels), summed over all places, go to `sums`."""

    def grad(*args: Any, upstream: Any = None) -> tuple[Any, Any]:
        g = args[0] if upstream is None else upstream
        rows = K.reshape(g, (-1, sums.shape[-1]))  # the shape of g may be unknown: batches differ in size
        return g, K.matmul(K.transpose(rows), rows) if len(sums.shape) == 2 else K.sum(K.square(rows), axis=0)

    return x + 0.0, grad


class Probe(keras.Model):
    def __init__(self, graph: Graph, outputs: Sequence[Value], values: Sequence[Value], products: bool) -> None:
        super().__init__()
        self._graph, self._outputs = graph, list(outputs)
        self.sums = {
            v: self.add_weight(shape=v.shape[-1:] * (2 if products else 1), initializer="zeros", name=f"sums_{i}")
            for i, v in enumerate(values)
        }
        self.built = True

    def call(self, inputs: Any) -> Any:
        def watch(value: Value, tensor: Any) -> Any:
            return _watched(tensor, K.convert_to_tensor(self.sums[value])) if value in self.sums else tensor

        tensors, directions = inputs[: len(self._graph.inputs)], inputs[len(self._graph.inputs) :]
        outputs = run_float(self._graph, list(tensors), requested=self._outputs, transform=watch)
        unused = sum(0.0 * K.sum(s) for s in self.sums.values())  # a value behind the logits has a gradient of zero
        return sum(K.sum(z * r) for z, r in zip(outputs, directions, strict=True)) + unused

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return y_pred


class _Directions(keras.utils.PyDataset):
    """Batches of samples, each with random directions in the outputs, scaled by what the outputs' size is."""

    def __init__(
        self,
        batches: list[tuple[np.ndarray, ...]],
        sizes: list[float],
        outputs: Sequence[Value],
        projections: int,
        seed: int,
        progress: Progress,
    ) -> None:
        super().__init__()
        self._batches, self._sizes, self._outputs = batches, sizes, outputs
        self._projections, self._seed, self._progress = projections, seed, progress

    def __len__(self) -> int:
        return len(self._batches) * self._projections

    def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        batch, rng = self._batches[index // self._projections], np.random.default_rng((self._seed, index))
        count = len(batch[0])
        directions = [
            (rng.normal(0, 1 / size, (count, *v.shape[1:]))).astype(np.float32)
            for v, size in zip(self._outputs, self._sizes, strict=True)
        ]
        self._progress("sensitivities", index + 1, len(self))
        return (*batch, *directions), np.zeros(count, np.float32)


def sensitivities(
    graph: Graph,
    outputs: Sequence[Value],
    values: Sequence[Value],
    samples: Samples,
    *,
    count: int,
    batch_size: int,
    projections: int,
    seed: int,
    progress: Progress,
    products: bool = False,
) -> dict[Value, np.ndarray]:
    """`F[channels]` of each value in units of the mean power of a sample's logits, on the first `count` samples.

    Logits that are integers, made of integers alone, have no small errors: nothing counts for them.
    """
    outputs = [v for v in outputs if v.dtype.is_float]
    if not outputs:
        return {v: np.zeros(v.shape[-1:] * (2 if products else 1)) for v in values}
    batches: list[tuple[np.ndarray, ...]] = []
    for batch in samples.batches(batch_size):
        batches.append(batch)
        if sum(len(b[0]) for b in batches) >= count:
            break
    run = compiled(lambda t: run_float(graph, t, requested=list(outputs)))
    answers = [run(b) for b in batches]
    total = sum(len(b[0]) for b in batches)
    sizes = [
        float(np.sqrt(sum(np.square(a[i], dtype=np.float64).sum() for a in answers) / total) + 1e-12)
        for i in range(len(outputs))
    ]
    probe = Probe(graph, outputs, values, products)
    probe.compile(optimizer=keras.optimizers.SGD(1.0), jit_compile=False)
    data = _Directions(batches, sizes, outputs, projections, seed, progress)
    probe.fit(data, epochs=1, shuffle=False, verbose=0)
    scale = 1.0 / (total * projections)
    found = {v: -np.asarray(K.convert_to_numpy(s), np.float64) * scale for v, s in probe.sums.items()}
    release(probe)
    return found
