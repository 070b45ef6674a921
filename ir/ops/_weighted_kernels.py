"""What runtimes make of operators with weights, by element types: measured on LiteRT 2.3, TFLite 2.14 and TFLM.

Not one runtime looks at all the types that it is given: packed nibbles are read as bytes, 64-bit biases as 32-bit ones,
and none reports it. `runtime_tests/widths_test.py` runs every combination on the runtimes that are installed and
holds this table to what happens.
"""

from __future__ import annotations

import math

from ir.kernels import EVERYWHERE, LITERT, REFERENCE, TFLITE, TFLITE_RUNTIME, TFLM, Granularity, Kernel, Profiles
from ir.opdef import Ratio
from ir.types import DType

_PER_TENSOR, _PER_CHANNEL = Granularity.PER_TENSOR, Granularity.PER_CHANNEL
# Resolvers of reference kernels that register no version with packed weights.
_OLD_REFERENCE = TFLITE_RUNTIME & REFERENCE
_ANY_REFERENCE = TFLITE & REFERENCE


def _int8(weights: DType, biases: tuple[DType | None, ...], **who: Profiles | Granularity) -> Kernel:
    return Kernel(activation=DType.INT8, weights=weights, biases=biases, **who)  # type: ignore[arg-type]


def _int16(weights: DType, biases: tuple[DType | None, ...], **who: Profiles | Granularity) -> Kernel:
    return Kernel(activation=DType.INT16, weights=weights, biases=biases, **who)  # type: ignore[arg-type]


# XNNPACK makes no operator of a product whose scale is 256 times that of the result, and the file does not load. Kernels
# of int16 demand a shift below 8.
PRODUCTS = Ratio(of=math.prod, most={8: 255.0, 16: 128.0}, end={16: 256.0})

CONV_2D = (
    _int8(DType.INT8, (DType.INT32,), right=EVERYWHERE),
    _int8(DType.INT8, (None,), right=TFLM),
    _int8(DType.INT8, (DType.INT64,), wrong=TFLM),
    _int8(DType.INT4, (DType.INT32,), right=EVERYWHERE - _OLD_REFERENCE),
    _int8(DType.INT4, (None,), right=TFLM),
    _int8(DType.INT4, (DType.INT64,), wrong=TFLM),
    _int16(DType.INT8, (DType.INT64,), right=EVERYWHERE),
    _int16(DType.INT8, (None,), right=TFLM),
    _int16(DType.INT8, (DType.INT32,), right=TFLM, unproved=TFLITE_RUNTIME, wrong=LITERT),
    _int16(DType.INT4, (DType.INT64,), right=LITERT, wrong=TFLITE_RUNTIME - _OLD_REFERENCE),
    _int16(DType.INT4, (DType.INT32,), wrong=TFLITE - _OLD_REFERENCE),
    _int16(DType.INT2, (DType.INT32, DType.INT64), granularity=_PER_TENSOR, wrong=LITERT),
)

DEPTHWISE_CONV_2D = (
    _int8(DType.INT8, (DType.INT32,), right=EVERYWHERE),
    _int8(DType.INT8, (None,), right=TFLM | _ANY_REFERENCE),  # the optimized ones read the bias that is not there
    _int8(DType.INT8, (DType.INT64,), wrong=TFLM),
    _int8(DType.INT4, (DType.INT32,), right=EVERYWHERE - _ANY_REFERENCE),
    _int8(DType.INT4, (None,), right=TFLM),
    _int8(DType.INT4, (DType.INT64,), wrong=TFLM),
    _int16(DType.INT8, (DType.INT64, None), right=EVERYWHERE),
    _int16(DType.INT8, (DType.INT32,), wrong=TFLM),
    _int16(DType.INT4, (DType.INT64, None), wrong=TFLITE - _ANY_REFERENCE),
    _int16(DType.INT2, (DType.INT64, None), granularity=_PER_TENSOR, wrong=LITERT),
)

FULLY_CONNECTED = (
    _int8(DType.INT8, (DType.INT32, None), granularity=_PER_TENSOR, right=EVERYWHERE),
    _int8(DType.INT8, (DType.INT32, None), granularity=_PER_CHANNEL, right=EVERYWHERE, flat=_OLD_REFERENCE),
    _int8(DType.INT8, (DType.INT64,), wrong=EVERYWHERE),
    _int8(DType.INT4, (DType.INT32, None), right=LITERT),
    _int8(DType.INT4, (DType.INT32, None), granularity=_PER_TENSOR, right=TFLITE_RUNTIME - _OLD_REFERENCE | TFLM),
    _int8(DType.INT4, (DType.INT64,), wrong=LITERT),
    _int8(DType.INT4, (DType.INT64,), granularity=_PER_TENSOR, wrong=TFLITE_RUNTIME - _OLD_REFERENCE | TFLM),
    _int8(DType.INT2, (DType.INT32, None), right=LITERT),
    _int8(DType.INT2, (DType.INT64,), wrong=LITERT),
    _int16(DType.INT8, (DType.INT64, None), granularity=_PER_TENSOR, right=EVERYWHERE),
    _int16(DType.INT8, (DType.INT64,), granularity=_PER_CHANNEL, right=EVERYWHERE, flat=TFLITE_RUNTIME),
    _int16(DType.INT8, (None,), granularity=_PER_CHANNEL, right=EVERYWHERE, flat=_OLD_REFERENCE),
    _int16(DType.INT8, (DType.INT32,), right=TFLM, unproved=TFLITE - (LITERT & REFERENCE), wrong=LITERT & REFERENCE),
    _int16(DType.INT4, (DType.INT64, None), right=LITERT),
    _int16(DType.INT4, (DType.INT32,), unproved=LITERT - REFERENCE, wrong=LITERT & REFERENCE),
    _int16(DType.INT2, (DType.INT64, None), right=LITERT),
    _int16(DType.INT2, (DType.INT32,), unproved=LITERT - REFERENCE, wrong=LITERT & REFERENCE),
)

TRANSPOSE_CONV = (
    _int8(DType.INT8, (DType.INT32, None), right=EVERYWHERE),
    _int8(DType.INT8, (DType.INT64,), wrong=TFLM),
    _int16(DType.INT8, (DType.INT64, None), right=EVERYWHERE),
    _int16(DType.INT8, (DType.INT32,), unproved=TFLITE_RUNTIME, wrong=LITERT | TFLM),
)
