from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from ir.graph import Graph, Value
from ir.kernels import Granularity
from ir.opdef import Attributes, OpDef
from ir.ops.activation import GELU, HARD_SWISH, LOGISTIC, TANH, GeluAttributes
from ir.ops.by_table import ERF, EXPM1, LOG1P, LOOKED_UP, SIN, SOFTPLUS
from ir.ops.elementwise import ABS, ADD, DIV, EXP, LOG, MAXIMUM, MINIMUM, MUL, SQUARED_DIFFERENCE, SUB
from ir.ops.joining import (
    CONCATENATION,
    PACK,
    SPLIT,
    SPLIT_V,
    UNPACK,
    PackAttributes,
    SplitAttributes,
    SplitVAttributes,
    UnpackAttributes,
)
from ir.ops.padding import PAD, PADV2, PadAttributes
from ir.ops.relu import LEAKY_RELU, PRELU, RELU, RELU6, LeakyReluAttributes
from ir.ops.shape import EXPAND_DIMS, RESHAPE, SQUEEZE, ExpandDimsAttributes, SqueezeAttributes
from ir.ops.slicing import SLICE
from ir.widths import Widths
from passes.contract.base import Context, Given, PassReport
from passes.graph_testing import Net, assert_preserved
from passes.rewrites.decompose import FORMS, Decompose


@dataclass(frozen=True)
class Lacking:
    """A target that has everything but some operators."""

    missing: frozenset[OpDef] = field(default_factory=frozenset)

    def runs(self, op: OpDef) -> bool:
        return op not in self.missing

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths | None:
        return requested

    def weight_per_channel(self, op: OpDef) -> bool:
        return True


@dataclass(frozen=True)
class Narrow(Lacking):
    """A target that has everything, but of some operators no int16 kernel."""

    def runs(self, op: OpDef) -> bool:
        return True

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths | None:
        return None if op in self.missing and requested.activation_bits > 8 else requested


@dataclass(frozen=True)
class Without(Lacking):
    """A target that has everything, but of some operators no kernel."""

    def runs(self, op: OpDef) -> bool:
        return True

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths | None:
        return None if op in self.missing else requested


def spell(graph: Graph, *missing: OpDef) -> PassReport:
    tolerance = 1e-3 if ERF in missing else 1e-5  # whose form is within 4e-4
    context = Context(Given(limits=Lacking(frozenset(missing))))
    return assert_preserved(graph, lambda g: Decompose().run(g, context), tolerance)


def built(
    op: OpDef, *shape: int, attrs: Attributes | None = None, constant: object = None, before: OpDef | None = None
) -> Graph:
    """One operator, its outputs the graph's; with a convolution before it, so that nothing is an input as it is."""
    net = Net()
    x: list[Value] = [net.conv(net.input(*shape), shape[-1])]
    if before is not None:
        x = [net.then(before, x[0])]
    if constant is not None:
        x.append(net.constant(constant, "c"))
    node = net.graph.add(op, x, attrs, "it")
    return net.ends(*node.outputs)


PADDED = PadAttributes(paddings=((0, 0), (1, 2), (0, 1), (0, 0)))
CASES = [
    (built(LEAKY_RELU, 4, 4, 3, attrs=LeakyReluAttributes(alpha=0.3)), [PRELU]),
    (built(PRELU, 4, 4, 3, constant=[0.0, 0.3, 1.0]), [MUL, MAXIMUM]),
    (built(HARD_SWISH, 4, 4, 3), [ADD, RELU6, MUL, MUL]),
    (built(GELU, 4, 4, 3, attrs=GeluAttributes(approximate=True)), [MUL, MUL, ADD, MUL, LOGISTIC, MUL]),
    (built(DIV, 4, 4, 3, constant=[2.0, -0.5, 8.0]), [MUL]),
    (built(SQUARED_DIFFERENCE, 4, 4, 3, constant=[2.0, -0.5, 8.0]), [SUB, MUL]),
    (built(PADV2, 4, 4, 3, attrs=PADDED, constant=0.0), [PAD]),
    (built(SPLIT, 4, 4, 6, attrs=SplitAttributes(num_splits=3, axis=3)), [SLICE] * 3),
    (built(SPLIT_V, 4, 4, 6, attrs=SplitVAttributes(num_splits=2, axis=-1, size_splits=(2, 4))), [SLICE] * 2),
    (built(UNPACK, 3, 4, 2, attrs=UnpackAttributes(num=3, axis=1)), [SLICE, RESHAPE] * 3),
    (built(PACK, 3, 4, 2, attrs=PackAttributes(values_count=1, axis=2)), [RESHAPE, CONCATENATION]),
    (built(SQUEEZE, 4, 1, 3, attrs=SqueezeAttributes(squeeze_dims=(2,))), [RESHAPE]),
    (built(EXPM1, 4, 4, 3), [EXP, ADD]),
    (built(LOG1P, 4, 4, 3, before=RELU), [ADD, LOG, RELU]),
    (built(SOFTPLUS, 4, 4, 3), [ABS, MUL, EXP, ADD, LOG, RELU, ADD]),
    (built(ERF, 4, 4, 3), [MUL, MUL, ADD, MUL, TANH]),
    (built(EXPAND_DIMS, 4, 4, 3, attrs=ExpandDimsAttributes(axis=-1)), [RESHAPE]),
]


def operators(graph: Graph) -> list[OpDef]:
    return sorted((n.op for n in graph.nodes if n.weight is None), key=lambda op: op.name)


@pytest.mark.parametrize(("graph", "expected"), CASES, ids=[case[0].nodes[-1].op.name for case in CASES])
def test_forms_are_the_same_function(graph: Graph, expected: list[OpDef]):
    lost = graph.outputs[0].producer.op
    report = spell(graph, lost)
    assert operators(graph) == sorted(expected, key=lambda op: op.name) and len(report.changed) == 1


def test_every_form_has_a_case():
    expected = {op for forms in FORMS.values() for form in forms[:1] for op in form.needs}
    assert len(CASES) == len(FORMS) and expected == {op for _, ops in CASES for op in ops}


def test_the_first_form_that_the_target_has_is_taken():
    graph = built(LEAKY_RELU, 4, 4, 3, attrs=LeakyReluAttributes(alpha=0.3))
    spell(graph, LEAKY_RELU, PRELU)
    assert operators(graph) == [MAXIMUM, MUL]


@pytest.mark.parametrize(("bits", "lost", "left"), [(8, GELU, LOOKED_UP), (16, GELU, LOOKED_UP), (8, SIN, SIN)])
def test_what_has_no_kernel_of_8_bits_is_looked_up(bits: int, lost: OpDef, left: OpDef):
    graph = built(lost, 4, 4, 3)
    context = Context(Given(limits=Without(frozenset({lost}))))
    assert_preserved(graph, lambda g: Decompose(activation_bits=bits, ends=2).run(g, context))
    assert operators(graph) == [left]


def test_slopes_that_are_negative_or_steep_multiply_the_negative_side():
    graph = built(PRELU, 4, 4, 3, constant=[-0.5, 0.3, 1.5])
    spell(graph, PRELU)
    assert operators(graph) == [ADD, MINIMUM, MUL, RELU]


@pytest.mark.parametrize(("bits", "expected"), [(8, [PRELU]), (16, [MAXIMUM, MUL])])
def test_what_has_no_int16_kernel_is_written_with_what_has_one(bits: int, expected: list[OpDef]):
    graph = built(PRELU, 4, 4, 3, constant=[0.0, 0.3, 1.0])
    context = Context(Given(limits=Narrow(frozenset({PRELU}))))
    assert_preserved(graph, lambda g: Decompose(activation_bits=bits, ends=2).run(g, context))
    assert operators(graph) == expected


def test_a_rule_may_ask_for_16_bits_of_one_operator():
    graph = built(PRELU, 4, 4, 3, constant=[0.0, 0.3, 1.0])
    context = Context(Given(limits=Narrow(frozenset({PRELU}))))
    Decompose(rules="operator:PRELU=a16").run(graph, context)
    assert operators(graph) == [MAXIMUM, MUL]


def test_what_the_target_has_stays_and_without_a_target_everything():
    graph = built(HARD_SWISH, 4, 4, 3)
    assert spell(graph).changed == ()
    assert Decompose().run(graph, Context()) == PassReport()
    assert operators(graph) == [HARD_SWISH]


@pytest.mark.parametrize(
    ("graph", "missing", "reason"),
    [
        (built(DIV, 4, 4, 3, constant=[2.0, 0.0, 8.0]), (), "the divisor is no constant without zeros"),
        (built(PADV2, 4, 4, 3, attrs=PADDED, constant=1.0), (), "it pads with another number than 0"),
        (built(GELU, 4, 4, 3), (LOOKED_UP,), "only its tanh form (approximate=True) can be written so"),
        (built(HARD_SWISH, 4, 4, 3), (RELU6, LOOKED_UP), "the target lacks relu6, too"),
        (
            built(LEAKY_RELU, 4, 4, 3, attrs=LeakyReluAttributes(alpha=1.5)),
            (PRELU, LOOKED_UP),
            "the target lacks prelu, too; alpha is 1.5, not between 0 and 1",
        ),
    ],
)
def test_reasons(graph: Graph, missing: tuple[OpDef, ...], reason: str):
    kept = operators(graph)
    lacking = Lacking(frozenset({graph.outputs[0].producer.op, *missing}))
    report = Decompose().run(graph, Context(Given(limits=lacking)))
    assert [s.reason for s in report.skipped] == [reason] and operators(graph) == kept


def test_ranges_that_the_model_brought_stay_with_their_values():
    graph = built(HARD_SWISH, 4, 4, 3)
    made = graph.outputs[0]
    spell(graph, HARD_SWISH)
    assert graph.outputs == [made] and made.name == "it" and made.producer.op is MUL


def test_several_inputs_are_packed():
    net = Net()
    x = net.input(4, 2)
    pair = [net.then(MUL, x, net.constant(np.full((1, 1, 1), v), "c")) for v in (2.0, 3.0)]
    graph = net.ends(net.then(PACK, *pair, attrs=PackAttributes(values_count=2, axis=-1)))
    spell(graph, PACK)
    assert operators(graph) == sorted([MUL, MUL, RESHAPE, RESHAPE, CONCATENATION], key=lambda op: op.name)
