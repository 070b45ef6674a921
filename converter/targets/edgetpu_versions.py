"""The newest version of each operator that TensorFlow 2.5 knew: the Edge TPU compiler (16) can read no newer one."""

from __future__ import annotations

from collections.abc import Mapping

from converter.targets.site import BY_CODE
from ir.opdef import OpDef

# Operators that are not here were at version 1.
_ABOVE_ONE = {
    2: "LEAKY_RELU DEPTH_TO_SPACE SPACE_TO_DEPTH QUANTIZE RSQRT DIV SQUARED_DIFFERENCE GREATER_EQUAL LESS SPLIT_V "
    "MIRROR_PAD SUM ARG_MAX SQUEEZE TILE LOG_SOFTMAX L2_NORMALIZATION FLOOR_DIV EQUAL NOT_EQUAL GREATER LESS_EQUAL SELECT",
    3: "RELU RELU6 LOGISTIC TANH SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND ABS ADD CONCATENATION PACK PAD PADV2 "
    "AVERAGE_POOL_2D MAX_POOL_2D UNIDIRECTIONAL_SEQUENCE_LSTM MEAN REDUCE_MAX REDUCE_MIN BROADCAST_TO SOFTMAX "
    "FILL TRANSPOSE_CONV",
    4: "DEQUANTIZE MUL MAXIMUM MINIMUM UNPACK SPLIT BATCH_MATMUL RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR",
    5: "CONV_2D SUB TRANSPOSE SLICE STRIDED_SLICE GATHER",
    6: "DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED",
}

# Operators that TensorFlow 2.5 did not know at all.
_LATER = frozenset({"GELU"})

LAST_VERSION: Mapping[OpDef, int] = {
    **{op: 0 if code in _LATER else 1 for code, op in BY_CODE.items()},
    **{BY_CODE[code]: version for version, codes in _ABOVE_ONE.items() for code in codes.split()},
}
