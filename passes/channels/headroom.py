"""How far below a bounded activation's limit scaled channels stay: chosen on samples that nothing was fitted to.

A channel may be scaled up until the largest value that calibration data showed meets the limit (6 for ReLU6). Other
data show larger ones: on 300 other images the largest value of one channel in a hundred is 1.6 times as large in
MobileNetV1, and 2.3 times (of one in a thousand 5.5 times) in MobileNetV2, whose logits that alone moved by -25 dB.
So limits come from the samples without `HELD_OUT`, and of several headrooms (factors on the largest values seen) the
first is taken at which the logits of those held out stay what they were. Samples that were made from batch norms all
look alike and show no such tails: where there are no others, the least headroom is 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ir.graph import Graph
from passes.contract.base import Context, PassReport, Snapshot
from passes.measuring.logits import before_fixed
from passes.measuring.scores import few_held_out, values_of

HEADROOMS = (1.0, 1.5, 2.0, 3.0, 5.0)
_WITHOUT_DATA = 2.0
_ALLOWED = 5e-4  # of the logits' power: a third of what 8 bits per channel move MobileNetV1's by (28.4 dB)


def with_headroom(
    graph: Graph, context: Context, attempt: Callable[[float], PassReport], choices: Sequence[float] = HEADROOMS
) -> PassReport:
    """Rewrites the graph by `attempt(headroom)` with the first of `choices` that is enough, the last if none is."""
    bounded = any(node.op.limit is not None for node in graph.nodes)
    if not bounded or context.samples is None:
        return attempt(choices[0])
    if context.made is not None:
        choices = [h for h in HEADROOMS if h >= _WITHOUT_DATA]
    samples = few_held_out(context.samples, graph)
    expected = values_of(graph, samples, before_fixed(graph))
    for headroom in choices:
        snapshot = Snapshot.take(graph, context)
        report = attempt(headroom)
        found = values_of(graph, samples, before_fixed(graph))
        moved = max(_moved(w, f) for w, f in zip(expected, found, strict=True))
        if moved <= _ALLOWED or headroom == choices[-1]:
            break
        snapshot.put_back(context)
    note = f"headroom {headroom:g} below bounded activations: on samples left out the float logits move by {moved:.1e}"
    return dataclasses.replace(report, notes=(*report.notes, note)) if report.changed else report


def _moved(expected: np.ndarray, found: np.ndarray) -> float:
    """The power of the change, relative to that of what was expected."""
    power = np.square(expected, dtype=np.float64).sum()
    return float(np.square(found.astype(np.float64) - expected).sum() / max(power, 1e-30))
