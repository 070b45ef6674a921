"""An operator of a file as the rules of targets look at it: its tensors, options, parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from converter.tflite.constants import MISFITS
from converter.tflite.reader import tensor_type
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord, TensorRecord
from ir.errors import ModelError
from ir.opdef import OpDef, Role
from ir.ops import OPERATORS
from ir.supported import Computation

BY_CODE: Mapping[str, OpDef] = {op.encoding.code: op for op in OPERATORS if op.encoding is not None}
BYTES_OF_TYPE = {
    "BOOL": 1,
    "INT8": 1,
    "UINT8": 1,
    "INT16": 2,
    "UINT16": 2,
    "FLOAT16": 2,
    "BFLOAT16": 2,
    "INT32": 4,
    "UINT32": 4,
    "FLOAT32": 4,
    "INT64": 8,
    "UINT64": 8,
    "FLOAT64": 8,
    "COMPLEX64": 8,
    "COMPLEX128": 16,
    "INT4": 0.5,
    "INT2": 0.25,
}
EIGHT_BITS = frozenset({"INT8", "UINT8"})


def tensor_bytes(tensor: TensorRecord) -> int:
    """What an element-wise copy of the tensor takes."""
    return math.ceil(math.prod(tensor.shape) * BYTES_OF_TYPE.get(tensor.type_name, 4))


@dataclass(frozen=True)
class Site:
    """One operator of a file, as rules look at it."""

    index: int
    record: OperatorRecord
    graph: SubgraphRecord

    @property
    def op(self) -> OpDef | None:
        """Its declaration, None if this project does not know it."""
        return BY_CODE.get(self.record.code)

    @property
    def layer(self) -> str:
        """The name of its first result."""
        return self.graph.tensors[self.record.outputs[0]].name if self.record.outputs else f"operator {self.index}"

    def input(self, index: int) -> TensorRecord | None:
        """An operand, None if it is absent."""
        if index >= len(self.record.inputs) or self.record.inputs[index] < 0:
            return None
        return self.graph.tensors[self.record.inputs[index]]

    @property
    def inputs(self) -> list[TensorRecord]:
        return [self.graph.tensors[j] for j in self.record.inputs if j >= 0]

    @property
    def outputs(self) -> list[TensorRecord]:
        return [self.graph.tensors[j] for j in self.record.outputs]

    @cached_property
    def activations(self) -> list[TensorRecord]:
        """Operands and results that are computed: no constants, no state."""
        return [t for t in self.inputs if t.data is None and not t.is_variable] + self.outputs

    @property
    def data(self) -> TensorRecord:
        """The first computed operand, the first operand if all are constant."""
        return next((t for t in self.inputs if t.data is None), self.inputs[0] if self.inputs else self.outputs[0])

    @property
    def result(self) -> TensorRecord:
        return self.outputs[0]

    def option(self, name: str, default: Any = 0) -> Any:
        """A field of the options table."""
        getter = getattr(self.record.options, name, None)
        return default if getter is None else getter()

    def integers(self, index: int) -> tuple[int, ...] | None:
        """The values of a constant operand (axes, paddings), None if it is not constant."""
        tensor = self.input(index)
        if tensor is None or tensor.data is None or tensor.type_name not in ("INT32", "INT64"):
            return None
        return tuple(int(v) for v in np.frombuffer(tensor.data.tobytes(), f"<i{int(BYTES_OF_TYPE[tensor.type_name])}"))

    def parameters(self) -> list[TensorRecord | None]:
        """Operands that must be known before running: weights, biases, axes, shapes."""
        return [self.input(i) for i in parameter_positions(self.op)] if self.op is not None else []

    def computation(self) -> Computation | None:
        """What the table of kernels is asked about, None for operators and types that it does not know."""
        if self.op is None:
            return None
        positions = {operand.name: i for i, operand in enumerate(self.op.operands)}
        names = self.op.encoding.layout if self.op.encoding else None
        order = range(len(self.record.inputs)) if names is None else [names.index(n) for n in positions if n in names]
        try:
            inputs = [None if (t := self.input(i)) is None else tensor_type(t, "") for i in order]
            return Computation(
                op=self.op, inputs=tuple(inputs), outputs=tuple(tensor_type(t, "") for t in self.outputs)
            )
        except (ModelError, *MISFITS):
            return None

    def weights(self) -> TensorRecord | None:
        """The weights, None where the operator has none."""
        return None if self.op is None else self.input(_position(self.op, Role.WEIGHT))

    def bias(self) -> TensorRecord | None:
        return None if self.op is None else self.input(_position(self.op, Role.BIAS))

    @property
    def multiplications(self) -> int:
        """How many an inference takes of an operator with weights; 0 of others."""
        weights = self.weights()
        if weights is None:
            return 0
        places = min(math.prod(t.shape[:-1]) for t in (self.data, self.result))  # that the weights are laid on
        return places * math.prod(weights.shape)


def _layout(op: OpDef) -> list[Role | None]:
    """The role of each operand in the file's order; None for attributes stored as operands."""
    roles = {operand.name: operand.role for operand in op.operands}
    if op.encoding is not None and op.encoding.layout is not None:
        return [roles.get(name) for name in op.encoding.layout]
    return [operand.role for operand in op.operands]


def _position(op: OpDef, role: Role) -> int:
    layout = _layout(op)
    return layout.index(role) if role in layout else len(layout) + 1000


def parameter_positions(op: OpDef | None) -> list[int]:
    """Where the weights, biases and stored attributes of an operator stand."""
    if op is None:
        return []
    return [i for i, role in enumerate(_layout(op)) if role in (None, Role.WEIGHT, Role.BIAS)]


def sites(model: ModelFile) -> list[Site]:
    """The operators of a file's main subgraph, in its order."""
    return [Site(i, record, model.main) for i, record in enumerate(model.main.operators)]
