from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from converter.compare import compare, to_integers, to_reals
from converter.tflite.writer import to_bytes
from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import ADD, MUL
from ir.ops.reduction import ARG_MAX, MEAN, ArgMaxAttributes, ReduceAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.softmax import SOFTMAX
from ir.quantization import asymmetric
from ir.types import DType, TensorType
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.rewrites.fuse import FuseActivation
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

X = np.random.default_rng(0).normal(size=(11, 6)).astype(np.float32)


def classifier(bias: float = 0.0) -> Graph:
    """Four classes; `bias` is added to the logit of the first."""
    net = Net(1)
    logits = net.then(
        ADD, net.dense(net.input(6), 4, name="dense"), net.constant([bias, 0, 0, 0], "bias"), name="logits"
    )
    return net.ends(net.then(SOFTMAX, logits, name="classes"))


def emitted(graph: Graph, x: np.ndarray = X, io: str = "int8") -> bytes:
    graph = graph.copy()
    run_passes(
        graph, [Calibrate(), Quantize(), FuseActivation(), LowerToInteger(io=io)], Context(Given(samples=in_memory(x)))
    )
    return to_bytes(graph)


def test_figures_of_a_good_conversion():
    found = compare(classifier(), emitted(classifier()), in_memory(X))
    assert found.samples == 11 and found.agreement == 1.0 and 25 < found.sqnr_db < 60
    assert found.float_accuracy is None and found.integer_accuracy is None


def test_what_rebuilds_its_input_has_no_classes_unless_there_are_labels():
    net = Net(1)
    graph = net.ends(net.dense(net.input(6), 6, name="rebuilt"))
    found = compare(graph, emitted(graph), in_memory(X))
    assert found.agreement is None and found.classes is None and found.sqnr_db > 25
    found = compare(graph, emitted(graph), in_memory(X), labels=np.zeros(len(X), int))
    assert found.classes == 6 and found.float_accuracy is not None


@pytest.mark.parametrize("io", ["uint8", "float"])
def test_the_type_of_the_ends_does_not_matter(io):
    assert compare(classifier(), emitted(classifier(), io=io), in_memory(X)) == compare(
        classifier(), emitted(classifier()), in_memory(X)
    )


def test_the_size_of_batches_does_not_matter():
    model = emitted(classifier())
    a, b = (compare(classifier(), model, in_memory(X), batch_size=size) for size in (1, 4))
    assert a.agreement == b.agreement and a.sqnr_db == pytest.approx(b.sqnr_db, abs=1e-3)


def test_figures_by_hand():
    """The file is another network, whose first class always wins."""
    other = emitted(classifier(bias=100.0))
    answers = classifier_logits(X).argmax(axis=1)
    labels = answers.copy()
    labels[:3] = 0
    found = compare(classifier(), other, in_memory(X), labels)
    assert found.agreement == pytest.approx((answers == 0).mean())
    assert found.float_accuracy == pytest.approx((answers == labels).mean())
    assert found.integer_accuracy == pytest.approx((labels == 0).mean())
    z = classifier_logits(X)
    assert found.sqnr_db == pytest.approx(10 * np.log10((z**2).sum() / (len(X) * 100.0**2)), abs=0.1)


def classifier_logits(x: np.ndarray) -> np.ndarray:
    dense = classifier().nodes[0]
    return x.astype(np.float64) @ dense.weight.data.T.astype(np.float64) + dense.bias.data


def test_a_file_that_computes_the_same_has_no_noise():
    graph = classifier()
    assert compare(graph, to_bytes(graph), in_memory(X[:2])).sqnr_db > 100


def test_outputs_that_are_no_classes_have_no_agreement():
    net = Net(2)
    x = net.input(6)
    graph = net.ends(net.dense(x, 1, name="one"), net.dense(x, 3, name="three"))
    found = compare(graph, emitted(graph), in_memory(X), np.zeros(len(X), np.int64))
    assert found.agreement is None and found.float_accuracy is None and found.sqnr_db > 25


def test_progress_and_fixed_batches():
    graph = Graph()
    x = graph.input("x", TensorType((2, 6)))
    w = graph.constant(np.eye(6, dtype=np.float32), "w")
    graph.outputs = [graph.add(FULLY_CONNECTED, [x, w, None]).output]
    seen = []
    found = compare(
        graph, to_bytes(graph), in_memory(X[:10]), progress=lambda what, done, total: seen.append((done, total))
    )
    assert found.samples == 10 and seen == [(i, 10) for i in (2, 4, 6, 8, 10)]


def test_outputs_without_an_axis_of_samples_belong_to_the_one_sample():
    """A figure of a whole picture has no axes; rows that are an output's first axis are no samples."""
    graph = Graph()
    x = graph.input("x", TensorType((1, 6)))
    mean = graph.add(MEAN, [x], ReduceAttributes(axes=(0, 1), keep_dims=False)).output
    graph.outputs = [mean, graph.add(RESHAPE, [x], ReshapeAttributes(shape=(3, 2))).output]
    found = compare(graph, emitted(graph), in_memory(X))
    assert found.samples == len(X) and found.agreement is None and found.copies == 0 and found.sqnr_db > 30


def test_reals_and_integers():
    params = asymmetric(-1.0, 1.0)
    assert to_integers(np.array([-5.0, 0.0, 5.0]), DType.INT8, params).tolist() == [-128, -1, 127]
    assert to_reals(np.array([-1], np.int8), params).tolist() == [0.0]
    assert (
        to_integers(np.array([3]), DType.INT32, None).dtype == np.int32
        and to_reals(np.array([3]), None).dtype == np.float32
    )


def test_outputs_that_never_vary_do_not_lift_the_figure():
    net = Net(1)
    x = net.input(6)
    logits = net.dense(x, 4, name="dense")
    zeros = net.then(MUL, x, net.constant(np.zeros(6), "nothing"), name="zeros")
    both = net.ends(logits, net.then(ADD, zeros, net.constant(np.full(6, 1e3), "much"), name="level"))
    found = compare(both, emitted(both), in_memory(X))
    alone = net.ends(logits)
    assert found.constant_outputs == ("level",)
    assert found.sqnr_db == pytest.approx(compare(alone, emitted(alone), in_memory(X)).sqnr_db, abs=0.1)


def test_integer_outputs_are_counted_apart():
    net = Net(1)
    logits = net.dense(net.input(6), 4, name="dense")
    found = net.then(ARG_MAX, logits, attrs=ArgMaxAttributes(axis=1), name="best")
    both = net.ends(logits, found)
    figures = compare(both, emitted(both), in_memory(X))
    alone = net.ends(logits)
    assert figures.integer_outputs == ("best",) and figures.integer_agreement == 1.0
    assert figures.closeness("SQNR") == [f"SQNR {figures.sqnr_db:.1f} dB", "integers equal in 100.0%"]
    assert dataclasses.replace(figures, sqnr_db=np.inf).closeness("SQNR") == ["integers equal in 100.0%"]
    assert figures.sqnr_db == pytest.approx(compare(alone, emitted(alone), in_memory(X)).sqnr_db, abs=1e-6)
