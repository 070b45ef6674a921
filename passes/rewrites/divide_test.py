"""Quotients become products; where the divisor has no sign, they are left and said."""

from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_float
from ir.graph import Graph
from ir.opdef import FusedActivation
from ir.ops.elementwise import ADD, DIV, MUL, SQRT, BinaryAttributes
from ir.types import TensorType
from ir.verify import verify
from passes.contract.base import Context, Given, PassReport, SamplesInMemory
from passes.rewrites.divide import Divide

_X = np.random.default_rng(0).uniform(-1, 1, (40, 6)).astype(np.float32)


def _quotient(shift: float, root: bool = False, activation: FusedActivation = FusedActivation.NONE) -> Graph:
    """`(x + 0.3) / (x + shift)`, or by the root of that."""
    graph = Graph("quotient")
    x = graph.input("x", TensorType((1, 6)))
    a, b = (
        graph.add(ADD, [x, graph.constant(np.float32(c), f"{n}_shift")], BinaryAttributes(), n).output
        for n, c in (("a", 0.3), ("b", shift))
    )
    if root:
        b = graph.add(SQRT, [b], name="root").output
    graph.outputs = [graph.add(DIV, [a, b], BinaryAttributes(activation=activation), "y").output]
    return graph


def _run(graph: Graph, data: bool = True) -> PassReport:
    samples = SamplesInMemory((_X,)) if data else None
    report = Divide().run(graph, Context(Given(samples=samples)))
    verify(graph)
    return report


@pytest.mark.parametrize("activation", [FusedActivation.NONE, FusedActivation.RELU])
@pytest.mark.parametrize(("shift", "root"), [(1.5, False), (-1.5, False), (1.5, True)])
def test_the_function_stays(shift: float, root: bool, activation: FusedActivation) -> None:
    graph = _quotient(shift, root, activation)
    expected = np.asarray(run_float(graph, [_X])[0])
    report = _run(graph, data=not root)  # a root has a sign without data
    assert len(report.changed) == 1 and not {DIV, SQRT} & {node.op for node in graph.nodes}
    np.testing.assert_allclose(np.asarray(run_float(graph, [_X])[0]), expected, rtol=1e-5, atol=1e-6)


def test_a_divisor_of_either_sign_is_left() -> None:
    graph = _quotient(0.1)
    report = _run(graph)
    assert "not of one sign" in report.skipped[0].reason and graph.nodes[-1].op is DIV


def test_without_data_the_sign_is_not_known() -> None:
    graph = _quotient(1.5)
    assert "not known" in _run(graph, data=False).skipped[0].reason and MUL not in {n.op for n in graph.nodes}
