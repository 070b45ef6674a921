"""What every pass has in common that trains an annotated graph: data, teacher, the loop, resuming, and keeping the best state.

The teacher is the float network as it was read, its logits before softmax are computed once. The best state by the loss
on held-out samples is kept; where none is better than the start by the share `least_gain` and by the standard error of
the gain (less than that is chance, with some tens of samples), the start is.

With `augment` every picture is trained on as a new view of itself in each epoch (`flip`: half are mirrored left to right;
`shift`: moved by up to an eighth; `flip+shift`), and the teacher answers for the view, which costs its forward pass.

A step takes `batch_size` samples; 0 stands for `usual_batch`, or for as many as memory allows of a network with large
activations.
"""

from __future__ import annotations

import contextlib
import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from ir.execute import batchable, compiled, few_steps, release, run_float
from ir.graph import Graph, Value
from passes.contract.base import Context, Needs, Pass, PassReport, Skip, Undone, choice, numeric, unsaid
from passes.measuring.logits import real_logits
from passes.measuring.scores import Score
from passes.training.augment import VIEWS, ViewedBatches, check_pictures, views_of
from passes.training.event_log import EventLog
from passes.training.layers import channel_means, trained_layers
from passes.training.losses import LOSSES
from passes.training.trainable import TrainableModel
from passes.training.tuning_data import Batches, Teacher, TuningData, collect, split
from passes.training.tuning_loop import Best, Checkpoint, Loop, restore
from passes.training.write_back import write_back

_FLOATS = 5 << 25  # that the activations of a step may hold; training keeps twice as much


@dataclass(frozen=True)
class Run:
    """What the steps of one run share."""

    graph: Graph
    outputs: Sequence[Value]
    data: TuningData
    teacher: Teacher
    train: np.ndarray
    held: np.ndarray
    context: Context
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class FineTune(Pass):
    """Trains an annotated graph; what is trained of it is the subclass's affair."""

    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.TUNING_DATA})
    usual_batch: ClassVar[int] = 16

    epochs: int = numeric(6, least=1)
    batch_size: int = numeric(0, least=1, zero="for what memory allows")
    learning_rate: float = numeric(1e-3, above=0)
    warmup: float = numeric(0.05, least=0, most=1)
    loss: str = choice("rmse", LOSSES)
    average: float = numeric(0.95, least=0, below=1)
    patience: int = numeric(3, least=0)
    least_gain: float = numeric(0.01, least=0, below=1)
    augment: str = ""
    resume: bool = unsaid(False)
    checkpoint_dir: str = unsaid("")
    tensorboard: str = unsaid("")

    def _checks(self) -> dict[str, tuple[bool, str]]:
        return {
            "augment": ({*views_of(self.augment)} <= {*VIEWS}, "flip, shift or flip+shift"),
            "resume": (not self.resume or bool(self.checkpoint_dir), "a checkpoint_dir beside it"),
        }

    @abstractmethod
    def _model(self, run: Run) -> TrainableModel:
        """The trainable form of the graph, not compiled."""

    @abstractmethod
    def _optimizer(self, rate: Any) -> keras.optimizers.Optimizer:
        """With this schedule of learning rates."""

    def _labels(self, graph: Graph, context: Context) -> np.ndarray | None:
        """Classes of the samples that are trained on, where this pass uses them."""
        return None

    def _start(self, run: Run, loop: Loop) -> Score | None:
        """What the loss is before training, if that is not the loss of the model before its first step."""
        return None

    @property
    def _correct(self) -> int:
        """Samples for the correction of biases after an epoch."""
        return 0

    @property
    def _reset_every(self) -> int:
        """Steps after which the optimizer forgets its moments, 0 for never."""
        return 0

    def run(self, graph: Graph, context: Context) -> PassReport:
        refusal = _refusal(graph)
        if refusal:
            return PassReport(skipped=(Skip(graph.name, refusal),))
        if views_of(self.augment):
            check_pictures(graph.inputs)
        outputs, put_back = real_logits(graph), graph.remember()
        teacher = _teacher(graph, context)
        data = self._data(graph, context, teacher)
        train, held = split(len(data))
        distribution = context.services.distribution
        with contextlib.nullcontext() if distribution is None else distribution.scope():
            run = Run(graph, outputs, data, teacher, train, held, context, self._step(graph))
            model, loop = self._begin(run)
            best = self._fit(run, model, loop)
        gain = f"epoch {best.epoch}: held-out loss {best.start:.4g} -> {best.loss:.4g}"
        notes = [f"held-out loss after each epoch: {', '.join(f'{x:.4g}' for x in best.history)}"]
        if best.accuracies:
            notes.append(f"held-out accuracy after each epoch: {', '.join(f'{x:.1%}' for x in best.accuracies)}")
        changed: list[str] = []
        if best.epoch or self._correct:
            restore(model, best.state)
            changed += write_back(model, graph)
        else:
            put_back()
        release(model)
        if best.epoch:
            return PassReport(changed=(gain, *changed), notes=tuple(notes))
        kept = "no epoch was better than the start by enough: the start was kept"
        return PassReport(changed=tuple(changed), notes=(*notes, kept, gain), verdict=None if changed else Undone(kept))

    def _data(self, graph: Graph, context: Context, teacher: Teacher) -> TuningData:
        samples = context.given.tuning if context.given.tuning is not None else context.data
        return collect(
            samples,
            graph.inputs,
            teacher,
            min(self._step(graph), len(samples)),
            context.services.progress,
            self._labels(graph, context),
        )

    def _step(self, graph: Graph) -> int:
        """Samples of a step of training."""
        if self.batch_size:
            return self.batch_size
        floats = sum(v.type.size for v in graph.values() if not v.is_constant)
        return max(1, min(self.usual_batch, _FLOATS // max(1, floats)))

    def _begin(self, run: Run) -> tuple[TrainableModel, Loop]:
        """A model and its loop, the start measured."""
        distribution = run.context.services.distribution
        chief = distribution is None or distribution.chief
        loop = Loop(
            run.data,
            run.train,
            run.held,
            batch_size=run.batch_size,
            patience=self.patience,
            least_gain=self.least_gain,
            reset_every=self._reset_every,
            correct=self._correct,
            progress=run.context.services.progress,
            checkpoint=self._checkpoint(run, writes=chief),
            log=EventLog(self.tensorboard) if self.tensorboard and chief else None,
        )
        start = self._start(run, loop)
        model = self._model(run)
        model.several_processes = distribution is not None and distribution.several_processes
        model.set_spread(run.data.means)
        self.compile(model, run)
        loop.begin(model, start)
        return model, loop

    def compile(self, model: TrainableModel, run: Run) -> None:
        """With an optimizer whose rate rises for the share `warmup` of the steps and then falls along a cosine."""
        total = max(1, len(run.train) // run.batch_size) * self.epochs
        rise = round(total * self.warmup)
        start = 0.0 if rise else self.learning_rate
        optimizer = self._optimizer(
            keras.optimizers.schedules.CosineDecay(
                start, max(1, total - rise), warmup_target=self.learning_rate if rise else None, warmup_steps=rise
            )
        )
        alone = run.context.services.distribution is None
        model.compile(optimizer=optimizer, jit_compile=False, run_eagerly=alone and few_steps(total))
        optimizer.build(model.trainable_variables)

    @property
    def _averaging(self) -> dict[str, Any]:
        """Of the variables over steps, as options of an optimizer."""
        return {"use_ema": self.average > 0, "ema_momentum": self.average or 0.99}

    def _checkpoint(self, run: Run, *, writes: bool) -> Checkpoint | None:
        if not self.checkpoint_dir:
            return None
        identity = {"options": self._identity(), "data": run.data.digest(), "seed": run.context.given.seed}
        return Checkpoint(self.checkpoint_dir, self.name, identity, writes=writes)

    def _fit(self, run: Run, model: TrainableModel, loop: Loop) -> Best:
        checkpoint = self._checkpoint(run, writes=False)
        resumed = checkpoint.load(model) if checkpoint is not None and self.resume else None
        epoch = 0
        if resumed is not None:
            loop.best, epoch = resumed
        if epoch < self.epochs and not loop.is_over(epoch) and model.trainable_variables:
            model.fit(
                self._batches(run, epoch),
                epochs=self.epochs,
                verbose=0,
                shuffle=False,
                initial_epoch=epoch,
                callbacks=[loop],
            )
        return loop.best

    def _batches(self, run: Run, epoch: int) -> Batches:
        seed, views = run.context.given.seed, views_of(self.augment)
        if not views:
            return Batches(run.data, run.train, run.batch_size, seed=seed, epoch=epoch)
        return ViewedBatches(
            run.data,
            run.train,
            run.batch_size,
            seed=seed,
            epoch=epoch,
            views=views,
            inputs=run.graph.inputs,
            teacher=run.teacher,
        )

    def _identity(self) -> dict[str, Any]:
        return {
            k: v for k, v in dataclasses.asdict(self).items() if k not in ("resume", "checkpoint_dir", "tensorboard")
        }


def _refusal(graph: Graph) -> str:
    if not any(v.quant is not None for v in graph.values()):
        return "nothing is quantized yet: run quantize before"
    if not any(v.dtype.is_float for v in graph.values() if v.quant is not None):
        return "the graph is integer already: run it before lower_to_integer"
    return "" if batchable(graph) else "samples of this network cannot be put into batches"


def _teacher(graph: Graph, context: Context) -> Teacher:
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
    outputs = real_logits(float_graph)

    def answer(tensors: list[Any]) -> list[Any]:
        found = run_float(float_graph, tensors, requested=[*outputs, *layers])
        means = [channel_means(t) for t in found[len(outputs) :]]
        logits = (
            found[: len(outputs)]
            if reference is None
            else run_float(reference, tensors, requested=real_logits(reference))
        )
        rows = keras.ops.shape(tensors[0])[0]
        return [*logits, keras.ops.concatenate(means, axis=1) if means else keras.ops.zeros((rows, 0))]

    return compiled(answer)


def float_weights(graph: Graph, context: Context) -> dict[Value, np.ndarray]:
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
