"""Gates: what a file must reach to be shipped. One that is not reached, or cannot be judged, stops the conversion.

A build that calls `convert` with gates breaks where an app would otherwise ship a worse model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from converter.compare import Comparison
from converter.targets import CheckReport
from ir.errors import GateError, OptionError
from passes.contract.base import Samples

_ROUNDING = 1e-9  # 99.4 / 100 is a little more than 994 / 1000


@dataclass(frozen=True, kw_only=True)
class _Failure:
    gate: str
    expected: str
    found: str


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What is asked of a file; None and False ask nothing.

    Attributes:
      min_agreement: least share (0 to 1) of samples on which the file and the float network have the same top-1.
      max_accuracy_drop: most points of top-1 accuracy that the file may lose against the float network; negative
        asks for a gain.
      require_fully_mapped: every operator runs on the target, as its check (see `converter.targets`) predicts.

    Raises OptionError for a limit that is out of these ranges.
    """

    min_agreement: float | None = None
    max_accuracy_drop: float | None = None
    require_fully_mapped: bool = False

    def __post_init__(self) -> None:
        share, drop = self.min_agreement, self.max_accuracy_drop
        if share is not None and not 0 <= share <= 1:  # NaN, too, is not between
            raise _out_of_range("--min_agreement", "0 to 100 %, or a share from 0 to 1", _percent(share))
        if drop is not None and not -100 <= drop <= 100:
            raise _out_of_range("--max_accuracy_drop", "-100 to 100 points", _points(drop))

    @property
    def needs_data(self) -> bool:
        return self.min_agreement is not None or self.max_accuracy_drop is not None

    @property
    def _names(self) -> str:
        given = {"--min_agreement": self.min_agreement, "--max_accuracy_drop": self.max_accuracy_drop}
        return ", ".join(name for name, limit in given.items() if limit is not None)

    def check_data(self, samples: Samples | None, labelled: bool) -> None:
        """Raises GateError where the data that a file would be judged on does not suffice: before any work is done."""
        if self.needs_data and (samples is None or not len(samples)):
            raise GateError(
                expected="samples to judge the file on",
                found="none",
                where=self._names,
                fix="pass --calibration_data or --test_data, or leave the gate out",
            )
        if self.max_accuracy_drop is not None and not labelled:
            raise GateError(
                expected="labels of the samples",
                found="none",
                where="--max_accuracy_drop",
                fix="pass --labels, or data with labels inside, or leave the gate out",
            )

    def judge(self, quality: Comparison | None, report: CheckReport) -> None:
        """Raises GateError with every gate that a file does not pass, and by how much.

        Args:
          quality: the file against its float network.
          report: what its target is predicted to run.
        """
        failures = [*self._judge_answers(quality), *self._judge_mapping(report)]
        if failures:
            raise GateError(
                expected=" and ".join(f.expected for f in failures),
                found=" and ".join(f.found for f in failures),
                where=", ".join(f.gate for f in failures),
                fix="nothing was written: change the model, its data or the options, or lower the gate",
            )

    def _judge_answers(self, quality: Comparison | None) -> Iterator[_Failure]:
        if not self.needs_data:
            return
        if quality is None or quality.agreement is None or not quality.samples:
            found = "no comparison" if quality is None else "outputs that are no classes, which have no top-1 answer"
            yield _Failure(gate=self._names, expected="a network that classifies, compared on samples", found=found)
            return
        total = quality.samples
        if self.min_agreement is not None:
            agreed = round(quality.agreement * total)
            missing = self.min_agreement - agreed / total
            if missing > _ROUNDING:
                yield _Failure(
                    gate="--min_agreement",
                    expected=f"the float network's top-1 answer on at least {_percent(self.min_agreement)} of samples",
                    found=f"it on {agreed} of {total} ({_percent(agreed / total)}), {_points(100 * missing)} too few",
                )
        if self.max_accuracy_drop is not None:
            yield from self._judge_accuracy(quality, self.max_accuracy_drop)

    @staticmethod
    def _judge_accuracy(quality: Comparison, limit: float) -> Iterator[_Failure]:
        if quality.float_accuracy is None or quality.integer_accuracy is None:
            yield _Failure(gate="--max_accuracy_drop", expected="labels of the samples", found="none")
            return
        total = quality.samples
        right, right_float = round(quality.integer_accuracy * total), round(quality.float_accuracy * total)
        drop = 100 * (right_float - right) / total
        if drop > limit:
            yield _Failure(
                gate="--max_accuracy_drop",
                expected=f"a loss of accuracy of at most {_points(limit)}",
                found=f"{_points(drop)} ({right_float} of {total} right in float, {right} in integers), "
                f"{_points(drop - limit)} too many",
            )

    def _judge_mapping(self, report: CheckReport) -> Iterator[_Failure]:
        if not self.require_fully_mapped or (report.verdicts and not report.unmapped):
            return
        if not report.verdicts:
            found = "no verdict on any operator"
        else:
            first = report.unmapped[0]
            found = (
                f"{report.mapped} of {len(report.verdicts)}, {len(report.unmapped)} too few, "
                f"the first left out being {first.name} '{first.layer}' ({first.reason}; {first.fix})"
            )
        yield _Failure(gate="--require_fully_mapped", expected=f"every operator mapped to {report.target}", found=found)


def share_of(number: float | None) -> float | None:
    """A share (0 to 1) from what users write: per cent, or up to 1 the share itself."""
    return number if number is None or number <= 1 else number / 100


def _out_of_range(flag: str, expected: str, found: str) -> OptionError:
    return OptionError(expected=expected, found=found, where=flag, fix="choose a limit that can be reached")


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _points(value: float) -> str:
    return f"{value:.3g} point{'' if abs(value) == 1 else 's'}"
