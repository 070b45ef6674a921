"""What functions of TensorFlow hold in a form that its converter does not read. TensorFlow is imported in here.

Recurrent layers, `tf.scan` and `tf.map_fn` keep lists (`TensorList...`), whose elements have the shapes that were known when
they were traced: with an open batch, which the converter to TFLite refuses even where the batch is fixed by now. So
variables become constants, whose handles it loses inside loops, and elements get the batch for their open first axis.

Keras's argmax and argmin choose a number next to zero in place of a negative zero, whose sign they find among its bits: a
choice that no result of theirs shows but for zeros of both signs, by operators that TFLite does not have. It is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

_LOOPS = ("While", "StatelessWhile")
_ELEMENT_SHAPES = {  # which operand of an operator is the shape of elements
    "TensorListReserve": 0,
    "EmptyTensorList": 0,
    "TensorListFromTensor": 1,
    "TensorListStack": 1,
    "TensorListGetItem": 2,
}


def is_unread(function: Any) -> bool:
    """Whether a function, or one that it calls, loops or looks for negative zeros, and none of them assigns a variable."""
    definition = function.graph.as_graph_def()
    found = {node.op for nodes in _bodies(definition) for node in nodes}
    if any(op.startswith("Assign") for op in found):
        return False
    return not found.isdisjoint(_LOOPS) or any(_guards(nodes) for nodes in _bodies(definition))


def readable(function: Any, batch: int) -> Any:
    """The same function, its variables constants, elements of lists of known shapes, zeros without a sign."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    definition = frozen.graph.as_graph_def()
    for nodes in _bodies(definition):
        _close(nodes, batch)
        for guard in _guards(nodes):
            guard.op, guard.input[:] = "Identity", [guard.input[2]]
    _rename(definition)
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    starts, ends = (
        [imported.graph.get_tensor_by_name(t.name) for t in each] for each in (frozen.inputs, frozen.outputs)
    )
    inner = imported.prune(starts, ends)
    names = sorted(function.structured_outputs)

    def call(*tensors: Any) -> Any:
        found = inner(*tensors)
        return dict(zip(names, found if isinstance(found, (list, tuple)) else [found], strict=True))

    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name.partition(":")[0]) for t in starts]
    return tf.function(call, input_signature=specs).get_concrete_function()


def _bodies(definition: Any) -> Iterable[Any]:
    """The nodes of a graph, and those of its functions."""
    yield definition.node
    for function in definition.library.function:
        yield function.node_def


def _close(nodes: Any, batch: int) -> None:
    """Writes the batch into shapes of elements that leave their first axis open."""
    import tensorflow as tf

    by_name = {node.name: node for node in nodes}
    for node in nodes:
        index = _ELEMENT_SHAPES.get(node.op)
        source = None if index is None else by_name.get(node.input[index].partition(":")[0])
        if source is None or source.op != "Const":
            continue
        shape = np.array(tf.make_ndarray(source.attr["value"].tensor))
        if shape.ndim == 1 and shape.size and shape[0] == -1:
            shape[0] = batch
            source.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(shape))


def _guards(nodes: Any) -> list[Any]:
    """The choices of the number next to zero."""
    import tensorflow as tf

    by_name = {node.name: node for node in nodes}
    found = []
    for node in nodes:
        chosen = by_name.get(node.input[1].partition(":")[0]) if node.op == "SelectV2" else None
        if chosen is not None and chosen.op == "Const":
            number = tf.make_ndarray(chosen.attr["value"].tensor)
            if number.dtype.kind == "f" and number.shape == () and number == -np.finfo(number.dtype).tiny:
                found.append(node)
    return found


def _rename(definition: Any) -> None:
    """Gives the functions names of their own: TensorFlow keeps those of the first that it saw."""
    names = {function.signature.name for function in definition.library.function}
    for nodes in _bodies(definition):
        for node in nodes:
            for attribute in node.attr.values():
                if attribute.HasField("func") and attribute.func.name in names:
                    attribute.func.name += "_known"
    for function in definition.library.function:
        function.signature.name += "_known"
