"""The elements of a file's constants, and what hostile numbers in them make the operator table's functions raise."""

from __future__ import annotations

import math
import struct

import numpy as np

from converter.tflite.codec import unpack_bits
from converter.tflite.records import TensorRecord
from converter.tflite.sparse import to_dense
from ir.errors import ModelError
from ir.types import DType

# What hostile numbers make the table's functions raise; a MemoryError comes from shapes that no memory holds.
MISFITS = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    ZeroDivisionError,
    OverflowError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
)


def constant_array(record: TensorRecord, where: str) -> np.ndarray:
    """The elements of a constant. Raises ModelError if the buffer does not hold exactly them."""
    dtype = DType[record.type_name]
    data = record.data
    needed = -(-math.prod(record.shape) * dtype.bits // 8)
    try:
        if data is None:
            raise ValueError("no constant")
        if record.sparsity is not None and data.size * 8 % dtype.bits == 0:
            return to_dense(data.view(dtype.numpy), record.sparsity, record.shape)
        if data.size != needed:
            raise ValueError(f"{data.size} bytes")
    except (ValueError, IndexError, MemoryError) as error:
        raise ModelError(
            expected=f"{needed} bytes for shape {record.shape} of {dtype.value}",
            found=str(error) or type(error).__name__,
            where=f"{where}, constant '{record.name}'",
            fix="write or download the file again",
        ) from error
    if dtype in (DType.INT2, DType.INT4):
        return unpack_bits(data, dtype.bits, record.shape)
    return np.frombuffer(data.tobytes(), dtype.numpy).reshape(record.shape)
