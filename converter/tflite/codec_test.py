from __future__ import annotations

import dataclasses
import enum
import typing
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.tflite.codec import (
    BY_CODE,
    DTYPE_CODES,
    decode_attributes,
    encode_options,
    field_name,
    layout,
    pack_bits,
    unpack_bits,
)
from converter.tflite.model_file import _options
from ir.opdef import Attributes, OpDef
from ir.ops import OPERATORS
from ir.types import DType

ENCODED = {op.name: op for op in OPERATORS if op.encoding is not None}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from([2, 4]), st.lists(st.integers(1, 5), max_size=3), st.integers(0, 2**32 - 1))
def test_packed_bits_unpack_to_what_they_were(bits, shape, seed):
    q = np.random.default_rng(seed).integers(-(1 << (bits - 1)), 1 << (bits - 1), shape).astype(np.int8)
    packed = pack_bits(q, bits)
    assert packed.dtype == np.uint8 and packed.size == -(-q.size * bits // 8)
    found = unpack_bits(packed, bits, q.shape)
    assert found.dtype == np.int8 and found.shape == q.shape
    np.testing.assert_array_equal(found, q)


def test_the_first_number_is_in_the_low_bits():
    assert pack_bits(np.array([1, -1, 7], np.int8), 4).tolist() == [0xF1, 0x07]
    assert pack_bits(np.array([1, -1, 0, -2, 1], np.int8), 2).tolist() == [0b10001101, 0b01]


def values_of(kind: Any, name: str) -> st.SearchStrategy[Any]:
    """Values of an attribute's type that a file can hold."""
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(-2, 5) if "axis" in name else st.integers(1, 5)
    if kind is float:
        return st.integers(-64, 64).map(lambda i: i / 16)
    if kind is DType:
        return st.sampled_from(list(DTYPE_CODES))
    if isinstance(kind, enum.EnumMeta):
        return st.sampled_from(list(kind))
    assert typing.get_origin(kind) is tuple, f"{name}: {kind}"
    parts = typing.get_args(kind)
    if parts[-1] is Ellipsis:
        return st.lists(values_of(parts[0], name), min_size=1, max_size=4).map(tuple)
    return st.tuples(*(values_of(part, name) for part in parts))


@st.composite
def attributes(draw: st.DrawFn, op: OpDef) -> Attributes:
    hints = typing.get_type_hints(op.attributes)
    whole = {f for f in hints if f in (layout(op) or ())}  # stored as int32 operands
    try:
        return op.attributes(
            **{
                name: int(draw(values_of(kind, name)))
                if name in whole and kind is float
                else draw(values_of(kind, name))
                for name, kind in hints.items()
            }
        )
    except (ValueError, AssertionError):  # what the operator itself refuses
        return draw(st.nothing())


def read_back(op: OpDef, attrs: Attributes) -> Attributes:
    """Through the bytes of an operator record, as the writer stores it."""
    kind, table = encode_options(op, attrs)
    builder = flatbuffers.Builder()
    builder.Finish(schema.OperatorT(builtinOptionsType=kind, builtinOptions=table).Pack(builder))
    name, options = _options(schema.Operator.GetRootAs(bytes(builder.Output()), 0))
    assert name == (op.encoding.options or "NONE")
    fields = {f.name for f in dataclasses.fields(attrs)}
    constants = {n: np.asarray(getattr(attrs, n), np.int32) for n in layout(op) or () if n in fields}
    return decode_attributes(op, name, options, constants)


@pytest.mark.parametrize("name", ENCODED)
def test_attributes_read_back(name):
    op = ENCODED[name]

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(attributes(op))
    def check(attrs: Attributes) -> None:
        found = read_back(op, attrs)
        for field in dataclasses.fields(attrs):
            stored = op.encoding.renamed.get(field.name) != "" or field.name in (layout(op) or ())
            expected = getattr(attrs, field.name)
            assert not stored or getattr(found, field.name) == expected
            assert type(getattr(found, field.name)) is type(expected) or not stored

    check()


@pytest.mark.parametrize("name", ENCODED)
def test_encodings_name_what_the_schema_has(name):
    encoding = ENCODED[name].encoding
    assert hasattr(schema.BuiltinOperator, encoding.code)
    assert encoding.options is None or hasattr(schema, f"{encoding.options}T")
    fields = {f.name for f in dataclasses.fields(ENCODED[name].attributes)}
    operands = {o.name for o in ENCODED[name].operands}
    assert set(encoding.renamed) <= fields
    assert set(encoding.layout or ()) <= fields | operands
    assert BY_CODE[encoding.code] is ENCODED[name]


def test_field_names():
    assert field_name(ENCODED["conv_2d"], "dilation_h_factor") == "dilationHFactor"
    assert field_name(ENCODED["conv_2d"], "activation") == "fusedActivationFunction"
    assert field_name(ENCODED["fully_connected"], "keep_num_dims") == "keepNumDims"


def test_options_of_another_operator_are_not_read():
    op = ENCODED["add"]
    _, options = _options_of(ENCODED["conv_2d"])
    assert decode_attributes(op, "Conv2DOptions", options, {}) == op.attributes()


def _options_of(op: OpDef) -> tuple[str, Any]:
    kind, table = encode_options(op, op.attributes())
    builder = flatbuffers.Builder()
    builder.Finish(schema.OperatorT(builtinOptionsType=kind, builtinOptions=table).Pack(builder))
    return _options(schema.Operator.GetRootAs(bytes(builder.Output()), 0))


def test_numbers_that_are_none_of_the_schema():
    op = ENCODED["conv_2d"]
    builder = flatbuffers.Builder()
    table = schema.Conv2DOptionsT(padding=9)
    record = schema.OperatorT(builtinOptionsType=schema.BuiltinOptions.Conv2DOptions, builtinOptions=table)
    builder.Finish(record.Pack(builder))
    name, options = _options(schema.Operator.GetRootAs(bytes(builder.Output()), 0))
    with pytest.raises(ValueError, match="9 is not a valid Padding"):
        decode_attributes(op, name, options, {})
