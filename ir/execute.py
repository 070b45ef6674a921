"""Running a graph: floats on `keras.ops` (any Keras backend), integers on NumPy (exact).

Both walk the nodes once and drop every tensor after its last use, so memory stays that of the widest place.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ir.errors import ConversionError, RuntimeFailure, first_words
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.opdef import IntegerCall, ShapeError
from ir.profile import Profile
from ir.supported import refuse
from ir.types import TensorType

Transform = Callable[[Value, Any], Any]

_FEW_BATCHES = 4  # what tracing a graph costs; networks of pictures have more batches of a hundred samples
_FEW_STEPS = 12  # of training: tracing costs as much as some sixteen of them
_NUMBERS = 1 << 23  # of all tensors: 32 MB
_MOST_ROWS = 128


def walk(
    graph: Graph,
    inputs: Sequence[Any],
    constant: Callable[[Value], Any],
    apply: Callable[[Node, list[Any]], Sequence[Any]],
    transform: Transform | None,
    requested: Iterable[Value] | None = None,
) -> list[Any]:
    """Visits the nodes in order: `apply(node, tensors of its inputs)` gives those of its outputs.

    What stands for a tensor is the caller's affair; `run_float` and `run_integer` are the two usual ones.
    Nodes that nothing `requested` depends on are not visited; by default all are, and the outputs are returned.
    """
    assert len(inputs) == len(graph.inputs), f"{len(graph.inputs)} inputs expected, {len(inputs)} given"
    results_of = list(graph.outputs if requested is None else requested)
    nodes = graph.nodes if requested is None else needed(graph, results_of)
    keep = set(results_of)
    left = Counter(v for node in nodes for v in node.operands)
    tensors: dict[Value, Any] = {}

    def store(value: Value, tensor: Any) -> None:
        tensors[value] = tensor if transform is None else transform(value, tensor)

    def fetch(value: Value) -> Any:
        if value not in tensors:
            store(value, constant(value))
        return tensors[value]

    for value, tensor in zip(graph.inputs, inputs, strict=True):
        store(value, tensor)
    for node in nodes:
        results = apply(node, [None if v is None else fetch(v) for v in node.inputs])
        for value, tensor in zip(node.outputs, results, strict=True):
            store(value, tensor)
        for used in node.inputs:
            if used is not None:
                left[used] -= 1
                if not left[used] and used not in keep:
                    tensors.pop(used, None)
    return [fetch(v) for v in results_of]


def needed(graph: Graph, requested: Iterable[Value]) -> list[Node]:
    """The nodes that make `requested` or something that it depends on, in order."""
    values = set(requested)
    found: list[Node] = []
    for node in reversed(graph.nodes):
        if not values.isdisjoint(node.outputs):
            values.update(node.operands)
            found.append(node)
    return found[::-1]


def run_float(
    graph: Graph, inputs: Sequence[Any], *, requested: Iterable[Value] | None = None, transform: Transform | None = None
) -> list[Any]:
    """Computes the graph in float with `keras.ops`; traceable and differentiable.

    Args:
      inputs: one tensor per graph input; axis 0 may hold any number of samples if `batchable(graph)`.
      requested: which values to return (what they do not depend on is not computed), the outputs by default.
      transform: called with every value (inputs, constants, results) and its tensor; what it returns is used in
        place of the tensor. Fake quantization, statistics and trained parameters hook in here.
    """

    def apply(node: Node, tensors: list[Any]) -> Sequence[Any]:
        with _explained(node):
            result = node.op.compute(node.attrs, *tensors)
        return result if isinstance(result, (tuple, list)) else (result,)

    return walk(graph, inputs, lambda value: K.convert_to_tensor(value.array), apply, transform, requested)


def run_integer(
    graph: Graph,
    inputs: Sequence[np.ndarray],
    profile: Profile,
    *,
    requested: Iterable[Value] | None = None,
    transform: Transform | None = None,
) -> list[np.ndarray]:
    """Computes an integer graph exactly as the kernels of `profile` do; arguments as for `run_float`.

    Operators that were left in float are computed with `keras.ops`, to rounding. Raises RuntimeFailure for an operator
    that those kernels do not compute, or compute as something else.
    """
    refuse(graph, profile)

    def apply(node: Node, tensors: list[Any]) -> Sequence[Any]:
        result_type = node.op.infer(node.attrs, [v.type for v in node.operands])[0]  # whatever a file says of it
        floats = result_type.dtype.is_float or node.outputs[0].dtype.is_float
        if node.op.integer is None or (floats and not node.op.is_conversion):
            result = node.op.compute(node.attrs, *tensors)
            listed = result if isinstance(result, (tuple, list)) else (result,)
            return [_as_stored(node, K.convert_to_numpy(r), v) for r, v in zip(listed, node.outputs, strict=True)]
        batch = next(
            (len(t) for t, v in zip(tensors, node.inputs, strict=True) if v and not v.is_constant and t.ndim), 1
        )
        call = IntegerCall(node.attrs, tensors, node.in_types, [_batched(t, batch) for t in node.out_types], profile)
        return node.op.integer(call)

    def explained(node: Node, tensors: list[Any]) -> Sequence[Any]:
        with _explained(node):
            return apply(node, tensors)

    return walk(graph, inputs, lambda value: value.array, explained, transform, requested)


@contextlib.contextmanager
def _explained(node: Node) -> Iterator[None]:
    """Says which layer cannot be computed: what a file says of one may fit, but not the numbers, such as indices."""
    try:
        yield
    except (ConversionError, NameError):
        raise
    except Exception as error:  # of the backend, too
        raise RuntimeFailure(
            expected="operands that a layer can be computed from",
            found=f"{type(error).__name__} ({first_words(error)})",
            where=f"layer '{node.name}' ({node.op.name})",
            fix="correct the model, or write it again",
        ) from error


def _as_stored(node: Node, result: np.ndarray, value: Value) -> np.ndarray:
    """A result in the type that its file gives it, which must be one of the same kind."""
    expected = value.dtype.numpy
    if result.dtype.kind != expected.kind:
        raise RuntimeFailure(
            expected="operators that the emulator computes exactly",
            found=f"{node.op.name} of {result.dtype} where the file says {expected}",
            where=f"layer '{node.name}'",
            fix="use another runtime, or convert the float network again",
        )
    return result.astype(expected, copy=False)


def _batched(type_: TensorType, batch: int) -> TensorType:
    if not type_.shape or type_.shape[0] != 1 or batch == 1:
        return type_
    return TensorType((batch, *type_.shape[1:]), type_.dtype, type_.quant)


def batchable(graph: Graph) -> bool:
    """Whether axis 0 of every input is a batch: shape inference with several samples gives the same shapes otherwise.

    Layers and reshapes may make several rows of a sample, one after the other. No axis is as long as there are samples:
    it would be taken for theirs where an operand has fewer axes than the other (`[n, 3, 1, c] + [n, 5, c]`, n = 3).
    """
    if any(not v.shape or v.shape[0] != 1 for v in (*graph.inputs, *graph.outputs)):
        return False
    sizes = {size for v in graph.values() for size in v.shape}
    samples = next(n for n in itertools.count(3) if n not in sizes)
    types: dict[Value, TensorType] = {v: TensorType((samples, *v.shape[1:]), v.dtype, v.quant) for v in graph.inputs}
    for node in graph.nodes:
        try:
            results = node.op.infer(node.attrs, [types.get(v, v.type) for v in node.operands])
        except ShapeError:
            return False
        for value, result in zip(node.outputs, results, strict=True):
            moving = any(v in types for v in node.operands)
            rows = value.shape[0] if value.shape and (node.op.matrix or node.op.rearranges) else 1
            if moving and result.shape != (samples * rows, *value.shape[1:]):
                return False
            if moving:
                types[value] = result
    return True


def rows_at_a_time(graph: Graph, least: int) -> int:
    """How many samples to run at once: `least`, or more of a graph whose tensors are small.

    Of such a graph an operator's call costs more than its numbers, and it is the same for one sample and for many.
    """
    numbers = sum(v.type.size for v in graph.values() if not v.is_constant)
    return max(least, min(_MOST_ROWS, _NUMBERS // max(numbers, 1)))


def runner(
    function: Callable[[list[Any]], list[Any]], samples: int, rows: int
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """A function of so many rows at a time as it is, or compiled where there are more batches than compiling costs."""
    return eager(function) if few_batches(samples, rows) else compiled(function)


def few_batches(samples: int, rows: int) -> bool:
    """Whether samples are so few batches that compiling costs more than it saves."""
    return samples <= _FEW_BATCHES * rows


def few_steps(steps: int) -> bool:
    """Whether training takes so few steps that compiling one costs more than it saves.

    On TensorFlow, whose kernels are the same either way; JAX compiles every operator by itself where it does not
    compile the step.
    """
    import keras

    return keras.backend.backend() == "tensorflow" and steps <= _FEW_STEPS


def eager(function: Callable[[list[Any]], list[Any]]) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """A function on backend tensors, as it is: arrays in, arrays out. For a few batches, not worth compiling."""
    return lambda arrays: [K.convert_to_numpy(y) for y in function([K.convert_to_tensor(x) for x in arrays])]


def compiled(function: Callable[[list[Any]], list[Any]]) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """A function on backend tensors, compiled by Keras for its backend: arrays in, arrays out.

    `function` takes and returns lists of tensors; it is traced once per shape of its inputs, which costs as much as
    some ten batches of samples.
    """
    import keras

    class Compiled(keras.Model):
        def call(self, tensors: Any) -> Any:
            return function(list(tensors))

    model = Compiled()
    model.compile(jit_compile=False)  # XLA on a CPU compiles for longer than it saves

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(model.predict_on_batch(list(arrays)))

    weakref.finalize(run, release, model).atexit = False
    return run


def release(model: Any) -> None:
    """Frees the memory of a Keras model that is not called again.

    Such a model lies in cycles of references: its compiled graphs, with copies of all weights, would stay until
    Python's collector comes by, which may be several models later; and glibc keeps what was freed unless it is asked.
    """
    vars(model).clear()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)
