"""Learned step sizes (LSQ, arXiv:1902.08153; docs/methods/qat.md): trains steps, weights and biases with labels or a teacher.

Runs on an annotated graph (after `quantize`, before activations are fused), as `FineTune` says, and trains what
`passes.training.stepped` describes. The loss is `teacher` times that of the float network's logits plus `1 - teacher`
times the cross entropy of labels; where the samples have no labels, or the network is no classifier, the teacher's
alone. Adam, or SGD with momentum as in the paper, which trains batch norms where here they are folded; the rate falls
along a cosine; weights of 3 bits decay half as much, of 2 a quarter.

Steps start at `2 mean|v| / sqrt(qmax)`, `v` the weights or the activation on a first batch, where they have fewer than 4
bits (`start=auto`), or fewer than 8 (`start=mean`); others, of which that would leave many unused, where they were
calibrated, as all do with `start=range`. The start that the best state is held against is the graph as it came,
whatever the steps start at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from ir.execute import eager, release, run_float
from ir.graph import Graph, Value
from ir.keras_ops import K
from ir.layer import Layer, layers
from passes.contract.base import Context, choice, labels_of, numeric
from passes.measuring.logits import real_logits
from passes.measuring.scores import Score
from passes.quantization.groups import tie_groups
from passes.quantization.quantize import annotate_bias
from passes.quantization.tied import fixed_params
from passes.training.fine_tune import FineTune, Run
from passes.training.losses import LOSSES
from passes.training.stepped import BATCH_NORMS, SteppedModel, Steps
from passes.training.trainable import TrainableModel, reals
from passes.training.tuning_loop import Loop

STARTS = {"auto": 4, "mean": 8, "range": 0}  # steps of fewer bits start at the mean
STEPS = ("learned", "minmax")
_OPTIMIZERS = ("sgd", "adam")
FIRST_SAMPLES = 64  # of the first batch


@dataclass(frozen=True, kw_only=True)
class Lsq(FineTune):
    """Trains weights, biases and the step sizes of weights and activations, with labels, a teacher or both."""

    name: ClassVar[str] = "lsq"
    usual_batch: ClassVar[int] = 64

    epochs: int = numeric(10, least=1)
    learning_rate: float = numeric(5e-4, above=0)
    warmup: float = numeric(0.0, least=0, most=1)
    loss: str = choice("kl", LOSSES)
    average: float = numeric(0.0, least=0, below=1)
    patience: int = numeric(0, least=0)
    optimizer: str = choice("adam", _OPTIMIZERS)
    momentum: float = numeric(0.9, least=0, below=1)
    decay: float = numeric(1e-4, least=0)
    teacher: float = numeric(0.5, least=0, most=1)
    steps: str = choice("learned", STEPS)
    start: str = choice("auto", STARTS)
    batch_norm: str = choice("batch", BATCH_NORMS)
    noise: float = numeric(1.0, above=0, most=1)
    activation_noise: float = numeric(1.0, above=0, most=1)

    def _labels(self, graph: Graph, context: Context) -> np.ndarray | None:
        samples = context.given.tuning if context.given.tuning is not None else context.data
        outputs = real_logits(graph)
        classifies = len(outputs) == 1 and len(outputs[0].shape) == 2 and outputs[0].shape[1] > 1
        return labels_of(samples) if classifies else None

    def _share(self, run: Run) -> float:
        """Of the teacher's loss."""
        return 1.0 if run.data.labels is None else self.teacher

    def _start(self, run: Run, loop: Loop) -> Score | None:
        """Of the graph as it came; then its steps are put to where they start. None where they start as they came."""
        if self.steps == "minmax" or not any_starts(run.graph, STARTS[self.start]):
            return None
        as_it_came = self._stepped(run, Steps())
        self.compile(as_it_came, run)
        score = loop.measure(as_it_came)
        release(as_it_came)
        first = run.train[:FIRST_SAMPLES]
        start_steps(run.graph, [x[first] for x in run.data.inputs], STARTS[self.start])
        return score

    def _model(self, run: Run) -> TrainableModel:
        steps = Steps(
            learned=self.steps == "learned",
            noise=self.noise,
            activation_noise=self.activation_noise,
            decay=self.decay,
            batch_norm=self.batch_norm,
            seed=run.context.given.seed,
        )
        return self._stepped(run, steps)

    def _stepped(self, run: Run, steps: Steps) -> SteppedModel:
        return SteppedModel(
            run.graph,
            run.outputs,
            LOSSES[self.loss],
            steps,
            teacher=self._share(run),
            normals=run.context.tables.normals,
        )

    def _optimizer(self, rate: Any) -> keras.optimizers.Optimizer:
        if self.optimizer == "sgd":
            return keras.optimizers.SGD(rate, momentum=self.momentum, **self._averaging)
        return keras.optimizers.Adam(rate, beta_1=self.momentum, **self._averaging)


def start_steps(graph: Graph, inputs: list[np.ndarray], bits: int) -> None:
    """Puts LSQ's first steps, `2 mean|v| / sqrt(qmax)`, on weights and activations of fewer than so many bits.

    Args:
      inputs: of a first batch, as integers. What a kernel fixes, and the network's inputs, keep their steps.
    """
    start_activations(graph, inputs, bits)
    start_weights(graph, layers(graph), bits)


def any_starts(graph: Graph, bits: int) -> bool:
    """Whether `start_steps` would put any step elsewhere."""
    weights = any(layer.weight.quant is not None and layer.params.bits < bits for layer in layers(graph))
    return weights or any(_starts(group, graph, bits) for group in tie_groups(graph))


def start_activations(graph: Graph, inputs: list[np.ndarray], bits: int) -> None:
    """`start_steps` of activations."""
    groups = [g for g in tie_groups(graph) if _starts(g, graph, bits)]
    requested = [v for g in groups for v in g]
    magnitudes = dict(zip(requested, _magnitudes(graph, inputs, requested), strict=True))
    for group in groups:
        params, mean = group[0].type.params(), float(np.mean([magnitudes[v] for v in group]))
        above = max(params.qmax - int(params.zero_point), 1)
        if mean > 0:
            params = dataclasses.replace(params, scale=np.asarray(2 * mean / np.sqrt(above), np.float32))
        for value in group:
            value.quant = params
    for node in graph.nodes:
        annotate_bias(graph, node)


def start_weights(graph: Graph, which: Iterable[Layer], bits: int) -> None:
    """`start_steps` of the weights of some layers."""
    for layer in which:
        if layer.weight.quant is not None and layer.params.bits < bits:
            axes = layer.within_output if layer.params.per_channel else None
            scale = 2 * np.abs(layer.data).mean(axis=axes) / np.sqrt(layer.params.qmax)
            scale = np.where(scale > 0, scale, layer.params.scale).astype(np.float32)
            layer.weight.quant = dataclasses.replace(layer.params, scale=scale)
            annotate_bias(graph, layer.node)


def _starts(group: list[Value], graph: Graph, bits: int) -> bool:
    params = group[0].quant
    held = any(v in graph.inputs or (params and fixed_params(v, params.bits) is not None) for v in group)
    return params is not None and params.bits < bits and not held


def _magnitudes(graph: Graph, inputs: list[np.ndarray], requested: list[Value]) -> list[float]:
    """`mean|v|` of values."""

    def means(tensors: list[Any]) -> list[Any]:
        real = [reals(t, v) for t, v in zip(tensors, graph.inputs, strict=True)]
        return [K.mean(K.abs(t)) for t in run_float(graph, real, requested=requested)]

    return [float(m) for m in eager(means)(inputs)]
