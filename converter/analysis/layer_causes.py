"""Why a layer costs accuracy: what was measured at the logits says how much, what is conspicuous about it says why.

A huge value runs through the layers behind the one that makes it. Blame is carried back, against the flow of data, to
the first place where it is as conspicuous, so that this place is named and not those that suffer from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.analysis.effects import INPUT, OUTPUT, WEIGHTS, Effects, decibel
from converter.analysis.facts import Facts, ValueFacts, WeightFacts, scaling_passes
from converter.analysis.table import Cause, History
from ir.graph import Graph, Node, Value

SHOWN = 0.05  # causes of less severity are not worth a line
RARE = 4.0  # the range is so many times what 99.9 % of the values need
DOMINANT = 8.0  # one channel needs so many times the median one's range
OUTLIER = 12.0  # one channel's weights are so many times the median one's
_REPAIRED = 4.0
_SLACK = 3.0
_RAISED = 4.0
_LONELY = 200.0
_CLIPPED = 1e-3
_SHIFT = 0.5
_KIN = 0.25  # a place before is to blame if it is at least so conspicuous


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the file was made: the pipeline's text, and whether ranges were chosen without data."""

    pipeline: str
    data_free: bool = False

    def option(self, name: str, otherwise: str) -> str:
        """The pipeline that has a pass, if this one did not; else what remains."""
        return otherwise if name in self.pipeline else f"--pipeline=default, which has {name}"


def severity(ratio: float) -> float:
    """0 where this alone leaves 30 dB at the logits, 1 where it leaves nothing of them."""
    return float(np.clip((30.0 - decibel(ratio)) / 30.0, 0.0, 1.0)) if ratio > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What is conspicuous: `kind` groups what runs through layers, `size` compares it along the flow."""

    kind: str
    size: float
    title: str
    explanation: str
    suggestion: str


def value_reason(facts: ValueFacts, where: str, setting: Setting, *, is_input: bool = False) -> Reason | None:
    """Why rounding this value hurts."""
    also = "" if facts.name == where else f" ('{facts.name}')"
    thing = f"the input '{where}'" if is_input else f"the output of '{where}'{also}"
    low, high = facts.range or facts.seen
    if setting.data_free and (facts.rarity > _SLACK or facts.clipped > _CLIPPED):
        return Reason(
            kind="guessed",
            size=facts.rarity,
            title="A range guessed without data does not fit",
            explanation=f"{thing} is quantized over {low:.4g} to {high:.4g}; 99.9 % of its values lie between "
            f"{facts.usual[0]:.4g} and {facts.usual[1]:.4g}, {facts.clipped:.2%} of them are outside the range",
            suggestion="--calibration_data with a few dozen samples",
        )
    always = (
        facts.dominance > DOMINANT and facts.rare_share >= 0.5 and facts.slack < _SLACK
    )  # one channel, not one value
    if facts.rarity > RARE and not (always and facts.dominance > facts.rarity / 4):
        seen = "" if facts.slack < _SLACK else " (not one of the samples looked at here reaches it)"
        return Reason(
            kind="rare",
            size=facts.rarity,
            title="A rare huge value sets the range",
            explanation=f"{thing} is quantized over {low:.4g} to {high:.4g}{seen}, {facts.rarity:.0f} times what "
            f"99.9 % of its values need ({facts.usual[0]:.4g} to {facts.usual[1]:.4g}): they share "
            f"{max(int(255 / facts.rarity), 1)} of 255 levels",
            suggestion="remove the sample that causes it, or --passes='calibrate{method=percentile}' beside --pipeline",
        )
    if facts.dominance > DOMINANT:
        return Reason(
            kind="dominant",
            size=facts.dominance,
            title="One channel needs a far larger range than the others",
            explanation=f"channel {facts.channel} of {thing} is {facts.dominance:.0f} times the median channel: the "
            f"others share {max(int(255 / facts.dominance), 1)} of 255 levels",
            suggestion=_EVEN_OUT,
        )
    if facts.clipped > _CLIPPED:
        return Reason(
            kind="clipped",
            size=1.0,
            title="Values are cut off",
            explanation=f"{facts.clipped:.2%} of {thing} lie outside its range {low:.4g} to {high:.4g}, which runs "
            f"from {facts.seen[0]:.4g} to {facts.seen[1]:.4g} here",
            suggestion="more calibration samples (--calibration_samples), or calibrate{method=minmax}",
        )
    if facts.slack > _SLACK:
        return Reason(
            kind="slack",
            size=facts.slack,
            title="The range is wider than the values",
            explanation=f"{thing} uses {1 / facts.slack:.0%} of its range {low:.4g} to {high:.4g}, which it shares "
            "with other values, or which other samples asked for",
            suggestion="look at the layer that joins them; --passes='calibrate{method=mse}' beside --pipeline",
        )
    return None


def weight_reason(facts: WeightFacts, where: str, setting: Setting) -> Reason | None:
    """Why rounding these weights hurts."""
    if facts.raised > _RAISED:
        return Reason(
            kind="raised",
            size=facts.raised,
            title="A huge bias makes the weights coarse",
            explanation=f"a bias of '{where}' would overflow its int32, so a weight scale is {facts.raised:.3g} times "
            "what the weights need",
            suggestion="look at the range of this layer's input and at its batch norm (a tiny variance?)",
        )
    if facts.outlier > OUTLIER and not facts.per_channel:
        return Reason(
            kind="dominant",
            size=facts.outlier,
            title=OUTLIER_TITLE,
            explanation=f"the weights of channel {facts.channel} of '{where}' are {facts.outlier:.0f} times the median "
            f"channel's, and all share one scale: the median channel has {facts.levels:.0f} of 127 levels",
            suggestion="--granularity=per_channel, or --pipeline=default, whose equalize evens channels out",
        )
    if facts.shift > _SHIFT:
        return Reason(
            kind="shift",
            size=1.0,
            title="Rounding the weights shifts the means",
            explanation=f"{facts.shift:.0%} of the error that rounding the weights of '{where}' makes is a constant "
            "shift per channel",
            suggestion=setting.option("correct_bias", "more calibration samples: correct_bias did not take it back"),
        )
    if facts.lonely > _LONELY:
        return Reason(
            kind="lonely",
            size=facts.lonely,
            title="A single weight is far larger than its channel",
            explanation=f"in channel {facts.lonely_channel} of '{where}' the largest weight is {facts.lonely:.0f} times "
            "the median one, and the scale must reach it",
            suggestion=setting.option("round_weights", "look at this weight in the float model"),
        )
    return None


OUTLIER_TITLE = "Outlier channel in the weights"
_EVEN_OUT = "--pipeline=default, whose level_activations and equalize scale channels to a like range"
_PLAIN_WEIGHTS = (
    "The weights are rounded coarsely",
    "8 bits leave {db:.0f} dB at the logits with the weights of '{where}' rounded and all else exact",
)
_PLAIN_OUTPUT = (
    "The layer is sensitive to rounding",
    "8 bits leave {db:.0f} dB at the logits with {where} rounded and all else exact",
)


def reason_of(kind: str, name: str, ratio: float, facts: Facts, setting: Setting) -> Reason:
    """What is conspicuous about the place that was quantized alone, or that nothing is."""
    found: Reason | None = None
    if kind == WEIGHTS and name in facts.weights:
        found = weight_reason(facts.weights[name], name, setting)
    elif kind == INPUT and name in facts.inputs:
        found = value_reason(facts.inputs[name], name, setting, is_input=True)
    elif kind == OUTPUT and name in facts.values:
        found = value_reason(facts.values[name], name, setting)
    if found is not None:
        return found
    title, explanation = _PLAIN_WEIGHTS if kind == WEIGHTS else _PLAIN_OUTPUT
    where = f"the {'input' if kind == INPUT else 'output of'} '{name}'" if kind != WEIGHTS else name
    text = explanation.format(db=decibel(ratio), where=where)
    option = setting.option(
        "round_weights" if kind == WEIGHTS else "correct_bias", "--pipeline=fat, which trains thresholds and steps"
    )
    return Reason(kind="plain", size=1.0, title=title, explanation=text, suggestion=option)


def layer_causes(floats: Graph, facts: Facts, effects: Effects, setting: Setting) -> list[Cause]:
    """A cause for each place that stands out, worst first; a place is named once, for its worst trouble."""
    blame = Blame(floats, facts, setting)
    found: dict[str, Cause] = {}
    for (kind, name), ratio in sorted(effects.noise.items(), key=lambda item: -item[1]):
        level = severity(ratio)
        if level < SHOWN:
            break
        reason = reason_of(kind, name, ratio, facts, setting)
        where, reason = blame.origin(kind, name, reason)
        after = "" if kind == INPUT or where == name else f"; it is felt most at '{name}'"
        if where not in found:
            text = f"{reason.explanation}{after}. Alone it leaves {decibel(ratio):.1f} dB at the logits."
            found[where] = Cause(
                severity=level, title=reason.title, explanation=text, suggestion=reason.suggestion, where=where
            )
    return list(found.values())


def conspicuous_causes(floats: Graph, facts: Facts, setting: Setting) -> list[Cause]:
    """Places whose range is far wider than usual although little is lost by it: for information, the widest first."""
    blame = Blame(floats, facts, setting)
    found: dict[str, tuple[float, Reason]] = {}
    for kind, table in ((INPUT, facts.inputs), (OUTPUT, facts.values)):
        for name, value in table.items():
            reason = value_reason(value, name, setting, is_input=kind == INPUT)
            if reason is None or reason.kind not in ("rare", "dominant"):
                continue
            where, reason = blame.origin(kind, name, reason)
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


class Blame:
    """Walks against the flow of data to where a trouble begins."""

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
        if node is None or (weights is not None and weights.outlier_before > max(OUTLIER, _KIN * size)):
            return name
        return self._climb(node, Reason(kind="rare", size=size, title="", explanation="", suggestion=""))[0]

    def _climb(self, node: Node, reason: Reason) -> tuple[str, Reason]:
        while True:
            own = self._weights(node, reason)
            if own is not None:
                return node.name, own
            before = [(v, r) for v in node.inputs if v is not None and (r := self._of_value(v)) is not None]
            kin = [
                (v, r) for v, r in before if r.kind in ("rare", "dominant", "guessed") and r.size >= _KIN * reason.size
            ]
            if not kin:
                return node.name, reason
            value, reason = max(kin, key=lambda item: item[1].size)
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
        if facts is None or reason.kind != "dominant" or facts.outlier_before < max(OUTLIER, _KIN * reason.size):
            return None
        if facts.outlier < OUTLIER:
            return None
        return Reason(
            kind="dominant",
            size=facts.outlier_before,
            title=OUTLIER_TITLE,
            explanation=f"the weights of channel {facts.channel} of '{node.name}' are {facts.outlier_before:.0f} times "
            f"the median channel's, so that this channel of its output is {reason.size:.0f} times the others and they "
            f"share {max(int(255 / reason.size), 1)} of 255 levels",
            suggestion=_EVEN_OUT,
        )


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
