from __future__ import annotations

import pytest

from ir.errors import OptionError
from ir.graph import Graph, Node
from ir.ops.activation import RELU
from ir.ops.elementwise import ADD
from ir.ops.softmax import SOFTMAX
from passes.graph_testing import Net
from passes.quantization.bits import BitsPlan, BitsRule


def chain() -> Graph:
    """Two convolutions with activations, a depthwise one between them, and a softmax after the last."""
    net = Net()
    x = net.then(RELU, net.conv(net.input(4, 4, 2), 3, name="stem"), name="stem_relu")
    x = net.depthwise(x, name="block_1/depthwise")
    x = net.conv(x, 3, name="block_2/project")
    return net.ends(net.then(SOFTMAX, net.conv(x, 2, name="head"), name="softmax"))


def bits_of(plan: BitsPlan, graph: Graph) -> dict[str, tuple[int, int]]:
    """(weights, activations) by node."""
    return {n.name: (w.weight_bits, w.activation_bits) for n, w in plan.requested(graph).items()}


def test_ends_keep_8_bits_and_what_stands_beyond_them_too():
    found = bits_of(BitsPlan(weight_bits=4, activation_bits=6), chain())
    assert found["block_1/depthwise"] == found["block_2/project"] == (4, 6)
    assert found["stem"] == found["head"] == found["softmax"] == (8, 8)
    assert found["stem_relu"] == (4, 6), "it comes after the weights of the first layer"


def test_ends_are_as_the_rest_where_that_is_asked_or_wider():
    assert set(bits_of(BitsPlan(weight_bits=4, activation_bits=6, end_bits=2), chain()).values()) == {(4, 6)}
    assert set(bits_of(BitsPlan(activation_bits=16), chain()).values()) == {(8, 16)}


@pytest.mark.parametrize(
    ("rule", "layers"),
    [
        (BitsRule(layer="block_*", weight_bits=3), {"block_1/depthwise", "block_2/project"}),
        (BitsRule(layer="stem_relu", weight_bits=3), {"stem", "stem_relu"}),  # the file calls the fused layer so
        (BitsRule(layer="tem", weight_bits=3), None),
        (BitsRule(layer="/tem$|_2/", weight_bits=3), {"stem", "block_2/project"}),
        (BitsRule(op="CONV_2D", weight_bits=3), {"stem", "block_2/project", "head"}),
        (BitsRule(op="depthwise_conv_2d", weight_bits=3), {"block_1/depthwise"}),
        (BitsRule(op="conv_2d", layer="block*", weight_bits=3), {"block_2/project"}),
        (BitsRule(position="first", weight_bits=3), {"stem"}),
        (BitsRule(position="last", weight_bits=3), {"head", "softmax"}),
        (BitsRule(op="add", weight_bits=3), set()),
    ],
    ids=str,
)
def test_a_rule_is_about_the_layers_that_all_its_selectors_choose(rule: BitsRule, layers: set[str] | None):
    plan = BitsPlan(weight_bits=5, end_bits=5, rules=(rule,))
    if layers is None:
        with pytest.raises(OptionError, match="expected a layer of the network to have this name"):
            plan.requested(chain())
    else:
        assert {name for name, (weights, _) in bits_of(plan, chain()).items() if weights == 3} == layers


def test_the_later_rule_wins_and_leaves_what_it_does_not_say():
    rules = (
        BitsRule(layer="*", weight_bits=4, activation_bits=16),
        BitsRule(layer="head", activation_bits=8),
        BitsRule(layer="h*", weight_bits=6),
    )
    found = bits_of(BitsPlan(rules=rules), chain())
    assert found["stem"] == (4, 16) and found["head"] == (6, 8)


def ends_of(graph: Graph) -> dict[str, set[str]]:
    rules = {p: BitsPlan(weight_bits=8, rules=(BitsRule(position=p, weight_bits=2),)) for p in ("first", "last")}

    def chosen(plan: BitsPlan) -> set[Node]:
        return {node for node, widths in plan.requested(graph).items() if widths.weight_bits == 2}

    return {p: {n.name for n in chosen(plan) if n.weight is not None} for p, plan in rules.items()}


def test_every_input_and_every_output_has_its_ends():
    """The second input comes in late; the first output is tapped in the middle."""
    net = Net()
    x = net.conv(net.input(4, 4, 2), 3, name="a")
    tapped = net.conv(x, 3, name="b")
    late = net.conv(net.input(4, 4, 3), 3, name="late")
    joined = net.then(ADD, net.conv(tapped, 3, name="c"), late, name="joined")
    graph = net.ends(tapped, net.conv(joined, 2, name="d"))
    assert ends_of(graph) == {"first": {"a", "late"}, "last": {"b", "d"}}


def test_a_skip_past_all_layers_makes_none_of_them_an_end():
    """A denoiser subtracts what it found from its input: only the first and the last convolution are ends."""
    net = Net()
    x = net.input(4, 4, 2)
    y = net.conv(net.conv(net.conv(x, 3, name="a"), 3, name="b"), 2, name="c")
    graph = net.ends(net.then(ADD, x, y, name="sum"))
    assert ends_of(graph) == {"first": {"a"}, "last": {"c"}}


def test_notes_say_what_is_kept_and_which_rule_is_idle():
    plan = BitsPlan(weight_bits=4, rules=(BitsRule(op="add", activation_bits=16),))
    assert plan.notes(chain()) == [
        "first and last layers keep 8 bits (end_bits): stem, head",
        "op=add&activation_bits=16 is about no layer of this network",
    ]
    assert not BitsPlan(weight_bits=4, rules=(BitsRule(layer="*", weight_bits=4),)).notes(chain()), "told otherwise"
    assert not BitsPlan(activation_bits=16).notes(chain())


def test_a_layer_that_is_not_there_is_refused_with_names_that_look_like_it():
    plan = BitsPlan(rules=(BitsRule(layer="block_1/depthwize", weight_bits=4),))
    with pytest.raises(
        OptionError, match=r"rule layer=block_1/depthwize&weight_bits=4.*did you mean block_1/depthwise"
    ):
        plan.requested(chain())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": "a", "weight_bits": 9}, "expected 2 to 8 bits, found 9"),
        ({"layer": "a", "weight_bits": 16}, "expected 2 to 8 bits, found 16"),
        ({"layer": "a", "activation_bits": 12}, "expected 2 to 8 or 16 bits, found 12"),
        ({"layer": "a"}, "expected weight_bits, activation_bits or both, found neither"),
        ({"weight_bits": 4}, "expected which layers it is about, found none of layer, op and position"),
        ({"layer": "/(/", "weight_bits": 4}, "expected a regular expression between slashes"),
        ({"op": "conv_2", "weight_bits": 4}, "expected an operator, found conv_2; did you mean conv_2d"),
        ({"position": "middle", "weight_bits": 4}, "expected first or last, found middle"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict, message: str):
    with pytest.raises(OptionError, match=message):
        BitsRule(**fields)
