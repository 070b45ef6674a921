"""Which widths a user asks for: for the whole network, for its ends, and by rules for some of its layers.

From the general to the special, the later wins:

- `weight_bits` and `activation_bits` of the whole network;
- the first and last layers, and what stands before and after them, get at least `end_bits`: they are few, and errors
  made there cost most (S. Esser et al., Learned Step Size Quantization, section 2.3);
- the rules, in their order.

`passes.quantization.bits_format` has the file and the text in which plans are written.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from ir.errors import OptionError
from ir.graph import Graph, Node
from ir.opdef import OpDef
from ir.ops import OPERATORS
from ir.widths import Widths
from passes.rewrites.fuse import will_be_fused

WEIGHT_BITS = tuple(range(2, 9))
ACTIVATION_BITS = (*WEIGHT_BITS, 16)
POSITIONS = ("first", "last")
_LEGIBLE = "*?[]/!^$|()\\:+"  # in the text of a pipeline; all else that is no letter, digit or ._-~ is escaped


@dataclass(frozen=True, kw_only=True)
class BitsRule:
    """Widths of some layers: of those that all given selectors choose.

    Attributes:
      layer: the name of a layer or of its result, as the report and `inspect` show it: a glob (`block_*`), or between
        slashes a regular expression that is found anywhere in it (`/^block_[12]_/`).
      op: an operator, in this project's words or TFLite's (`conv_2d`, `CONV_2D`).
      position: `first`, the layers with weights that are reached first from an input and what stands before them; or
        `last`, the last ones before an output and what stands after them.
      weight_bits: 2 to 8, None for what they would have without the rule.
      activation_bits: of the layer's result, 2 to 8 or 16, None likewise.
    """

    layer: str | None = None
    op: str | None = None
    position: str | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None

    def __post_init__(self) -> None:
        where = f"the rule {self}"
        if self.weight_bits is not None:
            check_bits(self.weight_bits, WEIGHT_BITS, f"weight_bits of {where}")
        if self.activation_bits is not None:
            check_bits(self.activation_bits, ACTIVATION_BITS, f"activation_bits of {where}")
        if self.layer is None and self.op is None and self.position is None:
            raise OptionError(
                expected="which layers it is about",
                found="none of layer, op and position",
                where=where,
                fix="add one of them, or set weight_bits and activation_bits beside the rules for all layers",
            )
        if self.weight_bits is None and self.activation_bits is None:
            raise OptionError(
                expected="weight_bits, activation_bits or both",
                found="neither",
                where=where,
                fix="say what the layers shall have",
            )
        if self.position is not None and self.position not in POSITIONS:
            raise OptionError(
                expected=" or ".join(POSITIONS), found=str(self.position), where=where, fix="choose one of them"
            )
        if self.layer is not None and self._expression is None:
            raise OptionError(
                expected="a regular expression between slashes",
                found=self.layer,
                where=where,
                fix="mend it, or leave the slashes away for a glob",
            )
        if self.op is not None and not self._operators:
            raise OptionError(
                expected="an operator",
                found=self.op,
                where=where,
                fix=closest(self.op, [name for op in OPERATORS for name in (op.name, _code(op)) if name]),
            )

    def __str__(self) -> str:
        return "&".join(f"{name}={quote(str(value), safe=_LEGIBLE)}" for name, value in self.given().items())

    def given(self) -> dict[str, Any]:
        """The fields that are not left open."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}

    def names(self, called: Sequence[str]) -> bool:
        """Whether one of a layer's names is the one that is asked for."""
        if self.layer is None or self.layer in called:
            return True
        return self._expression is not None and any(map(self._expression.search, called))

    def is_of(self, op: OpDef) -> bool:
        """Whether the rule is about this operator."""
        return self.op is None or op in self._operators

    @cached_property
    def _operators(self) -> tuple[OpDef, ...]:
        return tuple(op for op in OPERATORS if self.op is not None and self.op.lower() in (op.name, _code(op).lower()))

    @cached_property
    def _expression(self) -> re.Pattern[str] | None:
        assert self.layer is not None
        is_regular = len(self.layer) > 1 and self.layer[0] == self.layer[-1] == "/"
        try:
            return re.compile(self.layer[1:-1] if is_regular else rf"\A{fnmatch.translate(self.layer)}")
        except re.error:
            return None


@dataclass(frozen=True, kw_only=True)
class BitsPlan:
    """Widths of all layers (the module says in which order they are decided).

    Attributes:
      weight_bits: 2 to 8.
      activation_bits: 2 to 8, or 16.
      end_bits: what the ends get at least; 2 leaves them as they are.
      rules: in their order.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    end_bits: int = 8
    rules: tuple[BitsRule, ...] = ()

    def __post_init__(self) -> None:
        check_bits(self.weight_bits, WEIGHT_BITS, "weight_bits")
        check_bits(self.end_bits, WEIGHT_BITS, "end_bits")
        check_bits(self.activation_bits, ACTIVATION_BITS, "activation_bits")

    def requested(self, graph: Graph) -> dict[Node, Widths]:
        """What every node of a graph is asked to have: the width of its result, and of its weights if it has any.

        Raises OptionError for a rule that names a layer which is not there.
        """
        ends = set().union(*_ends(graph).values())
        found = {}
        for node in graph.nodes:
            at_least = self.end_bits if node in ends else 0
            found[node] = Widths(
                weight_bits=max(self.weight_bits, at_least), activation_bits=max(self.activation_bits, at_least)
            )
        for rule, nodes in self._chosen(graph):
            for node in nodes:
                found[node] = Widths(
                    weight_bits=rule.weight_bits or found[node].weight_bits,
                    activation_bits=rule.activation_bits or found[node].activation_bits,
                )
        return found

    def notes(self, graph: Graph) -> list[str]:
        """What the user should know: which layers keep more bits than the others, and rules that are about none."""
        ruled = {node for rule, nodes in self._chosen(graph) if rule.weight_bits is not None for node in nodes}
        ends = set().union(*_ends(graph).values()) - ruled
        kept = [node.name for node in graph.nodes if node in ends and node.weight is not None]
        notes = [f"{rule} is about no layer of this network" for rule, nodes in self._chosen(graph) if not nodes]
        if self.weight_bits < self.end_bits and kept:
            notes.insert(0, f"first and last layers keep {self.end_bits} bits (end_bits): {_listed(kept)}")
        return notes

    def _chosen(self, graph: Graph) -> list[tuple[BitsRule, list[Node]]]:
        """The nodes that each rule is about."""
        ends = _ends(graph)
        called = {node: layer_names(graph, node) for node in graph.nodes}
        chosen = []
        for rule in self.rules:
            nodes = [node for node in called if rule.names(called[node]) and rule.is_of(node.op)]
            if not nodes and rule.layer is not None:
                raise _unknown_layer(rule, called)
            chosen.append((rule, [n for n in nodes if rule.position is None or n in ends[rule.position]]))
        return chosen


def layer_names(graph: Graph, node: Node) -> list[str]:
    """What a layer may be called: its name, those of its results, and of an activation that will be fused into it."""
    found = [node.name, *(v.name for v in node.outputs)]
    if len(node.outputs) == 1 and will_be_fused(graph, node.output):
        (follower,) = node.output.consumers
        found += layer_names(graph, follower)
    return list(dict.fromkeys(found))


def _ends(graph: Graph) -> dict[str, set[Node]]:
    """The nodes at each position.

    First are those that depend on some input with no weights between it and them (their own do not count); last
    those that some output depends on, with no weights of later layers in between.
    """
    order = graph.nodes
    forward = {node: [v.producer for v in node.inputs if v is not None and v.producer is not None] for node in order}
    backward: dict[Node, list[Node]] = {node: [n for v in node.outputs for n in v.consumers] for node in order}
    starts = [[node for node in order if value in node.inputs] for value in graph.inputs]
    stops = [[value.producer] for value in graph.outputs if value.producer is not None]
    return {"first": _near(order, forward, starts), "last": _near(order[::-1], backward, stops)}


def _near(order: Sequence[Node], before: Mapping[Node, Sequence[Node]], starts: Sequence[Sequence[Node]]) -> set[Node]:
    """The nodes that are reached from one of the starts, none of whose ways from there leads through weights."""
    near = set()
    for start in starts:
        behind: dict[Node, bool] = {}  # of the nodes reached: whether there are weights in between
        for node in order:
            reached = [behind[n] or n.weight is not None for n in before[node] if n in behind]
            if reached or node in start:
                behind[node] = any(reached)
        near |= {node for node, weights in behind.items() if not weights}
    return near


def _code(op: OpDef) -> str:
    return "" if op.encoding is None else op.encoding.code


def _listed(found: Sequence[str], limit: int = 3) -> str:
    return ", ".join(found[:limit]) + (f" and {len(found) - limit} more" if len(found) > limit else "")


def check_bits(bits: object, widths: Sequence[int], where: str) -> None:
    """Raises OptionError unless it is one of some widths."""
    if not isinstance(bits, int) or bits not in widths:
        also = "" if widths[-1] == 8 else f" or {widths[-1]}"
        raise OptionError(expected=f"2 to 8{also} bits", found=str(bits), where=where, fix="choose one of these widths")


def closest(found: str, known: Sequence[str]) -> str:
    """What to do about a name that is not known: the known ones that look like it."""
    near = difflib.get_close_matches(found, list(dict.fromkeys(known)), n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"the first ones are {', '.join(known[:3])}"


def _unknown_layer(rule: BitsRule, called: Mapping[Node, Sequence[str]]) -> OptionError:
    assert rule.layer is not None
    about = [name for node, names in called.items() if rule.is_of(node.op) for name in names]
    kind = f"a layer of {rule.op}" if rule.op else "a layer of the network"
    return OptionError(
        expected=f"{kind} to have this name",
        found="none",
        where=f"the rule {rule}",
        fix=closest(rule.layer.strip("/"), about) if about else f"the network has no {rule.op}",
    )
