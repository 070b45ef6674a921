"""Numbers and sentences as a report words them; `–` stands for what was not measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from converter.report.content import Content

NOTHING = "–"
_GAP = "\u00a0"  # between a number and its unit: no line breaks there


def number(value: float | None, digits: int = 4) -> str:
    """A real with some significant digits."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:.{digits}g}".replace("-", "−")


def decibels(value: float | None) -> str:
    """An SQNR; `exact` where nothing differs."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "exact" if value > 0 else "lost"
    return f"{value:.1f}".replace("-", "−") + f"{_GAP}dB"


def percent(value: float | None) -> str:
    """A share; small ones keep two digits, so that they do not read as nothing."""
    if value is None or math.isnan(value):
        return NOTHING
    hundredths = 100 * value
    digits = f"{hundredths:.2g}" if 0 < abs(hundredths) < 0.1 else f"{hundredths:.1f}"
    return f"{digits.replace('-', '−')}{_GAP}%"


def size(value: int | None) -> str:
    """Bytes."""
    if value is None:
        return NOTHING
    if value < 1000:
        return f"{value}{_GAP}B"
    return f"{value / 1e3:.1f}{_GAP}kB" if value < 1e6 else f"{value / 1e6:.2f}{_GAP}MB"


def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}{_GAP}ms"


def span(bounds: tuple[float, float] | None) -> str:
    """A range of reals."""
    return NOTHING if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


def cosine(value: float | None) -> str:
    """A cosine, with enough digits to tell it from 1."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.5f}".replace("-", "−")


def score(value: float) -> str:
    """A probability, or another score of a class."""
    return (f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}").replace("-", "−")


def interval(share: Mapping[str, Any] | None) -> str:
    """The 95{_GAP}% interval of a share."""
    return NOTHING if share is None else f"95{_GAP}% interval {percent(share['low'])} to {percent(share['high'])}"


_WORD = re.compile(r"[a-z]+[ ,]")


def sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop."""
    begun = text[:1].upper() + text[1:] if _WORD.match(text) else text
    return begun if begun.endswith((".", "!", "?")) else f"{begun}."


def severity(value: float) -> str:
    """In one word."""
    return "high" if value >= 2 / 3 else "medium" if value >= 1 / 3 else "low"


def judgement(content: Content) -> tuple[str, str]:
    """`(class of the style, words)` of a result that is bad or doubtful; two empty texts where it is neither."""
    summary = content.headline
    agreement, right, before = (summary.get(k) for k in ("agreement", "integer_accuracy", "float_accuracy"))
    lost = before["value"] - right["value"] if right is not None and before is not None else 0.0
    ratio = summary.get("sqnr_db")
    worst = [
        (lost > bad_loss)
        or (agreement is not None and agreement["value"] < bad_agreement)
        or (agreement is None and ratio is not None and ratio < bad_db)
        for bad_loss, bad_agreement, bad_db in (_BAD, _DOUBTFUL)
    ]
    if worst[0]:
        return "bad", "This file does not do what the float network does: do not ship it as it is."
    return ("doubtful", "This file is noticeably worse than the float network.") if worst[1] else ("", "")


# Lost accuracy, agreement, and decibels where there are no classes, from which on a result is bad, and doubtful.
_BAD, _DOUBTFUL = (0.1, 0.8, 10.0), (0.02, 0.95, 15.0)


def verdict(content: Content) -> str:
    """The report in one or two sentences."""
    summary = content.headline
    samples = f"{summary.get('samples')} {content.judged_on} samples"
    if not summary.get("samples"):
        return "Nothing was compared with the float network: the conversion had no data, or no check was asked for."
    agreement, right, before = (summary.get(k) for k in ("agreement", "integer_accuracy", "float_accuracy"))
    ratio = summary.get("sqnr_db")
    parts = []
    if agreement is not None:
        parts.append(f"gives the answer of the float network for {percent(agreement['value'])} of {samples}")
    if right is not None and before is not None:
        parts.append(f"is right for {percent(right['value'])} (float {percent(before['value'])})")
    what, where = ("logits", "") if parts else ("outputs", f" on {samples}")
    if ratio is None:
        parts.append(f"gives exactly the {what} of the float network{where}")
    else:
        parts.append(f"keeps the error of its {what} {decibels(ratio)} below the signal{where}")
    return f"The integer network {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}."


GLOSSARY = (
    (
        "SQNR",
        "Signal to quantization noise: how much larger the float values are than the difference that integers make, "
        "in decibels. 20 dB is an error of a tenth, 40 dB of a hundredth; more is better.",
    ),
    ("alone", "Only this layer computes in integers; what it reads is exact. Its own share of the loss."),
    ("logits, it alone", "SQNR of the network's logits when nothing but this layer computes in integers."),
    ("with everything before it", "The layer as it is in the file, with the errors that reach it."),
    ("cosine", "Of the angle between the integer and the float output; 1 is the same direction."),
    ("clipped", "Share of the float values that lie outside the range that the integers reach."),
    ("scale and zero point", "A stored integer q stands for the real number scale × (q − zero point)."),
    ("agreement", "Share of the samples for which float and integer network give the same first answer."),
    (
        "interval",
        "The Wilson interval: where the share would lie for 95 of 100 such sets of samples. Few samples, wide interval.",
    ),
)
