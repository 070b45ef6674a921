"""The samples of a conversion: what it calibrates on, trains on, and is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.data import DataSource
from converter.data.given import Data, as_source, data_warnings, whole_batches
from converter.data.labels import check_classes
from converter.network import Network
from converter.other_preprocess import unusual_input
from converter.tuning import Tuning
from passes.contract.options import SEEDS, Numbers, check_option


@dataclass(frozen=True, kw_only=True)
class RequestedData:
    """What a user gives; the fields are those arguments of `convert`."""

    calibration_data: Data | None = None
    calibration_samples: int | None = None
    test_data: Data | None = None
    labels: str | Path | np.ndarray | None = None
    tuning: Tuning | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_option(self.seed, SEEDS, "--seed")
        if self.calibration_samples is not None:
            check_option(self.calibration_samples, Numbers(least=1), "--calibration_samples")


@dataclass(frozen=True, kw_only=True)
class ConversionData:
    """Samples for the inputs of a network, each None where there are none.

    Attributes:
      calibration: what ranges are chosen on.
      tuning: what training learns from.
      judged: what the file is compared with the float network on; `judged_on` says whose samples these are.
      warnings: what looks wrong with the calibration data.
    """

    calibration: DataSource | None = None
    tuning: DataSource | None = None
    judged: DataSource | None = None
    judged_on: str = "calibration"
    warnings: tuple[str, ...] = ()


def gather(network: Network, requested: RequestedData) -> ConversionData:
    """Opens the data that a user gives. Raises DataError where it cannot be used for this network."""
    graph, mode, given = network.graph, network.preprocess, requested.calibration_data
    apart, labels = requested.test_data is not None, requested.labels
    calibration = as_source(
        given,
        graph,
        mode,
        samples=requested.calibration_samples,
        seed=requested.seed,
        labels=None if apart else labels,
    )
    calibration = whole_batches(calibration, graph)
    test = as_source(requested.test_data, graph, mode, labels=labels) if apart else None
    tuning, judged = requested.tuning, whole_batches(test, graph) if apart else calibration
    trained = None if tuning is None else tuning.source(given, graph, mode, requested.seed, None if apart else labels)
    for data, where in ((judged, "--labels"), (trained, "--tuning_labels")):
        check_classes(None if data is None else data.labels, [v.shape for v in graph.own_outputs], where)
    unusual = unusual_input(network.reference, calibration, mode)
    return ConversionData(
        calibration=calibration,
        tuning=trained,
        judged=judged,
        judged_on="test" if apart else "calibration",
        warnings=data_warnings(given, calibration, network.reference, mode, network.usual_preprocess, unusual),
    )
