"""Attributes and options tables: both directions derived from the one `Encoding` of each operator."""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ir.opdef import Attributes, Encoding, OpDef
from ir.ops import OPERATORS
from ir.types import DType

DTYPE_CODES = {t: getattr(schema.TensorType, t.value) for t in DType}
_DTYPES = {code: t for t, code in DTYPE_CODES.items()}
_MOST_NUMBERS = 1024  # in an attribute: they go by axis, and a split lists its parts
BY_CODE: dict[str, OpDef] = {op.encoding.code: op for op in OPERATORS if op.encoding}


def encoding_of(op: OpDef) -> Encoding:
    """How an operator that TFLite has is encoded."""
    assert op.encoding is not None, f"TFLite has no {op.name}"
    return op.encoding


def field_name(op: OpDef, attribute: str) -> str:
    """The field of the options table that holds an attribute."""
    renamed = encoding_of(op).renamed
    if attribute in renamed:
        return renamed[attribute]
    if attribute == "activation":
        return "fusedActivationFunction"
    head, *rest = attribute.split("_")
    return head + "".join(part.capitalize() for part in rest)


def layout(op: OpDef) -> tuple[str, ...] | None:
    """The TFLite order of operands, None where it is the graph's own."""
    return encoding_of(op).layout


@functools.cache
def _attribute_types(op: OpDef) -> dict[str, Any]:
    return typing.get_type_hints(op.attributes)


def _is_operand(op: OpDef, attribute: str) -> bool:
    return attribute in (layout(op) or ())


def is_stored(op: OpDef, attribute: str) -> bool:
    """Whether the options table has a field for an attribute."""
    renamed = encoding_of(op).renamed
    if attribute in renamed:
        return renamed[attribute] != ""
    return not _is_operand(op, attribute)


def encode_options(op: OpDef, attrs: Attributes) -> tuple[int, Any]:
    """`(type of the union, options table)`; type 0 and None where the operator has no options."""
    options = encoding_of(op).options
    if options is None:
        return 0, None
    table = getattr(schema, options + "T")()
    for field in dataclasses.fields(attrs):
        if is_stored(op, field.name):
            name = field_name(op, field.name)
            assert hasattr(table, name), f"{options} has no field {name}"
            setattr(table, name, _encode(getattr(attrs, field.name)))
    return getattr(schema.BuiltinOptions, options), table


def _encode(value: Any) -> Any:
    if isinstance(value, DType):
        return DTYPE_CODES[value]
    if isinstance(value, enum.IntEnum):
        return int(value)
    return list(value) if isinstance(value, tuple) else value


def decode_attributes(op: OpDef, options_name: str, options: Any, constants: dict[str, np.ndarray]) -> Attributes:
    """Attributes from an options table (None: all defaults) and the constant operands that stand for attributes.

    Raises ValueError where a value is not one of the schema's.
    """
    values: dict[str, Any] = {}
    if options is not None and options_name != encoding_of(op).options:
        options = None
    for name, kind in _attribute_types(op).items():
        if name in constants:
            values[name] = _nested(constants[name], kind)
        elif options is not None and is_stored(op, name):
            values[name] = _decode(options, field_name(op, name), kind)
    return op.attributes(**values)


def _nested(array: np.ndarray, kind: Any) -> Any:
    if kind is not float and array.dtype.kind != "i":
        raise ValueError(f"{array.dtype} where an operator takes integers")
    if array.size > _MOST_NUMBERS:
        raise ValueError(f"{array.size} numbers where an operator takes a few")

    def freeze(x: Any) -> Any:
        return tuple(freeze(i) for i in x) if isinstance(x, list) else x

    return freeze(array.tolist())


def _decode(options: Any, name: str, kind: Any) -> Any:
    accessor = name[0].upper() + name[1:]
    if typing.get_origin(kind) is tuple:
        values = getattr(options, f"{accessor}AsNumpy")()
        return _nested(values, kind) if isinstance(values, np.ndarray) else ()
    value = getattr(options, accessor)()
    if kind is DType:
        return _DTYPES[value]
    if isinstance(kind, enum.EnumMeta) and issubclass(kind, enum.IntEnum):
        return kind(value)
    return kind(value) if kind in (bool, int, float) else value


def pack_bits(q: np.ndarray, bits: int) -> np.ndarray:
    """int8 numbers to bytes with `8 / bits` numbers each, the first in the low bits."""
    per_byte = 8 // bits
    flat = q.astype(np.uint8).ravel() & ((1 << bits) - 1)
    flat = np.pad(flat, (0, -flat.size % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(flat << shifts, axis=1).astype(np.uint8)


def unpack_bits(data: np.ndarray, bits: int, shape: Sequence[int]) -> np.ndarray:
    """The inverse of `pack_bits`, sign-extended to int8."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    flat = ((data[:, None] >> shifts) & ((1 << bits) - 1)).astype(np.int8).ravel()
    sign = np.int8(1 << (bits - 1))
    return ((flat ^ sign) - sign)[: int(np.prod(shape))].reshape(shape)
