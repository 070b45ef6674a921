"""What a user says of training: the data of the pass that trains, its options, and how long it may take."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter.data import DataSource
from converter.data.given import Data, as_source
from converter.preprocess import Preprocess
from ir.errors import OptionError
from ir.graph import Graph
from passes.contract.base import Pass
from passes.training.fine_tune import FineTune
from passes.training.tune_thresholds import TuneThresholds
from passes.training.tuning_time import tuning_seconds


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What `tune_thresholds` (pipeline `fat`) or `lsq` trains on, and how.

    Attributes:
      data: samples, the calibration data's source if None; `samples` of them are taken.
      labels: classes of the samples of `data`, for `lsq`; as `labels` of `open_data`.
      options: fields of the pass that are not their defaults.
      seconds: where no pipeline is named, it is `fat` if training is estimated to take at most so long (None: never).
      distribution: of `converter.distribution.open_distribution`.
    """

    data: Data | None = None
    labels: str | Path | np.ndarray | None = None
    samples: int | None = 800
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    distribution: Any = None

    def source(
        self, calibration_data: Data | None, graph: Graph, preprocess: Preprocess, seed: int, labels: Any = None
    ) -> DataSource | None:
        """The samples to train on; `labels` are those of the calibration data."""
        given, known = (calibration_data, labels) if self.data is None else (self.data, self.labels)
        return as_source(given, graph, preprocess, samples=self.samples, seed=seed, labels=known)

    def estimated_seconds(self, graph: Graph, samples: DataSource | None) -> float:
        """What training on these samples is estimated to take."""
        epochs = int(self.options.get("epochs", TuneThresholds().epochs))
        return 0.0 if samples is None else tuning_seconds(graph, samples, self.samples or len(samples), epochs)

    def check(self, steps: Sequence[Pass]) -> None:
        """Raises OptionError where options of training are given to passes that do not train."""
        beside = {"tuning_data": self.data, "tuning_labels": self.labels}
        given = [*self.options, *(name for name, value in beside.items() if value is not None)]
        if given and not trains(steps):
            raise OptionError(
                expected=f"a pipeline that trains, for {', '.join(given)}",
                found="one that does not",
                where="--pipeline",
                fix="choose fat or lsq, or leave these options out",
            )
        for step in filter(_trains, steps):
            known = [f.name for f in dataclasses.fields(step)]
            if unknown := [name for name in self.options if name not in known]:
                raise OptionError(
                    expected=f"options of {step.name}",
                    found=", ".join(unknown),
                    where="--pipeline",
                    fix="choose a pipeline that has them (lsq), or leave them out",
                )


def trains(steps: Sequence[Pass]) -> bool:
    """Whether one of the passes trains."""
    return any(map(_trains, steps))


def _trains(step: Pass) -> bool:
    return isinstance(step, FineTune)
