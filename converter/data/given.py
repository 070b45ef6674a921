"""Whatever a user gives as data, as samples for a network's graph, and what looks wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.data.opening import from_arrays, open_data
from converter.data.source import DataSource
from converter.data.stateful import own_specs, with_states
from converter.data.streams import Stream, collect, is_list_of_samples, is_stream
from converter.preprocess import Preprocess, check_pixels, check_range
from ir.errors import DataError
from ir.graph import Graph

_ENOUGH = 8  # samples to calibrate on

Data = DataSource | str | Path | np.ndarray | Sequence[np.ndarray] | Stream


def as_source(
    given: Data | None,
    graph: Graph,
    preprocess: Preprocess,
    *,
    samples: int | None = None,
    seed: int = 0,
    labels: Any = None,
) -> DataSource | None:
    """Data in any form that `convert` takes, as a source for the inputs of a graph; options as of `open_data`.

    Arrays in memory are fed as they are, whatever mode describes them; a function preprocesses them, too.
    Of a graph with states the samples are one stream, in their order; `samples` are then its first ones.

    Raises:
      DataError: as `open_data`.
    """
    if given is None or isinstance(given, DataSource):
        return given
    if graph.states:
        whole = _opened(given, graph, preprocess, samples=None, seed=seed, labels=labels)
        return with_states(graph, whole if samples is None else whole.subset(np.arange(min(samples, len(whole)))))
    return _opened(given, graph, preprocess, samples=samples, seed=seed, labels=labels)


def _opened(
    given: Data, graph: Graph, preprocess: Preprocess, *, samples: int | None, seed: int, labels: Any
) -> DataSource:
    inputs = own_specs(graph)
    if isinstance(given, DataSource):
        return given
    if isinstance(given, (str, Path)):
        return open_data(
            given,
            inputs,
            preprocess=preprocess or "none",
            samples=samples,
            seed=seed,
            labels=labels,
            classes=classes_of(graph),
        )
    if isinstance(labels, (str, Path)):
        raise DataError(
            expected="labels as an array, beside arrays", found=str(labels), where="labels", fix="pass an array"
        )
    arrays: Any = given
    if is_stream(given):
        arrays, found = collect(given, inputs, samples)
        labels = found if labels is None else labels
    elif is_list_of_samples(given, inputs):
        arrays, _ = collect(lambda: ([array] for array in arrays), inputs, sys.maxsize)
    return from_arrays(arrays, inputs, labels=labels, preprocess=preprocess if callable(preprocess) else "none")


def classes_of(graph: Graph) -> int | None:
    """How many answers a classifier has, None for other networks."""
    shapes = [v.shape for v in graph.own_outputs]
    return shapes[0][1] if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][1] > 1 else None


def whole_batches(data: DataSource | None, graph: Graph) -> DataSource | None:
    """As many samples as fill the batches of a graph whose batch is not 1. Raises DataError if they fill none."""
    batch = graph.inputs[0].shape[0] if graph.inputs and graph.inputs[0].shape else 1
    if data is None or batch < 2 or len(data) % batch == 0:
        return data
    if len(data) < batch:
        raise DataError(
            expected=f"at least {batch} samples, which are one batch of this network",
            found=str(len(data)),
            where="calibration data",
            fix="give more samples, or convert with a batch of 1",
        )
    return data.subset(np.arange(len(data) // batch * batch))


def data_warnings(
    given: Data | None, data: DataSource | None, graph: Graph, used: Preprocess, usual: str, unusual: str | None = None
) -> tuple[str, ...]:
    """What makes it doubtful that the network was trained on such values.

    Args:
      given: what the user gave, `data` the samples of it.
      graph: the network as it was read.
      used, usual: how `data` is preprocessed and how the network's images usually are; "" where that is not known.
      unusual: how the network's first batch norm finds it.
    """
    if data is None or not len(data):
        return ()
    found = [_few(len(data)), check_range(next(data.batches(8)), usual or used or None) or unusual]
    if not used and not unusual and not _rescales(graph):
        pixels = check_pixels(next(data.batches(1)))
        if isinstance(given, (str, Path)):
            found.append(pixels)
        elif pixels and np.issubdtype(getattr(given, "dtype", np.float32), np.integer):
            found.append(f"{pixels} Arrays are fed as they are: preprocess them before.")
    return tuple(filter(None, found))


def _few(samples: int) -> str | None:
    if samples >= _ENOUGH:
        return None
    return f"calibrated on {samples} samples only: ranges are those of these; 100 that differ are usual"


def _rescales(graph: Graph) -> bool:
    """Whether an input goes first into arithmetic, as of a Rescaling layer, and not into a layer with weights."""
    nodes = [node for value in graph.own_inputs for node in value.consumers]
    while any(node.op.pads_zeros for node in nodes):
        nodes = [n for node in nodes for n in (node.output.consumers if node.op.pads_zeros else [node])]
    return any(node.weight is None for node in nodes)
