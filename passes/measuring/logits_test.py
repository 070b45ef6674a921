"""Which values are compared."""

from __future__ import annotations

import numpy as np

from ir.graph import Graph, Value
from ir.ops.activation import LOGISTIC
from ir.ops.conversion import QUANTIZE
from ir.ops.elementwise import MUL
from ir.ops.reduction import ARG_MAX
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.softmax import SOFTMAX
from passes.graph_testing import Net
from passes.measuring.logits import before_fixed, logits_of, real_logits, told_apart


def ends() -> tuple[Graph, Value]:
    """Outputs: a softmax, the same in its own shape and in another, a logistic, a product; and the logits."""
    net = Net()
    x = net.input(6)
    logits = net.dense(x, 4)
    classes = net.then(SOFTMAX, logits)
    copied = net.then(RESHAPE, classes, attrs=ReshapeAttributes(shape=(1, 4)))
    turned = net.then(RESHAPE, classes, attrs=ReshapeAttributes(shape=(4, 1)))
    return net.ends(classes, copied, turned, net.then(LOGISTIC, logits), net.then(MUL, x, x)), logits


def test_logits_stand_before_the_softmax() -> None:
    graph, logits = ends()
    assert logits_of(graph) == [logits, logits, *graph.outputs[2:]]


def test_what_only_stores_the_classes_in_another_way_is_passed() -> None:
    net = Net()
    logits = net.dense(net.input(6), 4)
    assert logits_of(net.ends(net.then(QUANTIZE, net.then(SOFTMAX, logits)))) == [logits]


def test_a_reshape_that_keeps_rows_and_samples_is_passed() -> None:
    net = Net()
    logits = net.dense(net.input(6), 4)
    rows = net.then(RESHAPE, net.then(SOFTMAX, logits), attrs=ReshapeAttributes(shape=(1, 1, 4)))
    assert logits_of(net.ends(rows)) == [logits]


def test_a_reshape_that_cuts_rows_is_not_passed() -> None:
    net = Net()
    shares = net.then(SOFTMAX, net.dense(net.input(6), 4))
    halves = net.then(RESHAPE, shares, attrs=ReshapeAttributes(shape=(1, 2, 2)))
    assert logits_of(net.ends(halves)) == [halves]


def test_before_fixed_is_what_scales_can_be_chosen_for() -> None:
    graph, logits = ends()
    _, copied, turned, _, product = graph.outputs
    assert before_fixed(graph) == [logits, copied, turned, logits, product]


def test_of_integers_the_scores_that_they_are_chosen_from_are_measured() -> None:
    net = Net()
    logits = net.dense(net.input(6), 4)
    classes = net.then(ARG_MAX, net.then(SOFTMAX, logits))
    graph = net.ends(logits, classes)
    assert real_logits(graph) == before_fixed(graph) == [logits, logits]
    assert logits_of(graph) == [logits, classes]


def test_masked_scores_differ_only_where_their_shares_do() -> None:
    net = Net()
    scores = net.dense(net.input(6), 4)
    net.ends(net.then(SOFTMAX, scores))
    expected = np.array([[3.0, -1e9, 1.0, -1e9], [3.0, 2.0, 1.0, -50.0]], np.float32)
    found = np.array([[3.5, -6.0, 1.0, 0.0], [3.0, 2.0, 1.0, -7.0]], np.float32)
    a, b = told_apart(scores, expected, found)
    assert a.tolist() == [[3.0, 0.0, 1.0, 0.0], [3.0, 2.0, 1.0, -50.0]]
    assert b.tolist() == [[3.5, 0.0, 1.0, 5.0], [3.0, 2.0, 1.0, -7.0]]


def test_other_outputs_are_compared_as_they_are() -> None:
    net = Net()
    y = net.dense(net.input(6), 4)
    net.ends(y)
    low = np.array([[0.0, -1e9, 0.0, 0.0]], np.float32)
    assert told_apart(y, low, low)[0] is low


def test_of_a_row_that_is_masked_as_a_whole_only_differences_count() -> None:
    net = Net()
    scores = net.dense(net.input(6), 3)
    net.ends(net.then(SOFTMAX, scores))
    expected = np.array([[-1e9, -1e9, -1e9], [3.0, 2.0, -1e9]], np.float32)
    found = np.array([[-16.0, -16.0, -15.25], [3.0, 2.0, -16.0]], np.float32)
    a, b = told_apart(scores, expected, found)
    assert a.tolist() == [[0.0, 0.0, 0.0], [3.0, 2.0, 0.0]]
    assert b.tolist() == [[-0.25, -0.25, 0.5], [3.0, 2.0, 0.0]]
