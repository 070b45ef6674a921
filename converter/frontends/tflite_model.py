"""Float `.tflite` files as float graphs: static shapes, float32 constants, activations as nodes of their own.

What is done on the way: constants of half precision, of 8 or fewer bits with scales, and sparse ones become float32;
operators whose operands are all constant are computed (so nothing is left of shape arithmetic); fused activations
are taken out, because quantization treats them by themselves and fuses them again; the compositions that exporters
make of PReLU, softmax and the like are recognized (`tflite_patterns`). Batch norms are already folded in such files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.frontends.hints import fix_for
from converter.frontends.lstm import check_lstm
from converter.frontends.naming import rename, separate
from converter.frontends.options import ModelOptions
from converter.frontends.tflite_complex import (
    OF_COMPLEX,
    TO_REALS,
    TRANSFORM,
    Pair,
    complex_found,
    transform_size,
    transformed,
    with_reals,
)
from converter.frontends.tflite_lists import mend_lists
from converter.frontends.tflite_loops import CALLS, IF, Loops, Operand, chosen, operators, within, written_out
from converter.frontends.tflite_part import (
    AGAIN,
    file_error,
    input_names,
    input_shapes,
    output_names,
    outputs_of,
    reachable,
    signature_of,
)
from converter.frontends.tflite_patterns import recognize
from converter.tflite.codec import BY_CODE, decode_attributes
from converter.tflite.constants import MISFITS, constant_array
from converter.tflite.model_file import load, parse
from converter.tflite.reader import GraphReader, tensor_type
from converter.tflite.records import ModelFile, OperatorRecord, Signature, SubgraphRecord, TensorRecord
from converter.tflite.variables import CODES
from ir.errors import ModelError
from ir.graph import Graph, Value
from ir.known import computed
from ir.opdef import OpDef, Role
from ir.ops.conversion import CAST
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM
from ir.ops.shape import RESHAPE
from ir.types import LARGEST, DType, TensorType

_MOST_LISTED = 8


def from_tflite(model: str | Path | bytes | ModelFile, options: ModelOptions | None = None) -> Graph:
    """The float graph of a file or its bytes.

    Raises:
      ModelError: the file is damaged or already quantized, leaves sizes open, or holds operators that cannot be
        converted; all of these are listed.
      OptionError: the options name what the file does not have.
    """
    options = options or ModelOptions()
    file = model if isinstance(model, ModelFile) else parse(model) if isinstance(model, bytes) else load(model)
    signature = signature_of(file, options)
    subgraph = file.subgraphs[signature.subgraph] if signature else file.main
    outputs = outputs_of(file, subgraph, signature, options)
    requested = reachable(file, subgraph, outputs)
    _check_operators(file, subgraph, requested)
    _check_quantization(file, subgraph, requested)
    shapes = input_shapes(file, subgraph, signature, options)
    reader = FloatReader(file, subgraph, shapes, outputs, requested)
    graph = reader.read()
    _rename(graph, subgraph, signature, outputs, options)
    own = len(graph.outputs)
    reader.variables.close(graph)
    graph.outputs = list(
        separate(graph, [v.name for v in graph.outputs[:own]] + [f"{r.name}/next" for r, _ in graph.carried])
    )
    recognize(graph)
    return graph


# --- what is refused before reading -----------------------------------------------------------------------------------


def _check_operators(file: ModelFile, subgraph: SubgraphRecord, requested: list[int]) -> None:
    unknown = {}
    for part, operator in operators(file, subgraph, requested):
        if operator.code not in BY_CODE and operator.code not in (*CODES, *CALLS, *OF_COMPLEX):
            makes = part.tensors[operator.outputs[0]].name if operator.outputs else "nothing"
            unknown[f"{operator.code} '{makes}'"] = operator.code
    if not unknown:
        return
    shown = "; ".join(list(unknown)[:_MOST_LISTED])
    more = f"; and {len(unknown) - _MOST_LISTED} more" if len(unknown) > _MOST_LISTED else ""
    raise file_error(
        file,
        "operators of the table",
        f"{len(unknown)} others: {shown}{more}",
        fix_for(unknown.values()),
    )


def _check_quantization(file: ModelFile, subgraph: SubgraphRecord, requested: list[int]) -> None:
    """Refuses files whose activations are integers already."""
    activations = list(subgraph.inputs) + [i for p in requested for i in subgraph.operators[p].outputs]
    integers = [subgraph.tensors[i] for i in activations if _is_quantized(subgraph.tensors[i])]
    if integers:
        example = f"'{integers[0].name}' of {integers[0].type_name}"
        raise file_error(
            file,
            "a float model",
            f"one that is already quantized ({len(integers)} tensors, such as {example})",
            "convert the float model that it was made from",
        )


def rounded_weights(file: ModelFile) -> tuple[str, ...]:
    """A warning where weights are integers already, though the network computes with reals ("dynamic range")."""
    found = [t for subgraph in file.subgraphs for t in subgraph.tensors if _is_quantized(t)]
    if not found:
        return ()
    return (
        f"{len(found)} weights of this file are integers already (dynamic range), such as '{found[0].name.partition(';')[0]}': what that lost stays lost, "
        "and is not in the figures; convert the float network that it was made from",
    )


def _is_quantized(record: TensorRecord) -> bool:
    return record.type_name in ("INT8", "UINT8", "INT16", "INT4") and record.scale.size > 0


# --- reading ----------------------------------------------------------------------------------------------------------


class FloatReader(GraphReader):
    """Reads the requested operators with shapes computed again, and computes at once what is constant."""

    def __init__(
        self,
        model: ModelFile,
        subgraph: SubgraphRecord,
        shapes: dict[int, tuple[int, ...]],
        outputs: tuple[int, ...],
        requested: list[int],
    ) -> None:
        super().__init__(model, with_reals(subgraph))
        self._pairs: dict[int, Pair] = {}
        self._shapes, self._outputs, self._requested = shapes, outputs, requested
        self._loops = Loops()
        stored = [(subgraph.tensors[i].shape, shape) for i, shape in shapes.items()]
        self._as_stored = all(a == b for a, b in stored)
        self._sizes_as_stored = all(a[1:] == b[1:] for a, b in stored)

    def read(self) -> Graph:
        for index in dict.fromkeys(self.subgraph.inputs):
            record = self.subgraph.tensors[index]
            dtype = tensor_type(record, self.model.path).dtype
            dtype = DType.FLOAT32 if dtype.is_float else dtype
            self.values[index] = self.graph.input(record.name or "input", TensorType(self._shapes[index], dtype))
        self._read_operators()
        self._check_reals(self._outputs, "an output")
        self.graph.outputs = [self._value(i, "the outputs") for i in self._outputs]
        if self._loops.steps:
            mend_lists(self.graph)
        return self.graph

    def _read_operators(self) -> None:
        for position in self._requested:
            operator = self.subgraph.operators[position]
            if operator.code in OF_COMPLEX or any(i in self._pairs for i in operator.inputs):
                self._complex(position, operator)
            elif operator.code in CALLS:
                self._call(operator)
            else:
                (self._variable if operator.code in CODES else self._operator)(position, operator)

    def _complex(self, position: int, record: OperatorRecord) -> None:
        """A transform, what makes reals of its pairs of tensors, and what moves both of them."""
        where = f"operator {position} ({record.code})"
        if len(record.outputs) != 1 or len(record.inputs) < (2 if record.code == TRANSFORM else 1):
            raise file_error(self.model, "operands and a result", "others", AGAIN, where)
        first, result = record.inputs[0], record.outputs[0]
        name = self.subgraph.tensors[result].name or record.code.lower()
        if record.code == TRANSFORM:
            self._check_reals([first], where)
            if len(self.subgraph.tensors[first].shape) < 2:
                raise file_error(self.model, "a transform of two axes", "fewer", AGAIN, where)
            sizes = transform_size(self.model, self._value(record.inputs[1], where).data, where)
            self._pairs[result] = transformed(self.graph, self._value(first, where), sizes, name)
        elif record.code in TO_REALS and first in self._pairs:
            self.values[result] = TO_REALS[record.code](self.graph, self._pairs[first], name)
        elif record.code in BY_CODE and BY_CODE[record.code].rearranges:
            self._pairs[result] = (self._part(0, position, record), self._part(1, position, record))
        else:
            raise complex_found(self.model, record.code, where)

    def _part(self, part: int, position: int, record: OperatorRecord) -> Value:
        self.values |= {i: self._pairs[i][part] for i in record.inputs if i in self._pairs}
        self._operator(position, record)
        return self.values[record.outputs[0]]

    def _check_reals(self, indices: Sequence[int], where: str) -> None:
        for index in indices:
            if index in self._pairs:
                raise complex_found(self.model, self.subgraph.tensors[index].name, where)

    def _call(self, record: OperatorRecord) -> None:
        name = self.subgraph.tensors[record.outputs[0]].name if record.outputs else record.code
        operands = [self._operand(i, name) for i in record.inputs]
        if record.code == IF:
            results = chosen(self, record, operands, name)
        else:
            results = written_out(self, self._loops, record, operands, name)
        self._take_operands(record.outputs, results)

    def inside(self, subgraph: int, operands: Sequence[Operand]) -> list[Operand]:
        """The results of a subgraph, read into this graph; its constants are the same in every step of a loop."""
        part = self.model.subgraphs[subgraph]
        shapes = {i: v.shape for i, v in zip(part.inputs, operands, strict=True) if isinstance(v, Value)}
        requested = reachable(self.model, part, part.outputs)
        reader = FloatReader(self.model, part, shapes, part.outputs, requested)
        reader.graph, reader._room, reader._loops = self.graph, self._room, self._loops
        reader.variables = self.variables.within(part)
        reader.values = dict(self._loops.constants[subgraph])
        reader._take_operands(part.inputs, operands)
        with within(self.model, self._loops, part, len(requested)):
            reader._read_operators()
        results = [reader._operand(i, part.name) for i in part.outputs]
        kept = {i: value for i, value in reader.values.items() if part.tensors[i].data is not None}
        self._loops.constants[subgraph].update(kept)
        self._room = reader._room
        return results

    def _operand(self, index: int, where: str) -> Operand:
        """What a subgraph is given or gives: a tensor, or the name of a variable for its handle."""
        return self.variables.handles.get(index) or self._value(index, where)

    def _take_operands(self, indices: Sequence[int], operands: Sequence[Operand]) -> None:
        for index, operand in zip(indices, operands, strict=True):
            if isinstance(operand, Value):
                self.values[index] = operand
            else:
                self.variables.handles[index] = operand

    def _read(self, name: str, record: TensorRecord, where: str) -> Value:
        """A variable that nothing assigns is a constant."""
        if name not in self.variables.assigned and name in self.variables.begins:
            return self.graph.constant(self.variables.begins[name], record.name or name)
        return super()._read(name, record, where)

    def _state_type(self, name: str, record: TensorRecord) -> TensorType:
        """In float32, of the shape that it begins with: a file may leave open in which it is read."""
        dtype = tensor_type(record, self.model.path).dtype
        begin = self.variables.begins.get(name)
        shape = record.shape if begin is None else begin.shape
        return TensorType(shape, DType.FLOAT32 if dtype.is_float else dtype)

    def _constant(self, record: TensorRecord) -> Value:
        """A constant; one that stands for reals becomes float32."""
        type_ = tensor_type(record, self.model.path)
        self._take(max(4, type_.dtype.numpy.itemsize) * type_.size, record.name)
        data = constant_array(record, self.model.path)
        if type_.quant is not None:
            data = type_.quant.dequantize(data)
        elif type_.dtype is DType.FLOAT16:
            data = data.astype(np.float32)
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            data = self._without_infinities(data, record.name)
        return self.graph.constant(data, record.name or "constant")

    def _without_infinities(self, data: np.ndarray, name: str) -> np.ndarray:
        """Infinity is what pads a maximum; the largest float says the same. In weights it is a fault (see below)."""
        if np.isnan(data).any():
            raise self._not_finite(int(np.isnan(data).sum()), data.size, name)
        return np.clip(data, -LARGEST, LARGEST)

    def _not_finite(self, bad: int, size: int, name: str) -> ModelError:
        found = f"{bad} NaN or infinite of the {size} values of '{name}'"
        return file_error(self.model, "finite weights", found, "correct them, or train the network again")

    def _operator(self, position: int, record: OperatorRecord) -> None:
        op = BY_CODE[record.code]
        where = f"operator {position} ({record.code})"
        inputs, constants = self._operands(op, record, where)
        name = self.subgraph.tensors[record.outputs[0]].name if record.outputs else ""
        try:
            attrs = decode_attributes(op, record.options_name, record.options, constants)
            attrs = op.as_read(attrs, [None if v is None else v.type for v in inputs], self._stored_types(record))
            if op is UNIDIRECTIONAL_SEQUENCE_LSTM:
                check_lstm(attrs, inputs)
            if op is RESHAPE:
                attrs = self._without_placeholder(attrs, record, inputs)
            types = op.infer(attrs, [v.type for v in inputs if v is not None])
            self._check_results(record, types)
            if op is CAST and attrs.in_data_type is attrs.out_data_type:
                results = [v for v in inputs if v is not None]
            elif (known := self._known(op, attrs, inputs, types, name)) is not None:
                results = known
            else:
                results = list(self.graph.add(op, inputs, attrs, name or op.name, types).outputs)
        except MISFITS as error:
            raise file_error(
                self.model, "operands and options that fit together", str(error) or type(error).__name__, AGAIN, where
            ) from error
        self._check_weights(op, inputs, where)
        self.values.update(zip(record.outputs, results, strict=True))

    def _without_placeholder(self, attrs: Any, record: OperatorRecord, inputs: list[Value | None]) -> Any:
        """A reshape's attributes with the size that -1 stood for, so that another batch does not end up there.

        Where the file leaves the batch open, what it stores may be the shape of no tensor there is (after a
        `SPACE_TO_BATCH_ND`): then -1 stays.
        """
        stored = self.subgraph.tensors[record.outputs[0]].shape if record.outputs else ()
        known = -1 in attrs.shape and self._sizes_as_stored and len(stored) == len(attrs.shape) and min(stored) > 0
        fits = inputs[0] is not None and math.prod(stored) == inputs[0].type.size
        return dataclasses.replace(attrs, shape=stored) if known and fits else attrs

    def _stored_types(self, record: OperatorRecord) -> list[TensorType]:
        """The types that the file gives an operator's results; all floats are float32 here."""
        stored = [tensor_type(self.subgraph.tensors[i], self.model.path) for i in record.outputs]
        return [TensorType(t.shape, DType.FLOAT32) if t.dtype.is_float else t for t in stored]

    def _check_results(self, record: OperatorRecord, types: list[TensorType]) -> None:
        """Files whose shapes were not changed must agree with what is computed."""
        stored = [self.subgraph.tensors[i] for i in record.outputs]
        if len(stored) != len(types):
            raise ValueError(f"{len(stored)} results, {len(types)} computed")
        for found, type_ in zip(stored, types, strict=True):
            if self._as_stored and found.shape and -1 not in found.shape_signature and found.shape != type_.shape:
                raise ValueError(f"output shape {found.shape}, computed {type_.shape}")

    def _check_weights(self, op: OpDef, inputs: list[Value | None], where: str) -> None:
        for i, value in enumerate(inputs):
            if value is None or value.data is None or op.operand(i).role not in (Role.WEIGHT, Role.BIAS):
                continue
            if op.operand(i).role is Role.WEIGHT and not value.dtype.is_float:
                raise file_error(
                    self.model,
                    "weights that are floats, or integers with scales",
                    f"'{value.name}' of {value.dtype.value} without scales",
                    "convert the float model that it was made from",
                    where,
                )
            infinite = int((np.abs(value.data) >= LARGEST).sum())
            if infinite:
                raise self._not_finite(infinite, value.data.size, value.name)

    def _known(
        self, op: OpDef, attrs: Any, inputs: list[Value | None], types: list[TensorType], name: str
    ) -> list[Value] | None:
        """Results that are known already, which other operators may need as attributes.

        Layers with weights are left alone (they take time), and reals that no constant makes to `settle`.
        """
        found = None if types[0].dtype.is_float else op.known(attrs, inputs)
        if found is None and (op.weight_index is not None or not all(v is None or v.is_constant for v in inputs)):
            return None
        for type_ in types:
            self._take(type_.size * type_.dtype.numpy.itemsize, name)
        results = computed(op, attrs, inputs, types) if found is None else [found]
        if results is None:
            return None
        return [r if isinstance(r, Value) else self.graph.constant(r, name or op.name) for r in results]


# --- names ------------------------------------------------------------------------------------------------------------


def _rename(
    graph: Graph,
    subgraph: SubgraphRecord,
    signature: Signature | None,
    outputs: tuple[int, ...],
    options: ModelOptions,
) -> None:
    """Calls inputs and outputs as the signature does (else as their tensors), each output a tensor of its own."""
    inputs = input_names(subgraph, signature)
    requested = dict(zip(graph.inputs, (inputs[i] for i in dict.fromkeys(subgraph.inputs)), strict=True))
    names = output_names(subgraph, signature, outputs, options)
    graph.outputs = list(separate(graph, names))
    requested.update(zip(graph.outputs, names, strict=True))
    rename(graph, requested)
