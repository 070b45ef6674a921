"""The trainable quantized network as users hold it: a `keras.Model` with the inputs and outputs of the float one.

Reals go in and come out; inputs are put on their grid first. It is compiled, fitted, saved and loaded as any model. In
inference it computes what the emitted file does, apart from the rounding of requantization; in training, results whose
parameters a kernel fixes (a softmax's steps of 1/256) stay in float, so that a loss has a slope everywhere.

What is saved: the graph as plain data and the numbers that layers start from in the configuration; all variables, and
constants that are no layer's weights, beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np

from ir.graph import Graph, Value
from ir.plain import from_plain, to_plain
from ir.quantization import QuantParams
from passes.contract.base import ChannelNormal
from passes.quantization.tied import fixed_params
from passes.training import fake_quant as fq
from passes.training.stepped import SteppedModel, Steps
from passes.training.write_back import write_back


@keras.saving.register_keras_serializable(package="intact")
class Student(SteppedModel):
    """An annotated graph to be trained by its user. Made by `converter.quantize_aware`."""

    def __init__(
        self,
        graph: Graph,
        steps: Steps,
        *,
        normals: Mapping[Value, ChannelNormal] | None = None,
        frozen: Collection[str] = (),
        name: str | None = None,
    ) -> None:
        """`normals`: of values of `graph`; `frozen`: names of layers that are not trained."""
        super().__init__(graph, graph.outputs, None, steps, normals=normals, frozen=frozen)
        self.name = name or graph.name
        self._kept = {v: n for v, n in (normals or {}).items() if v in set(graph.values())}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Makes what the first step would make else (metrics, the optimizer's variables), and be traced twice for it."""
        keras.Model._maybe_symbolic_build(self, iterator=iterator, data_batch=data_batch)
        if keras.backend.backend() == "tensorflow" and self._distribute_strategy is None and iterator is not None:
            batch = iterator._get_iterator().element_spec
            self._build_compiled(keras.utils.unpack_x_y_sample_weight(batch)[1])
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    def _build_compiled(self, targets: Any) -> None:
        """Builds the loss and the metrics of `compile` for targets of these shapes."""
        outputs = keras.tree.map_shape_structure(_blank, self.compute_output_shape(None))
        for compiled in (self._compile_loss, self._compile_metrics):
            if compiled is not None and not compiled.built and targets is not None:
                compiled.build(keras.tree.map_structure(lambda y: _blank(y.shape), targets), outputs)

    # --- computing ------------------------------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = super().call(self._listed(inputs), training=training)
        return outputs[0] if len(outputs) == 1 else outputs

    def _listed(self, inputs: Any) -> list[Any]:
        """One tensor per input of the graph, from a tensor, a list or a dictionary by their names."""
        if isinstance(inputs, Mapping):
            return [inputs[v.name] for v in self._graph.inputs]
        return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]

    def _reals(self, inputs: Any) -> list[Any]:
        """The inputs as the file takes them."""
        return [_on_grid(x, v) for x, v in zip(inputs, self._graph.inputs, strict=True)]

    def on_grid(self, value: Value, tensor: Any, params: QuantParams, scale: Any, zero_point: Any) -> Any:
        if self._training and value in self._graph.outputs and fixed_params(value, params.bits) is not None:
            return tensor
        return super().on_grid(value, tensor, params, scale, zero_point)

    def compute_output_shape(self, input_shape: Any) -> Any:
        shapes = [(None, *v.shape[1:]) for v in self._graph.outputs]
        return shapes[0] if len(shapes) == 1 else shapes

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """That of `compile`; in training, and the decay of the weights."""
        loss = keras.Model.compute_loss(self, x, y, y_pred, sample_weight, training)
        return loss + self.decay() if training and self._steps.decay else loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = keras.Model.compute_metrics(self, x, y, y_pred, sample_weight)
        return found

    # --- emitting -------------------------------------------------------------------------------------------------

    def trained_graph(self) -> Graph:
        """The annotated graph with what was trained, to be lowered to integers.

        Variables that an optimizer averaged out of their constraints (`use_ema`) are put back into them.
        """
        self.constrain()
        put_back = self._graph.remember()
        write_back(self, self._graph)
        found = self._graph.copy()
        put_back()
        return found

    # --- saving ---------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        numbers = {value: number for number, value in enumerate(self._graph.values())}
        return {
            "name": self.name,
            "graph": to_plain(self._graph),
            "steps": dataclasses.asdict(self._steps),
            "normals": [[numbers[v], n.mean.tolist(), n.std.tolist()] for v, n in self._kept.items()],
            "frozen": [node.name for node in self._graph.nodes if self._is_frozen(node.name)],
        }

    def _is_frozen(self, name: str) -> bool:
        layer = self.layer_of_node.get(name)
        return layer is not None and not layer.trainable

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Student:
        graph = from_plain(config["graph"])
        values = graph.values()
        normals = {values[i]: ChannelNormal(np.array(mean), np.array(std)) for i, mean, std in config["normals"]}
        return cls(graph, Steps(**config["steps"]), normals=normals, frozen=config["frozen"], name=config["name"])

    def save_own_variables(self, store: Any) -> None:
        for variable in self._own_variables():
            store[variable.name] = keras.ops.convert_to_numpy(variable)
        for i, state in enumerate(self.seeds()):
            store[f"seed_{i}"] = keras.ops.convert_to_numpy(state)
        for i, value in enumerate(self._beside()):
            store[f"constant_{i}"] = value.array

    def load_own_variables(self, store: Any) -> None:
        for variable in self._own_variables():
            variable.assign(np.asarray(store[variable.name]))
        for i, state in enumerate(self.seeds()):
            if f"seed_{i}" in store:  # not in what was saved by a version that drew the noise anew
                state.assign(np.asarray(store[f"seed_{i}"]))
        for i, value in enumerate(self._beside()):
            value.data = np.asarray(store[f"constant_{i}"], value.dtype.numpy).reshape(value.shape)

    def _own_variables(self) -> list[Any]:
        """Those that are no layer's."""
        steps = [] if self._activation_steps is None else [self._activation_steps]
        return [*steps, self.shifts, self._momentum]

    def _beside(self) -> list[Value]:
        """The constants that no variable stands for."""
        return [v for v in self._graph.constants() if v not in self._owner and v not in self._own]


def _blank(shape: Any) -> np.ndarray:
    """Zeros of this shape, dimensions that are not known 1. (A KerasTensor's own name would become an output's.)"""
    return np.zeros([n or 1 for n in shape], np.float32)


def _on_grid(x: Any, value: Value) -> Any:
    params = value.quant
    if params is None or not value.dtype.is_float:
        return x
    zero_point = np.float32(params.zero_point)
    return fq.fake_quantize(keras.ops.cast(x, "float32"), params.scale, zero_point, params.qmin, params.qmax)
