"""What is conspicuous about a value or the weights of a layer, that explains what rounding them costs."""

from __future__ import annotations

from dataclasses import dataclass

from converter.analysis.facts import Facts, ValueFacts, WeightFacts
from passes.contract.base import Pass
from passes.measuring.effects import INPUT, OUTPUT, WEIGHTS, decibel
from passes.rounding.correct_bias import CorrectBias
from passes.rounding.round_weights import RoundWeights

RARE = 4.0  # the range is so many times what 99.9 % of the values need
DOMINANT = 8.0  # one channel needs so many times the median one's range
OUTLIER = 12.0  # one channel's weights are so many times the median one's
_SLACK = 3.0
_RAISED = 4.0
_ISOLATED = 200.0
_CLIPPED = 1e-3
_SHIFT = 0.5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the file was made: which passes ran, and whether ranges were chosen without data."""

    passes: frozenset[type[Pass]]
    data_free: bool = False

    def option(self, kind: type[Pass], otherwise: str) -> str:
        """The pipeline that has a pass, if this one did not; else what remains."""
        return otherwise if kind in self.passes else f"--pipeline=default, which has {kind.name}"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What is conspicuous: `kind` groups what runs through layers, `size` compares it along the flow."""

    kind: str
    size: float
    title: str
    explanation: str
    suggestion: str


@dataclass(frozen=True)
class Problem:
    """A kind of reason, as the report names it; `repaired_by` is the pass to suggest where the pipeline lacks it."""

    kind: str
    title: str
    suggestion: str
    repaired_by: type[Pass] | None = None

    def reason(self, size: float, explanation: str, setting: Setting) -> Reason:
        """This problem at one place."""
        kind = self.repaired_by
        return Reason(
            kind=self.kind,
            size=size,
            title=self.title,
            explanation=explanation,
            suggestion=self.suggestion if kind is None else setting.option(kind, self.suggestion),
        )


OUTLIER_TITLE = "Outlier channel in the weights"
_EVEN_OUT = "--pipeline=default, whose level_activations and equalize scale channels to a like range"
_FAT = "--pipeline=fat, which trains thresholds and steps"
_GUESSED = Problem(
    "guessed", "A range guessed without data does not fit", "--calibration_data with a few dozen samples"
)
RARE_VALUE = Problem(
    "rare",
    "A rare huge value sets the range",
    "remove the sample that causes it, or --passes='calibrate{method=percentile}' beside --pipeline",
)
_DOMINANT = Problem("dominant", "One channel needs a far larger range than the others", _EVEN_OUT)
_CUT_OFF = Problem(
    "clipped", "Values are cut off", "more calibration samples (--calibration_samples), or calibrate{method=minmax}"
)
_WIDE = Problem(
    "slack",
    "The range is wider than the values",
    "look at the layer that joins them; --passes='calibrate{method=mse}' beside --pipeline",
)
_RAISED_SCALE = Problem(
    "raised",
    "A huge bias makes the weights coarse",
    "look at the range of this layer's input and at its batch norm (a tiny variance?)",
)
_OUTLIER = Problem(
    "dominant", OUTLIER_TITLE, "--granularity=per_channel, or --pipeline=default, whose equalize evens channels out"
)
OUTLIER_BEHIND = Problem("dominant", OUTLIER_TITLE, _EVEN_OUT)
_SHIFTED = Problem(
    "shift",
    "Rounding the weights shifts the means",
    "more calibration samples: correct_bias did not take it back",
    repaired_by=CorrectBias,
)
_ISOLATED_WEIGHT = Problem(
    "isolated",
    "A single weight is far larger than its channel",
    "look at this weight in the float model",
    repaired_by=RoundWeights,
)
_COARSE = Problem("plain", "The weights are rounded coarsely", _FAT, repaired_by=RoundWeights)
_SENSITIVE = Problem("plain", "The layer is sensitive to rounding", _FAT, repaired_by=CorrectBias)
_CALLED = {WEIGHTS: "the weights of", INPUT: "the input", OUTPUT: "the output of"}


def levels_left(ratio: float) -> str:
    """What is left of 8 bits for values that need a range so many times smaller."""
    return f"{max(int(255 / ratio), 1)} of 255 levels"


def _span(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.4g} to {bounds[1]:.4g}"


def value_reason(facts: ValueFacts, where: str, setting: Setting, *, is_input: bool = False) -> Reason | None:
    """Why rounding this value hurts."""
    also = "" if facts.name == where else f" ('{facts.name}')"
    thing = f"the input '{where}'" if is_input else f"the output of '{where}'{also}"
    span = _span(facts.range or facts.seen)
    if setting.data_free and (facts.rarity > _SLACK or facts.clipped > _CLIPPED):
        text = (
            f"{thing} is quantized over {span}; 99.9 % of its values lie between {facts.usual[0]:.4g} and "
            f"{facts.usual[1]:.4g}, {facts.clipped:.2%} of them are outside the range"
        )
        return _GUESSED.reason(facts.rarity, text, setting)
    one_channel = facts.dominance > DOMINANT and facts.rare_share >= 0.5 and facts.slack < _SLACK  # not one value
    if facts.rarity > RARE and not (one_channel and facts.dominance > facts.rarity / 4):
        seen = "" if facts.slack < _SLACK else " (not one of the samples looked at here reaches it)"
        text = (
            f"{thing} is quantized over {span}{seen}, {facts.rarity:.0f} times what 99.9 % of its values need "
            f"({_span(facts.usual)}): they share {levels_left(facts.rarity)}"
        )
        return RARE_VALUE.reason(facts.rarity, text, setting)
    if facts.dominance > DOMINANT:
        text = (
            f"channel {facts.channel} of {thing} is {facts.dominance:.0f} times the median channel: the others share "
            f"{levels_left(facts.dominance)}"
        )
        return _DOMINANT.reason(facts.dominance, text, setting)
    if facts.clipped > _CLIPPED:
        text = f"{facts.clipped:.2%} of {thing} lie outside its range {span}, which runs from {_span(facts.seen)} here"
        return _CUT_OFF.reason(1.0, text, setting)
    if facts.slack > _SLACK:
        text = (
            f"{thing} uses {1 / facts.slack:.0%} of its range {span}, which it shares with other values, or which "
            "other samples asked for"
        )
        return _WIDE.reason(facts.slack, text, setting)
    return None


def weight_reason(facts: WeightFacts, where: str, setting: Setting) -> Reason | None:
    """Why rounding these weights hurts."""
    if facts.raised > _RAISED:
        text = (
            f"a bias of '{where}' would overflow its int32, so a weight scale is {facts.raised:.3g} times what the "
            "weights need"
        )
        return _RAISED_SCALE.reason(facts.raised, text, setting)
    if facts.outlier > OUTLIER and not facts.per_channel:
        text = (
            f"the weights of channel {facts.channel} of '{where}' are {facts.outlier:.0f} times the median channel's, "
            f"and all share one scale: the median channel has {facts.levels:.0f} of 127 levels"
        )
        return _OUTLIER.reason(facts.outlier, text, setting)
    if facts.shift > _SHIFT:
        text = f"{facts.shift:.0%} of the error that rounding the weights of '{where}' makes is a constant shift per channel"
        return _SHIFTED.reason(1.0, text, setting)
    if facts.isolated > _ISOLATED:
        text = (
            f"in channel {facts.isolated_channel} of '{where}' the largest weight is {facts.isolated:.0f} times the median "
            "one, and the scale must reach it"
        )
        return _ISOLATED_WEIGHT.reason(facts.isolated, text, setting)
    return None


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
    text = (
        f"8 bits leave {decibel(ratio):.0f} dB at the logits with {_CALLED[kind]} '{name}' rounded and all else exact"
    )
    return (_COARSE if kind == WEIGHTS else _SENSITIVE).reason(1.0, text, setting)
