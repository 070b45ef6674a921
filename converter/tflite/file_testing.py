"""Files for tests that the project's own writer does not make."""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ir.types import DType


class File:
    """Writes files that the project's own writer does not make: any operator, type and signature."""

    def __init__(self) -> None:
        self.tensors: list[schema.TensorT] = []
        self.buffers = [schema.BufferT()]
        self.operators: list[schema.OperatorT] = []
        self.codes: list[schema.OperatorCodeT] = []
        self.signatures: list[schema.SignatureDefT] = []

    def tensor(
        self, shape: Sequence[int], type_name: str = "FLOAT32", data: np.ndarray | None = None, **fields: object
    ) -> int:
        record = schema.TensorT(
            name=fields.pop("name", f"t{len(self.tensors)}").encode(),  # type: ignore[attr-defined]
            shape=list(shape),
            type=getattr(schema.TensorType, type_name),
            **fields,
        )
        if data is not None:
            record.buffer = len(self.buffers)
            self.buffers.append(schema.BufferT(data=np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)))
        self.tensors.append(record)
        return len(self.tensors) - 1

    def constant(self, data: np.ndarray, type_name: str | None = None, **fields: object) -> int:
        return self.tensor(data.shape, type_name or DType.of(data).value, data, **fields)

    def op(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: object = None,
        custom: str = "",
        version: int = 1,
    ) -> None:
        number = getattr(schema.BuiltinOperator, code)
        self.codes.append(
            schema.OperatorCodeT(
                builtinCode=number,
                deprecatedBuiltinCode=min(number, 127),
                version=version,
                customCode=custom.encode() or None,
            )
        )
        record = schema.OperatorT(opcodeIndex=len(self.codes) - 1, inputs=list(inputs), outputs=list(outputs))
        if options is not None:
            record.builtinOptions = options
            record.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.operators.append(record)

    def finish(
        self, inputs: Sequence[int], outputs: Sequence[int], others: Sequence[Sequence[schema.OperatorT]] = ()
    ) -> bytes:
        """The file; `others` are the operators of further subgraphs without ends, on the same tensors."""
        graph = schema.SubGraphT(
            tensors=self.tensors, inputs=list(inputs), outputs=list(outputs), operators=self.operators, name=b"main"
        )
        model = schema.ModelT(
            version=3,
            operatorCodes=self.codes,
            subgraphs=[graph, *(self._without_ends(operators) for operators in others)],
            buffers=self.buffers,
            signatureDefs=self.signatures,
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _without_ends(self, operators: Sequence[schema.OperatorT]) -> schema.SubGraphT:
        return schema.SubGraphT(tensors=self.tensors, inputs=[], outputs=[], operators=list(operators), name=b"other")
