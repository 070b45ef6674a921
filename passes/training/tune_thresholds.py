"""Threshold fine-tuning (FAT, arXiv:1812.07872; docs/methods/fat.md): trains the quantizers against the float network's logits.

Runs on an annotated graph (after `quantize`, before activations are fused). The teacher is the float network as it was
read, its logits before softmax are computed once; no labels. Adam with cosine annealing trains, each at its own
multiple of the learning rate (0 switches it off): factors of the activation thresholds (`activations`), scales of
weights whose integers stay (`scales`), biases (`biases`); factors of the weight thresholds (`weights`), pointwise factors
of the weights in [0.75, 1.25] (`factors`), shifts of single weights by at most one step (`steps`).

The last three redraw the rounding of a tensor at every step and with it the mean of every channel after it, which undoes
what rounding with feedback (`round_weights`) has gained: they are off, and are meant for pipelines without it. They want
`centre`: the mean of every layer's output over the batch is moved to the teacher's inside the forward pass, so that
training sees what bias correction leaves; and `correct`: after each epoch the biases are corrected on so many samples,
and those are emitted.

Start from the best state without training (`round_weights`, `correct_bias`): weights that these passes
moved start inside the cell of their integer, as near to their float values (`SideTables.unrounded`) as that allows.

A step takes `batch_size` samples; 0 stands for 16, or for as many as memory allows of a network with large activations.

The best state by the loss on held-out samples is kept; where none is better than the start by the share `least_gain`
and by the standard error of the gain (less than that is chance, with some tens of samples), the start is.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from ir.errors import OptionError
from ir.execute import batchable, compiled, release, run_float
from ir.graph import Graph, Value
from passes.contract.base import Context, Needs, Pass, PassReport, Skip, Undone
from passes.measuring.logits import logits_of
from passes.training.event_log import EventLog
from passes.training.layers import channel_means, trained_layers
from passes.training.losses import LOSSES
from passes.training.trainable import Rates, TrainableModel
from passes.training.tuning_data import Batches, TuningData, collect, split
from passes.training.tuning_loop import Best, Checkpoint, Loop, restore
from passes.training.write_back import write_back

_BATCH = 16
_FLOATS = 5 << 25  # that the activations of a step may hold; training keeps twice as much


@dataclass(frozen=True, kw_only=True)
class TuneThresholds(Pass):
    """Trains thresholds (and, if asked, weights and biases) of an annotated graph."""

    name: ClassVar[str] = "tune_thresholds"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.TUNING_DATA})

    epochs: int = 6
    batch_size: int = 0
    learning_rate: float = 1e-3
    warmup: float = 0.05
    loss: str = "rmse"
    activations: float = 0.3
    weights: float = 0.0
    scales: float = 1.0
    factors: float = 0.0
    steps: float = 0.0
    biases: float = 10.0
    lsq: bool = False
    centre: bool = False
    correct: int = 0
    features: float = 0.0
    average: float = 0.95
    reset_every: int = 0
    patience: int = 3
    least_gain: float = 0.01
    resume: bool = False
    checkpoint_dir: str = ""
    tensorboard: str = ""

    def __post_init__(self) -> None:
        checks = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 0, "at least 1, or 0 for what memory allows"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "loss": (self.loss in LOSSES, f"one of {', '.join(LOSSES)}"),
            "average": (0 <= self.average < 1, "at least 0, below 1"),
            "resume": (not self.resume or bool(self.checkpoint_dir), "a checkpoint_dir beside it"),
        }
        for option, (good, expected) in checks.items():
            if not good:
                raise OptionError(
                    expected=expected,
                    found=str(getattr(self, option)),
                    where=f"{self.name} {option}",
                    fix="change the option",
                )

    def run(self, graph: Graph, context: Context) -> PassReport:
        refusal = _refusal(graph)
        if refusal:
            return PassReport(skipped=(Skip(graph.name, refusal),))
        outputs = logits_of(graph)
        data = self._data(graph, context)
        train, held = split(len(data))
        distribution = context.services.distribution
        with contextlib.nullcontext() if distribution is None else distribution.scope():
            run = _Run(graph, outputs, data, train, held, context, self._step(graph))
            model, loop = self._begin(run)
            best = self._fit(run, model, loop)
        gain = f"epoch {best.epoch}: held-out loss {best.start:.4g} -> {best.loss:.4g}"
        notes = [f"held-out loss after each epoch: {', '.join(f'{x:.4g}' for x in best.history)}"]
        changed: list[str] = []
        if best.epoch or self.correct:
            restore(model, best.state)
            changed += write_back(model, graph)
        release(model)
        if best.epoch:
            return PassReport(changed=(gain, *changed), notes=tuple(notes))
        kept = "no epoch was better than the start by enough: the start was kept"
        return PassReport(changed=tuple(changed), notes=(*notes, kept, gain), verdict=None if changed else Undone(kept))

    def _data(self, graph: Graph, context: Context) -> TuningData:
        samples = context.given.tuning if context.given.tuning is not None else context.data
        teacher = _teacher(graph, context)
        return collect(samples, graph.inputs, teacher, min(self._step(graph), len(samples)), context.services.progress)

    def _step(self, graph: Graph) -> int:
        """Samples of a step of training."""
        if self.batch_size:
            return self.batch_size
        floats = sum(v.type.size for v in graph.values() if not v.is_constant)
        return max(1, min(_BATCH, _FLOATS // max(1, floats)))

    def _begin(self, run: _Run) -> tuple[TrainableModel, Loop]:
        """A model and its loop, the start measured."""
        chief = run.context.services.distribution is None or run.context.services.distribution.chief
        model = self._model(run)
        loop = Loop(
            run.data,
            run.train,
            run.held,
            batch_size=run.batch_size,
            patience=self.patience,
            least_gain=self.least_gain,
            reset_every=self.reset_every,
            correct=self.correct,
            progress=run.context.services.progress,
            checkpoint=self._checkpoint(run, writes=chief),
            log=EventLog(self.tensorboard) if self.tensorboard and chief else None,
        )
        loop.begin(model)
        return model, loop

    def _model(self, run: _Run) -> TrainableModel:
        rates = Rates(
            activations=self.activations,
            weights=self.weights,
            scales=self.scales,
            factors=self.factors,
            steps=self.steps,
            biases=self.biases,
            lsq=self.lsq,
        )
        model = TrainableModel(
            run.graph,
            run.outputs,
            rates,
            LOSSES[self.loss],
            centre=self.centre,
            features=self.features,
            unrounded=_float_weights(run.graph, run.context),
        )
        model.several_processes = (
            run.context.services.distribution is not None and run.context.services.distribution.several_processes
        )
        model.set_spread(run.data.means)
        total = max(1, len(run.train) // run.batch_size) * self.epochs
        rise = round(total * self.warmup)
        start = 0.0 if rise else self.learning_rate
        rate = keras.optimizers.schedules.CosineDecay(
            start, max(1, total - rise), warmup_target=self.learning_rate if rise else None, warmup_steps=rise
        )
        optimizer = keras.optimizers.Adam(
            rate, epsilon=1e-12, use_ema=self.average > 0, ema_momentum=self.average or 0.99
        )
        model.compile(optimizer=optimizer, jit_compile=False)
        optimizer.build(model.trainable_variables)
        return model

    def _checkpoint(self, run: _Run, *, writes: bool) -> Checkpoint | None:
        if not self.checkpoint_dir:
            return None
        identity = {"options": self._identity(), "data": run.data.digest(), "seed": run.context.given.seed}
        return Checkpoint(self.checkpoint_dir, identity, writes=writes)

    def _fit(self, run: _Run, model: TrainableModel, loop: Loop) -> Best:
        checkpoint = self._checkpoint(run, writes=False)
        resumed = checkpoint.load(model) if checkpoint is not None and self.resume else None
        epoch = 0
        if resumed is not None:
            loop.best, epoch = resumed
        if epoch < self.epochs and model.trainable_variables:
            model.fit(
                Batches(run.data, run.train, run.batch_size, seed=run.context.given.seed, epoch=epoch),
                epochs=self.epochs,
                verbose=0,
                shuffle=False,
                initial_epoch=epoch,
                callbacks=[loop],
            )
        return loop.best

    def _identity(self) -> dict[str, Any]:
        return {
            k: v for k, v in dataclasses.asdict(self).items() if k not in ("resume", "checkpoint_dir", "tensorboard")
        }


@dataclass(frozen=True)
class _Run:
    """What the steps of one run share."""

    graph: Graph
    outputs: Sequence[Value]
    data: TuningData
    train: np.ndarray
    held: np.ndarray
    context: Context
    batch_size: int


def _refusal(graph: Graph) -> str:
    if not any(v.quant is not None for v in graph.values()):
        return "nothing is quantized yet: run quantize before"
    if not any(v.dtype.is_float for v in graph.values() if v.quant is not None):
        return "the graph is integer already: run it before lower_to_integer"
    return "" if batchable(graph) else "samples of this network cannot be put into batches"


def _teacher(graph: Graph, context: Context) -> Any:
    """From a batch of reals the float network's logits and the channel means of the layers that are trained."""
    reference = (
        context.given.reference
        if context.given.reference is not None and _same_ends(context.given.reference, graph)
        else None
    )
    twin = context.tables.unrounded
    float_graph = graph if twin is None else twin.graph
    trained = [layer.node for layer in trained_layers(graph)]
    layers = [(node if twin is None else twin.nodes[node]).output for node in trained]
    outputs = logits_of(float_graph)

    def answer(tensors: list[Any]) -> list[Any]:
        found = run_float(float_graph, tensors, requested=[*outputs, *layers])
        means = [channel_means(t) for t in found[len(outputs) :]]
        logits = (
            found[: len(outputs)]
            if reference is None
            else run_float(reference, tensors, requested=logits_of(reference))
        )
        rows = keras.ops.shape(tensors[0])[0]
        return [*logits, keras.ops.concatenate(means, axis=1) if means else keras.ops.zeros((rows, 0))]

    return compiled(answer)


def _float_weights(graph: Graph, context: Context) -> dict[Value, np.ndarray]:
    """The weights as they were before any pass rounded them, where that is known."""
    if context.tables.unrounded is None:
        return {}
    nodes = context.tables.unrounded.nodes
    found = {}
    for node in graph.nodes:
        before = nodes[node].weight if node in nodes else None
        if (
            node.weight is not None
            and before is not None
            and before.data is not None
            and before.shape == node.weight.shape
        ):
            found[node.weight] = before.data
    return found


def _same_ends(a: Graph, b: Graph) -> bool:
    ends = [(v.shape for v in (*g.inputs, *g.outputs)) for g in (a, b)]
    return len(a.inputs) == len(b.inputs) and list(ends[0]) == list(ends[1])
