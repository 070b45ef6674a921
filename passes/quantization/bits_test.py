"""Requested widths: defaults, ends, rules by name, operator and position; both written forms; what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.errors import OptionError
from ir.graph import Graph
from ir.ops.convolution import DEPTHWISE_CONV_2D, FULLY_CONNECTED, DepthwiseAttributes
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.softmax import SOFTMAX
from ir.types import TensorType
from ir.widths import Widths
from passes.graph_testing import Net
from passes.quantization.bits import (
    ACTIVATION_BITS,
    WEIGHT_BITS,
    BitsPlan,
    BitsRule,
    parse_rules,
    rules_text,
)


def _dense(graph: Graph, x, name: str):  # type: ignore[no-untyped-def]
    return graph.add(FULLY_CONNECTED, [x, graph.constant(np.ones((4, 4), np.float32), "w"), None], name=name).output


def _network() -> Graph:
    """Two inputs with a layer each, added, then two layers in a row."""
    graph = Graph()
    a, b = (graph.input(name, TensorType((1, 4))) for name in "ab")
    joined = graph.add(ADD, [_dense(graph, a, "left"), _dense(graph, b, "right")], name="join").output
    graph.outputs = [_dense(graph, _dense(graph, joined, "block_1/middle"), "head")]
    return graph


def _table(plan: BitsPlan) -> dict[str, tuple[int, int]]:
    graph = _network()
    requested = plan.requested(graph)
    return {n.name: (requested(n).weight_bits, requested(n).activation_bits) for n in graph.nodes}


def test_the_ends_keep_8_bits() -> None:
    assert _table(BitsPlan(weight_bits=4, activation_bits=6)) == {
        "left": (8, 8),
        "right": (8, 8),
        "join": (4, 6),
        "block_1/middle": (4, 6),
        "head": (8, 8),
    }


def test_what_only_scales_channels_is_no_end() -> None:
    net = Net()
    x = net.layer(DEPTHWISE_CONV_2D, net.input(8, 8, 3), (1, 1, 1, 3), DepthwiseAttributes(), name="scale")
    graph = net.ends(net.conv(net.conv(x, 4, name="stem"), 4, name="head"))
    assert _ends(graph) == {"first": {"scale", "stem"}, "last": {"head"}}


def test_a_weight_for_each_channel_keeps_8_bits() -> None:
    net = Net()
    x = net.conv(net.input(8, 8, 3), 3, name="stem")
    x = net.conv(net.layer(DEPTHWISE_CONV_2D, x, (1, 1, 1, 3), DepthwiseAttributes(), name="scale"), 4, name="middle")
    graph = net.ends(net.conv(x, 4, name="head"))
    requested = BitsPlan(weight_bits=4, activation_bits=6).requested(graph)
    found = {n.name: (requested(n).weight_bits, requested(n).activation_bits) for n in graph.nodes}
    assert found == {"stem": (8, 8), "scale": (8, 6), "middle": (4, 6), "head": (8, 8)}


def test_what_no_weights_are_multiplied_with_keeps_8_bits() -> None:
    net = Net()
    x = net.conv(net.input(8, 8, 2), 2, name="stem")
    a = net.then(RELU, net.conv(x, 2, name="a"), name="a_relu")
    b = net.conv(net.conv(a, 2, name="b"), 2, name="c")
    total = net.then(ADD, b, a, name="sum")
    graph = net.ends(net.conv(net.then(RESHAPE, total, attrs=ReshapeAttributes(shape=(1, 8, 8, 2)), name="view"), 2))
    requested = BitsPlan(activation_bits=4).requested(graph)
    few = {node.name for node in graph.nodes if requested(node).activation_bits == 4}
    assert few == {"a", "a_relu", "b", "sum", "view"}  # c is an addend; what is only seen in another shape is read
    rule = BitsRule(layer="c", activation_bits=4)
    assert [node.name for node in BitsPlan(activation_bits=4).kept_results(graph)] == ["c"]
    assert BitsPlan(activation_bits=4, rules=(rule,)).kept_results(graph) == []
    addend = next(node for node in graph.nodes if node.name == "c")
    assert BitsPlan(activation_bits=4, rules=(rule,)).requested(graph)(addend).activation_bits == 4


def test_unless_told_otherwise() -> None:
    assert set(_table(BitsPlan(weight_bits=4, ends=4)).values()) == {(4, 8)}
    rules = (BitsRule(position="first", weight_bits=4),)
    assert _table(BitsPlan(weight_bits=4, rules=rules))["left"] == (4, 8)


def test_wide_activations_are_not_narrowed_at_the_ends() -> None:
    assert set(_table(BitsPlan(activation_bits=16)).values()) == {(8, 16)}


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        (BitsRule(layer="block_*", weight_bits=2), {"block_1/middle"}),
        (BitsRule(layer="/ft$|^right/", weight_bits=2), {"left", "right"}),
        (BitsRule(operator="FULLY_CONNECTED", position="last", weight_bits=2), {"head"}),
        (BitsRule(operator="add", weight_bits=2), {"join"}),
        (BitsRule(operator="fully_connected", position="first", weight_bits=2), {"left", "right"}),
        (BitsRule(layer="iddle", operator="ADD", weight_bits=2), None),
        (BitsRule(layer="h*", operator="FULLY_CONNECTED", weight_bits=2), {"head"}),
    ],
    ids=str,
)
def test_rules_choose(rule: BitsRule, chosen: set[str] | None) -> None:
    if chosen is None:
        with pytest.raises(OptionError, match="which fits none"):
            _table(BitsPlan(rules=(rule,)))
        return
    assert {name for name, (weights, _) in _table(BitsPlan(rules=(rule,))).items() if weights == 2} == chosen


def test_the_later_rule_wins_and_leaves_what_it_does_not_say() -> None:
    rules = (BitsRule(layer="*", weight_bits=4, activation_bits=16), BitsRule(layer="head", weight_bits=8))
    assert _table(BitsPlan(rules=rules))["head"] == (8, 16)


_names = st.text(min_size=1, max_size=12).filter(lambda s: s.strip("/"))
_rules = st.builds(
    BitsRule,
    layer=_names.map(lambda s: s if not (len(s) > 2 and s[0] == s[-1] == "/") else "x"),
    operator=st.sampled_from([None, "CONV_2D"]),
    position=st.sampled_from([None, "first", "last"]),
    weight_bits=st.sampled_from(WEIGHT_BITS),
    activation_bits=st.sampled_from([None, *ACTIVATION_BITS]),
)


@given(st.lists(_rules, max_size=4).map(tuple))
def test_both_forms_are_read_back(rules: tuple[BitsRule, ...]) -> None:
    plan = BitsPlan(weight_bits=3, activation_bits=16, ends=6, rules=rules)
    assert BitsPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    text = rules_text(rules)
    assert parse_rules(text) == rules and not set(text) & set(" ,{}")


def test_a_list_is_a_plan_of_rules() -> None:
    assert BitsPlan.from_json([{"layer": "x", "weight_bits": 4}]) == BitsPlan(
        rules=(BitsRule(layer="x", weight_bits=4),)
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "expected an object with weight_bits, activation_bits, ends, rules; or a list of rules, found int"),
        ({"weights": 4}, "expected one of weight_bits, activation_bits, ends, rules, found weights"),
        ({"weight_bits": "4"}, "expected a whole number for weight_bits, found '4'"),
        ({"weight_bits": 9}, "expected 2 to 8 weight bits, found 9"),
        ({"activation_bits": 12}, "expected 2 to 8 activation bits, or 16, found 12"),
        ({"ends": 16}, "expected 2 to 8 bits, found 16"),
        ({"rules": {}}, "expected a list of rules"),
        ([{"weight_bits": 4}], "expected a rule with one of layer, operator, position"),
        ([{"layer": "x"}], "expected weight_bits or activation_bits"),
        ([{"layer": "/(/", "weight_bits": 4}], "expected a regular expression between the slashes"),
        ([{"position": "middle", "weight_bits": 4}], "expected position first or last, found middle"),
        ([{"layer": "x", "weight_bits": True}], "expected a whole number for weight_bits, found True"),
    ],
)
def test_what_is_not_understood_is_named(data: object, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        BitsPlan.from_json(data, "bits.json")
    assert message in str(caught.value)


def test_a_rule_that_fits_nothing_names_close_layers() -> None:
    with pytest.raises(OptionError, match=r"layers such as block_1/middle.*found layer:blok_1/\*=w4, which fits none"):
        _table(BitsPlan(rules=(BitsRule(layer="blok_1/*", weight_bits=4),)))
    with pytest.raises(OptionError, match="one of ADD, FULLY_CONNECTED"):
        _table(BitsPlan(rules=(BitsRule(operator="CONV_2D", weight_bits=4),)))


def test_a_node_of_another_graph_gets_the_defaults() -> None:
    requested = BitsPlan(weight_bits=4).requested(_network())
    assert requested(_network().nodes[0]) == Widths(weight_bits=4)


def _ends(graph: Graph) -> dict[str, set[str]]:
    """The layers with weights at each end."""
    found = {}
    for end in ("first", "last"):
        requested = BitsPlan(rules=(BitsRule(position=end, weight_bits=2),)).requested(graph)
        found[end] = {n.name for n in graph.nodes if n.weight is not None and requested(n).weight_bits == 2}
    return found


def test_every_input_and_every_output_has_its_ends() -> None:
    """The second input comes in late; the first output is tapped in the middle."""
    net = Net()
    tapped = net.conv(net.conv(net.input(4, 4, 2), 3, name="a"), 3, name="b")
    late = net.conv(net.input(4, 4, 3), 3, name="late")
    joined = net.then(ADD, net.conv(tapped, 3, name="c"), late, name="joined")
    graph = net.ends(tapped, net.conv(joined, 2, name="d"))
    assert _ends(graph) == {"first": {"a", "late"}, "last": {"b", "d"}}


def test_a_skip_past_layers_makes_none_of_them_an_end() -> None:
    """A detector of noise reads its input again before its last layer, and subtracts what that finds."""
    net = Net()
    x = net.input(4, 4, 2)
    again = net.then(ADD, x, net.conv(net.conv(x, 3, name="a"), 2, name="b"), name="again")
    graph = net.ends(net.then(ADD, x, net.conv(again, 2, name="c"), name="sum"))
    assert _ends(graph) == {"first": {"a"}, "last": {"c"}}


def _chain() -> Graph:
    net = Net()
    x = net.then(RELU, net.conv(net.then(SOFTMAX, net.input(4, 4, 2), name="before"), 3, name="stem"), name="stem_relu")
    return net.ends(net.then(SOFTMAX, net.conv(net.conv(x, 3, name="middle"), 2, name="head"), name="after"))


def test_what_stands_beyond_the_ends_keeps_8_bits_too() -> None:
    graph = _chain()
    requested = BitsPlan(activation_bits=4).requested(graph)
    kept = {node.name for node in graph.nodes if requested(node).activation_bits == 8}
    assert kept == {"before", "stem", "head", "after"}


@pytest.mark.parametrize("name", ["stem", "stem_relu", "stem_r*"])
def test_a_layer_is_also_called_as_the_activation_that_is_fused_into_it(name: str) -> None:
    graph = _chain()
    requested = BitsPlan(rules=(BitsRule(layer=name, weight_bits=4),)).requested(graph)
    assert {n.name for n in graph.nodes if n.weight is not None and requested(n).weight_bits == 4} == {"stem"}


def test_layers_that_keep_more_than_is_asked_are_known() -> None:
    def kept(plan: BitsPlan) -> list[str]:
        return [node.name for node in plan.kept(_chain())]

    assert kept(BitsPlan(weight_bits=4)) == ["stem", "head"]
    assert kept(BitsPlan(weight_bits=4, rules=(BitsRule(position="last", weight_bits=8),))) == ["stem"]
    assert kept(BitsPlan(weight_bits=4, ends=4)) == kept(BitsPlan(activation_bits=4)) == []
