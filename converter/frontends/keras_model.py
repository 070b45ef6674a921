"""Keras 3 models, in memory or from files, as float graphs with static shapes and channels last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import KerasTensor

from converter.frontends.keras_import import Importer, NotFollowedError, element_type, is_graph
from converter.frontends.tflite_patterns import recognize
from converter.keras_file import load_keras
from ir.errors import ModelError, OptionError
from ir.graph import Graph, Value
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.types import TensorType

__all__ = ["NotFollowedError", "from_keras", "load_keras"]


def from_keras(
    model: keras.Model, *, batch_size: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Graph:
    """The float graph of a model's inference.

    Batch norms and activations are nodes of their own; weights are float32 in TFLite's layouts, whatever the
    dtype policy. Inputs and outputs carry the model's names for them.

    Args:
      model: functional, sequential (built), or subclassed if it computes with layers and `keras.ops` and was
      built.
      batch_size: axis 0 of every input.
      shapes: whole shapes by input name, for inputs that leave sizes open; "" is the only input.

    Raises:
      OptionError: a shape is of no input, or does not fit.
      ModelError: names the layer that cannot be converted, what was found and what to do.
    """
    _check_kind(model)
    sizes = _Sizes(batch_size, dict(shapes or {}))
    graph = Graph(model.name)
    importer = Importer(graph)
    with importer.model_frame(type(model).__name__):
        if is_graph(model):
            names = [_name(tensor) for tensor in model.outputs]
            values = [_input(graph, model, tensor, sizes) for tensor in model.inputs]
            sizes.check(graph)
            graph.outputs = importer.inline(model, values)
        else:
            tensor = _built_input(model)
            value = _input(graph, model, tensor, sizes)
            sizes.check(graph)
            graph.outputs = keras.tree.flatten(importer.apply(_inference(model), value))
            names = [f"output_{i}" for i in range(len(graph.outputs))]
    _name_outputs(graph, names)
    recognize(graph)
    return graph


def _check_kind(model: Any) -> None:
    if isinstance(model, keras.Model):
        return
    root = type(model).__module__.split(".")[0]
    legacy = root in ("tf_keras", "tensorflow")
    raise ModelError(
        expected="a Keras 3 model (keras.Model)",
        found=f"an object of {type(model).__module__}.{type(model).__name__}",
        where="model",
        fix="save it with model.save('model.h5') and convert the file" if legacy else "pass a model or the path of one",
    )


def _built_input(model: keras.Model) -> KerasTensor:
    """The one input that a model without a graph was built for."""
    if isinstance(model, keras.Sequential):
        raise ModelError(
            expected="a model with an input shape",
            found="a Sequential model that was not built",
            where=f"model '{model.name}'",
            fix="put keras.Input(shape) first, or call model.build((1, ...)) with the shape of an input",
        )
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not all(d is None or isinstance(d, int) for d in shape):
        raise NotFollowedError(
            expected="a functional or sequential model",
            found=f"a subclassed model ({type(model).__name__}) without one input of a known shape",
            where=f"model '{model.name}'",
            fix="make x = keras.Input(shape) and convert keras.Model(x, model.call(x))",
        )
    return KerasTensor(tuple(shape), name="input")


def _inference(model: keras.Model) -> Any:
    """A subclassed model's `call`, for inference."""
    import inspect

    takes = "training" in inspect.signature(model.call).parameters
    return (lambda x: model.call(x, training=False)) if takes else model.call


@dataclass(frozen=True)
class _Sizes:
    """The batch, and shapes by input name that the user gave."""

    batch_size: int
    shapes: dict[str, tuple[int, ...]]

    def of(self, name: str, known: Sequence[int | None]) -> tuple[int | None, ...]:
        """The shape of an input whose sizes the model knows in part. Raises OptionError for one that does not fit."""
        given = self.shapes.get(name) or self.shapes.get("")
        if given is None:
            return (self.batch_size, *known[1:])
        if len(given) != len(known) or any(k not in (None, g) for k, g in zip(known[1:], given[1:], strict=True)):
            raise OptionError(
                expected=f"a shape that fits {_shown(known)}",
                found=_shown(given),
                where=f"--input_shape {name}",
                fix="keep the sizes that the model fixes",
            )
        return given

    def check(self, graph: Graph) -> None:
        """Raises OptionError for shapes of inputs that are not there."""
        names = [value.name for value in graph.inputs]
        unknown = [n for n in self.shapes if n not in names and (n or len(names) > 1)]
        if unknown:
            raise OptionError(
                expected=f"an input of {', '.join(names)}",
                found=", ".join(map(repr, unknown)),
                where="--input_shape",
                fix="name one of them",
            )


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join('?' if d is None else str(d) for d in shape)})"


def _input(graph: Graph, model: keras.Model, tensor: KerasTensor, sizes: _Sizes) -> Value:
    name, dtype = _name(tensor), element_type(tensor)
    where = f"input '{name}' of model '{model.name}'"
    if dtype is None or tensor.sparse or tensor.ragged:
        raise ModelError(
            expected="numbers as input, stored densely",
            found=tensor.dtype if dtype is None else "a sparse tensor" if tensor.sparse else "a ragged tensor",
            where=where,
            fix="cut the preprocessing off the model and convert the rest",
        )
    shape = sizes.of(name, tensor.shape) if tensor.shape else ()
    known = tuple(d for d in shape if d is not None)
    if not shape or len(known) < len(shape):
        example = ",".join("SIZE" if d is None else str(d) for d in shape)
        raise ModelError(
            expected="a fixed size of every axis but the batch",
            found=f"the shape {_shown(tensor.shape)}",
            where=where,
            fix=f"pass --input_shape {name}={example} with numbers in place of SIZE"
            if shape
            else "build the model with an input such as keras.Input((224, 224, 3)), and load the same weights",
        )
    return graph.input(name, TensorType(known, dtype))


def _name(tensor: KerasTensor) -> str:
    """The name of the layer that makes a tensor: what Keras calls the inputs and outputs of models."""
    history = getattr(tensor, "_keras_history", None)
    return tensor.name if history is None or history.operation is None else history.operation.name


def _name_outputs(graph: Graph, names: list[str]) -> None:
    """Calls the outputs by the model's names for them, each a tensor of its own that is no input."""
    taken = {value.name: value for value in graph.values() if not value.is_constant}
    outputs: list[Value] = []
    for value, requested in zip(graph.outputs, names, strict=True):
        if value.is_constant or value in graph.inputs or value in outputs:
            value = graph.add(RESHAPE, [value], ReshapeAttributes(shape=value.shape), f"{requested}/copy").output
        taken.pop(value.name, None)
        name, count = requested, 0
        while name in taken and (taken[name] in graph.inputs or taken[name] in outputs):
            count += 1
            name = f"{requested}_{count}"
        if name in taken:
            other = taken.pop(name)
            other.name = graph.unique_name(f"{name}/inner")
            taken[other.name] = other
        value.name = name
        taken[name] = value
        outputs.append(value)
    graph.outputs = outputs
