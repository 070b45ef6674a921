"""Element types and tensor types: what a `Value` of the graph is, apart from its name and uses."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ir.errors import ModelError
from ir.quantization import QuantParams

T = TypeVar("T")
LARGEST = np.finfo(np.float32).max  # stands for infinity in constants


def given(operands: Sequence[T | None], index: int = 0) -> T:
    """What is at a place that is never left empty (an operand that is not optional), as its type, without None."""
    found = operands[index]
    assert found is not None, f"operand {index} is absent"
    return found


class DType(enum.Enum):
    """Element types of TFLite that this project reads or writes; the value is the schema's `TensorType` name."""

    FLOAT32 = "FLOAT32"
    FLOAT16 = "FLOAT16"
    INT2 = "INT2"
    INT4 = "INT4"
    INT8 = "INT8"
    UINT8 = "UINT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    BOOL = "BOOL"

    @property
    def numpy(self) -> np.dtype:
        """The NumPy type that holds one element each; INT2 and INT4 are unpacked into int8."""
        return np.dtype(_NUMPY[self])

    @property
    def bits(self) -> int:
        """Bits of one element in a file."""
        return {DType.INT2: 2, DType.INT4: 4, DType.BOOL: 8}.get(self, self.numpy.itemsize * 8)

    @property
    def is_float(self) -> bool:
        return self in (DType.FLOAT32, DType.FLOAT16)

    @classmethod
    def of(cls, array: np.ndarray) -> DType:
        """The type of an array's elements; raises KeyError for a NumPy type that TFLite lacks."""
        return _FROM_NUMPY[array.dtype]


_NUMPY = {
    DType.FLOAT32: "float32",
    DType.FLOAT16: "float16",
    DType.INT2: "int8",
    DType.INT4: "int8",
    DType.INT8: "int8",
    DType.UINT8: "uint8",
    DType.INT16: "int16",
    DType.INT32: "int32",
    DType.INT64: "int64",
    DType.BOOL: "bool",
}
_FROM_NUMPY = {np.dtype(n): t for t, n in _NUMPY.items() if t not in (DType.INT2, DType.INT4)}


@dataclass(frozen=True)
class TensorType:
    """Shape (batch included, all static), element type and quantization of a tensor."""

    shape: tuple[int, ...]
    dtype: DType = DType.FLOAT32
    quant: QuantParams | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def params(self) -> QuantParams:
        """The quantization of a tensor that must have one. Raises ModelError for a file's tensor that lacks it."""
        if self.quant is None:
            raise ModelError(
                expected="integers that stand for real numbers, with a scale",
                found=f"{self.dtype.value} {list(self.shape)} without one",
                where="an operator",
                fix="convert the float network again",
            )
        return self.quant
