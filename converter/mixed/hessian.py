"""Products of a network's Hessian with vectors, by differentiating twice: TensorFlow is the subject here.

    (1)  H v = d/dW (g^T v),  g = dL/dW

`L` is the mean over samples of the cross entropy with labels, or without labels that of distillation: what the outputs
of changed weights lose against the float network's, which is the divergence of the classes where the network ends with
a softmax, else the squared error over its power. At the float weights that loss is 0 and its Hessian is `E[J^T F J]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from converter.backend import tensorflow_for
from ir.errors import OptionError
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.keras_ops import K
from passes.contract.base import Samples, labels_of
from passes.measuring.logits import real_logits, softmaxed
from passes.training.losses import cross_entropy, kl

_SMALLEST = 1e-12


class HessianProducts:
    """`passes.contract.base.Products` of a float graph; a block is one of `weights`, which are constants of it."""

    def __init__(
        self, graph: Graph, weights: Sequence[Value], samples: Samples, *, labelled: bool = False, batch_size: int = 8
    ) -> None:
        """`labelled`: the loss is that of the labels of `samples`. Raises OptionError where there are none."""
        self._tf = tensorflow_for(
            "curvature", "choose what needs no second derivatives: --sensitivity=logits, or hawq{order=network}"
        )
        self._graph, self._weights, self._logits = graph, list(weights), real_logits(graph)
        self._batches = list(samples.batches(batch_size))
        sizes = [len(batch[0]) for batch in self._batches]
        labels = labels_of(samples) if labelled else None
        if labelled and labels is None:
            raise OptionError(expected="labels", found="none", where="curvature", fix="give them, or leave them out")
        ends = np.cumsum(sizes)[:-1]
        self._labels = [None] * len(sizes) if labels is None else np.split(np.asarray(labels), ends)
        self._compiled = self._tf.function(self._product, autograph=False)
        self.shapes = [w.shape for w in weights]
        self.shares = [size / sum(sizes) for size in sizes]

    def __call__(self, blocks: Sequence[int], vectors: Sequence[np.ndarray], batch: int) -> list[np.ndarray]:
        """`H v` of a batch, a vector for each of `blocks`."""
        given = dict(zip(blocks, vectors, strict=True))
        whole = [given[i] if i in given else np.zeros(shape, np.float32) for i, shape in enumerate(self.shapes)]
        made = self._compiled(self._batches[batch], self._labels[batch], whole)
        return [made[i].numpy() for i in blocks]

    def _product(self, inputs: Sequence[Any], labels: Any, vectors: Sequence[Any]) -> list[Any]:
        """Of all blocks at once: compiled a single time, whichever blocks are asked for."""
        tf = self._tf
        weights = [tf.convert_to_tensor(w.array) for w in self._weights]
        with tf.GradientTape() as outer:
            outer.watch(weights)
            with tf.GradientTape() as inner:
                inner.watch(weights)
                loss = self._loss(dict(zip(self._weights, weights, strict=True)), inputs, labels)
            gradient = inner.gradient(loss, weights, unconnected_gradients="zero")
            along = tf.add_n([tf.reduce_sum(g * v) for g, v in zip(gradient, vectors, strict=True)])
        return outer.gradient(along, weights, unconnected_gradients="zero")

    def _loss(self, replaced: dict[Value, Any], inputs: Sequence[Any], labels: Any) -> Any:
        logits = run_float(
            self._graph,
            list(inputs),
            requested=self._logits,
            transform=lambda value, tensor: replaced.get(value, tensor),
        )
        if labels is not None:
            return cross_entropy(labels, logits[0])
        return sum(
            distilled(K.stop_gradient(z), z, softmax=softmax)
            for z, softmax in zip(logits, softmaxed(self._graph), strict=True)
        )


def distilled(held: Any, logits: Any, *, softmax: bool) -> Any:
    """The loss of logits against those of the float network."""
    if softmax:
        return kl([held], [logits])
    return K.mean(K.square(logits - held)) / (K.mean(K.square(held)) + _SMALLEST)
