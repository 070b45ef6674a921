"""How long fine-tuning will take, before it begins: from the time that the float network takes for a few samples."""

from __future__ import annotations

import time

from ir.execute import batchable, compiled, run_float
from ir.graph import Graph
from passes.contract.base import Samples

# Seconds of training per second of the float network's forward pass: forward and backward pass of the fake-quantized
# network, the teacher's answers and the measuring on the held-out part. Seen: 3.0 to 4.5 (MobileNets, two cores).
RATIO = 5.0
_BATCH = 8


def tuning_seconds(graph: Graph, samples: Samples, count: int, epochs: int) -> float:
    """Estimated seconds of `epochs` passes over `count` samples on this machine as busy as it is; infinite if it cannot."""
    if not batchable(graph) or not len(samples):
        return float("inf")
    batch = next(iter(samples.batches(min(_BATCH, len(samples)))))
    run = compiled(lambda tensors: run_float(graph, tensors))
    run(batch)  # traces and compiles
    start = time.perf_counter()
    run(batch)
    each = (time.perf_counter() - start) / len(batch[0])
    return each * RATIO * min(count, len(samples)) * epochs
