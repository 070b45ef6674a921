"""A pass: its options as fields, what it needs and preserves, one `run`; and all names that a pass file imports."""

from __future__ import annotations

import dataclasses
import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from ir.errors import OptionError
from ir.graph import Graph
from passes.contract.context import Context, Distribution, Given, Limits, Products, Progress, Services, Snapshot, silent
from passes.contract.options import SAID, VALUES, check_option, choice, numeric, unsaid
from passes.contract.report import Applied, LeftOut, NothingToDo, Outcome, PassReport, Skip, Trial, Undone
from passes.contract.samples import ENOUGH, HELD_OUT, FittingSamples, Samples, SamplesInMemory, labels_of
from passes.contract.tables import ByFold, ChannelNormal, Copies, Range, SideTables, Statistics

__all__ = [
    "ENOUGH",
    "HELD_OUT",
    "Applied",
    "ByFold",
    "ChannelNormal",
    "Context",
    "Copies",
    "Distribution",
    "FittingSamples",
    "Given",
    "LeftOut",
    "Limits",
    "Needs",
    "NothingToDo",
    "Outcome",
    "Pass",
    "PassReport",
    "Preserves",
    "Products",
    "Progress",
    "Range",
    "Samples",
    "SamplesInMemory",
    "Services",
    "SideTables",
    "Skip",
    "Snapshot",
    "Statistics",
    "Trial",
    "Undone",
    "choice",
    "labels_of",
    "numeric",
    "silent",
    "unsaid",
]


class Preserves(enum.Enum):
    """What of the network's function a pass keeps; a test holds it to that."""

    FLOAT = "the float function"
    FLOAT_ON_DATA = "the float function on the calibration data"
    NOTHING = "nothing"


class Needs(enum.Enum):
    """What must be there before a pass runs."""

    STATISTICS = "statistics of activations"  # collected by the runner; without data the pass is refused
    STATISTICS_IF_DATA = "statistics of activations, where there is data"
    DATA = "calibration data"
    TUNING_DATA = "data to train on"  # the calibration data where no others were given
    RANGES = "ranges of activations"
    TEACHER = "the float network, to learn from"  # `SideTables.unrounded`, or the reference


@dataclass(frozen=True, kw_only=True)
class Pass(ABC):
    """A rewrite of the graph. Its fields are its options.

    Class attributes:
      name: in pipelines and on the command line.
      preserves: what of the network's function stays.
      needs: what must be there; the runner refuses the pass otherwise.
      makes: which of these it brings to the passes after it.
      guarded: whether its effect on the logits is measured, and the pass left out where it does harm.
      takes_away: the option that says how much of the network it removes on purpose; "" if it removes nothing.
      keeps_statistics: whether what was measured on the graph before holds after it, although it changed something.
    """

    name: ClassVar[str]
    preserves: ClassVar[Preserves] = Preserves.NOTHING
    needs: ClassVar[frozenset[Needs]] = frozenset()
    makes: ClassVar[frozenset[Needs]] = frozenset()
    keeps_statistics: ClassVar[bool] = False
    guarded: ClassVar[bool] = False
    takes_away: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Raises OptionError for an option whose value is none."""
        for f in dataclasses.fields(self):
            if VALUES in f.metadata:
                check_option(getattr(self, f.name), f.metadata[VALUES], f"{self.name} {f.name}")
        for option, (good, expected) in self._checks().items():
            if not good:
                raise OptionError(
                    expected=expected,
                    found=str(getattr(self, option)),
                    where=f"{self.name} {option}",
                    fix="change the option",
                )

    def _checks(self) -> dict[str, tuple[bool, str]]:
        """Of options whose values are not declared (`choice`, `numeric`): whether the value is one, and what is."""
        return {}

    @abstractmethod
    def run(self, graph: Graph, context: Context) -> PassReport:
        """Rewrites the graph in place."""

    def requires(self) -> frozenset[Needs]:
        """What this pass needs with the options that it has."""
        return self.needs

    def __str__(self) -> str:
        said = [f for f in dataclasses.fields(self) if f.metadata.get(SAID, True)]
        changed = {f.name: getattr(self, f.name) for f in said if getattr(self, f.name) != f.default}
        options = " ".join(f"{k}={_text(v)}" for k, v in changed.items())
        return f"{self.name}{{{options}}}" if options else self.name


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
