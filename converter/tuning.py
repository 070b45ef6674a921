"""What a user says of training: the data of `tune_thresholds`, its options, and how long it may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from converter.data import DataSource
from converter.data.given import Data, as_source
from ir.errors import OptionError
from ir.graph import Graph
from passes.contract.base import Pass
from passes.training.tune_thresholds import TuneThresholds
from passes.training.tuning_time import tuning_seconds


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What `tune_thresholds` trains on, and how.

    Attributes:
      data: unlabelled samples, the calibration data's source if None; `samples` of them are taken.
      options: fields of `TuneThresholds` that are not their defaults.
      seconds: where no pipeline is named, it is `fat` if training is estimated to take at most so long (None: never).
      distribution: of `converter.distribution.open_distribution`.
    """

    data: Data | None = None
    samples: int | None = 800
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    distribution: Any = None

    def source(self, calibration_data: Data | None, graph: Graph, preprocess: str, seed: int) -> DataSource | None:
        """The samples to train on."""
        given = calibration_data if self.data is None else self.data
        return as_source(given, graph, preprocess, samples=self.samples, seed=seed)

    def estimated_seconds(self, graph: Graph, samples: DataSource | None) -> float:
        """What training on these samples is estimated to take."""
        epochs = int(self.options.get("epochs", TuneThresholds().epochs))
        return 0.0 if samples is None else tuning_seconds(graph, samples, self.samples or len(samples), epochs)

    def check(self, steps: Sequence[Pass]) -> None:
        """Raises OptionError where options of training are given to passes that do not train."""
        given = [*self.options, *(["tuning_data"] if self.data is not None else [])]
        if given and not trains(steps):
            raise OptionError(
                expected=f"a pipeline that trains, for {', '.join(given)}",
                found="one that does not",
                where="--pipeline",
                fix="choose fat, or leave these options out",
            )


def trains(steps: Sequence[Pass]) -> bool:
    """Whether one of the passes trains."""
    return any(isinstance(s, TuneThresholds) for s in steps)
