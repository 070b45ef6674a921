"""Tables that kernels fill in float when they are prepared: LUTPopulate, LUTLookup of upstream's `common.h`.

int8 has an entry per value. int16 has 513 entries, one per 128 values, and interpolates between them; each
entry is corrected by half the error of the interpolation at the middle of its step.

The entries come from the C library's float functions, which are not all correctly rounded, and one unit in
the last place decides whether an entry near a half rounds up or down. So the same library is asked here;
where there is none, the float64 functions of NumPy stand in.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ir.opdef import IntegerCall
from ir.types import DType, given

FloatFunction = Callable[[np.ndarray], np.ndarray]
_DOUBLE: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "expm1": np.expm1,
    "erfc": np.vectorize(math.erfc, otypes=[np.float64]),
}


@functools.cache
def _native(name: str) -> Callable[[float], float] | None:
    try:
        function = getattr(ctypes.CDLL(None), f"{name}f")
    except (OSError, AttributeError, TypeError):  # no C library to be asked, or no such function in it
        return None
    function.argtypes, function.restype = (ctypes.c_float,), ctypes.c_float
    return function


def libm(name: str, x: np.ndarray) -> np.ndarray:
    """The C library's float function `name` (`expf` for "exp") of every element, float32 to float32."""
    function = _native(name)
    x = np.asarray(x, np.float32)
    if function is None:
        with np.errstate(all="ignore"):
            return np.asarray(_DOUBLE[name](x.astype(np.float64)), np.float32)
    return np.fromiter(map(function, x.ravel().tolist()), np.float32, x.size).reshape(x.shape)


def round_away(x: np.ndarray) -> np.ndarray:
    """To the nearest integer, halves away from zero (std::round), in the type of `x`."""
    wide = x.astype(np.float64)
    return np.trunc(wide + np.copysign(0.5, wide)).astype(x.dtype)


def to_int32(x: np.ndarray) -> np.ndarray:
    """The x86 conversion of a float: whatever does not fit becomes the lowest int32."""
    fits = np.abs(x) < 2.0**31
    return np.where(fits, np.where(fits, x, 0).astype(np.int64), -(1 << 31))


def _table_int8(call: IntegerCall, function: FloatFunction) -> np.ndarray:
    """The 256 entries in the order of the values' bits: 0 ... 127, -128 ... -1."""
    source, out = given(call.in_types).params(), call.out_types[0].params()
    values = np.arange(256).astype(np.uint8).view(np.int8).astype(np.int64)
    real = source.scale * (values - source.zero_point).astype(np.float32)
    with np.errstate(all="ignore"):
        scaled = round_away(function(real) * (np.float32(1) / out.scale))
        scaled = scaled + np.float32(out.zero_point)
    if call.profile.saturates:
        return np.clip(scaled, -128, 127).astype(np.int8)
    integers = to_int32(scaled)
    return np.clip(integers, -128, 127).astype(np.int8)


def table_int16(
    function: FloatFunction,
    real_in: float,
    in_zero: int,
    real_out: float,
    out_zero: int = 0,
    kind: type[np.floating] = np.float32,
) -> np.ndarray:
    """The 513 entries; all arithmetic is in the float type `kind`."""
    in_scale, out_scale = kind(real_in), kind(real_out)
    low, high = in_scale * kind(-32768 - in_zero), in_scale * kind(32767 - in_zero)
    out_low, out_high = out_scale * kind(-32768 - out_zero), out_scale * kind(32767 - out_zero)
    step = (high - low) / kind(512)
    inverse = kind(65536) / (out_high - out_low)
    index = np.arange(512).astype(kind)
    with np.errstate(all="ignore"):
        value = function(low + index * step) * inverse
        middle = function(low + index * step + step / kind(2)) * inverse
        following = function(low + (index + kind(1)) * step) * inverse
        sample = round_away(value)
        error = round_away((following + sample) / kind(2)) - round_away(middle)
        last = round_away(function(np.array([high])) * inverse)
        entries = np.append(sample - round_away(error / kind(2)), last)
        return np.clip(entries, -32768, 32767).astype(np.int16)


def interpolate_int16(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """int16 values looked up in a table of 513 entries; slopes wrap around at 16 bits as in the kernel."""
    index = 256 + (x >> 7)
    base = table[index].astype(np.int32)
    slope = np.diff(table)[index].astype(np.int32)
    return (base + ((slope * (x & 0x7F) + 64) >> 7)).astype(np.int16)


def lookup(call: IntegerCall, function: FloatFunction) -> list[np.ndarray]:
    """Applies the kernel's table of a float32 function to the first operand."""
    x, type_ = given(call.inputs), given(call.in_types)
    if type_.dtype is DType.INT16:
        source, out = type_.params(), call.out_types[0].params()
        zero_points = int(source.zero_point), int(out.zero_point)
        table = table_int16(function, float(source.scale), zero_points[0], float(out.scale), zero_points[1])
        return [interpolate_int16(x.astype(np.int32), table)]
    return [_table_int8(call, function)[x.view(np.uint8)]]
