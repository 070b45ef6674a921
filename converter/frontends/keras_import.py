"""From the nodes that Keras recorded to the nodes of a Graph.

Keras keeps, for every symbolic tensor, the call that made it. The importer follows these calls from the
outputs to the inputs and hands each to its handler (`keras_layers`). What has no handler is called once more
with symbolic tensors of the static shapes that the graph has there, and the calls recorded on the way are
followed in turn; so a layer of the user's own imports by itself if it computes with `keras.ops`.

Names: a layer's main node and its result are called as the layer, with the names of the models around it and
"/" before; further nodes and constants get a suffix. A layer's second call is `layer/call_1`.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, tree

from converter.frontends.keras_layers import followable, layer_handler, operation_handler, refusal
from converter.frontends.keras_masks import Masks
from converter.frontends.keras_recording import RandomDraw, recording
from converter.keras_file import first_words
from ir.errors import ConversionError, ModelError
from ir.graph import Graph, Node, Value
from ir.known import known_results
from ir.opdef import OpDef, ShapeError
from ir.types import LARGEST, DType

_LOG = logging.getLogger(__name__)

Env = dict[int, Value]  # by the identity of symbolic tensors


class NotFollowedError(ModelError):
    """What a layer computes cannot be followed call by call; TensorFlow may be able to trace it."""


@dataclass
class _Frame:
    """One call that is being imported: a layer, an operation, or a model within the model.

    `inner` is an operation inside a layer; `main` is the node that carries the call's name; `own` are nodes
    that no layer inside has named.
    """

    path: str
    kind: str
    inner: bool = False
    main: Node | None = None
    own: dict[Node, None] = field(default_factory=dict)


class Importer:
    """Adds to a graph what Keras' calls compute."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._frames: list[_Frame] = []
        self._calls: dict[str, int] = {}
        self._constants: dict[tuple[int, str], Value] = {}
        self._alive: list[Any] = []  # what is known by its identity must not be collected
        self._masks = Masks(self.apply)

    # --- for handlers -------------------------------------------------------------------------------------

    def node(self, op: OpDef, *inputs: Value | None, name: str = "", **attributes: Any) -> Value:
        """Adds a node and returns its first result; without a name it is the main one of the layer."""
        return self.nodes(op, *inputs, name=name, **attributes)[0]

    def nodes(self, op: OpDef, *inputs: Value | None, name: str = "", **attributes: Any) -> tuple[Value, ...]:
        """Adds a node and returns all its results."""
        frame = self._frames[-1]
        try:
            node = self.graph.add(op, inputs, op.attributes(**attributes), self._path(name) if name else frame.path)
        except (ShapeError, ValueError) as error:
            raise self.fail(
                "operands that fit together", str(error), "check the shapes that this layer is given"
            ) from error
        if op.weight_index is None and (known := known_results(node)) is not None:
            self.graph.remove(node)
            return tuple(r if isinstance(r, Value) else self.graph.constant(np.array(r), node.name) for r in known)
        if not name:
            frame.main = node
        frame.own[node] = None
        return node.outputs

    def constant(self, data: Any, name: str, dtype: DType = DType.FLOAT32) -> Value:
        """A constant of the present layer."""
        array = _array(data)
        if not dtype.is_float and array.dtype.kind == "f" and np.any(array != np.rint(array)):
            raise self.fail(f"a constant that fits {dtype.value}", "a fraction", "cast the integers to float first")
        array = array.astype(dtype.numpy)
        if dtype.is_float:
            self._check_finite(array, name)
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        return self.graph.constant(contiguous, self._path(name), dtype=dtype)

    def weight(self, x: Any, name: str, layout: Callable[[np.ndarray], np.ndarray] | None = None) -> Value:
        """A variable or array as a float32 constant, in TFLite's layout; all uses of a variable share it."""
        if isinstance(x, Value):
            raise self.fail(f"a constant {name}", "one that the model computes", "use a layer with weights of its own")
        key = (id(x), name)
        if key in self._constants:
            return self._constants[key]
        array = _array(x).astype(np.float32)
        value = self.constant(array if layout is None else layout(array), name)
        if isinstance(x, keras.Variable):
            self._constants[key] = value
            self._alive.append(x)
        return value

    def operand(self, x: Any, name: str = "constant", like: Value | None = None) -> Value:
        """A tensor as it is; a number, an array or a variable as a constant, its infinities as the largest float."""
        if isinstance(x, Value):
            return x
        if isinstance(x, keras.Variable) and "float" in x.dtype:
            return self.weight(x, x.name)
        dtype = DType.FLOAT32 if like is None else like.dtype
        return self.constant(np.clip(_array(x), -LARGEST, LARGEST) if dtype.is_float else x, name, dtype)

    def activation(self, function: Any, x: Value) -> Value:
        """What a layer's `activation` makes of its result."""
        return x if function is None else self.apply(function, x)

    def apply(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Imports what a function computes on `keras.ops`, such as a layer's `call`, on Values."""
        symbols: list[tuple[KerasTensor, Value]] = []

        def symbol(x: Any) -> Any:
            if not isinstance(x, Value):
                return x
            tensor = KerasTensor(x.shape, dtype=x.dtype.value.lower())
            symbols.append((tensor, x))
            if (mask := self._masks.of(x)) is not None:
                tensor._keras_mask = symbol(mask)
            return tensor

        symbolic_args, symbolic_kwargs = tree.map_structure(symbol, (args, kwargs))
        result = self._record(followable(function), symbolic_args, symbolic_kwargs)
        env = {id(tensor): value for tensor, value in symbols}
        made = tree.flatten(result)
        self.follow([t for t in made if isinstance(t, KerasTensor)], env, recorded_now=True)
        values = [env[id(t)] if isinstance(t, KerasTensor) else t if t is None else self.operand(t) for t in made]
        return tree.pack_sequence_as(result, values)

    def fail(self, expected: str, found: str, fix: str, kind: type[ModelError] = ModelError) -> ModelError:
        """The error that the present layer causes; to be raised."""
        return kind(expected=expected, found=found, where=self._where(), fix=fix)

    # --- following ----------------------------------------------------------------------------------------

    def follow(self, tensors: Sequence[KerasTensor], env: Env, *, recorded_now: bool = False) -> None:
        """Imports the calls that make `tensors`; `env` has the inputs' values and gets those of the others.

        `recorded_now`: the calls were recorded by `apply`; they are taken out of the layers' records again.
        """
        calls = list(self._order(tensors, env))
        for call in calls:
            args, kwargs = call.arguments.convert(lambda x: env[id(x)] if isinstance(x, KerasTensor) else x)
            results = tree.flatten(self._call(call.operation, args, kwargs, recorded_now))
            for tensor, value in zip(call.outputs, results, strict=True):
                _compare_shape(tensor, value, call.operation)
                env[id(tensor)] = value
        if recorded_now:
            for call in calls:
                call.operation._inbound_nodes.remove(call)

    def inline(self, model: Any, values: Sequence[Value]) -> list[Value]:
        """Imports a model that is a graph; `values` stand for its inputs."""
        env = {id(tensor): value for tensor, value in zip(model.inputs, values, strict=True)}
        self.follow(model.outputs, env)
        return [env[id(tensor)] for tensor in model.outputs]

    def _order(self, tensors: Sequence[KerasTensor], env: Env) -> Iterator[Any]:
        """The calls that have to be made, each after those that it depends on."""
        done: set[int] = set()
        stack = [(call, False) for t in reversed(tensors) if (call := self._maker(t, env)) is not None]
        while stack:
            call, ready = stack.pop()
            if id(call) in done:
                continue
            if ready:
                done.add(id(call))
                yield call
                continue
            stack.append((call, True))
            sources = [self._maker(t, env) for t in reversed(call.input_tensors)]
            stack.extend((source, False) for source in sources if source is not None and id(source) not in done)

    def _maker(self, tensor: KerasTensor, env: Env) -> Any:
        if id(tensor) in env:
            return None
        operation, index, _ = getattr(tensor, "_keras_history", (None, 0, 0))
        call = None if operation is None else operation._inbound_nodes[index]
        if call is None or call.is_input:
            raise self.fail(
                "a graph that hangs together",
                f"the tensor '{tensor.name}', which is not computed from the model's inputs",
                "build the model from all the inputs that its outputs depend on",
            )
        return call

    def _call(self, operation: Any, args: Any, kwargs: Any, recorded_now: bool) -> Any:
        if not isinstance(operation, keras.Layer):
            name = _snake(type(operation).__name__) if recorded_now else operation.name
            with self._frame(name, type(operation).__name__, f"{name}_{{}}", inner=recorded_now) as frame:
                return self._named(frame, self._operation(operation, args, kwargs))
        with self._frame(operation.name, type(operation).__name__, f"{operation.name}/call_{{}}") as frame:
            if is_graph(operation):
                return self.inline(operation, self._model_inputs(operation, args, kwargs))
            return self._named(frame, self._layer(operation, args, kwargs))

    def _operation(self, operation: Any, args: Any, kwargs: Any) -> Any:
        handler = operation_handler(operation)
        if handler is None:
            raise self.fail(
                "an operation that TensorFlow Lite has and that is known here",
                f"keras.ops operation {type(operation).__name__}",
                "compute it outside the model, or write it with other functions of keras.ops",
                NotFollowedError,
            )
        return handler(self, operation, *args, **kwargs)

    def _layer(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        kwargs = self._masks.fill_in(layer, args, self._inference_arguments(layer, kwargs))
        results = self._computed(layer, args, kwargs)
        self._masks.hand_on(layer, args, kwargs, results)
        return results

    def _computed(self, layer: keras.Layer, args: Any, kwargs: dict[str, Any]) -> Any:
        handler = layer_handler(layer)
        if handler is not None:
            return handler(self, layer, *args, **kwargs)
        if "training" in inspect.signature(layer.call).parameters:
            kwargs = kwargs | {"training": False}
        return self.apply(layer.call, *args, **kwargs)

    def _inference_arguments(self, layer: keras.Layer, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments without those that say what is so anyway; raises for what cannot be converted."""
        refused = refusal(layer)
        if refused is not None:
            raise self.fail("a layer that can be converted", *refused, NotFollowedError)
        if getattr(layer, "data_format", None) == "channels_first":
            raise self.fail(
                "data_format='channels_last'",
                "data_format='channels_first'",
                "build the model with channels_last and load the same weights (kernels have the same layout)",
            )
        if getattr(layer, "quantization_mode", None) is not None:
            raise self.fail(
                "float weights",
                f"a layer quantized by Keras ({layer.quantization_mode})",
                "convert the model as it was before model.quantize()",
            )
        default = inspect.signature(layer.call).parameters.get("training")
        if kwargs.get("training") and not (default is not None and default.default is True):
            _LOG.warning("%s: called with training=True, which is not kept (nor does model.predict)", self._where())
        kept = {}
        for name, value in kwargs.items():
            is_mask = name == "mask" or name.endswith("_mask")
            if name != "training" and not (is_mask and all(v is None for v in tree.flatten(value))):
                kept[name] = value
        return kept

    def _model_inputs(self, model: Any, args: Any, kwargs: Any) -> list[Value]:
        """The values for a nested model's inputs, in its order and of its ranks."""
        given = args[0] if args else next(v for k, v in kwargs.items() if k not in ("training", "mask"))
        self._masks.give(given, self._inference_arguments(model, {k: v for k, v in kwargs.items() if k == "mask"}))
        if isinstance(given, dict) and not isinstance(getattr(model, "input", None), dict):
            given = [given[tensor.name] for tensor in model.inputs]
        values = tree.flatten(given)
        return [
            self.apply(keras.ops.reshape, v, (v.shape[0], *t.shape[1:])) if len(t.shape) != len(v.shape) else v
            for v, t in zip(values, model.inputs, strict=True)
        ]

    def _record(self, function: Any, args: Any, kwargs: Any) -> Any:
        try:
            with recording():
                return function(*args, **kwargs)
        except ConversionError:
            raise
        except RandomDraw as error:
            raise self.fail(
                "a network that answers the same twice",
                "a random draw (keras.random), which would become a constant of the file",
                "draw in training only, or build the model that ends before the draw (a VAE's mean)",
            ) from error
        except Exception as error:  # the user's own code: anything can happen
            raise self.fail(
                "a layer of Keras that is known here, or one that computes with keras.ops only",
                f"one that cannot be followed ({first_words(error)})",
                "write its call() with keras.ops, or replace it by layers of Keras",
                NotFollowedError,
            ) from error

    # --- names --------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        prefix = self._frames[-1].path
        return f"{prefix}/{name}" if prefix else name

    @contextmanager
    def _frame(self, name: str, kind: str, again: str, *, inner: bool = False) -> Iterator[_Frame]:
        """The frame of one call; `again` makes the name of further calls."""
        count = self._calls.get(self._path(name), 0)
        self._calls[self._path(name)] = count + 1
        frame = _Frame(self._path(again.format(count) if count else name), kind, inner)
        self._frames.append(frame)
        try:
            yield frame
        finally:
            self._frames.pop()

    @contextmanager
    def model_frame(self, kind: str) -> Iterator[None]:
        """The frame of the whole model, which gives no name."""
        self._frames.append(_Frame("", kind))
        try:
            yield
        finally:
            self._frames.pop()

    def _named(self, frame: _Frame, results: Any) -> Any:
        """Gives the call's name to its main node and its result; an inner operation's may be given again."""
        values = tree.flatten(results)
        node = values[0].producer if len(values) == 1 and isinstance(values[0], Value) else None
        if node is not None and node in frame.own:
            if frame.main is None:
                node.name, frame.main = frame.path, node
            if frame.main is not node:
                frame.main.output.name = self.graph.unique_name(f"{frame.path}/{frame.main.op.name}")
            node.output.name = frame.path
        if frame.inner:
            self._frames[-2].own.update(frame.own)
        return results

    def _where(self) -> str:
        layers = [frame for frame in self._frames if frame.path and not frame.inner]
        if not layers:
            return f"model '{self.graph.name}'"
        return f"layer '{layers[-1].path}' ({layers[-1].kind})"

    def _check_finite(self, array: np.ndarray, name: str) -> None:
        bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
        if bad:
            raise self.fail(
                "finite weights",
                f"{bad} NaN or infinite of the {np.size(array)} values of '{name}'",
                "take the model from before its training diverged",
            )


def is_graph(operation: Any) -> bool:
    """Whether an operation is a model whose graph Keras knows: functional or sequential."""
    if (
        not isinstance(operation, (keras.Model, keras.Function))
        or type(operation).call.__module__.split(".")[0] != "keras"
    ):
        return False
    try:
        return bool(operation.inputs) and bool(operation.outputs)
    except AttributeError:
        return False


def _array(x: Any) -> np.ndarray:
    if isinstance(x, (np.ndarray, np.generic, bool, int, float, list, tuple)):
        return np.asarray(x)
    return np.asarray(keras.ops.convert_to_numpy(x))


def _compare_shape(tensor: KerasTensor, value: Value, operation: Any) -> None:
    """Says where a shape, the batch apart, is not what Keras announced: some of its layers are wrong."""
    expected, found = tensor.shape, value.shape
    if len(expected) != len(found) or any(w not in (None, f) for w, f in zip(expected[1:], found[1:], strict=True)):
        kind = type(operation).__name__
        _LOG.warning("%s '%s' announces the shape %s, but computes %s", kind, operation.name, expected, found)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.replace("ReLU", "Relu")).lower()


def element_type(tensor: KerasTensor) -> DType | None:
    """The element type of an input in the graph, float32 for all floats; None if TFLite has none for it."""
    if "float" in tensor.dtype:
        return DType.FLOAT32
    return DType.__members__.get(tensor.dtype.upper())
