"""Running a stream: the states of a graph go from each sample to the next, as the variables of a file do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ir.execute import run_integer
from ir.graph import Graph, Value
from ir.profile import Profile


class IntegerStream:
    """An integer graph on the kernels of a profile, from the states that it begins with on."""

    def __init__(self, graph: Graph, profile: Profile) -> None:
        self.graph, self.profile = graph, profile
        self.states: list[np.ndarray] = list(graph.states)

    def run(self, inputs: Sequence[np.ndarray], requested: Sequence[Value] | None = None) -> list[np.ndarray]:
        """Consecutive samples of the graph's own inputs, and what they give: its own outputs, or `requested`."""
        values = list(self.graph.own_outputs if requested is None else requested)
        made = [output for _, output in self.graph.carried]
        sizes = [v.shape[0] if v.shape else 1 for v in self.graph.own_inputs]
        count = len(inputs[0]) // max(1, sizes[0]) if inputs and inputs[0].ndim else 1
        found = []
        for i in range(count):
            sample = [x[i * n : (i + 1) * n] if x.ndim else x for x, n in zip(inputs, sizes, strict=True)]
            results = run_integer(self.graph, [*sample, *self.states], self.profile, requested=[*values, *made])
            self.states = results[len(values) :]
            found.append(results[: len(values)])
        return [parts[0] if count == 1 else np.concatenate(parts) for parts in zip(*found, strict=True)]
