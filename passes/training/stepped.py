"""Quantization-aware training: the trainable form of the graph whose weights, biases and step sizes are the variables.

LSQ (S. Esser et al., arXiv:1902.08153; docs/methods/qat.md): a step `S` is a parameter, its gradient is
`round(v/S) - v/S` inside and the end of the integers outside (eq. 3), multiplied by `1 / sqrt(N qmax)` (section 2.2), `N`
the weights that have this step or the elements of the activation. Zero points stay: that of an activation without
negatives is the lowest integer, which is LSQ's unsigned case, with `qmax` the levels above zero.

Quant-Noise (A. Fan et al., arXiv:2004.07320): in training each weight (and, where asked, each element of an activation)
is quantized with the probability `noise` only, drawn again at every step; the rest stay in float, and their gradient is
the float network's. `noise=1` is ordinary training. Outside training all are quantized.

Codebooks (A. Fan et al., section 4; docs/methods/codebooks.md): of a weight that has one the entries are the variables, times
the scale that it came with; blocks keep the entry that they have. An entry's gradient is the mean of those of its blocks (eq. 4).

Weights that are 0 were pruned and stay 0, unless the whole layer is.

Batch norms (`batch_norm="batch"`): the graph's are folded, and of each layer's output the mean `beta` and the deviation
`gamma` are known from them. Put after the folded layer, `gamma (y - mean) / deviation + beta` changes nothing at first,
and in training normalizes by the batch. In inference it is folded: into the scales, one per channel, and the bias; the
integers of the weights are the same in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ir.codebook import Codebook
from ir.execute import runner
from ir.graph import Graph, Value
from ir.keras_ops import K
from ir.layer import layer_of, table_of
from ir.quantization import QuantParams
from passes.contract.base import ChannelNormal
from passes.quantization.simulate import result_of, rounded_twice, rounding_shift
from passes.training import fake_quant as fq
from passes.training.coded import CodedWeight
from passes.training.layers import TrainedLayer
from passes.training.losses import Loss, cross_entropy
from passes.training.trainable import BIAS_LIMIT, Rates, TrainableModel, reals
from passes.training.tuning_data import TuningData

BATCH_NORMS = ("frozen", "batch")
_DECAY_BY_BITS = {2: 0.25, 3: 0.5}  # of the weight decay at more bits (section 3)
_SMALLEST = 2.0**-10  # of what it starts with: a step
_EPSILON = 1e-3  # of the mean variance of a layer's channels: what is added to a variance
_NARROW = 8  # bits of activations; kernels of wider ones round once
_SETTLING = 20  # batches that statistics are measured on


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How the steps, and what they are trained with, behave.

    Attributes:
      learned: whether steps are trained; else those of weights follow `max|W|`, those of activations stay.
      noise, activation_noise: the share of the weights, and of the elements of activations, quantized in a training step.
      decay: of the weights, at more than 3 bits.
      batch_norm: of `BATCH_NORMS`; layers with one scale for all channels, or without a batch norm, keep to "frozen".
      momentum: of the statistics of batches.
    """

    learned: bool = True
    noise: float = 1.0
    activation_noise: float = 1.0
    decay: float = 0.0
    batch_norm: str = "frozen"
    momentum: float = 0.95
    seed: int = 0


class _Above(keras.constraints.Constraint):
    """Keeps a variable from becoming smaller than a fixed limit."""

    def __init__(self, low: np.ndarray) -> None:
        self.low = low

    def __call__(self, w: Any) -> Any:
        return K.maximum(w, self.low)


class SteppedLayer(keras.layers.Layer):
    """The variables of one layer: `kernel`, `step`, `bias`; with statistics of batches `gamma`, `mean`, `variance`."""

    def __init__(
        self, name: str, weight: Value | None, bias: Value | None, normal: ChannelNormal | None, *, learned: bool
    ) -> None:
        super().__init__(name=name)
        self.kernel = self.step = self.bias = self.gamma = None
        self.coded = None
        if weight is not None:
            scale = weight.type.params().scale
            self.coded = CodedWeight.of(weight)
            self.unit = float(np.mean(scale))  # entries are variables as large as weights: Adam moves all by its rate
            self.zero = float(np.max(weight.type.params().zero_point))  # of weights 0
            entries = None if self.coded is None else (self.coded.book.entries - self.zero) * self.unit
            self.kernel = self._variable("kernel", weight.array if entries is None else entries)
            self.step = self._variable("step", scale, _Above(scale * np.float32(_SMALLEST)), trainable=learned)
        if bias is not None:
            self.bias = self._variable("bias", bias.array if normal is None else normal.mean)
        if normal is not None:
            variance = np.square(normal.std)
            self.epsilon = float(_EPSILON * variance.mean() + 1e-12)
            gamma = np.sqrt(variance + self.epsilon)
            self.gamma = self._variable("gamma", gamma, _Above(gamma * np.float32(_SMALLEST)))
            held = 0.0 if bias is None else bias.array  # by the folded layer, which has no bias now
            self.mean = self._variable("mean", normal.mean - held, trainable=False)
            self.variance = self._variable("variance", variance, trainable=False)
        self.built = True

    def _variable(self, name: str, start: np.ndarray, constraint: Any = None, trainable: bool = True) -> Any:
        start = np.asarray(start, np.float32)
        made = self.add_weight(
            shape=start.shape, initializer="zeros", name=name, constraint=constraint, trainable=trainable
        )
        made.assign(start)
        return made

    def factor(self) -> Any:
        """What folding the statistics multiplies every channel with, `[channels]`."""
        return self.gamma / K.sqrt(self.variance + self.epsilon)

    def folded_bias(self) -> Any:
        """The bias with the statistics folded into it."""
        return self.bias if self.gamma is None else self.bias - self.factor() * self.mean

    def in_steps(self, step: Any, ends: tuple[int, int]) -> Any:
        """The weights in steps, neither rounded nor clipped where they have no codebook."""
        if self.coded is not None:
            return self.coded.decoded(self.entries(*ends))
        there = K.not_equal(self.kernel, 0)
        kept = K.logical_or(there, K.logical_not(K.any(there)))
        return self.kernel * K.cast(kept, "float32") / step

    def entries(self, qmin: int, qmax: int) -> Any:
        """Those of the codebook, in whole steps, zero point included."""
        kernel: Any = self.kernel
        return fq.round_through(K.clip(kernel / self.unit + self.zero, float(qmin), float(qmax)))

    def normalized(self, tensor: Any, momentum: Any) -> Any:
        """An output normalized by its own batch, whose statistics are remembered."""
        mean, variance = K.moments(tensor, axes=tuple(range(len(tensor.shape) - 1)))
        for known, found in ((self.mean, mean), (self.variance, variance)):
            known.assign(momentum * known + (1.0 - momentum) * K.stop_gradient(found))
        return (tensor - mean) * (self.gamma / K.sqrt(variance + self.epsilon)) + self.bias


class SteppedModel(TrainableModel):
    """Called as `TrainableModel` is; `labels` may follow the teacher's outputs in what it is fitted to."""

    def __init__(
        self,
        graph: Graph,
        outputs: Sequence[Value],
        loss: Loss | None,
        steps: Steps,
        *,
        teacher: float = 1.0,
        normals: Mapping[Value, ChannelNormal] | None = None,
        frozen: Collection[str] = (),
    ) -> None:
        """`loss`: of the teacher's outputs, None for a model that is fitted by other means.

        `teacher`: the share of the teacher's loss, the rest is that of the labels. `frozen`: names of layers.
        """
        self._steps, self._teacher = steps, teacher
        self._normals = dict(normals or {}) if steps.batch_norm == "batch" else {}
        self._frozen = frozenset(frozen)
        self._training = False
        super().__init__(graph, outputs, Rates(activations=0.0), loss or _no_loss)
        self._noise = keras.random.SeedGenerator(steps.seed)
        self._momentum = self.add_weight(shape=(), initializer="zeros", trainable=False, name="momentum")
        self._momentum.assign(steps.momentum)
        if loss is not None:
            self.accuracy = keras.metrics.Mean("accuracy")

    # --- variables ------------------------------------------------------------------------------------------------

    def _build_activations(self) -> None:
        super()._build_activations()
        self._places = [i for i, (_, _, index) in enumerate(self._groups) if index >= 0]
        starts = np.array([float(self._groups[i][1].scale) for i in self._places], np.float32)
        self._activation_steps = None
        if self._steps.learned and len(starts):
            self._activation_steps = self.add_weight(
                shape=starts.shape,
                initializer="zeros",
                name="activation_steps",
                constraint=_Above(starts * np.float32(_SMALLEST)),
            )
            self._activation_steps.assign(starts)

    def _build_weights(self) -> None:
        super()._build_weights()
        by_layer = {layer.node: layer for layer in self.layers_trained}
        self._owner: dict[Value, SteppedLayer] = {}
        self._own: dict[Value, SteppedLayer] = {}
        self.layer_of_node: dict[str, SteppedLayer] = {}
        made, names = [], set[str]()
        for node in self._graph.nodes:
            weight, trained = node.weight, by_layer.get(node)
            if weight not in self._weights and trained is None:
                continue
            owned = weight if weight in self._weights and weight not in self._owner else None
            name = _layer_name(node.name, names)
            bias = None if trained is None else trained.bias
            stepped = SteppedLayer(name, owned, bias, self._normal(trained, owned), learned=self._steps.learned)
            stepped.trainable = node.name not in self._frozen
            made.append(stepped)
            self.layer_of_node[node.name] = stepped
            if owned is not None:
                self._owner[owned] = stepped
            if bias is not None:
                self._own[bias] = stepped
        for node in self._graph.nodes:
            table = table_of(node)
            if table is not None and table.quant is not None and table.quant.codebook is not None:
                self._owner[table] = SteppedLayer(_layer_name(node.name, names), table, None, None, learned=False)
                made.append(self._owner[table])
        self.stepped_layers = made

    def _normal(self, layer: TrainedLayer | None, weight: Value | None) -> ChannelNormal | None:
        """The statistics of a layer that is normalized by its batches."""
        if layer is None or weight is None or len(weight.uses) > 1 or not weight.type.params().per_channel:
            return None
        found = layer_of(layer.node)
        if found is None or layer.node.name in self._frozen or layer.output in self._graph.outputs:
            return None
        return self._normals.get(layer.output)

    # --- parameters -----------------------------------------------------------------------------------------------

    def activation_parameters(self) -> list[tuple[list[Value], QuantParams, Any, Any]]:
        found = super().activation_parameters()
        if self._activation_steps is None:
            return found
        for k, i in enumerate(self._places):
            group, params, _, zero_point = found[i]
            above = max(params.qmax - int(params.zero_point), 1)
            gain = (group[0].type.size * above) ** -0.5
            found[i] = (group, params, fq.scale_gradient(self._activation_steps[k], gain), zero_point)
        return found

    def _weight_scale(self, value: Value, inputs: dict[Value, Any]) -> Any:
        params, owner = value.type.params(), self._owner[value]
        if self._steps.learned:
            gain = (value.type.size / max(params.scale.size, 1) * params.qmax) ** -0.5
            scale = fq.scale_gradient(owner.step, gain)
        elif owner.coded is not None:
            scale = K.convert_to_tensor(params.scale)
        else:
            axes = [i for i in range(len(value.shape)) if i != params.axis]
            kernel, axis = K.stop_gradient(owner.kernel), axes if params.per_channel else None
            scale = K.maximum(K.max(kernel, axis=axis) / params.qmax, K.min(kernel, axis=axis) / params.qmin)
            scale = K.maximum(scale, params.scale * np.float32(_SMALLEST))
        if owner.gamma is not None:
            if self._training:
                return scale  # and no bias yet that it must hold
            scale = scale * owner.factor()
        for node in value.consumers:
            if node.bias in self._own and node.inputs[0] in inputs:
                least = fq.least_weight_scale(self._own[node.bias].folded_bias(), inputs[node.inputs[0]], BIAS_LIMIT)
                scale = K.maximum(scale, least if params.per_channel else K.max(least))
        return scale

    def bias(self, layer: TrainedLayer) -> Any:
        stepped = self._own[layer.bias]
        if stepped.gamma is not None and self._training:
            return K.zeros_like(stepped.bias)  # the batch's mean takes it away, and its own comes after
        return stepped.folded_bias() + self.shifts[layer.channels]

    def weight(self, value: Value, scale: Any) -> tuple[Any, Any]:
        params, owner = value.type.params(), self._owner[value]

        def shaped(s: Any) -> Any:
            axis = params.axis
            return s if axis is None else K.reshape(s, [-1 if i == axis else 1 for i in range(len(value.shape))])

        scale = shaped(scale)
        step = scale / shaped(owner.factor()) if owner.gamma is not None and not self._training else scale
        exact = owner.in_steps(step, params.ends)
        q = fq.weight_steps(exact, 1.0, params.ends)
        if self._training and self._steps.noise < 1.0 and owner.trainable:
            q = self._noised(exact, q, self._steps.noise)
        return q, scale

    def codebook(self, value: Value) -> Codebook | None:
        owner = self._owner[value]
        if owner.coded is None:
            return None
        params = value.type.params()
        entries = K.convert_to_numpy(owner.entries(*params.ends))
        return dataclasses.replace(owner.coded.book, entries=entries.astype(np.int64))

    def _noised(self, exact: Any, rounded: Any, rate: float) -> Any:
        """Quantized with the probability `rate`."""
        return K.where(keras.random.uniform(K.shape(rounded), seed=self._noise) < rate, rounded, exact)

    # --- forward --------------------------------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool = False) -> Any:
        self._training = bool(training)
        try:
            return self.forward_reals(self._reals(inputs))[0]
        finally:
            self._training = False

    def _reals(self, inputs: Any) -> list[Any]:
        """What the integers of the inputs stand for; the teacher's channel means, which may follow them, are not read."""
        return [reals(t, v) for t, v in zip(inputs, self._graph.inputs, strict=False)]

    def on_grid(self, value: Value, tensor: Any, params: QuantParams, scale: Any, zero_point: Any) -> Any:
        if value in self._owner:  # a table, whose scale is held
            owner = self._owner[value]
            assert owner.coded is not None
            return (owner.coded.decoded(owner.entries(*params.ends)) - zero_point) * scale
        rounded = super().on_grid(value, tensor, params, scale, zero_point)
        rate = self._steps.activation_noise
        return self._noised(tensor, rounded, rate) if self._training and rate < 1.0 else rounded

    def on_output(
        self, layer: TrainedLayer, tensor: Any, activations: Mapping[Value, Any], weights: Mapping[Value, Any]
    ) -> Any:
        stepped, scale = self._own[layer.bias], weights.get(layer.weight)
        if stepped.gamma is not None and self._training:
            tensor, scale = stepped.normalized(tensor, self._momentum), scale * stepped.factor()
        x, y = activations.get(layer.node.input), activations.get(result_of(self._graph, layer.output))
        seen = layer_of(layer.node)
        if seen is None or scale is None or x is None or y is None or y[0].bits > _NARROW:
            return tensor
        return rounded_twice(tensor, K.stop_gradient(rounding_shift(x[1] * scale / y[1]) * y[1]), seen)

    def settle(self, data: TuningData, index: np.ndarray, batch_size: int) -> None:
        """The statistics of batch norms on some of these samples, with the weights as they are."""
        if all(layer.gamma is None for layer in self.stepped_layers):
            return
        batches = max(1, min(_SETTLING, len(index) // batch_size))
        run = runner(lambda tensors: self.call(tensors, training=True), batches * batch_size, batch_size)
        chosen = index[np.arange(batches * batch_size) * len(index) // (batches * batch_size)]
        for i, part in enumerate(np.array_split(np.random.default_rng(0).permutation(chosen), batches)):
            self._momentum.assign(i / (i + 1))  # which makes the mean of all
            run(data.rows(np.sort(part))[0])
        self._momentum.assign(self._steps.momentum)

    def seeds(self) -> list[Any]:
        return [self._noise.state]

    # --- loss -----------------------------------------------------------------------------------------------------

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Teacher's and labels' losses by their shares; in training, and the decay of the weights."""
        count, labels = len(self._outputs), list(y)[len(self._outputs) :]
        loss: Any = self.decay() if training and self._steps.decay else 0.0
        if self._teacher:
            loss = loss + self._teacher * self._loss_function(list(y)[:count], list(y_pred)[:count])
        if labels and self._teacher < 1.0:
            loss = loss + (1.0 - self._teacher) * cross_entropy(labels[0], y_pred[0])
        return loss

    def decay(self) -> Any:
        """`decay / 2 |W|^2`, less for few bits."""
        total: Any = 0.0
        for value, owner in self._owner.items():
            if owner.trainable and owner.coded is None:
                rate = 0.5 * self._steps.decay * _DECAY_BY_BITS.get(value.type.params().bits, 1.0)
                total = total + rate * K.sum(K.square(owner.kernel))
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """As Keras has them, and the accuracy where there are labels."""
        found: dict[str, Any] = super().compute_metrics(x, y, y_pred, sample_weight)
        labels = list(y)[len(self._outputs) :]
        if not labels:
            return {k: v for k, v in found.items() if k != "accuracy"}
        right = K.equal(K.cast(K.argmax(y_pred[0], axis=-1), "int32"), K.cast(labels[0], "int32"))
        self.accuracy.update_state(K.cast(right, "float32"))
        result = self.accuracy.result()
        return {**found, "accuracy": K.reshape(result, (1,)) if self.several_processes else result}


def _no_loss(teacher: Any, student: Any) -> Any:
    raise AssertionError("this model has no loss of its own")


def _layer_name(requested: str, taken: set[str]) -> str:
    """The name of a layer as Keras takes it, told apart from those before it."""
    name, count = requested.replace("/", "_"), 0
    while (found := f"{name}_{count}" if count else name) in taken:
        count += 1
    taken.add(found)
    return found
