"""Why a layer costs accuracy: what was measured at the logits says how much, what is conspicuous about it says why.

A huge value runs through the layers behind the one that makes it. Its cause is sought, against the flow of data, to
the first place where it is as conspicuous, so that this place is named and not those that suffer from it.
"""

from __future__ import annotations

import numpy as np

from converter.analysis.facts import Facts, WeightFacts, scaling_passes
from converter.analysis.reasons import (
    OUTLIER,
    OUTLIER_BEHIND,
    RARE,
    RARE_VALUE,
    Reason,
    Setting,
    levels_left,
    reason_of,
    value_reason,
)
from converter.analysis.table import Cause
from converter.recording import History
from ir.graph import Graph, Node, Value
from passes.measuring.effects import INPUT, OUTPUT, WEIGHTS, Effects, decibel

SHOWN = 0.05  # causes of less severity are not worth a line
_REPAIRED = 4.0
_LEAST_SHARE = 0.25  # of the size of what is explained: a place before it that is smaller is no cause


def severity(ratio: float) -> float:
    """0 where this alone leaves 30 dB at the logits, 1 where it leaves nothing of them."""
    return float(np.clip((30.0 - decibel(ratio)) / 30.0, 0.0, 1.0)) if ratio > 0 else 0.0


def layer_causes(floats: Graph, facts: Facts, effects: Effects, setting: Setting) -> list[Cause]:
    """A cause for each place that stands out, worst first; a place is named once, for its worst trouble."""
    origins = Origins(floats, facts, setting)
    found: dict[str, Cause] = {}
    for (kind, name), ratio in sorted(effects.noise.items(), key=lambda item: -item[1]):
        level = severity(ratio)
        if level < SHOWN:
            break
        reason = reason_of(kind, name, ratio, facts, setting)
        where, reason = origins.origin(kind, name, reason)
        after = "" if kind == INPUT or where == name else f"; it is felt most at '{name}'"
        if where not in found:
            text = f"{reason.explanation}{after}. Alone it leaves {decibel(ratio):.1f} dB at the logits."
            found[where] = Cause(
                severity=level, title=reason.title, explanation=text, suggestion=reason.suggestion, where=where
            )
    return list(found.values())


def conspicuous_causes(floats: Graph, facts: Facts, setting: Setting) -> list[Cause]:
    """Places whose range is far wider than usual although little is lost by it: for information, the widest first."""
    origins = Origins(floats, facts, setting)
    found: dict[str, tuple[float, Reason]] = {}
    for kind, table in ((INPUT, facts.inputs), (OUTPUT, facts.values)):
        for name, value in table.items():
            reason = value_reason(value, name, setting, is_input=kind == INPUT)
            if reason is None or reason.kind not in ("rare", "dominant"):
                continue
            where, reason = origins.origin(kind, name, reason)
            if where not in found or reason.size > found[where][0]:
                found[where] = (reason.size, reason)
    ordered = sorted(found.items(), key=lambda item: -item[1][0])
    return [
        Cause(
            severity=float(np.clip(0.03 + 0.04 * np.log10(size / RARE), 0.0, 0.12)),
            title=reason.title,
            explanation=f"{reason.explanation}. Little is lost by it.",
            suggestion=reason.suggestion,
            where=where,
        )
        for where, (size, reason) in ordered[:3]
    ]


class Origins:
    """Walks against the flow of data to where a problem begins."""

    def __init__(self, floats: Graph, facts: Facts, setting: Setting) -> None:
        self._nodes = {n.name: n for n in floats.nodes}
        self._facts, self._setting = facts, setting

    def origin(self, kind: str, name: str, reason: Reason) -> tuple[str, Reason]:
        """Where it begins (a layer, or "input") and what is conspicuous there."""
        if kind == INPUT:
            return "input", reason
        if kind == WEIGHTS or reason.kind not in ("rare", "dominant", "guessed", "raised"):
            return name, reason
        return self._climb(self._nodes[name], reason)

    def has_outlier(self, name: str) -> WeightFacts | None:
        """The weights of a layer that had an outlier channel before any pass evened it out."""
        facts = self._facts.weights.get(name)
        return facts if facts is not None and facts.outlier_before > OUTLIER else None

    def before(self, name: str, size: float) -> str:
        """Where values `size` times too large begin that a layer shows: the layer itself, or a place before it."""
        node = self._nodes.get(name)
        weights = self._facts.weights.get(name)
        if node is None or (weights is not None and weights.outlier_before > max(OUTLIER, _LEAST_SHARE * size)):
            return name
        return self._climb(node, RARE_VALUE.reason(size, "", self._setting))[0]

    def _climb(self, node: Node, reason: Reason) -> tuple[str, Reason]:
        while True:
            own = self._weights(node, reason)
            if own is not None:
                return node.name, own
            before = [(v, r) for v in node.operands if (r := self._of_value(v)) is not None]
            causes = [
                (v, r)
                for v, r in before
                if r.kind in ("rare", "dominant", "guessed") and r.size >= _LEAST_SHARE * reason.size
            ]
            if not causes:
                return node.name, reason
            value, reason = max(causes, key=lambda item: item[1].size)
            if value.producer is None:
                return "input", reason
            node = value.producer

    def _of_value(self, value: Value) -> Reason | None:
        if value.is_constant:
            return None
        if value.producer is None:
            facts = self._facts.inputs.get(value.name)
            return None if facts is None else value_reason(facts, value.name, self._setting, is_input=True)
        own = self._facts.values.get(value.producer.name)
        return None if own is None else value_reason(own, value.producer.name, self._setting)

    def _weights(self, node: Node, reason: Reason) -> Reason | None:
        """The layer's own weights, where they explain that one channel of its output dominates."""
        facts = self._facts.weights.get(node.name)
        if facts is None or reason.kind != "dominant" or facts.outlier < OUTLIER:
            return None
        if facts.outlier_before < max(OUTLIER, _LEAST_SHARE * reason.size):
            return None
        text = (
            f"the weights of channel {facts.channel} of '{node.name}' are {facts.outlier_before:.0f} times the median "
            f"channel's, so that this channel of its output is {reason.size:.0f} times the others and they share "
            f"{levels_left(reason.size)}"
        )
        return OUTLIER_BEHIND.reason(facts.outlier_before, text, self._setting)


def repaired_causes(facts: Facts, history: History, limit: int = 3) -> list[Cause]:
    """Outlier channels in the weights that are none any more: for information."""
    found = sorted(facts.weights.items(), key=lambda item: -item[1].outlier_before)
    return [
        Cause(
            severity=SHOWN,
            title="An outlier channel was evened out",
            explanation=f"the weights of channel {w.channel} of '{name}' were {w.outlier_before:.0f} times the median "
            f"channel's; {' and '.join(scaled)} left {w.outlier:.1f} times.",
            suggestion="nothing: the pipeline repaired it",
            where=name,
        )
        for name, w in found[:limit]
        if (scaled := scaling_passes(history, name))
        and w.outlier_before > OUTLIER
        and w.outlier_before > _REPAIRED * w.outlier
    ]
