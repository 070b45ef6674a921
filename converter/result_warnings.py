"""Warnings about a finished file whose figures are doubtful, with the likely cause and what to do; always printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from converter.compare import Comparison
from passes.contract.base import Pass
from passes.quantization.quantize import Quantize
from passes.quantization.tied import NARROW

_LEAST_DB = 15.0  # three bits
_LEAST_AGREEMENT = 0.95
_MOST_LOST = 0.02
_LEAST_ACCURACY = 0.05
_MOST_COPIES = 0.1
_MOST_SATURATED = 0.01
_MOST_CLIPPED = 0.05
_MOST_ALIKE = 0.95
_ENOUGH = 20  # samples, for shares to mean something
_WIDE = 8  # bits of weights: fewer lose by themselves


def result_warnings(quality: Comparison | None, steps: Sequence[Pass] = ()) -> tuple[str, ...]:
    """Sentences on a comparison of a file with its float network, which `steps` made it of; none where all is well."""
    return () if quality is None or not quality.samples else tuple(_warnings(quality, _advice(steps)))


def _advice(steps: Sequence[Pass]) -> str:
    """What to try that was not done."""
    names = {step.name for step in steps}
    quantize = next((step for step in steps if isinstance(step, Quantize)), Quantize())
    few = quantize.weight_bits < _WIDE
    ways = {
        "--weight_bits=8 (--bits for some layers)": few,
        "training (--pipeline=lsq)": few and "lsq" not in names,
        "--pipeline=default": "round_weights" not in names,
        "--granularity=per_channel": quantize.granularity != "per_channel",
        "--activation_bits=16": quantize.activation_bits <= NARROW,
        "more or other calibration data": True,
    }
    return f"--report shows the layer that loses it; try {', or '.join(way for way, left in ways.items() if left)}"


def _warnings(quality: Comparison, advice: str) -> Iterator[str]:
    for name in quality.constant_outputs:
        yield (
            f"output '{name}' is the same for every sample, of the float network, too: the samples are all alike, or "
            "not what it was trained on (--preprocess); figures of this output say nothing"
        )
    for name in quality.stuck_outputs:
        yield _stuck(name, quality, advice)
    for columns in quality.coarse_columns:
        yield str(columns)
    if quality.integer_agreement is not None and quality.integer_agreement < _LEAST_AGREEMENT:
        yield (
            f"integer outputs ({', '.join(quality.integer_outputs)}) equal those of the float network in "
            f"{quality.integer_agreement:.1%} of their elements only: {advice}"
        )
    if quality.copies > _MOST_COPIES * quality.samples and not quality.constant_outputs:
        yield f"{quality.copies} of the {quality.samples} samples are copies of others: they add nothing; give other ones (--calibration_data)"
    if quality.saturated > _MOST_SATURATED:
        yield (
            f"{quality.saturated:.1%} of the inputs lie outside what the file holds and saturate: calibrate on data like those, "
            "preprocessed alike (--calibration_data, --preprocess)"
        )
    for name in quality.idle_inputs:
        yield (
            f"input '{name}' has few of its steps left for what most samples hold: look for a huge value in the calibration "
            "data, which its range is made for, or calibrate on data preprocessed like these (--calibration_data, --preprocess)"
        )
    if quality.clipped > _MOST_CLIPPED and quality.samples >= _ENOUGH:
        yield (
            f"on {quality.clipped:.1%} of the samples outputs lie far outside the range that was calibrated, and are cut off "
            "at its ends: calibrate on more samples, of every class (--calibration_data, --calibration_samples)"
        )
    if quality.float_accuracy is not None and quality.integer_accuracy is not None and quality.samples >= _ENOUGH:
        least = max(_LEAST_ACCURACY, 2 / (quality.classes or 1))
        if quality.float_accuracy < least:
            yield _wrong_labels(quality)
        elif quality.float_accuracy - quality.integer_accuracy > _MOST_LOST:
            lost = 100 * (quality.float_accuracy - quality.integer_accuracy)
            yield f"the file loses {lost:.1f} points of accuracy ({quality.integer_accuracy:.1%}): {advice}"
    elif (
        quality.commonest is not None
        and quality.commonest > _MOST_ALIKE
        and quality.samples >= _ENOUGH
        and not quality.constant_outputs
    ):
        yield (
            f"the float network gives one and the same answer on {quality.commonest:.1%} of the samples: they are of one class, or "
            "not what it was trained on (--preprocess); agreement says little then"
        )
    if quality.agreement is not None and quality.agreement < _LEAST_AGREEMENT and quality.samples >= _ENOUGH:
        yield f"the file gives the float network's answer on {quality.agreement:.1%} of the samples only: {advice}"
    elif quality.sqnr_db < _LEAST_DB:
        yield f"the file is only {quality.sqnr_db:.1f} dB from the float network (above 20 is usual): {advice}"


def _stuck(name: str, quality: Comparison, advice: str) -> str:
    """An output that varies in float only: by little, where the file is near to it all the same."""
    if quality.sqnr_db >= _LEAST_DB:
        return (
            f"output '{name}' of the file is the same for every sample, where the float network's varies by little: the "
            "samples are alike, or of one class; judge it on others (--test_data)"
        )
    return (
        f"output '{name}' of the file is the same for every sample, where the float network's varies: look for a "
        f"huge value in the calibration data, and {advice}"
    )


def _wrong_labels(quality: Comparison) -> str:
    """The float network itself is wrong: what its answers have to do with the labels."""
    head = f"the float network itself is right on {quality.float_accuracy:.1%} of the labelled samples: "
    if quality.label_shift is not None:
        return f"{head}its answers are mostly the label {'+' if quality.label_shift > 0 else '-'} 1, so --labels count from another class"
    return f"{head}--labels or --preprocess are not those that it was trained with"
