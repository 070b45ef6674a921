"""A parsed file is checked once, whole, before anything believes it.

What can be known without knowing what the file is for: its tensors hold what shape and type say, its operators have the
operands, results, attributes and shapes that the table declares, and everything is computed before it is read.
"""

from __future__ import annotations

import math

import numpy as np

from converter.tflite.codec import BY_CODE, decode_attributes, is_stored, layout
from converter.tflite.constants import MISFITS, constant_array
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord, TensorRecord
from converter.tflite.variables import CODES, form_problem
from ir.errors import ModelError
from ir.opdef import OpDef, Role
from ir.types import DType, TensorType, given

MAX_ELEMENTS = 1 << 28  # of one tensor: 1 GiB in float32


def check(file: ModelFile) -> None:
    """Raises ModelError for the first thing in a file that cannot be."""
    if not file.main.outputs:
        raise _error(file, "a model with outputs", "none", "")
    for graph in file.subgraphs:
        for tensor in graph.tensors:
            if problem := _tensor_problem(tensor):
                raise _error(file, *problem, f"tensor '{tensor.name}'")
        known = _given(graph)
        for position, operator in enumerate(graph.operators):
            if problem := _order_problem(graph, operator, known) or _operator_problem(graph, operator):
                raise _error(file, *problem, f"operator {position} ({operator.code})")
            known.update(operator.outputs)
        missing = next((i for i in graph.outputs if i not in known), None)
        if missing is not None:
            raise _error(file, "outputs that are computed", f"'{graph.tensors[missing].name}', which nothing makes", "")


def _error(file: ModelFile, expected: str, found: str, where: str) -> ModelError:
    place = f"{file.path}, {where}" if where else file.path
    return ModelError(expected=expected, found=found, where=place, fix="write or download the file again")


Problem = tuple[str, str] | None  # what was expected and what was found

# --- tensors ----------------------------------------------------------------------------------------------------------


def _tensor_problem(tensor: TensorRecord) -> Problem:
    size = math.prod(tensor.shape)
    if size > MAX_ELEMENTS:
        return f"at most {MAX_ELEMENTS} elements", f"shape {tensor.shape}"
    dtype = DType.__members__.get(tensor.type_name)
    if dtype is None:
        return None
    needed = -(-size * dtype.bits // 8)
    if tensor.data is not None and tensor.sparsity is None and tensor.data.size != needed:
        return f"{needed} bytes for shape {tensor.shape} of {dtype.value}", f"{tensor.data.size} bytes"
    return None if dtype.is_float or dtype is DType.BOOL else _quantization_problem(tensor)


def _quantization_problem(tensor: TensorRecord) -> Problem:
    scales, axis = tensor.scale, tensor.quantized_dimension
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        return "positive, finite scales", f"{scales[~(np.isfinite(scales) & (scales > 0))][0]}"
    if scales.size > 1 and not (0 <= axis < len(tensor.shape) and tensor.shape[axis] == scales.size):
        return "one scale, or one per index of an axis", f"{scales.size} scales along axis {axis} of {tensor.shape}"
    if scales.size > 1 and tensor.is_variable:
        return "one scale for what a file keeps between invocations", f"{scales.size} scales"
    if tensor.zero_point.size not in (0, scales.size):
        return "as many zero points as scales", f"{tensor.zero_point.size} for {scales.size}"
    return None


# --- operators --------------------------------------------------------------------------------------------------------


def _given(graph: SubgraphRecord) -> set[int]:
    """The tensors that are there before an operator runs."""
    stored = (i for i, t in enumerate(graph.tensors) if t.data is not None or t.is_variable or 0 in t.shape)
    return {*graph.inputs, *stored}


def _order_problem(graph: SubgraphRecord, operator: OperatorRecord, known: set[int]) -> Problem:
    if operator.code.startswith("CUSTOM:"):
        return None  # it may work in tensors that nothing fills, and write to states
    early = next((i for i in operator.inputs if i >= 0 and i not in known), None)
    if early is not None:
        found = f"tensor '{graph.tensors[early].name}', which nothing has computed"
        return "constants and the results of earlier operators", found
    again = next((i for i in operator.outputs if i in known and 0 not in graph.tensors[i].shape), None)
    if again is not None or len(set(operator.outputs)) != len(operator.outputs):
        return "results that are computed once", f"'{graph.tensors[again or 0].name}' a second time"
    return None


def _operator_problem(graph: SubgraphRecord, operator: OperatorRecord) -> Problem:
    if operator.code in CODES:
        return form_problem(operator)
    op = BY_CODE.get(operator.code)
    if op is None:
        return None
    if problem := _count_problem(op, operator):
        return problem
    operands = [None if i < 0 else graph.tensors[i] for i in operator.inputs]
    results = [graph.tensors[i] for i in operator.outputs]
    stored = _stored_attributes(op, operands)
    if any(t is not None and t.data is None for t in stored.values()):
        return None  # computed sizes: not known before the model runs
    try:
        constants = {name: constant_array(t, "") for name, t in stored.items() if t is not None}
        attrs = decode_attributes(op, operator.options_name, operator.options, constants)
        if problem := _bias_problem(op, _graph_order(op, operands)):
            return problem
        if not all(_is_static(t) for t in (*results, *operands) if t is not None):
            return None
        in_types, out_types = [_type(t) for t in _graph_order(op, operands)], [_type(t) for t in results]
        attrs = op.as_read(attrs, in_types, [t for t in out_types if t is not None])
        inferred = [t.shape for t in op.infer(attrs, [t for t in in_types if t is not None])]
        if misfit := op.misfit(attrs, in_types):
            return "operands that fit together", misfit
    except (ModelError, *MISFITS) as error:
        return "operands and options that fit together", str(error) or type(error).__name__
    found = [t.shape for t in results]
    return None if found == inferred else (f"results of shape {inferred[:4]}", f"{found[:4]}")


def _count_problem(op: OpDef, operator: OperatorRecord) -> Problem:
    """Operands and results as many as declared, and those that an operator cannot do without."""
    found = len(operator.outputs)
    if found != (op.results or max(found, 1)):
        return f"{op.results or 'some'} results", str(found)
    if op.operands and op.operands[-1].variadic:
        return None if operator.inputs and min(operator.inputs) >= 0 else ("operands", "none or absent ones")
    declared = {o.name: o for o in op.operands}
    names = layout(op) or tuple(declared)
    needed = [not (declared[n].optional if n in declared else is_stored(op, n)) for n in names]
    least = max((i + 1 for i, need in enumerate(needed) if need), default=0)
    if not least <= len(operator.inputs) <= len(names):
        return f"{least} to {len(names)} operands ({', '.join(names[:8])})", str(len(operator.inputs))
    absent = (n for n, i, need in zip(names, operator.inputs, needed, strict=False) if i < 0 and need)
    return next(((f"the operand '{name}'", "none") for name in absent), None)


def _stored_attributes(op: OpDef, operands: list[TensorRecord | None]) -> dict[str, TensorRecord | None]:
    """The operands that stand for attributes."""
    attributes = op.attributes.__dataclass_fields__
    return {name: t for name, t in zip(layout(op) or (), operands, strict=False) if name in attributes}


def _graph_order(op: OpDef, operands: list[TensorRecord | None]) -> list[TensorRecord | None]:
    """The operands that are none of the attributes, in the declared order."""
    names = layout(op)
    if names is None:
        return operands
    by_name = dict(zip(names, operands, strict=False))
    return [by_name[o.name] for o in op.operands if o.name in by_name]


def _bias_problem(op: OpDef, operands: list[TensorRecord | None]) -> Problem:
    """A bias has a number for each output channel, a real one where the weights are; inference looks at the weights only."""
    weights = [i for i, o in enumerate(op.operands) if o.role is Role.WEIGHT]
    if op.bias_index is None or op.bias_index >= len(operands) or len(weights) != 1:
        return None
    bias, weight = operands[op.bias_index], operands[weights[0]]
    if bias is None or weight is None:
        return None
    if _is_real(weight) and not _is_real(bias):
        return "a bias of reals, as the weights are", bias.type_name
    channels = weight.shape[given([op.weight_operand.channel_axis])]
    fits = math.prod(bias.shape) == channels
    return None if fits else (f"a bias of {channels} numbers", f"one of shape {bias.shape}")


def _is_real(tensor: TensorRecord) -> bool:
    dtype = DType.__members__.get(tensor.type_name)
    return dtype is not None and dtype.is_float


def _is_static(tensor: TensorRecord) -> bool:
    """Whether the shape is all known, and the type is one that the table has."""
    return -1 not in tensor.shape_signature and tensor.type_name in DType.__members__


def _type(tensor: TensorRecord | None) -> TensorType | None:
    return None if tensor is None else TensorType(tensor.shape, DType[tensor.type_name])
