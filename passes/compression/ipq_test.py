"""Codebooks in stages: which layers when, that training in between helps, and that the file's numbers are a codebook's."""

import dataclasses
import re

import pytest

from ir.errors import OptionError
from ir.graph import Graph
from ir.layer import layers
from passes.compression.budget import Option
from passes.compression.codebooks import Codebooks
from passes.compression.codebooks_test import annotated
from passes.compression.ipq import Ipq, stages_of
from passes.contract.base import Context, SamplesInMemory
from passes.graph_testing import Net, random_inputs, run_alone
from passes.running.pipeline import parse

pytestmark = pytest.mark.trains


def prepared() -> tuple[Graph, Graph, Context]:
    graph, reference, context = annotated("per_channel")
    tuning = SamplesInMemory((random_inputs(graph, 128, seed=5)[0],))
    context.given = dataclasses.replace(context.given, tuning=tuning)
    return graph, reference, context


def books(graph: Graph) -> list[str]:
    return [layer.name for layer in layers(graph) if layer.params.codebook is not None]


def test_stages_are_trained_and_keep_what_is_better_on_held_out_samples():
    graph, _, context = prepared()
    run_alone(graph, Codebooks(length=4, entries=8), context)
    expected = books(graph)
    graph, _, context = prepared()
    step = Ipq(length=4, entries=8, stages=2, epochs=6, batch_size=16, loss="rmse", learning_rate=1e-4)
    report = run_alone(graph, step, context)
    assert len(expected) > 1 and books(graph) == expected
    (kept,) = [text for text in report.changed if text.startswith("stage 1: epoch")]
    before, after = map(float, re.findall(r"held-out loss ([0-9.]+) -> ([0-9.]+)", kept)[0])
    assert after < before
    assert any(text.startswith("stage 2: ") for text in (*report.changed, *report.notes))
    for layer in layers(graph):
        if layer.params.codebook is not None:
            assert layer.params.codebook.holds(layer.params.quantize(layer.data))


def test_stages_are_parts_of_about_as_many_weights_in_order():
    net = Net(0)
    x = net.input(4, 4, 8)
    for name, out in (("a", 8), ("b", 8), ("c", 32), ("d", 8)):
        x = net.conv(x, out, 1, name=name)
    graph = net.ends(x)
    longer = {"a": Option(coarser=2.0, size_bytes=1), "b": Option(size_bytes=1)}
    plan = {node: longer.get(node.name, Option(length=4, size_bytes=1)) for node in graph.nodes}
    parts = stages_of(graph, plan, 3)
    assert [[n.name for n in part] for part in parts] == [["a"], ["c"], ["d"]]
    assert [n.name for part in stages_of(graph, plan, 1) for n in part] == ["a", "c", "d"]


def test_without_a_codebook_that_is_smaller_nothing_happens():
    graph, _, context = prepared()
    report = run_alone(graph, Ipq(max_bytes=1 << 30), context)
    assert not report.changed
    assert report.skipped[0].reason == "no layer gets smaller with such a codebook"


@pytest.mark.parametrize("text", ["stages=0", "entries=1", "checkpoint_dir=x", "epochs=0"])
def test_options_that_are_refused(text: str):
    with pytest.raises(OptionError):
        parse(f"ipq{{{text}}}")
