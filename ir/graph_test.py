import numpy as np
import pytest

from ir.graph import Graph
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU, RELU6
from ir.printer import to_text
from ir.types import TensorType
from ir.verify import VerificationError, verify


def diamond() -> Graph:
    graph = Graph("diamond")
    x = graph.input("x", TensorType((1, 4)))
    a = graph.add(RELU, [x], name="a").output
    b = graph.add(RELU6, [x], name="b").output
    graph.outputs = [graph.add(ADD, [a, b], name="sum").output]
    return graph


def names(graph: Graph) -> list[str]:
    return [n.name for n in graph.nodes]


def test_nodes_are_in_topological_order_after_edits():
    graph = diamond()
    late = graph.add(RELU, [graph.inputs[0]], name="late").output
    summed = graph.nodes[2]
    graph.set_input(summed, 0, late)
    verify(graph)
    order = names(graph)
    assert order.index("late") < order.index("sum")
    assert [n.name for n in graph.prune()] == ["a"]
    verify(graph)


def test_uses_follow_every_edit():
    graph = diamond()
    x, summed = graph.inputs[0], graph.nodes[2]
    a = graph.nodes[0]
    assert {n.name for n in x.consumers} == {"a", "b"}
    graph.bypass(a)
    assert [(n.name, i) for n, i in x.uses] == [("b", 0), ("sum", 0)]
    assert summed.inputs[0] is x
    verify(graph)


def test_one_value_used_twice_by_a_node_has_two_uses():
    graph = Graph()
    x = graph.input("x", TensorType((2,)))
    node = graph.add(ADD, [x, x])
    assert len(x.uses) == 2 and x.consumers == [node]
    y = graph.input("y", TensorType((2,)))
    graph.replace_uses(x, y)
    assert not x.uses and node.inputs == (y, y)


def test_absorb_keeps_the_followers_value():
    graph = diamond()
    a = graph.nodes[0]
    follower = graph.add(RELU6, [a.output], name="follower")
    value = follower.output
    summed = next(n for n in graph.nodes if n.name == "sum")
    graph.replace_uses(a.output, value, only=[summed])
    graph.absorb(a, follower)
    assert a.output is value and value.producer is a and "follower" not in names(graph)
    verify(graph)


def test_a_twin_is_independent_and_equal():
    graph = diamond()
    twin = graph.twin()
    duplicate = twin.graph
    assert to_text(duplicate) == to_text(graph)
    duplicate.bypass(duplicate.nodes[0])
    verify(graph)
    assert len(graph.nodes) == 3 and len(duplicate.nodes) == 2
    assert twin.values[graph.outputs[0]] is duplicate.outputs[0]
    assert to_text(graph.copy()) == to_text(graph)


def test_nodes_and_values_of_a_twin_stand_for_those_of_the_graph():
    graph = diamond()
    twin = graph.twin()
    assert [twin.nodes[n] for n in graph.nodes] == twin.graph.nodes
    assert [twin.values[v] for v in graph.values()] == twin.graph.values()
    assert all(twin.values[n.output] is twin.nodes[n].output for n in graph.nodes)


def test_a_twin_is_found_from_a_copy_too():
    graph = diamond()
    twin, copied = graph.twin(), graph.twin()
    seen = twin.onto(copied)
    assert seen.graph is twin.graph
    assert [seen.nodes[copied.nodes[n]] for n in graph.nodes] == twin.graph.nodes
    assert [seen.values[copied.values[v]] for v in graph.values()] == twin.graph.values()


def test_what_is_remembered_comes_back_with_the_same_nodes_and_values():
    graph = diamond()
    text, nodes, values = to_text(graph), graph.nodes, graph.values()
    put_back = graph.remember()
    for _ in range(2):
        graph.outputs[0].name = "other"
        graph.bypass(graph.nodes[0])
        graph.outputs = [graph.add(RELU6, [graph.outputs[0]], name="more").output]
        put_back()
        verify(graph)
        assert to_text(graph) == text and graph.nodes == nodes and graph.values() == values
        assert graph.unique_name("more") == "more"
        put_back()


def test_names_stay_unique():
    graph = Graph()
    assert [graph.unique_name("x") for _ in range(3)] == ["x", "x_1", "x_2"]
    assert graph.unique_name("x_1") == "x_3", "what replaces a replaced constant gets no longer name"
    assert [graph.unique_name("y_1") for _ in range(2)] == ["y_1", "y_1_1"]


def test_sorting_does_not_recurse():
    graph = Graph()
    value = graph.input("x", TensorType((1,)))
    for _ in range(5000):
        value = graph.add(RELU, [value]).output
    graph.outputs = [value]
    assert len(graph.nodes) == 5000
    verify(graph)


def test_verify_names_the_node_that_is_broken():
    graph = diamond()
    graph.nodes[0].output.type = TensorType((1, 5))
    with pytest.raises(VerificationError, match=r"after my_pass: .*relu\(a\)"):
        verify(graph, "my_pass")


def test_a_constant_that_lies_about_its_shape_is_found():
    graph = diamond()
    wrong = graph.constant(np.zeros(4, np.float32), "c")
    wrong.type = TensorType((1, 4))
    graph.set_input(graph.nodes[2], 1, wrong)
    with pytest.raises(VerificationError, match="constant"):
        verify(graph)
