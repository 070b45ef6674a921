"""The trainable quantized network: an annotated, unfused float graph as a `keras.Model` on `keras.ops`.

Its forward pass computes what the emitted file computes, apart from the rounding of requantization: every annotated
activation on its (nudged) grid, weights in whole steps, biases in whole steps of `S_in S_w`. Values that share
parameters share variables; parameters that a kernel fixes, and those of the network's inputs, stay constants.

Variables are deviations in units of their own rates, `parameter = start + rate * variable`: with Adam, whose step has
the size of the learning rate whatever the gradient's, thresholds, factors and biases so get learning rates of their own
from one optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ir.codebook import Codebook
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.keras_ops import K
from ir.quantization import QuantParams
from passes.quantization.groups import tie_groups
from passes.quantization.tied import fixed_params
from passes.training import fake_quant as fq
from passes.training.layers import TrainedLayer, channel_means, output_step, trained_layers
from passes.training.losses import Loss, means
from passes.training.soft_rounding import GAMMA, ZETA, rectified_sigmoid, start_at
from passes.training.tuning_data import TuningData

BIAS_LIMIT = float(1 << 30)
_SCALE_LIMITS = (-0.25, 0.25)
_CELL = 0.4  # of a step to either side of its integer: where a weight may start


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What is trained, and at which multiple of the learning rate; 0 is not trained.

    Attributes:
      activations: factors of activation thresholds.
      weights: factors of weight thresholds; the weights are rounded again at every step.
      scales: factors of weight scales; the integers stay, so that no rounding error is redrawn.
      factors: pointwise factors of weights, within [0.75, 1.25].
      steps: pointwise shifts of weights, in quantization steps, within [-1, 1], rounded straight through.
      rounding: whether each weight is rounded up or down (`soft_rounding`).
      biases: in steps of the layer's output.
      lsq: whether thresholds get LSQ's gradient scale.
    """

    activations: float = 1.0
    weights: float = 0.0
    scales: float = 0.0
    factors: float = 0.0
    steps: float = 0.0
    rounding: float = 0.0
    biases: float = 0.0
    lsq: bool = False


class _Within(keras.constraints.Constraint):
    """Keeps a variable inside fixed limits."""

    def __init__(self, low: Any, high: Any) -> None:
        self.low, self.high = low, high

    def __call__(self, w: Any) -> Any:
        return K.clip(w, self.low, self.high)


class TrainableModel(keras.Model):
    """Called with one integer tensor per graph input (and, to centre, the teacher's channel means as the last one).

    Returns `outputs`, and after them the channel means of all layers if `features` is set.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: Sequence[Value],
        rates: Rates,
        loss: Loss,
        *,
        centre: bool = False,
        features: float = 0.0,
        unrounded: Mapping[Value, np.ndarray] | None = None,
        stretch: tuple[float, float] = (ZETA, GAMMA),
    ) -> None:
        """`unrounded`: float weights; each starts as near to its own as the integer that it stands at allows.

        `stretch`: of the sigmoid of learned rounding.
        """
        super().__init__()
        self.several_processes = False
        self.decided = False  # whether learned rounding is up or down, as in the file, and not in between
        self._stretch = stretch
        self._bases = {v: _inside(v, w) for v, w in (unrounded or {}).items() if v.quant is not None}
        self._graph, self._outputs, self._rates, self._loss_function = graph, list(outputs), rates, loss
        self._centre, self._features = centre, features
        self.layers_trained = trained_layers(graph)
        self._layer_of = {layer.output: layer for layer in self.layers_trained}
        self._bias_of = {layer.bias: layer for layer in self.layers_trained}
        self._spread: list[np.ndarray] = []
        self._build_activations()
        self._build_weights()
        self.built = True

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing to do, all variables exist. (Keras 3.15 under a tf.distribute strategy would average a batch over the
        replicas here, which it cannot do with inputs that are tuples.)"""

    # --- variables ------------------------------------------------------------------------------------------------

    def _deviation(self, shape: tuple[int, ...], rate: float, name: str, limits: tuple[Any, Any] | None = None) -> Any:
        """`rate * variable`, or None if it is not trained. `limits` are those of the deviation."""
        if not rate:
            return None
        constraint = None if limits is None else _Within(limits[0] / rate, limits[1] / rate)
        return self.add_weight(shape=shape, initializer="zeros", name=name, constraint=constraint)

    def _build_activations(self) -> None:
        self._groups: list[tuple[list[Value], QuantParams, int]] = []
        trained = 0
        for group in tie_groups(self._graph):
            params = group[0].quant
            if params is None:
                continue
            held = any(v in self._graph.inputs or _is_held(v, params.bits) for v in group)
            self._groups.append((group, params, -1 if held else trained))
            trained += not held
        rate = self._rates.activations
        low, high = fq.WIDTH_FACTOR
        self._widths = self._deviation((trained,), rate, "activation_widths", (low - 1.0, high - 1.0))
        signed = np.array([_low(p) < 0 for _, p, i in self._groups if i >= 0], bool)
        shift = [
            np.where(signed, s, p).astype(np.float32) for s, p in zip(fq.SHIFT_SIGNED, fq.SHIFT_POSITIVE, strict=True)
        ]
        self._shifts = self._deviation((trained,), rate, "activation_shifts", (shift[0], shift[1]))

    def _build_weights(self) -> None:
        self._weights: dict[Value, dict[str, Any]] = {}
        self._cells: dict[Value, tuple[np.ndarray, np.ndarray]] = {}
        for value in dict.fromkeys(n.weight for n in self._graph.nodes if n.weight is not None):
            if value.quant is None or value.data is None:
                continue
            low, high = fq.WIDTH_FACTOR
            self._weights[value] = {
                "alpha": self._deviation(
                    value.quant.scale.shape, self._rates.weights, f"{_plain(value)}_threshold", (low - 1, high - 1)
                ),
                "scale": self._deviation(
                    value.quant.scale.shape, self._rates.scales, f"{_plain(value)}_scale", _SCALE_LIMITS
                ),
                "factor": self._deviation(value.shape, self._rates.factors, f"{_plain(value)}_factor", (-0.25, 0.25)),
                "steps": self._deviation(value.shape, self._rates.steps, f"{_plain(value)}_steps", (-1.0, 1.0)),
                "rounding": self._deviation(value.shape, self._rates.rounding, f"{_plain(value)}_rounding"),
            }
            if self._rates.rounding:
                self._cells[value] = self._cell(value)
        total = self.layers_trained[-1].channels.stop if self.layers_trained else 0
        self._biases = self._deviation((total,), self._rates.biases, "biases")
        self.shifts = self.add_weight(shape=(total,), initializer="zeros", trainable=False, name="bias_shifts")
        units = [np.full(layer.bias.shape, output_step(layer.node), np.float32) for layer in self.layers_trained]
        self._bias_units = np.concatenate(units) if units else np.zeros(0, np.float32)

    def _cell(self, value: Value) -> tuple[np.ndarray, np.ndarray]:
        """The integers that weights are rounded down to, and what their learned rounding starts from."""
        scale, _ = value.type.params().shaped(len(value.shape))
        w = self._bases.get(value, value.array).astype(np.float64) / scale.astype(np.float64)
        return np.floor(w).astype(np.float32), start_at(w - np.floor(w), *self._stretch)

    # --- parameters -----------------------------------------------------------------------------------------------

    def activation_parameters(self) -> list[tuple[list[Value], QuantParams, Any, Any]]:
        """Per tie group: its values, the parameters it started with, scale and zero point as tensors."""
        found = []
        for group, params, index in self._groups:
            if index < 0 or self._widths is None:
                scale, zero_point = (
                    K.convert_to_tensor(params.scale),
                    K.convert_to_tensor(np.float32(params.zero_point)),
                )
            else:
                scale, zero_point = self._trained_activation(params, index, group[0].type.size)
            found.append((group, params, scale, zero_point))
        return found

    def _trained_activation(self, params: QuantParams, index: int, size: int) -> tuple[Any, Any]:
        rate = self._rates.activations
        gain = (size * params.qmax) ** -0.5 if self._rates.lsq else 1.0
        width = 1.0 + rate * fq.scale_gradient(self._widths[index], gain)
        if params.bits > 8:  # 16-bit kernels require zero point 0
            scale = float(params.scale) * K.clip(width, *fq.WIDTH_FACTOR)
            return scale, K.zeros((), "float32")
        low, full = _low(params), float(params.scale) * (params.qmax - params.qmin)
        shift = rate * fq.scale_gradient(self._shifts[index], gain)
        limits = fq.asymmetric_limits(low, full, shift, width, low < 0)
        return fq.asymmetric_scale(*limits, params.qmin, params.qmax)

    def _weight_scale(self, value: Value, inputs: dict[Value, Any]) -> Any:
        """Scale of a weight tensor, raised where a bias would not fit."""
        params, alpha = value.type.params(), self._weights[value]["alpha"]
        scale = K.convert_to_tensor(params.scale)
        if alpha is not None:
            gain = (value.type.size / max(params.scale.size, 1) * params.qmax) ** -0.5 if self._rates.lsq else 1.0
            factor = 1.0 + self._rates.weights * fq.scale_gradient(alpha, gain)
            scale = fq.symmetric_scale(params.scale * np.float32(params.qmax), factor, params.qmax)
        if self._weights[value]["scale"] is not None:
            scale = scale * (1.0 + self._rates.scales * self._weights[value]["scale"])
        for node in value.consumers:
            if node.bias in self._bias_of and node.inputs[0] in inputs:
                least = fq.least_weight_scale(self.bias(self._bias_of[node.bias]), inputs[node.inputs[0]], BIAS_LIMIT)
                scale = K.maximum(scale, least if params.per_channel else K.max(least))
        return scale

    def bias(self, layer: TrainedLayer) -> Any:
        """The bias of a layer before it is rounded, its shift included."""
        bias = K.convert_to_tensor(layer.bias.array) + self.shifts[layer.channels]
        if self._biases is None:
            return bias
        return bias + self._rates.biases * self._biases[layer.channels] * self._bias_units[layer.channels]

    def roundings(self) -> dict[Value, Any]:
        """How far up weights are rounded whose rounding is learned: 0 to 1; 0 or 1 once it is `decided`."""
        found = {
            v: rectified_sigmoid(start + self._rates.rounding * self._weights[v]["rounding"], *self._stretch)
            for v, (_, start) in self._cells.items()
        }
        return {v: K.cast(h >= 0.5, "float32") for v, h in found.items()} if self.decided else found

    def weight(self, value: Value, scale: Any) -> tuple[Any, Any]:
        """Weights in whole steps, and the scale shaped to multiply them."""
        params, parts = value.type.params(), self._weights[value]
        w = K.convert_to_tensor(self._bases.get(value, value.array))
        if params.axis is not None:
            scale = K.reshape(scale, [-1 if i == params.axis else 1 for i in range(len(value.shape))])
        if params.codebook is not None:
            return K.convert_to_tensor(params.quantize(value.array).astype(np.float32)), scale
        if parts["rounding"] is not None:
            steps = self._cells[value][0] + self.roundings()[value]
            return K.clip(steps, *map(float, params.ends)), scale
        if parts["alpha"] is None and parts["factor"] is None and parts["steps"] is None:
            return K.convert_to_tensor(params.quantize(value.array).astype(np.float32)), scale
        if parts["factor"] is not None:
            w = w * (1.0 + self._rates.factors * parts["factor"])
        if parts["steps"] is not None:
            w = w + scale * (self._rates.steps * parts["steps"])
        return fq.weight_steps(w, scale, params.ends), scale

    def codebook(self, value: Value) -> Codebook | None:
        """That of a weight, as it is now."""
        return value.type.params().codebook

    def parameters(self) -> tuple[dict[Value, tuple[QuantParams, Any, Any]], dict[Value, Any]]:
        """Of activations (start, scale, zero point) by value, and the scales of weights by value."""
        activations = {v: (p, s, z) for group, p, s, z in self.activation_parameters() for v in group}
        inputs = {v: s for v, (_, s, _) in activations.items()}
        return activations, {v: self._weight_scale(v, inputs) for v in self._weights}

    # --- forward --------------------------------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool = False) -> Any:
        tensors = list(inputs)
        teacher = tensors.pop() if len(tensors) > len(self._graph.inputs) else None
        outputs, features, _ = self.forward(tensors, teacher if training and self._centre else None)
        return [*outputs, *features] if self._features else outputs

    def forward(self, tensors: Sequence[Any], teacher: Any = None) -> tuple[list[Any], list[Any], dict[Value, Any]]:
        """Outputs, channel means of layers (if asked for), and the shifts that centring made.

        Args:
          tensors: integers, one tensor per graph input.
          teacher: channel means `[samples, all channels]`; where given, every layer's output is moved so that its
            mean over the batch is the teacher's (correction of the biases, inside the forward pass).
        """
        return self.forward_reals([reals(t, v) for t, v in zip(tensors, self._graph.inputs, strict=True)], teacher)

    def forward_reals(
        self, tensors: Sequence[Any], teacher: Any = None
    ) -> tuple[list[Any], list[Any], dict[Value, Any]]:
        """The same of inputs as what their integers stand for."""
        activations, weights = self.parameters()
        found: dict[Value, Any] = {}
        moved: dict[Value, Any] = {}

        def transform(value: Value, tensor: Any) -> Any:
            if value in self._layer_of:
                layer = self._layer_of[value]
                tensor = self.on_output(layer, tensor, activations, weights)
                if teacher is not None:
                    expected = K.mean(teacher[:, layer.channels], axis=0)
                    own = K.mean(tensor, axis=tuple(range(len(tensor.shape) - 1)))
                    moved[value] = K.stop_gradient(expected - own)
                    tensor = tensor + moved[value]
                if self._features:
                    found[value] = channel_means(tensor)
            if value in self._graph.inputs:
                return tensor
            if value in activations:
                return self.on_grid(value, tensor, *activations[value])
            if value in weights:
                q, scale = self.weight(value, weights[value])
                return q * scale
            if value in self._bias_of:
                return self._bias_on_grid(self._bias_of[value], activations, weights)
            return tensor

        outputs = run_float(self._graph, tensors, requested=self._outputs, transform=transform)
        return outputs, [found[v] for v in self._layer_of if v in found], moved

    def on_grid(self, value: Value, tensor: Any, params: QuantParams, scale: Any, zero_point: Any) -> Any:
        """An activation as its integers will hold it."""
        return fq.fake_quantize(tensor, scale, zero_point, params.qmin, params.qmax)

    def on_output(
        self, layer: TrainedLayer, tensor: Any, activations: Mapping[Value, Any], weights: Mapping[Value, Any]
    ) -> Any:
        """What a layer makes, before its activation; with the parameters of activations and the scales of weights."""
        return tensor

    def _bias_on_grid(self, layer: TrainedLayer, activations: dict[Value, Any], weights: dict[Value, Any]) -> Any:
        x, bias = layer.node.input, self.bias(layer)
        if x not in activations:
            return bias
        return fq.fake_quantize_bias(bias, activations[x][1] * weights[layer.weight])

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of outputs; with features, plus `features` times the error of the channel means."""
        count = len(self._outputs)
        loss = self._loss_function(list(y)[:count], list(y_pred)[:count])
        if not self._features:
            return loss
        teacher = [x[-1][:, layer.channels] for layer in self.layers_trained]
        return loss + self._features * means(teacher, list(y_pred)[count:], self._spread)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """As Keras has them; with `several_processes` as vectors of one element, which its mean over workers requires."""
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        return {k: K.reshape(v, (1,)) for k, v in found.items()} if self.several_processes else found

    def seeds(self) -> list[Any]:
        """The states of what is drawn at random in training, as variables."""
        return []

    def constrain(self) -> None:
        """Holds variables to their constraints after averaging: Keras averages what steps made before these."""
        for variable in self.trainable_variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))

    def settle(self, data: TuningData, index: np.ndarray, batch_size: int) -> None:
        """Measures again, on these samples, what is not trained but follows from what is; here nothing."""

    def set_spread(self, teacher: np.ndarray) -> None:
        """The spread of the teacher's channel means `[samples, all channels]`, per layer, for the loss on features."""
        self._spread = [
            np.float32(teacher[:, layer.channels].std() + 1e-6) * np.ones(1, np.float32)
            for layer in self.layers_trained
        ]


def _inside(value: Value, floats: np.ndarray) -> np.ndarray:
    """The reals nearest to `floats` that round to the integers of `value`, and not at once to something else."""
    params = value.type.params()
    q = params.quantize(value.array)
    scale, _ = params.shaped(value.array.ndim)
    v = floats.astype(np.float64) / scale.astype(np.float64)
    return (np.clip(v, q - _CELL, q + _CELL) * scale).astype(np.float32)


def _is_held(value: Value, bits: int) -> bool:
    """Whether a value keeps its scale: a kernel fixes it, or a table's codebook is in steps of it."""
    return fixed_params(value, bits) is not None or (value.quant is not None and value.quant.codebook is not None)


def _plain(value: Value) -> str:
    return "".join(c if c.isalnum() else "_" for c in value.name)


def _low(params: QuantParams) -> float:
    return float(params.scale) * (params.qmin - int(params.zero_point))


def reals(tensor: Any, value: Value) -> Any:
    """What the integers of an input stand for."""
    if value.quant is None or not value.dtype.is_float:
        return tensor
    return (K.cast(tensor, "float32") - float(value.quant.zero_point)) * float(value.quant.scale)
