"""Widths on targets: what they take, what they say of others, and combinations that runtimes compute wrong."""

from __future__ import annotations

import pytest

from converter.targets import TARGETS, get_target
from converter.tflite.model_file import parse
from ir.kernels import Granularity, Types
from ir.opdef import OpDef
from ir.ops import OPERATORS
from ir.ops.activation import GELU, HARD_SWISH
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU6
from ir.ops.transposed import TRANSPOSE_CONV
from ir.ops.unary import LOG
from ir.types import DType
from ir.widths import Widths
from runtime_tests.samples import case

PER_TENSOR, PER_CHANNEL = Granularity
INT16_X_INT4 = Types(DType.INT16, DType.INT4, DType.INT64)


@pytest.mark.parametrize(
    ("target", "op", "granularity", "requested", "expected"),
    [
        ("edgetpu", CONV_2D, PER_CHANNEL, (8, 4), (8, 8)),
        ("edgetpu", CONV_2D, PER_CHANNEL, (7, 7), (7, 7)),
        ("edgetpu", CONV_2D, PER_CHANNEL, (16, 8), None),
        ("edgetpu", ADD, PER_TENSOR, (16, 8), None),
        ("cpu", CONV_2D, PER_CHANNEL, (8, 4), (8, 4)),
        ("cpu", CONV_2D, PER_CHANNEL, (16, 4), (16, 8)),
        ("litert", CONV_2D, PER_CHANNEL, (16, 4), (16, 4)),
        ("litert", DEPTHWISE_CONV_2D, PER_CHANNEL, (16, 4), (16, 8)),
        ("cpu", FULLY_CONNECTED, PER_CHANNEL, (8, 2), (8, 8)),
        ("litert", FULLY_CONNECTED, PER_CHANNEL, (8, 2), (8, 2)),
        ("cpu", LOG, PER_TENSOR, (8, 8), (8, 8)),  # tflite-runtime has no such kernel at all
        ("cpu", LOG, PER_TENSOR, (16, 8), None),
        ("tflm", CONV_2D, PER_CHANNEL, (8, 4), (8, 4)),
        ("tflm", FULLY_CONNECTED, PER_CHANNEL, (8, 4), (8, 8)),
        ("tflm", FULLY_CONNECTED, PER_TENSOR, (8, 4), (8, 4)),
        ("tflm", GELU, PER_TENSOR, (8, 8), None),
        ("ethos-u55", CONV_2D, PER_CHANNEL, (16, 8), (16, 8)),
        ("ethos-u55", CONV_2D, PER_CHANNEL, (8, 4), (8, 8)),
        ("ethos-u55", TRANSPOSE_CONV, PER_CHANNEL, (16, 4), (16, 8)),
        ("ethos-u55", HARD_SWISH, PER_TENSOR, (16, 8), None),
        ("npu-per-tensor", CONV_2D, PER_TENSOR, (8, 4), (8, 8)),
    ],
)
def test_a_target_gives_the_next_widths_that_it_has(
    target: str,
    op: OpDef,
    granularity: Granularity,
    requested: tuple[int, int],
    expected: tuple[int, int] | None,
) -> None:
    asked = Widths(activation_bits=requested[0], weight_bits=requested[1])
    found = get_target(target).widths(op, asked, granularity)
    assert (found and (found.activation_bits, found.weight_bits)) == expected


def _judged(target: str, op: OpDef, types: Types) -> tuple[bool, str, tuple[str, ...]]:
    """Whether a layer of these types is mapped, why not, and what is noted besides."""
    report = get_target(target).judge(parse(case(op, types, PER_TENSOR, 0).model))
    (verdict,) = report.verdicts
    return verdict.mapped, verdict.reason, report.notes


@pytest.mark.parametrize(
    ("target", "op", "types", "reason"),
    [
        (
            "ethos-u55",
            CONV_2D,
            Types(DType.INT8, DType.INT4, DType.INT32),
            "int4 weights, where it takes int8 or uint8",
        ),
        ("ethos-u55", HARD_SWISH, Types(DType.INT16), "int16 activations, where it takes int8 or uint8"),
        (
            "cpu",
            CONV_2D,
            Types(DType.INT16, DType.INT8, DType.INT64),
            "int16 activations, where it takes int8 or uint8",
        ),
        ("tflm", HARD_SWISH, Types(DType.INT16), "int16 activations, where it takes"),
        ("npu-per-tensor", ADD, Types(DType.INT16), "int16 activations, where it takes int8 or uint8"),
    ],
)
def test_a_verdict_names_the_types_that_were_found(target: str, op: OpDef, types: Types, reason: str) -> None:
    mapped, found, _ = _judged(target, op, types)
    assert not mapped and found.startswith(reason)


@pytest.mark.parametrize(
    ("target", "op", "types"),
    [
        ("ethos-u55", CONV_2D, Types(DType.INT16, DType.INT8, DType.INT64)),
        ("cpu", FULLY_CONNECTED, Types(DType.INT8, DType.INT4, DType.INT32)),
        ("tflm", FULLY_CONNECTED, Types(DType.INT16, DType.INT8, DType.INT64)),
    ],
)
def test_listed_types_are_taken(target: str, op: OpDef, types: Types) -> None:
    assert _judged(target, op, types)[:2] == (True, "")


@pytest.mark.parametrize("target", ["cpu", "edgetpu"])
def test_a_file_that_runtimes_compute_wrong_is_named(target: str) -> None:
    _, _, notes = _judged(target, DEPTHWISE_CONV_2D, INT16_X_INT4)
    wrong = [n for n in notes if "silently computes something else" in n]
    assert len(wrong) == 2 and wrong[0].startswith("DEPTHWISE_CONV_2D of int16 x int4 with int64 bias")
    assert "LiteRT 2.3" in wrong[0] and "tflite-runtime 2.14" in wrong[1] and "(#0 'y')" in wrong[0]
    assert "store it as int16 x int8 with int64 bias" in wrong[0]


def test_a_clamp_that_tflm_does_not_rescale_is_named() -> None:
    _, _, notes = _judged("tflm", RELU6, Types(DType.INT8))
    assert any(
        n.startswith("RELU6 of int8, result rescaled: TensorFlow Lite Micro silently computes something else")
        for n in notes
    )


def test_what_is_right_everywhere_is_not_noted() -> None:
    _, _, notes = _judged("cpu", CONV_2D, Types(DType.INT8, DType.INT8, DType.INT32))
    assert not any("LiteRT 2.3" in n or "tflite-runtime" in n for n in notes)


def test_no_target_runs_what_it_does_not_list() -> None:
    """An operator that is declared tomorrow runs nowhere until a target names it, or a kernel is measured."""
    for target in TARGETS.values():
        assert all(rule.takes for rule in target.rules.values()), target.name
    assert all(op.quantization.kernels for op in OPERATORS if op.integer is not None and op.quantization.integer)
