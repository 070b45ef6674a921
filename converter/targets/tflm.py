"""Microcontrollers: TensorFlow Lite Micro, as its `micro_mutable_op_resolver.h` lists operators; one arena for all."""

from __future__ import annotations

import math
from collections.abc import Iterable

from converter.targets.rules import CheckReport, Limit, Rule, Rules, Takes, check_each, kernel_takes, limit
from converter.targets.site import BY_CODE, Site, sites, tensor_bytes
from converter.targets.target import CONVOLUTIONS, Target
from converter.tflite import packing, variables
from converter.tflite.decoding import Carrier
from converter.tflite.records import ModelFile, TensorRecord
from ir.opdef import OpDef, Role
from ir.ops import slicing
from ir.profile import TFLM, Runtime

_ALIGNMENT = 16  # bytes, of every tensor in the arena


@limit("convert with fixed input sizes (--input_shape, --batch_size)")
def static_shapes(site: Site) -> bool:
    """all sizes are fixed"""
    return all(d >= 0 for t in site.activations for d in t.shape)


@limit("convert the model without sparse weights")
def dense(site: Site) -> bool:
    """the weights are dense"""
    return not any(t.is_sparse for t in site.inputs)


@limit("join in steps, as convert does")
def few_operands(site: Site) -> bool:
    """at most 10 inputs"""
    return site.op is None or len(site.inputs) <= site.op.most_operands[Runtime.TFLM]


# What its kernels take beside the quantized types that the table of kernels lists: measured, one operator each.
_BESIDES = {
    "FLOAT32": "RELU RELU6 LEAKY_RELU PRELU HARD_SWISH LOGISTIC TANH ELU DEPTH_TO_SPACE SPACE_TO_DEPTH SPACE_TO_BATCH_ND "
    "BATCH_TO_SPACE_ND GREATER GREATER_EQUAL LESS LESS_EQUAL EQUAL NOT_EQUAL SELECT_V2 QUANTIZE DEQUANTIZE CAST CONV_2D "
    "DEPTHWISE_CONV_2D FULLY_CONNECTED TRANSPOSE_CONV ABS CEIL COS EXP FLOOR LOG NEG ROUND RSQRT SIN SQRT SQUARE ADD SUB "
    "MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE CONCATENATION PACK UNPACK SPLIT SPLIT_V BATCH_MATMUL PAD PADV2 "
    "MIRROR_PAD AVERAGE_POOL_2D MAX_POOL_2D MEAN SUM REDUCE_MAX REDUCE_MIN ARG_MAX RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE BROADCAST_TO SLICE STRIDED_SLICE GATHER SOFTMAX "
    "LOG_SOFTMAX L2_NORMALIZATION SHAPE FILL ZEROS_LIKE FLOOR_DIV FLOOR_MOD UNIDIRECTIONAL_SEQUENCE_LSTM",
    "INT32": "GREATER GREATER_EQUAL LESS LESS_EQUAL EQUAL NOT_EQUAL CAST QUANTIZE DEQUANTIZE ADD SUB MUL DIV MAXIMUM "
    "MINIMUM SQUARED_DIFFERENCE CONCATENATION PACK UNPACK SPLIT SPLIT_V PAD PADV2 RESHAPE SQUEEZE BROADCAST_TO SLICE "
    "STRIDED_SLICE SHAPE FILL ZEROS_LIKE",
    "BOOL": "LOGICAL_AND LOGICAL_OR LOGICAL_NOT EQUAL NOT_EQUAL CAST CONCATENATION RESHAPE SQUEEZE BROADCAST_TO",
}
_INDICES = frozenset({"BOOL", "INT32", "INT64"})  # beside the numbers: what is compared, chosen by, found


@limit("use real numbers, or other layers")
def known_data(site: Site) -> bool:
    """whole numbers and truth values as data only where they are listed"""
    if site.op is None:
        return True
    first = site.input(0)
    data = [] if first is None or site.op.operand(0).role is not Role.ACTIVATION else [first.type_name]
    data += [t.type_name for t in site.outputs if "output" in site.op.quantization.tied]
    return all(t not in _INDICES or site.record.code in _BESIDES.get(t, "").split() for t in data)


@limit("cast them to int32")
def few_places(site: Site) -> bool:
    """places of 32 bits"""
    return all(t.type_name != "INT64" for t in site.inputs)


def _takes(code: str, op: OpDef) -> tuple[Takes, ...]:
    """The types that its kernels of one operator take."""
    plain = frozenset(name for name, codes in _BESIDES.items() if code in codes.split())
    if op.is_conversion or code == "CAST":
        return (Takes(activations=plain | {"INT8", "UINT8", "INT16"}),)
    quantized = kernel_takes(op, TFLM, _INDICES)
    of_integers = all(operand.role is Role.INDEX for operand in op.operands)  # they are its data, not beside them
    return (*quantized, *((Takes(activations=plain if of_integers else plain | _INDICES),) if plain else ()))


def _limits(op: OpDef) -> tuple[Limit, ...]:
    few = (few_operands,) if Runtime.TFLM in op.most_operands else ()
    places = (few_places,) if op in (slicing.GATHER, slicing.GATHER_ND) else ()
    return (static_shapes, dense, known_data, *few, *places)


RULES: Rules = {
    op: Rule(takes=takes, limits=_limits(op)) for code, op in BY_CODE.items() if (takes := _takes(code, op))
}


# Custom operators that are compiled in, and what registers them.
UNPACKS = {packing.CUSTOM: "AddDecode"}
# Words of operators that its methods spell otherwise than with one capital.
_SPELLED = {"CUMSUM": "CumSum", "MATMUL": "MatMul", "PADV2": "PadV2", "LSTM": "LSTM", "2D": "2D"}


def registrations(model: ModelFile) -> tuple[str, ...]:
    """The methods of `MicroMutableOpResolver` that a file needs, by name: `AddConv2D` and so on, each once."""
    codes = dict.fromkeys(record.code for graph in model.subgraphs for record in graph.operators)
    builtin = {f"Add{''.join(map(_spelled, code.split('_')))}" for code in codes if not code.startswith("CUSTOM")}
    return tuple(sorted(builtin | {UNPACKS[code] for code in codes if code in UNPACKS}))


def _spelled(word: str) -> str:
    return _SPELLED.get(word, word.capitalize())


def arena_bytes(model: ModelFile) -> int:
    """The most bytes that are alive at once: no arena can be smaller; the interpreter's own are more.

    Activations, and beside them int4 weights of the operator that runs: its kernel unpacks all of them into the arena.
    """
    graph = model.main
    last: dict[int, int] = {}
    for site in sites(model):
        last.update(dict.fromkeys((j for j in site.record.inputs if j >= 0), site.index))
    last.update(dict.fromkeys(graph.outputs, len(graph.operators)))
    alive = {j for j in graph.inputs if graph.tensors[j].data is None}
    alive |= {j for j, t in enumerate(graph.tensors) if t.is_variable}
    most = _aligned(graph.tensors[j] for j in alive)
    for site in sites(model):
        alive |= set(site.record.outputs)
        most = max(most, _aligned(graph.tensors[j] for j in alive) + _unpacked_bytes(site))
        alive = {j for j in alive if last.get(j, -1) > site.index or graph.tensors[j].is_variable}
    return most


def _unpacked_bytes(site: Site) -> int:
    packed = [t for t in site.inputs if t.type_name == "INT4"]
    return sum(-(-math.prod(t.shape) // _ALIGNMENT) * _ALIGNMENT for t in packed)


def _aligned(tensors: Iterable[TensorRecord]) -> int:
    return sum(-(-tensor_bytes(t) // _ALIGNMENT) * _ALIGNMENT for t in tensors)


def check(model: ModelFile, min_runtime_version: str | None = None) -> CheckReport:
    """Which operators TensorFlow Lite Micro has, and the least arena."""
    verdicts = check_each(
        model,
        RULES,
        on="Runs on TFLM",
        off="Not in TFLM",
        missing="TensorFlow Lite Micro has no such operator",
        fix="use other layers (ReLU6 in place of GELU)",
        custom={*UNPACKS, *variables.CODES},
    )
    arena = arena_bytes(model)
    note = f"the arena takes at least {arena} bytes ({arena / 1024:.1f} KiB); the interpreter adds its own records"
    added = registrations(model)
    register = f"operators to register, {len(added)}: {' '.join(f'resolver.{name}();' for name in added)}"
    figures = {"arena_bytes": arena, "register": list(added)}
    return CheckReport(target=TARGET.name, verdicts=verdicts, figures=figures, notes=(note, register))


TARGET = Target(
    name="tflm",
    summary="microcontrollers with TensorFlow Lite Micro",
    per_channel=CONVOLUTIONS,
    rules=RULES,
    check=check,
    rewrites="decompose",
    computes=(Runtime.TFLM,),
    also=(),
    carriers=frozenset(Carrier) - {Carrier.PLAIN},
)
