"""Which form an LSTM is written in, and that both are the same function."""

from __future__ import annotations

import numpy as np
import pytest

from ir.errors import OptionError
from ir.execute import run_float
from ir.graph import Graph
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM, LstmAttributes
from passes.contract.base import Context
from passes.graph_testing import Net
from passes.quantization.quantize import Quantize
from passes.rewrites.recurrence import Recurrence
from passes.running.pipeline import for_widths


def _network(attrs: LstmAttributes | None = None) -> Graph:
    net = Net()
    return net.ends(net.lstm(net.input(4, 3), 5, attrs))


def _fused(graph: Graph) -> bool:
    return any(node.op is UNIDIRECTIONAL_SEQUENCE_LSTM for node in graph.nodes)


@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_steps_compute_the_same(clip: float) -> None:
    graph = _network(LstmAttributes(cell_clip=clip))
    x = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
    expected = np.asarray(run_float(graph, [x])[0])
    report = Recurrence(form="steps").run(graph, Context())
    assert report.changed == ("lstm in 4 steps",) and not _fused(graph)
    np.testing.assert_allclose(
        np.asarray(run_float(graph, [x])[0]), expected, rtol=0, atol=1e-6
    )  # another order of sums


def test_steps_share_their_weights() -> None:
    graph = _network()
    Recurrence(form="steps").run(graph, Context())
    assert sorted(len(v.uses) for v in graph.constants()) == [
        1,
        1,
        1,
        1,
        3,
        3,
    ]  # weights and biases, once for all steps


@pytest.mark.parametrize(("form", "bits", "fused"), [("auto", 8, True), ("auto", 16, False), ("fused", 16, True)])
def test_the_operator_is_taken_where_it_has_the_width(form: str, bits: int, fused: bool) -> None:
    graph = _network()
    (step,) = [s for s in for_widths([Recurrence(form=form), Quantize(activation_bits=bits)]) if s.name == "recurrence"]
    step.run(graph, Context())
    assert _fused(graph) is fused


def test_unknown_forms_and_long_sequences() -> None:
    with pytest.raises(OptionError, match="recurrence form: expected one of auto, fused, steps, found short"):
        Recurrence(form="short")
    net = Net()
    graph = net.ends(net.lstm(net.input(600, 2), 3))
    report = Recurrence(form="steps").run(graph, Context())
    assert report.skipped[0].reason == "600 steps, of which at most 512 are written out" and _fused(graph)
