"""Fitting a part of the network to what the float network makes there, on inputs from the already quantized part.

What is fitted is a unit (`units`), what is trained are the `Rates` of the trainable form of the graph. The error is
`channels * E|F (y - y~)|^2 / E|F (y - E y)|^2`, per place: the squared Frobenius norm of an output whose channels have
power 1, so that what is weighed against it means the same in every layer. `F^2` is the importance of each channel, 1
unless it is given (BRECQ, arXiv:2102.05426, eq. 10: the squared gradient of the network's output).

Random dropping (QDrop, arXiv:2203.05740): each element of an activation, the unit's input among them, stays in float
with a probability at every step, so that weights are fitted to more than one way of rounding activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ir.graph import Graph, Value
from ir.keras_ops import K
from ir.quantization import QuantParams
from passes.training.soft_rounding import GAMMA, ZETA, Annealing, penalty
from passes.training.trainable import Rates, TrainableModel, reals

_FLOATS = 1 << 22  # of the unit's tensors in a step of training
_BATCH = 32
_TOGETHER = 50  # steps that the backend does without coming back to Python
_SMALLEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class UnitData:
    """What a unit reads and what it is to make; axis 0 counts samples.

    Attributes:
      inputs: from the already quantized part, as integers; `floats` the float network's.
      targets: the float network's output.
    """

    inputs: tuple[np.ndarray, ...]
    floats: tuple[np.ndarray, ...]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a unit is fitted.

    Attributes:
      batch_size: samples in a step at most; 0 for 32, fewer where tensors are large.
      learning_rate: of Adam.
      annealing: of learned rounding, its number of steps that of the training.
      drop: the probability that an element of an activation is left in float.
    """

    rates: Rates
    batch_size: int = 0
    learning_rate: float
    annealing: Annealing
    stretch: tuple[float, float] = (ZETA, GAMMA)
    drop: float = 0.0


class UnitModel(TrainableModel):
    """A unit, called with the numbers of samples."""

    def __init__(
        self,
        graph: Graph,
        data: UnitData,
        fit: Fit,
        unrounded: Mapping[Value, np.ndarray],
        importance: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        """`graph`: of `units.extracted`. `importance`: `F^2`, `[channels]` of the output."""
        super().__init__(graph, graph.outputs, fit.rates, _no_loss, unrounded=unrounded, stretch=fit.stretch)
        self._fit, self._noise = fit, keras.random.SeedGenerator(seed)
        self._data = [K.convert_to_tensor(x) for x in data.inputs]
        self._floats = [K.convert_to_tensor(x) for x in data.floats] if fit.drop else []
        self._targets = K.convert_to_tensor(data.targets)
        self._weight = _channel_weights(data.targets, importance)
        self._training = False

    def samples_in_step(self) -> int:
        """As many as memory and time allow."""
        floats = sum(v.type.size for v in self._graph.values() if not v.is_constant)
        return self._fit.batch_size or max(1, min(_BATCH, _FLOATS // floats))

    def call(self, index: Any, training: bool = False) -> Any:
        tensors = [reals(K.take(x, index, axis=0), v) for x, v in zip(self._data, self._graph.inputs, strict=True)]
        self._training = bool(training)
        if training and self._fit.drop:
            exact = [K.take(x, index, axis=0) for x in self._floats]
            tensors = [self._dropped(x, q) for x, q in zip(exact, tensors, strict=True)]
        return self.forward_reals(tensors)[0]

    def on_grid(self, value: Value, tensor: Any, params: QuantParams, scale: Any, zero_point: Any) -> Any:
        """The output stays in float: the error is measured before the rounding that comes after the unit."""
        if value in self._graph.outputs:
            return tensor
        rounded = super().on_grid(value, tensor, params, scale, zero_point)
        return self._dropped(tensor, rounded) if self._training and self._fit.drop else rounded

    def _dropped(self, exact: Any, rounded: Any) -> Any:
        noise = keras.random.uniform(K.shape(rounded), seed=self._noise)
        return K.where(noise < self._fit.drop, exact, rounded)

    def error(self, index: Any, outputs: Any) -> Any:
        """Of the outputs of these samples; one number."""
        off = K.square(K.take(self._targets, index, axis=0) - outputs[0])
        return K.mean(off * self._weight) * float(self._weight.size)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The error of the output, and the penalty of learned rounding."""
        strength, beta = self._fit.annealing.at(self.optimizer.iterations)
        total = sum((penalty(h, beta) for h in self.roundings().values()), start=0.0)
        return self.error(x, y_pred) + strength * total

    def measure(self, index: np.ndarray) -> float:
        """The error on these samples, with weights rounded up or down, as the file will have them."""
        self.decided = True
        size = self.samples_in_step()
        parts = [index[i : i + size] for i in range(0, len(index), size)]
        found = [float(K.convert_to_numpy(self.error(part, self.call(part)))) * len(part) for part in parts]
        self.decided = False
        return sum(found) / len(index)


def _no_loss(teacher: Any, student: Any) -> Any:
    raise AssertionError("a unit computes its own loss")


def _channel_weights(targets: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """What squared errors of channels are multiplied with, so that the output's power is 1 in the mean of its channels."""
    weight = np.ones(targets.shape[-1]) if importance is None else importance / max(importance.mean(), _SMALLEST)
    power = targets.reshape(-1, targets.shape[-1]).var(axis=0, dtype=np.float64)
    return (weight / max((weight * power).mean(), _SMALLEST)).astype(np.float32)


def fit_unit(model: UnitModel, fit: Fit, index: np.ndarray, seed: int, progress: Callable[[float], None]) -> None:
    """Trains on these samples: every step takes the next ones of an order that is drawn again when all have been seen."""
    size, steps = min(model.samples_in_step(), len(index)), fit.annealing.steps
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(index) for _ in range(-(-steps * size // len(index)))])
    optimizer = keras.optimizers.Adam(fit.learning_rate)
    model.compile(optimizer=optimizer, jit_compile=False, steps_per_execution=min(_TOGETHER, steps))
    optimizer.build(model.trainable_variables)
    chosen = order[: steps * size].astype(np.int32)
    model.fit(chosen, batch_size=size, shuffle=False, verbose=0, callbacks=[_Watch(steps, progress)])


class _Watch(keras.callbacks.Callback):
    """The share of the steps that is done."""

    def __init__(self, steps: int, progress: Callable[[float], None]) -> None:
        super().__init__()
        self._steps, self._report = steps, progress

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._report((batch + 1) / self._steps)
