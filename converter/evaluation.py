"""How good an integer file is on data, on any runtime: accuracy, agreement with the float network, and noise.

Shares are given with Wilson's score interval of 95 %: for `p = k / n` and `z = 1.96`,
`(p + z^2/2n +- z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n)`. The interval of the signal-to-noise ratio is the range of
the middle 95 % of bootstrap samples. Noise is measured on the logits where the file ends in a softmax: the file that
runs then has them as further outputs, everything else is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.compare import to_integers, to_reals
from converter.data.labels import check_classes
from converter.runtimes.base import ModelRuntime
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from ir.errors import DataError
from ir.execute import batchable, compiled, run_float
from ir.graph import Graph
from passes.contract.base import Progress, Samples, silent
from passes.measuring.decibels import decibels
from passes.measuring.logits import logits_of, told_apart

_Z95 = 1.959964
_BOOTSTRAPS = 1000
TOP = 5


@dataclass(frozen=True, kw_only=True)
class Share:
    """`right` of `total` samples."""

    right: int
    total: int

    @property
    def value(self) -> float:
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval of 95 %."""
        n, p, z2 = self.total, self.value, _Z95**2
        if not n:
            return (0.0, 1.0)
        middle, half = p + z2 / (2 * n), _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return (max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n)))

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "interval": list(self.interval), "right": self.right, "total": self.total}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of one runtime; None where there are no labels, no classes, or no float model.

    Attributes:
      shares: by name: `top1`, `top5`, `float_top1`, `float_top5`, `agreement`.
      sqnr_db: of the logits, or the outputs where there is no softmax; `sqnr_interval_db` its 95 % interval.
    """

    runtime: str
    samples: int
    shares: dict[str, Share] = field(default_factory=dict)
    sqnr_db: float | None = None
    sqnr_interval_db: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `evaluate --json`."""
        names = ("top1", "top5", "float_top1", "float_top5", "agreement")
        finite = self.sqnr_db is not None and math.isfinite(self.sqnr_db)
        return {
            "runtime": self.runtime,
            "samples": self.samples,
            **{name: self.shares[name].as_json() if name in self.shares else None for name in names},
            "sqnr_db": self.sqnr_db if finite else None,
            "sqnr_interval_db": list(self.sqnr_interval_db) if finite and self.sqnr_interval_db else None,
        }


class _Tally:
    """Counts and sums, batch by batch."""

    def __init__(self) -> None:
        self.samples = 0
        self.right: dict[str, int] = {}
        self.signal: list[np.ndarray] = []
        self.noise: list[np.ndarray] = []

    def answers(self, prefix: str, scores: np.ndarray, labels: np.ndarray) -> None:
        self._count(f"{prefix}top1", scores.argmax(axis=1) == labels)
        if scores.shape[1] > TOP:
            best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
            self._count(f"{prefix}top5", (best == labels[:, None]).any(axis=1))

    def agreement(self, expected: np.ndarray, found: np.ndarray) -> None:
        self._count("agreement", expected.argmax(axis=1) == found.argmax(axis=1))

    def logits(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Expected and found numbers of each output."""

        def per_sample(x: np.ndarray) -> np.ndarray:
            return np.square(x.astype(np.float64)).reshape(len(x), -1).sum(axis=1)

        self.signal.append(np.sum([per_sample(a) for a, _ in pairs], axis=0))
        self.noise.append(np.sum([per_sample(a.astype(np.float64) - b) for a, b in pairs], axis=0))

    def _count(self, name: str, right: np.ndarray) -> None:
        self.right[name] = self.right.get(name, 0) + int(right.sum())

    def finish(self, runtime: str) -> Evaluation:
        shares = {name: Share(right=right, total=self.samples) for name, right in self.right.items()}
        if not self.signal:
            return Evaluation(runtime=runtime, samples=self.samples, shares=shares)
        value, interval = sqnr_interval(np.concatenate(self.signal), np.concatenate(self.noise))
        return Evaluation(
            runtime=runtime, samples=self.samples, shares=shares, sqnr_db=value, sqnr_interval_db=interval
        )


def sqnr_interval(signal: np.ndarray, noise: np.ndarray) -> tuple[float, tuple[float, float]]:
    """`10 log10(sum signal / sum noise)` in dB, and its 95 % interval by resampling the samples."""
    weights = np.random.default_rng(0).multinomial(len(signal), np.full(len(signal), 1 / len(signal)), size=_BOOTSTRAPS)
    low, high = (
        np.percentile(decibels(weights @ signal, weights @ noise), [2.5, 97.5]) if noise.any() else (np.inf, np.inf)
    )
    return float(decibels(signal.sum(), noise.sum())), (float(low), float(high))


def with_logits(model: bytes) -> tuple[bytes, int]:
    """The file with the inputs of final softmaxes as further outputs, and the number of outputs that it had."""
    graph = to_graph(parse(model))
    own = len(graph.own_outputs)
    logits = [v for v in logits_of(graph) if v not in graph.own_outputs]
    if not logits:
        return model, own
    graph.outputs[own:own] = logits
    return to_bytes(graph), own


def evaluate(
    model: bytes,
    samples: Samples,
    runtime: ModelRuntime,
    *,
    reference: Graph | None = None,
    labels: np.ndarray | None = None,
    batch_size: int = 8,
    progress: Progress = silent,
) -> Evaluation:
    """Runs a file on a runtime, and the float network beside it, over all samples.

    Args:
      samples: what the network takes, in reals; the file's inputs are quantized from them.
      reference: the float network, for agreement and noise.
      labels: class of each sample.
    """
    graph = to_graph(parse(model))
    content, own = with_logits(model) if reference is not None else (model, len(graph.own_outputs))
    run = to_graph(parse(content)) if content is not model else graph
    logit_positions = [] if reference is None else [run.own_outputs.index(v) for v in logits_of(run)[:own]]
    judged = [] if reference is None else logits_of(reference)
    session = runtime.load(content)
    tally = _Tally()
    try:
        for inputs, expected, expected_logits, part in _batches(samples, graph, reference, labels, batch_size):
            raw = session.invoke(
                [to_integers(x, v.dtype, v.quant) for x, v in zip(inputs, graph.own_inputs, strict=False)]
            )
            found = [to_reals(y, v.quant) for y, v in zip(raw, run.own_outputs, strict=True)]
            tally.samples += len(inputs[0])
            scores = _scores(found[:own])
            if part is not None and scores is not None:
                tally.answers("", scores, part)
            if expected is not None:
                positions = zip(judged, expected_logits, [found[i] for i in logit_positions], strict=True)
                tally.logits([told_apart(v, a, b.reshape(a.shape)) for v, a, b in positions])
                float_scores = _scores(expected)
                if scores is not None and float_scores is not None:
                    tally.agreement(float_scores, scores)
                    if part is not None:
                        tally.answers("float_", float_scores, part)
            progress(f"evaluation on {runtime.name}", tally.samples, len(samples))
    finally:
        session.close()
    return tally.finish(runtime.name)


def _scores(outputs: Sequence[np.ndarray]) -> np.ndarray | None:
    """`[samples, classes]`, None if the outputs are no classes."""
    if len(outputs) != 1:
        return None
    flat = outputs[0].reshape(len(outputs[0]), -1)
    return flat if flat.shape[1] > 1 and flat.shape[1] == max(outputs[0].shape[1:], default=0) else None


def _batches(
    samples: Samples, graph: Graph, reference: Graph | None, labels: np.ndarray | None, batch_size: int
) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Inputs, float outputs, float logits (None without a float network) and labels, batch by batch."""
    if labels is not None and len(labels) != len(samples):
        raise DataError(
            expected=f"{len(samples)} labels",
            found=f"{len(labels)}",
            where="--labels",
            fix="give one label per sample",
        )
    check_classes(labels, [v.shape for v in graph.own_outputs], "--labels")
    together = batchable(graph) and (reference is None or batchable(reference))
    size = batch_size if together else max(1, graph.inputs[0].shape[0] if graph.inputs[0].shape else 1)
    run = None
    if reference is not None:
        expected_values = [*reference.own_outputs, *logits_of(reference)]
        run = compiled(lambda tensors: run_float(reference, tensors, requested=expected_values))
    done = 0
    for inputs in samples.batches(size):
        part = None if labels is None else labels[done : done + len(inputs[0])]
        done += len(inputs[0])
        if run is None or reference is None:
            yield inputs, None, None, part
        else:
            results = run(inputs)
            yield inputs, results[: len(reference.own_outputs)], results[len(reference.own_outputs) :], part
