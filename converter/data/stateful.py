"""Samples of a stream, with the states that the float network has when each of them comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from converter.data.opening import from_arrays
from converter.data.source import DataSource, InputSpec
from ir.execute import compiled, run_float
from ir.graph import Graph

RunFloat = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def specs(graph: Graph) -> list[InputSpec]:
    """What the data package needs to know of the inputs."""
    return [InputSpec(name=v.name, shape=v.shape, dtype=v.dtype.numpy.name) for v in graph.inputs]


def own_specs(graph: Graph) -> list[InputSpec]:
    """The same of those that whoever runs the graph gives."""
    return specs(graph)[: len(graph.own_inputs)]


def with_states(graph: Graph, source: DataSource) -> DataSource:
    """Samples of all inputs of a graph, from consecutive ones of its own inputs; the same where it has no states.

    The samples are one stream, in their order: the float network computes them one after the other, from the states
    that it begins with on.
    """
    if not graph.states:
        return source
    first = len(graph.own_inputs)
    places = {first + i: len(graph.own_outputs) + i for i in range(len(graph.states))}
    begin = {first + i: np.asarray(b) for i, b in enumerate(graph.states)}
    run = compiled(lambda tensors: run_float(graph, tensors))
    rows = [arrays for arrays, _ in steps(graph, source, places, begin, run)]
    joined = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    return from_arrays(joined, specs(graph), labels=source.labels)


def steps(
    graph: Graph,
    source: DataSource,
    fed_back: Mapping[int, int],
    begin: Mapping[int, np.ndarray],
    run: RunFloat,
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """The inputs of every sample with its states, and what the network gives for them.

    Args:
      source: of the inputs that are no states.
      fed_back: the places of states among the inputs, and of the outputs that they become.
    """
    state = dict(begin)
    for sample in source.batches(1):
        given = iter(sample)
        arrays = [state[i] if i in fed_back else next(given) for i in range(len(graph.inputs))]
        results = run(arrays)
        state = {i: np.asarray(results[output]) for i, output in fed_back.items()}
        yield arrays, results
