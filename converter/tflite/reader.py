"""From the records of a .tflite file to a Graph, by the operator table."""

from __future__ import annotations

import dataclasses

import numpy as np

from converter.tflite.codec import BY_CODE, decode_attributes, encoding_of, layout
from converter.tflite.constants import MISFITS, constant_array
from converter.tflite.packing import Packing, packings
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord, TensorRecord
from converter.tflite.variables import ASSIGN, CODES, READ, Variables, check_begin, state
from ir.errors import ModelError
from ir.graph import Graph, Node, Value
from ir.opdef import OpDef, ShapeError
from ir.quantization import QuantParams
from ir.types import DType, TensorType

_SPARE_BYTES = 64 << 20  # constants of any file may take this much memory ...
_MOST_EXPANSION = 64  # ... and this many times its size: several tensors may share a buffer, sparse ones are unpacked


def tensor_type(record: TensorRecord, where: str) -> TensorType:
    """Shape, element type and quantization of a record. Raises ModelError for a type that is not supported."""
    if record.type_name not in DType.__members__:
        raise ModelError(
            expected="a float or integer tensor",
            found=f"type {record.type_name}",
            where=f"{where}, tensor '{record.name}'",
            fix="remove what makes it from the model",
        )
    dtype = DType[record.type_name]
    return TensorType(record.shape, dtype, _quant(record, dtype, where))


def _quant(record: TensorRecord, dtype: DType, where: str) -> QuantParams | None:
    if not record.scale.size or dtype.is_float or dtype is DType.BOOL:
        return None
    per_channel = record.scale.size > 1
    zero_point = record.zero_point if record.zero_point.size else np.zeros(record.scale.size, np.int64)
    try:
        axis = record.quantized_dimension
        if per_channel and not (0 <= axis < len(record.shape) and record.shape[axis] == record.scale.size):
            raise ValueError(f"{record.scale.size} scales along axis {axis} of {record.shape}")
        return QuantParams(
            scale=record.scale if per_channel else record.scale[0],
            zero_point=zero_point if per_channel else zero_point[0],
            axis=record.quantized_dimension if per_channel else None,
            bits=dtype.bits,
            signed=dtype is not DType.UINT8,
        )
    except ValueError as error:
        raise ModelError(
            expected="valid quantization parameters",
            found=str(error),
            where=f"{where}, tensor '{record.name}'",
            fix="convert the model again",
        ) from error


class GraphReader:
    """Reads one subgraph, operator by operator; frontends refine its steps."""

    def __init__(self, model: ModelFile, subgraph: SubgraphRecord) -> None:
        self.model, self.subgraph = model, subgraph
        self.graph = Graph(subgraph.name or "model")
        self.values: dict[int, Value] = {}
        self.variables = Variables(model, subgraph)
        self._packings: dict[int, Packing] = {}
        self._room = _SPARE_BYTES + _MOST_EXPANSION * model.size_bytes

    def read(self) -> Graph:
        """The whole graph; weights that the file unpacks are constants of it."""
        self._packings = packings(self.model, self.subgraph)
        for index in self.subgraph.inputs:
            record = self.subgraph.tensors[index]
            self.values[index] = self.graph.input(record.name, tensor_type(record, self.model.path))
        unpacking = {position for found in self._packings.values() for position in found.operators}
        for position, operator in enumerate(self.subgraph.operators):
            if operator.code in CODES:
                self._variable(position, operator)
            elif position not in unpacking:
                self._operator(position, operator)
        self.graph.outputs = [self._value(i, "the outputs") for i in self.subgraph.outputs]
        self.variables.close(self.graph)
        return self.graph

    def _value(self, index: int, where: str) -> Value:
        if index not in self.values and index in self._packings:
            self.values[index] = self._unpacked(index)
        if index not in self.values:
            record = self.subgraph.tensors[index]
            if record.data is None and record.is_variable:
                self.values[index] = self._state(record)
                return self.values[index]
            if record.data is None and 0 in record.shape:  # nothing, such as the shape of a scalar, takes no buffer
                record = dataclasses.replace(record, data=np.zeros(0, np.uint8))
            if record.data is None:
                raise ModelError(
                    expected="a constant or the result of an earlier operator",
                    found=f"tensor '{record.name}', which nothing has computed",
                    where=f"{self.model.path}, {where}",
                    fix="write or download the file again",
                )
            self.values[index] = self._constant(record)
        return self.values[index]

    def _constant(self, record: TensorRecord) -> Value:
        type_ = tensor_type(record, self.model.path)
        self._take(type_.size * type_.dtype.numpy.itemsize, record.name)
        return self.graph.constant(constant_array(record, self.model.path), record.name, type_.quant, type_.dtype)

    def _state(self, record: TensorRecord) -> Value:
        """What a variable begins with: zero."""
        type_ = tensor_type(record, self.model.path)
        self._take(type_.size * type_.dtype.numpy.itemsize, record.name)
        zero = 0 if type_.quant is None else int(type_.params().zero_point)
        data = np.full(type_.shape, zero, type_.dtype.numpy)
        return self.graph.constant(data, record.name, type_.quant, type_.dtype)

    def _variable(self, position: int, operator: OperatorRecord) -> None:
        """A variable that is read is a state, until it is assigned something else."""
        if operator.code not in (READ, ASSIGN):
            return
        where = f"operator {position} ({operator.code})"
        name = self.variables.handles.get(operator.inputs[0])
        if name is None:
            raise ModelError(
                expected="the handle of a variable",
                found=f"tensor '{self.subgraph.tensors[operator.inputs[0]].name}'",
                where=f"{self.model.path}, {where}",
                fix="write or download the file again",
            )
        if operator.code == ASSIGN:
            self.variables.now[name] = self._value(operator.inputs[1], where)
            return
        if name not in self.variables.now:
            self.variables.now[name] = self._read(name, self.subgraph.tensors[operator.outputs[0]], where)
        self.values[operator.outputs[0]] = self.variables.now[name]

    def _read(self, name: str, record: TensorRecord, where: str) -> Value:
        """The state that a variable is when an invocation begins."""
        type_ = self._state_type(name, record)
        self._take(type_.size * type_.dtype.numpy.itemsize, name)
        try:
            check_begin(self.variables.begins.get(name, np.zeros(type_.shape)), type_.shape)
        except ValueError as error:
            raise ModelError(
                expected="variables that keep their shape",
                found=str(error),
                where=f"{self.model.path}, {where}",
                fix="write or download the file again",
            ) from error
        self.variables.reads[name] = state(self.graph, record.name or name, type_)
        return self.variables.reads[name]

    def _state_type(self, name: str, record: TensorRecord) -> TensorType:
        return tensor_type(record, self.model.path)

    def _unpacked(self, index: int) -> Value:
        """A weight that the file unpacks at every inference, as the constant that it is."""
        record = self.subgraph.tensors[index]
        type_ = tensor_type(record, self.model.path)
        self._take(type_.size, record.name)
        q, params = self._packings[index].unpack(type_.params())
        return self.graph.constant(q, record.name, params, type_.dtype)

    def _take(self, size_bytes: int, name: str) -> None:
        """Counts memory that constants take. Raises ModelError where it is out of proportion to the file."""
        self._room -= size_bytes
        if self._room < 0:
            raise ModelError(
                expected="constants in proportion to the size of the file",
                found=f"'{name}', with which they would pass {_MOST_EXPANSION} times its size",
                where=self.model.path,
                fix="write or download the file again",
            )

    def _operator(self, position: int, record: OperatorRecord) -> None:
        where = f"operator {position} ({record.code})"
        op = BY_CODE.get(record.code)
        if op is None:
            raise ModelError(
                expected="an operator of the table",
                found=record.code,
                where=f"{self.model.path}, operator {position}",
                fix="cut the model before it, or see the list of supported operators",
            )
        inputs, constants = self._operands(op, record, where)
        outputs = [self.subgraph.tensors[i] for i in record.outputs]
        try:
            attrs = decode_attributes(op, record.options_name, record.options, constants)
            types = [tensor_type(t, self.model.path) for t in outputs]
            attrs = op.as_read(attrs, [None if v is None else v.type for v in inputs], types)
            node = self.graph.add(op, inputs, attrs, outputs[0].name if outputs else op.name, types)
            self._check(op, node, types)
            self._check_intermediates(node, record)
        except MISFITS as error:
            raise ModelError(
                expected="operands and options that fit together",
                found=str(error) or type(error).__name__,
                where=f"{self.model.path}, {where}",
                fix="write or download the file again",
            ) from error
        for index, value in zip(record.outputs, node.outputs, strict=True):
            value.name = self.subgraph.tensors[index].name
            self.values[index] = value

    def _check(self, op: OpDef, node: Node, types: list[TensorType]) -> None:
        inferred = op.infer(node.attrs, [v.type for v in node.operands])
        found, expected = [t.shape for t in types], [t.shape for t in inferred]
        if found != expected:
            raise ShapeError(f"output shapes {found}, computed {expected}")

    def _check_intermediates(self, node: Node, record: OperatorRecord) -> None:
        """Raises ValueError where the file tells a kernel other parameters than those of its results."""
        declared = encoding_of(node.op).intermediates(node.in_types, node.out_types)
        for type_, index in zip(declared, record.intermediates, strict=False):
            found = tensor_type(self.subgraph.tensors[index], self.model.path).quant
            if type_.quant is not None and (found is None or not found.same_as(type_.quant)):
                raise ValueError(f"intermediate values of {found}, results of {type_.quant}")

    def _operands(
        self, op: OpDef, record: OperatorRecord, where: str
    ) -> tuple[list[Value | None], dict[str, np.ndarray]]:
        names = layout(op)
        if names is None:
            return [None if i < 0 else self._value(i, where) for i in record.inputs], {}
        by_name = dict(zip(names, record.inputs, strict=False))
        constants: dict[str, np.ndarray] = {}
        inputs: dict[str, Value | None] = {}
        for name, index in by_name.items():
            if name not in op.attributes.__dataclass_fields__:
                inputs[name] = None if index < 0 else self._value(index, where)
            elif index >= 0:
                value = self._value(index, where)
                if value.data is None:
                    raise ModelError(
                        expected=f"a constant {name}",
                        found=f"the computed tensor '{value.name}'",
                        where=f"{self.model.path}, {where}",
                        fix="export the model with static shapes",
                    )
                constants[name] = value.data
        order = [operand.name for operand in op.operands]
        if len(record.inputs) > len(names):  # a variadic last operand
            extra = [self._value(i, where) for i in record.inputs[len(names) :]]
            return [inputs.get(n) for n in order] + list(extra), constants
        return [inputs.get(n) for n in order if n in by_name], constants


def to_graph(model: ModelFile, subgraph: int = 0) -> Graph:
    """The graph of one subgraph. Raises ModelError naming the operator that cannot be read."""
    return GraphReader(model, model.subgraphs[subgraph]).read()
