"""Causes that lie outside the layers: the data, its preprocessing and labels, and what the pipeline could not do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from converter.analysis.layer_causes import SHOWN, Origins, severity
from converter.analysis.reasons import OUTLIER_TITLE
from converter.analysis.table import Cause
from converter.batch_norms import BROAD, Mismatch
from converter.evaluation import Share
from converter.preprocess import USUAL_RANGE
from passes.contract.base import Pass, Trial
from passes.measuring.effects import decibel
from passes.rounding.round_weights import RoundWeights

_FEW = 16
_SATURATED = 0.5
_DAMAGED = 3.0  # a channel 2^3 times as large as its batch norm saw in training
_OFFSETS = (1, -1)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What both networks answer: scores `[samples, classes]`, logits `[samples, ...]`, labels `[samples]` or None."""

    float_scores: np.ndarray
    integer_scores: np.ndarray
    float_logits: np.ndarray
    integer_logits: np.ndarray
    labels: np.ndarray | None = None

    @property
    def flips(self) -> np.ndarray:
        """Whether the answer changed, `[samples]`."""
        return self.float_scores.argmax(axis=1) != self.integer_scores.argmax(axis=1)


def range_cause(arrays: Sequence[np.ndarray], used: str, usual: str) -> Cause | None:
    """Values that the preprocessing cannot give; a few rare ones do not count."""
    images = [a for a in arrays if a.ndim == 4 and np.issubdtype(a.dtype, np.floating)]
    mode = usual or (used if used != "none" else "")
    if not images or mode not in USUAL_RANGE:
        return None
    low, high = np.quantile(np.concatenate([a.ravel()[:: max(a.size // 500_000, 1)] for a in images]), [0.002, 0.998])
    expected = USUAL_RANGE[mode]
    margin = 0.25 * expected.width
    if low >= expected.low - margin and high <= expected.high + margin and high - low >= 0.05 * expected.width:
        return None
    return Cause(
        severity=1.0,
        title="The input is not preprocessed as the network expects",
        explanation=f"its values run from {low:.4g} to {high:.4g}, but preprocessing '{mode}' gives "
        f"{expected.low:.4g} to {expected.high:.4g}.",
        suggestion=f"--preprocess={mode}, applied once",
        where="input",
    )


def norm_causes(found: Sequence[Mismatch], better: str | None, origins: Origins) -> list[Cause]:
    """From the first batch norms that do not see what they saw in training.

    `better`: a preprocessing with which they would; `origins`: finds where values that are too large begin.
    """
    heads = [m for m in found if m.first and m.broad > BROAD]
    if heads:
        return [_input_cause(max(heads, key=lambda m: m.broad), better)]
    for m in found:
        channel, beyond = m.worst
        if m.broad > BROAD:
            by = f"{m.broad:.1f} (standard deviations, or powers of two of them)"
            return [_damaged(m, by, m.broad / 5, origins, 2**m.broad)]
        if beyond > _DAMAGED:
            return [_damaged(m, f"a factor of {2**beyond:.0f} in channel {channel}", beyond / 10, origins, 2**beyond)]
    return []


def _input_cause(m: Mismatch, better: str | None) -> Cause:
    factor, distance = 2.0 ** float(np.median(m.ratio)), float(np.median(m.distance))
    return Cause(
        severity=float(np.clip(0.6 + 0.2 * m.broad, 0.0, 1.0)),
        title="The input is not preprocessed as the network expects",
        explanation=f"the first batch norm, '{m.name}', kept from training what its input looks like; in the median "
        f"channel the standard deviation is now {factor:.3g} times that, the mean {distance:.1f} standard deviations "
        "away.",
        suggestion=f"--preprocess={better}, with which they match"
        if better
        else "feed the data as in training (range of the values, order of the channels, the right kind of samples)",
        where="input",
    )


def _damaged(m: Mismatch, by: str, level: float, origins: Origins, size: float) -> Cause:
    where = origins.before(m.layer, size)
    weights = origins.has_outlier(where)
    before = "" if where == m.layer else f" The values are unusual from '{where}' on, which lies before it."
    if weights is not None:
        before += (
            f" The weights of channel {weights.channel} of '{where}' are {weights.outlier_before:.0f} times the median "
            "channel's."
        )
    return Cause(
        severity=float(np.clip(0.4 + level, 0.5, 0.95)),
        title=OUTLIER_TITLE if weights is not None else "A layer does not give what its batch norm saw in training",
        explanation=f"the output of '{m.layer}' is away from what '{m.name}' kept by {by}, while the batch norms "
        f"before it see what they saw: its weights, or what is between, were changed after training.{before}",
        suggestion="check this layer of the float model; no conversion can correct it",
        where=where,
    )


def data_causes(arrays: Sequence[np.ndarray], calibrated_on: int | None, names: Sequence[str]) -> list[Cause]:
    """Equal samples, too few of them, or none at all."""
    found = []
    total = len(arrays[0])
    different = len({b"".join(a[i].tobytes() for a in arrays) for i in range(total)})
    if total > 1 and different <= max(1, total // 2):
        every = "all" if different == 1 else f"{total - different} of {total}"
        found.append(
            Cause(
                severity=0.85 if different == 1 else 0.5,
                title="The samples are the same",
                explanation=f"{every} samples are equal to others: {different} different one(s) say little about the "
                "range of an activation, and nothing about agreement.",
                suggestion="calibrate on different samples",
                where="input",
            )
        )
    flat = [i for i in range(total) if all(np.ptp(a[i]) == 0 for a in arrays if a[i].size > 1)]
    if flat and different > 1 and len(flat) > total // 4:
        found.append(
            Cause(
                severity=0.6,
                title="Samples hold nothing",
                explanation=f"{len(flat)} of {total} samples have one value everywhere"
                + (f", '{names[flat[0]]}' for one." if names else "."),
                suggestion="check how the samples are read",
                where="input",
            )
        )
    if calibrated_on is not None and calibrated_on < _FEW:
        found.append(
            Cause(
                severity=0.1 if calibrated_on < _FEW // 2 else 0.05,
                title="Few calibration samples",
                explanation=f"ranges were chosen from {calibrated_on} sample(s); others may lie outside.",
                suggestion=f"calibrate on {_FEW} or more, better 100",
                where="input",
            )
        )
    return found


def answer_causes(answers: Answers, sound: bool) -> list[Cause]:
    """What the answers say: one class for everything, labels of another order, undecided samples.

    `sound`: nothing speaks against the input; the labels are only doubted then.
    """
    found = []
    top, labels = answers.float_scores.argmax(axis=1), answers.labels
    total, classes = answers.float_scores.shape
    same = total >= 8 and len(set(top.tolist())) == 1
    several = labels is not None and len(set(labels.tolist())) > 1
    if same and (labels is None or several):
        found.append(
            Cause(
                severity=0.8 if several else 0.3,
                title="The float network answers the same for every sample",
                explanation=f"class {int(top[0])} for each of {total} samples, before anything is quantized.",
                suggestion="check the preprocessing (--preprocess) and the weights of the model",
                where="input",
            )
        )
    elif labels is not None and sound and total >= 8:
        found += _label_causes(top, labels, classes)
    flips = answers.flips
    if flips.any() and not same:
        found += _undecided(answers)
    return found


def _label_causes(top: np.ndarray, labels: np.ndarray, classes: int) -> list[Cause]:
    right = float((top == labels).mean())
    shifted = {o: float((top == labels + o).mean()) for o in _OFFSETS}
    offset, best = max(shifted.items(), key=lambda item: item[1])
    if best > 0.3 and best > 2 * right:
        explanation = (
            f"the float network is right on {right:.0%} of the samples, with {offset:+d} on every label {best:.0%}."
        )
        return [
            _labels(explanation, f"number the classes from {'1' if offset > 0 else '0'} lower or higher: {offset:+d}")
        ]
    low, _ = Share(right=int((top == labels).sum()), total=len(top)).interval
    if low <= 2.0 / classes and right < 0.4:
        explanation = f"the float network is right on {right:.0%} of {len(top)} samples, chance is {1 / classes:.1%}."
        return [_labels(explanation, "check --labels: order of the classes, and which label goes with which sample")]
    return []


def _labels(explanation: str, suggestion: str) -> Cause:
    return Cause(
        severity=0.9,
        title="The labels do not go with the samples",
        explanation=explanation + " Quantization has no part in that.",
        suggestion=suggestion,
        where="input",
    )


def _undecided(answers: Answers) -> list[Cause]:
    """Where most changed answers were a close call of the float network."""
    if answers.float_logits.shape != answers.float_scores.shape:
        return []
    two = np.sort(answers.float_logits, axis=1)[:, -2:]
    margin = two[:, 1] - two[:, 0]
    noise = float(np.sqrt(np.square(answers.integer_logits - answers.float_logits).mean()))
    usual = float(np.median(margin))
    close = margin[answers.flips] < min(3 * noise, 0.5 * usual)
    if noise > usual or close.mean() < 0.75:
        return []
    return [
        Cause(
            severity=0.06,
            title="Answers change where the float network is undecided",
            explanation=f"{int(close.sum())} of {int(answers.flips.sum())} changed answers have their best two classes "
            f"within {3 * noise:.2g} of each other in the float network; the median sample has {usual:.2g}.",
            suggestion="judge by accuracy on labelled samples, not by agreement",
        )
    ]


def pipeline_causes(left_out: Sequence[tuple[str, Trial]], floats: Sequence[str]) -> list[Cause]:
    """Passes that the guard undid, and operators that stayed in float."""
    found = [
        Cause(
            severity=0.04,
            title=f"{name} was left out",
            explanation=f"Left out, because it makes the result worse: {trial}.",
            suggestion="nothing, if the figures are good; else more calibration samples",
        )
        for name, trial in left_out
    ]
    if floats:
        found.append(
            Cause(
                severity=0.1,
                title="Operators compute in float",
                explanation=f"{len(floats)}: {', '.join(floats[:3])}{' ...' if len(floats) > 3 else ''}.",
                suggestion="replace them, or end the model before them with --output_nodes",
            )
        )
    return found


def changed_cause(ratio: float, passes: Sequence[Pass]) -> Cause | None:
    """Where the network was no longer the same when it was quantized.

    Args:
      ratio: noise to signal of its logits.
      passes: those before, that changed something and need not keep the function.
    """
    level = severity(ratio)
    if level < SHOWN:
        return None
    taking = [p for p in passes if p.takes_away]
    less = [f"--passes='{p.name}{{{p.takes_away}={_half(getattr(p, p.takes_away)):g}}}'" for p in taking]
    named = ", ".join(f"--passes=-{p.name}" for p in passes) or "none of them promises less"
    return Cause(
        severity=level,
        title="Passes changed what the float network computes",
        explanation=f"before anything was quantized, its logits were {decibel(ratio):.1f} dB from those of the model.",
        suggestion=f"remove less of the network: {', '.join(less)} beside --pipeline"
        if less
        else f"leave out passes that need not keep the function, one by one: {named}",
    )


def _half(value: float) -> float:
    """Of an option's value; of a whole number a whole number."""
    return max(1, value // 2) if isinstance(value, int) else value / 2


def spread_cause(
    level: float, sqnr_db: float, largest: float, passes: Collection[type[Pass]], per_channel: bool
) -> Cause | None:
    """Where the noise is large and no layer makes more than `largest` of it."""
    if level < 0.05 or largest > 0.5:
        return None
    if RoundWeights not in passes:
        option = "--pipeline=default, which also scales channels, rounds with feedback and corrects biases"
    elif not per_channel:
        option = "--granularity=per_channel, if the target runs it"
    else:
        option = "--pipeline=fat, which tunes thresholds; or more calibration samples"
    return Cause(
        severity=level,
        title="The noise comes from many layers",
        explanation=f"{sqnr_db:.1f} dB at the logits in all; the layer that makes most of it makes {largest:.0%}.",
        suggestion=option,
    )


def saturated_cause(share: float, name: str) -> Cause | None:
    """Of a network without batch norms: how much of what passes its first bounded activation stops at the bound.

    On healthy networks at most 5 %; on the same networks with pixels of 0..255 in place of -1..1, 70 % and more.
    """
    if share < _SATURATED:
        return None
    return Cause(
        severity=0.8,
        title="The input is not preprocessed as the network expects",
        explanation=f"{share:.0%} of the positive values of '{name}', the first bounded activation, are at its bound: "
        "the input is likely many times too large.",
        suggestion="--preprocess=tf or unit, if the network was trained so",
        where="input",
    )
