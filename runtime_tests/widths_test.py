"""The table of kernels (`QuantRule.kernels`) says exactly what happens on the runtimes that are installed.

Every combination of operator, types of activations, weights and biases, and granularity runs on every runtime, on
random inputs and on such as saturate: what the table calls right equals the emulator on every element, what it calls
wrong differs from the float semantics, what it calls absent is refused. A new version of a runtime that changes any of
this fails here, and the message says what it does now.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from converter.runtimes.local import LocalRuntime
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.errors import RuntimeFailure
from ir.execute import run_integer
from ir.graph import Graph
from ir.kernels import Granularity, Support, Types
from ir.opdef import OpDef
from ir.ops.conversion import CAST
from ir.profile import PROFILES, Profile, Runtime
from ir.supported import computation
from ir.types import DType
from runtime_tests import proved
from runtime_tests.samples import WITH_INTEGERS, Case, case

_SEEDS = range(3)  # random inputs, inputs at both ends of their type, small ones

# By how much of its output's range a kernel may differ from the float semantics and be right: the roundings of
# multipliers and tables. What is wrong differs by tens of percent.
_RIGHT, _WRONG = 0.01, 0.05

_LITERT = Profile(runtime=Runtime.LITERT)
_RUNTIMES = [
    *(pytest.param(LocalRuntime.of(p), p, 0, id=str(p)) for p in PROFILES.values()),
    # XNNPACK rounds once where the built-in kernels round twice: one step.
    pytest.param(LocalRuntime(package="ai_edge_litert", kernels="xnnpack"), _LITERT, 1, id="xnnpack"),
]


def combinations(op: OpDef) -> list[tuple[Types, Granularity]]:
    """All element types that a file could give an operator, whether or not the table knows them."""
    if DType.BOOL in op.quantization.activation_types:
        return [(Types(DType.BOOL), Granularity.PER_TENSOR)]
    activations = (DType.INT8,) if op is CAST else (DType.INT8, DType.INT16)  # CAST: of truth values, to int8
    if op.weight_index is None:
        return [(Types(t), Granularity.PER_TENSOR) for t in activations]
    weights, biases = (DType.INT8, DType.INT4, DType.INT2), (DType.INT32, DType.INT64, None)
    return [(Types(*t), g) for *t, g in itertools.product(activations, weights, biases, Granularity)]


@pytest.mark.parametrize(("runtime", "profile", "steps"), _RUNTIMES)
@pytest.mark.parametrize("op", WITH_INTEGERS, ids=lambda op: op.name)
def test_the_table_says_what_happens(op: OpDef, runtime: LocalRuntime, profile: Profile, steps: int) -> None:
    if not runtime.installed:
        pytest.skip(f"{runtime.name} is not installed")
    problems = []
    for types, granularity in combinations(op):
        cases = [case(op, types, granularity, seed) for seed in _SEEDS]
        graph = to_graph(parse(cases[0].model))
        said = computation(graph.nodes[0]).on(profile)
        results = outputs(runtime, cases)
        problem = contradiction(said, results, cases) or _inexact(graph, said, results, cases, profile, steps)
        if problem:
            problems.append(f"{types}, {granularity.value}: the table says {said.value}, but {problem}")
    assert not problems, "\n".join(problems)


def outputs(runtime: LocalRuntime, cases: list[Case]) -> list[list[np.ndarray]]:
    """What a runtime computes, one list of outputs per case; nothing if it refuses the file or ends."""
    try:
        session = runtime.load(cases[0].model)
        return [session.invoke(c.inputs) for c in cases]
    except RuntimeFailure:
        return []


def contradiction(said: Support, results: list[list[np.ndarray]], cases: list[Case]) -> str:
    """How what a runtime made of some cases differs from what the table says; "" if it does not."""
    if not results:
        return "" if said is Support.ABSENT else "the runtime refuses it"
    if said is Support.ABSENT:
        return "the runtime computes something"
    off = max(_share(c, found) for c, found in zip(cases, results, strict=True))
    fits = {Support.WRONG: off >= _WRONG, Support.COARSE: off > _RIGHT}.get(said, off <= _RIGHT)
    return "" if fits else f"results are off by up to {off:.1%} of their range"


def _share(c: Case, results: list[np.ndarray]) -> float:
    """The largest difference from the float semantics, over the range of the output."""
    shares = []
    for expected, found in zip(c.expected, results, strict=True):
        exact = expected.astype(np.float64)
        quantized = found.dtype in (np.int8, np.int16)
        span = 2.0 ** (8 * found.itemsize) if quantized else np.ptp(exact) or 1.0
        shares.append(np.abs(exact - found.astype(np.float64)).max() / span)
    return float(max(shares))


def _inexact(
    graph: Graph, said: Support, results: list[list[np.ndarray]], cases: list[Case], profile: Profile, steps: int
) -> str:
    """How the emulator differs from a runtime where the table says that it is exact; "" if it does not."""
    if said not in (Support.RIGHT, Support.COARSE):
        return ""
    for c, found in zip(cases, results, strict=True):
        for a, b in zip(run_integer(graph, c.inputs, profile), found, strict=True):
            allowed = steps if a.dtype.kind == "i" else steps * 1e-6 * np.abs(a).max()
            off = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            if off > allowed:
                return f"the emulator is off by up to {off:g} steps"
    if not steps:
        proved.record(graph)
    return ""
