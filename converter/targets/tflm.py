"""Microcontrollers: TensorFlow Lite Micro, as its `micro_mutable_op_resolver.h` lists operators; one arena for all."""

from __future__ import annotations

import math
from collections.abc import Iterable

from converter.targets.rules import BY_CODE, CheckReport, Rule, Rules, Site, check_each, limit, sites, tensor_bytes
from converter.targets.target import CONVOLUTIONS, Target
from converter.tflite.model_file import ModelFile, TensorRecord
from ir.ops.activation import GELU, RELU_N1_TO_1
from ir.ops.shape import TILE
from ir.ops.static import DENSIFY, RANGE, RANK, REDUCE_PROD
from ir.profile import Runtime

_ALIGNMENT = 16  # bytes, of every tensor in the arena


@limit("convert with fixed input sizes (--input_shape, --batch_size)")
def static_shapes(site: Site) -> bool:
    """all sizes are fixed"""
    return all(d >= 0 for t in site.activations for d in t.shape)


@limit("convert the model without sparse weights")
def dense(site: Site) -> bool:
    """the weights are dense"""
    return not any(t.is_sparse for t in site.inputs)


_MISSING = frozenset({GELU, RELU_N1_TO_1, TILE, RANGE, RANK, REDUCE_PROD, DENSIFY})
RULES: Rules = {op: Rule(limits=(static_shapes, dense)) for op in BY_CODE.values() if op not in _MISSING}


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


def check(model: ModelFile, min_runtime_version: int | None = None) -> CheckReport:
    """Which operators TensorFlow Lite Micro has, and the least arena."""
    verdicts = check_each(
        model,
        RULES,
        on="Runs on TFLM",
        off="Not in TFLM",
        missing="TensorFlow Lite Micro has no such operator",
        fix="use other layers (ReLU6 in place of GELU)",
    )
    arena = arena_bytes(model)
    note = f"the arena takes at least {arena} bytes ({arena / 1024:.1f} KiB); the interpreter adds its own records"
    return CheckReport(target=TARGET.name, verdicts=verdicts, figures={"arena_bytes": arena}, notes=(note,))


TARGET = Target(
    name="tflm",
    summary="microcontrollers with TensorFlow Lite Micro",
    per_channel=CONVOLUTIONS,
    rules=RULES,
    check=check,
    rewrites="decompose",
    kernels=frozenset({Runtime.TFLM}),
)
