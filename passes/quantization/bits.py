"""Which widths are requested of which layer: two defaults, what the ends of the network keep, and rules.

As data (JSON: `to_json`, `from_json`; `convert --bits FILE`):

    {"weight_bits": 4, "activation_bits": 8, "ends": 8,
     "rules": [{"layer": "block_1*", "weight_bits": 8}, {"operator": "DEPTHWISE_CONV_2D", "activation_bits": 16}]}

and as the text of the options of `quantize`, so that a pipeline is written whole into a file that it made:
`weight_bits=4 rules=layer:block_1*=w8;operator:DEPTHWISE_CONV_2D=a16`.

What is requested of a layer is meant for its weights and its result. Later rules win. The first and the last layers
with weights, and what stands before and after them, keep at least `ends` bits (they are few, and errors made there
cost most: S. Esser et al., Learned Step Size Quantization, section 3). Few bits are for what weights are multiplied with:
a result that no layer with weights reads (an addend, what is pooled) keeps at least 8, as that paper leaves it in float;
it lies in an int8 anyway, and ResNet-20 at W4A4 has 86 % so before any training, not 78. Rules may say otherwise.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import quote, unquote

from ir.errors import OptionError
from ir.graph import Graph, Node
from ir.opdef import OpDef
from ir.widths import Widths
from passes.quantization.groups import tied_values
from passes.rewrites.fuse import will_be_fused

WEIGHT_BITS = range(2, 9)
ACTIVATION_BITS = (*range(2, 9), 16)
ENDS = ("first", "last")
_SELECTORS = ("layer", "operator", "position")
_UNREAD = 8  # bits that a result keeps at least which no layer with weights reads
_SAFE = "*?[]!/_.-^$()|+\\:"  # of names in the text form, besides letters and digits


@dataclass(frozen=True, kw_only=True)
class BitsRule:
    """Widths of some layers: those whose name, operator and position fit all that is given.

    Attributes:
      layer: a glob of a layer's name, or a regular expression between slashes; its result's name, which is the one that
        files show, and that of an activation which will be fused into it are names of it, too.
      operator: its name in TFLite or in docs/operators.md.
      position: "first" (the layers with weights that an input reaches first, and what stands before them) or "last".
      weight_bits, activation_bits: None leaves what was requested before.

    Raises OptionError where a rule selects nothing in particular, says nothing, or asks for a width that there is not.
    """

    layer: str | None = None
    operator: str | None = None
    position: str | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None

    def __post_init__(self) -> None:
        if not any(getattr(self, name) for name in _SELECTORS):
            raise _bad_rule(f"a rule with one of {', '.join(_SELECTORS)}", str(self))
        if self.position not in (None, *ENDS):
            raise _bad_rule("position first or last", str(self.position))
        if self.weight_bits is None and self.activation_bits is None:
            raise _bad_rule("weight_bits or activation_bits", str(self))
        check_bits(self.weight_bits, self.activation_bits, where=f"rule {self}")
        if self._expression is not None:
            try:
                re.compile(self._expression)
            except re.error as error:
                raise _bad_rule("a regular expression between the slashes", f"{self.layer} ({error})") from None

    @property
    def _expression(self) -> str | None:
        named = self.layer is not None and len(self.layer) > 2 and self.layer[0] == self.layer[-1] == "/"
        return self.layer[1:-1] if named and self.layer is not None else None

    def fits(self, place: _Place) -> bool:
        """Whether a node is meant."""
        return (
            any(map(self._fits_name, place.names))
            and (self.operator is None or self.operator.lower() in (place.op.name, _code(place.op).lower()))
            and (self.position is None or self.position in place.positions)
        )

    def _fits_name(self, name: str) -> bool:
        if self.layer in (None, name):
            return True
        if self._expression is not None:
            return re.search(self._expression, name) is not None
        assert self.layer is not None
        return fnmatch.fnmatchcase(name, self.layer)

    def __str__(self) -> str:
        """The text form, `layer:block_1*=w8a16`; several selectors are joined by `&`."""
        chosen = [f"{name}:{quote(value, _SAFE)}" for name in _SELECTORS if (value := getattr(self, name))]
        widths = (f"w{self.weight_bits}" if self.weight_bits else "") + (
            f"a{self.activation_bits}" if self.activation_bits else ""
        )
        return "&".join(chosen) + f"={widths}"


@dataclass(frozen=True, kw_only=True)
class BitsPlan:
    """Widths of all layers.

    Attributes:
      weight_bits: 2 to 8; `activation_bits`: 2 to 8, or 16.
      ends: what the first and the last layers keep at least, of weights and results; layers that only scale channels, of weights.
      rules: the later wins.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    ends: int = 8
    rules: tuple[BitsRule, ...] = ()

    def __post_init__(self) -> None:
        check_bits(self.weight_bits, self.activation_bits)
        if self.ends not in WEIGHT_BITS:
            raise OptionError(expected="2 to 8 bits", found=str(self.ends), where="ends", fix="choose one of them")

    @property
    def all_weight_bits(self) -> tuple[int, ...]:
        """Every width of weights that it names."""
        return (self.weight_bits, *(r.weight_bits for r in self.rules if r.weight_bits is not None))

    def requested(self, graph: Graph) -> Callable[[Node], Widths]:
        """The widths of every node. Raises OptionError for a rule that fits no node."""
        places = _places(graph)
        for rule in self.rules:
            if not any(map(rule.fits, places.values())):
                raise _fits_nothing(rule, places)
        table = {node: self._widths(place) for node, place in places.items()}
        return lambda node: (
            table.get(node) or Widths(activation_bits=self.activation_bits, weight_bits=self.weight_bits)
        )

    def kept(self, graph: Graph) -> list[Node]:
        """The layers at the ends that keep wider weights than `weight_bits`, although no rule says so."""
        return [
            node
            for node, place in self._undecided(graph, "weight_bits")
            if place.positions and node.weight is not None and self.weight_bits < self.ends
        ]

    def kept_results(self, graph: Graph) -> list[Node]:
        """The nodes whose results keep 8 bits because no layer with weights reads them, and for nothing else."""
        return [
            node
            for node, place in self._undecided(graph, "activation_bits")
            if not place.weighted and max(self.activation_bits, self.ends if place.positions else 0) < _UNREAD
        ]

    def _undecided(self, graph: Graph, what: str) -> Iterator[tuple[Node, _Place]]:
        """The nodes of which no rule says this."""
        deciding = [rule for rule in self.rules if getattr(rule, what) is not None]
        for node, place in _places(graph).items():
            if not any(rule.fits(place) for rule in deciding):
                yield node, place

    def _widths(self, place: _Place) -> Widths:
        least = self.ends if place.positions else 0
        weights = max(self.weight_bits, self.ends if place.scales else least)
        activations = max(self.activation_bits, least, 0 if place.weighted else _UNREAD)
        for rule in self.rules:
            if rule.fits(place):
                weights, activations = rule.weight_bits or weights, rule.activation_bits or activations
        return Widths(activation_bits=activations, weight_bits=weights)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        rules = [{k: v for k, v in asdict(rule).items() if v is not None} for rule in self.rules]
        return {**{f.name: getattr(self, f.name) for f in fields(self) if f.name != "rules"}, "rules": rules}

    @classmethod
    def from_json(cls, data: Any, where: str = "bits") -> BitsPlan:
        """A plan from plain data: an object, or a list of rules. Raises OptionError naming what is not understood."""
        given = {"rules": data} if isinstance(data, list) else data
        if not isinstance(given, Mapping):
            raise OptionError(
                expected="an object with weight_bits, activation_bits, ends, rules; or a list of rules",
                found=type(data).__name__,
                where=where,
                fix="see docs/guides/bits.md",
            )
        rules = given.get("rules", [])
        if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
            raise OptionError(
                expected="a list of rules", found=repr(rules)[:60], where=where, fix="write objects in []"
            )
        plain = {k: v for k, v in given.items() if k != "rules"}
        built = tuple(BitsRule(**_known(BitsRule, rule, where)) for rule in rules)
        return cls(**_known(cls, plain, where), rules=built)


def check_bits(weight_bits: int | None, activation_bits: int | None, where: str = "bits") -> None:
    """Raises OptionError for a width that there is not; None is not looked at."""
    for kind, bits, known in (
        ("weight", weight_bits, WEIGHT_BITS),
        ("activation", activation_bits, ACTIVATION_BITS),
    ):
        if bits is not None and (isinstance(bits, bool) or bits not in known):
            raise OptionError(
                expected=f"2 to 8 {kind} bits" + (", or 16" if 16 in known else ""),
                found=str(bits),
                where=f"{where}, {kind}_bits" if where else f"{kind}_bits",
                fix="choose one of these widths",
            )


def parse_rules(text: str) -> tuple[BitsRule, ...]:
    """Rules from their text form, the inverse of joining `str(rule)` with semicolons."""
    return tuple(_parse_rule(part) for part in text.split(";") if part)


def rules_text(rules: Iterable[BitsRule]) -> str:
    """The text that `parse_rules` reads back; without blanks, commas and braces, so that pipelines can carry it."""
    return ";".join(map(str, rules))


def _parse_rule(text: str) -> BitsRule:
    selectors, _, widths = text.rpartition("=")
    found = re.fullmatch(r"(?:w(\d+))?(?:a(\d+))?", widths)
    pairs = [part.partition(":") for part in selectors.split("&")]
    if found is None or not selectors or any(name not in _SELECTORS for name, _, _ in pairs):
        raise _bad_rule("layer:NAME=w4a8, operator:NAME=... or position:first=...", text)
    weights, activations = (int(n) if n else None for n in found.groups())
    chosen = {name: unquote(value) for name, _, value in pairs}
    return BitsRule(**chosen, weight_bits=weights, activation_bits=activations)


def _known(kind: type, data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a dataclass, each of its type. Raises OptionError for others."""
    names = [f.name for f in fields(kind)]
    for key, value in data.items():
        if key not in names:
            raise OptionError(expected=f"one of {', '.join(names)}", found=str(key), where=where, fix="correct the key")
        number = key.endswith("bits") or key == "ends"
        if not isinstance(value, int if number else str) or isinstance(value, bool):
            what = "a whole number" if number else "a text"
            raise OptionError(
                expected=f"{what} for {key}", found=repr(value)[:60], where=where, fix="correct the value"
            )
    return dict(data)


def _bad_rule(expected: str, found: str) -> OptionError:
    return OptionError(expected=expected, found=found, where="rules of bits", fix="see docs/guides/bits.md")


def _fits_nothing(rule: BitsRule, places: Mapping[Node, _Place]) -> OptionError:
    layers = [name for node, place in places.items() if node.weight is not None for name in place.names]
    layers = layers or [name for place in places.values() for name in place.names]
    close = difflib.get_close_matches((rule.layer or "").strip("/*"), layers, n=3, cutoff=0.3) or layers[:3]
    operators = sorted({_code(node.op) for node in places})
    known = f"layers such as {', '.join(close)}" if rule.layer else f"one of {', '.join(operators)}"
    return OptionError(
        expected=f"a rule that fits some layer ({known})",
        found=f"{rule}, which fits none",
        where="rules of bits",
        fix="correct it or leave it out",
    )


def _code(op: OpDef) -> str:
    return op.name.upper() if op.encoding is None else op.encoding.code


@dataclass(frozen=True)
class _Place:
    """What widths depend on: the names of a node, the ends that it stands at, whether weights multiply its result.

    `scales`: it is a layer that only scales channels, a weight for each.
    """

    op: OpDef
    names: tuple[str, ...]
    positions: tuple[str, ...]
    weighted: bool
    scales: bool


def _places(graph: Graph) -> dict[Node, _Place]:
    ends = dict(zip(ENDS, (_first(graph), _last(graph)), strict=True))
    weighted = _weighted(graph)
    return {
        node: _Place(
            node.op,
            layer_names(graph, node),
            tuple(end for end, found in ends.items() if node in found),
            node in weighted,
            node.weight is not None and not _mixes(node),
        )
        for node in graph.nodes
    }


def _weighted(graph: Graph) -> set[Node]:
    """The nodes whose results a layer with weights reads, as they are or in what shares their parameters."""
    found: set[Node] = set()
    for node in graph.nodes[::-1]:
        for value in node.outputs:
            for reader in value.consumers:
                same = value in tied_values(reader) or will_be_fused(graph, value)
                if _mixes(reader) or (same and reader in found):
                    found.add(node)
    return found


def layer_names(graph: Graph, node: Node) -> tuple[str, ...]:
    """What a layer may be called: by its own name, its results', and those of an activation that will be fused into it."""
    found = dict.fromkeys([node.name, *(v.name for v in node.outputs)])
    if len(node.outputs) == 1 and will_be_fused(graph, node.output):
        found.update(dict.fromkeys(layer_names(graph, node.output.consumers[0])))
    return tuple(found)


def _first(graph: Graph) -> set[Node]:
    """The nodes that depend on some input with no weights in between on any way; their own do not count."""
    starts = [[n for n in graph.nodes if value in n.inputs] for value in graph.inputs]
    return _near(graph.nodes, starts, lambda n: [v.producer for v in n.inputs if v is not None and v.producer])


def _last(graph: Graph) -> set[Node]:
    """The nodes on which some output depends, likewise."""
    starts = [[value.producer] for value in graph.outputs if value.producer is not None]
    return _near(graph.nodes[::-1], starts, lambda n: [reader for v in n.outputs for reader in v.consumers])


def _mixes(node: Node) -> bool:
    """Whether a node is a layer with more than one weight for each channel: what only scales channels is no end of a network."""
    return node.weight is not None and node.weight.type.size > node.output.shape[-1]


def _near(order: Sequence[Node], starts: Iterable[Sequence[Node]], before: Callable[[Node], list[Node]]) -> set[Node]:
    near: set[Node] = set()
    for start in starts:
        behind: dict[Node, bool] = {}  # of the nodes that are reached: whether there are weights in between
        for node in order:
            ways = [behind[n] or _mixes(n) for n in before(node) if n in behind]
            if ways or node in start:
                behind[node] = any(ways)
        near |= {node for node, weights in behind.items() if not weights}
    return near
