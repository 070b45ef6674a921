"""How close an integer model is to its float network: logits, answers, accuracy."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.columns import Bounds, CoarseColumns, coarse_columns
from converter.held import HeldInput, clipped_samples
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.execute import batchable, run_float, run_integer, runner
from ir.graph import Graph
from ir.profile import JUDGES, Profile
from ir.quantization import QuantParams
from ir.stream import IntegerStream
from ir.supported import able
from ir.types import DType
from passes.contract.base import Progress, Samples, silent
from passes.measuring.decibels import decibels
from passes.measuring.logits import logits_of, told_apart
from passes.quantization.simulate import simulated


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Figures over a set of samples.

    Attributes:
      samples: how many.
      sqnr_db: `10 log10(sum float^2 / sum (float - integer)^2)` of the logits (outputs, if there is no softmax).
      agreement: share of samples with the same top-1 answer, None for outputs that are no classes.
      float_accuracy, integer_accuracy: top-1, None without labels.
      classes: how many there are, None for outputs that are no classes: those of an autoencoder, which rebuild an
        input of the same shape, are none, unless there are labels.
      constant_outputs, stuck_outputs: names of outputs that do not vary over several samples: of the float network,
        or of the file alone. The SQNR is that of the outputs that vary, unless none does.
      integer_outputs: names of outputs that are integers in the float network, too; they have no SQNR.
      integer_agreement: the share of their elements that are equal, None where there are none.
      coarse_columns: those of outputs that have few levels.
      label_shift: 1 or -1 where the float network's answers are the labels with this added, mostly.
      commonest: the share of the float network's most frequent answer, None for outputs that are no classes.
      copies: how many samples are equal to one before them.
      saturated: the share of input elements that lie outside what the file's inputs hold, by more than a step.
      idle_inputs: names of inputs whose samples span a few steps only, the usual ones among them.
      clipped: the share of samples with logits far outside what the file holds (see `held.clipped_samples`).
    """

    samples: int
    sqnr_db: float
    agreement: float | None = None
    float_accuracy: float | None = None
    integer_accuracy: float | None = None
    classes: int | None = None
    constant_outputs: tuple[str, ...] = ()
    stuck_outputs: tuple[str, ...] = ()
    integer_outputs: tuple[str, ...] = ()
    integer_agreement: float | None = None
    coarse_columns: tuple[CoarseColumns, ...] = ()
    label_shift: int | None = None
    commonest: float | None = None
    copies: int = 0
    saturated: float = 0.0
    idle_inputs: tuple[str, ...] = ()
    clipped: float = 0.0

    def closeness(self, ratio: str) -> list[str]:
        """The figures that say how close the two are, `ratio` before the SQNR; integers alone have none."""
        found = []
        if self.integer_agreement is None or np.isfinite(self.sqnr_db):
            found.append(f"{ratio} {self.sqnr_db:.1f} dB")
        if self.integer_agreement is not None:
            found.append(f"integers equal in {self.integer_agreement:.1%}")
        if self.agreement is not None:
            found.append(f"top-1 agreement {self.agreement:.1%}")
        return found


class Varying:
    """Which of some outputs differ between samples."""

    def __init__(self) -> None:
        self._first: list[np.ndarray] = []
        self._varies: list[bool] = []

    def add(self, outputs: Sequence[np.ndarray]) -> None:
        """A batch of each output."""
        if not self._first:
            self._first, self._varies = [y[:1].copy() for y in outputs], [False] * len(outputs)
        pairs = zip(self._varies, outputs, self._first, strict=True)
        self._varies = [known or bool((y != first).any()) for known, y, first in pairs]

    def constant(self, names: Sequence[str]) -> set[str]:
        """The names of those that never varied."""
        return {name for name, varies in zip(names, self._varies, strict=False) if not varies}


class _Sums:
    """Sums of a comparison, batch by batch; nothing else is kept."""

    def __init__(self, reference: Graph) -> None:
        self._reference = reference
        self._logits = logits_of(reference)
        self._names = [v.name for v in reference.own_outputs]
        self._real = np.array([v.dtype.is_float for v in reference.own_outputs])
        self._varying = Varying(), Varying()
        self._classes = 0
        self._power = np.zeros((2, len(self._names)))  # of signal and noise, by output
        self._integers = np.zeros(2)  # equal, and all
        self._bounds = [Bounds() for _ in self._names]
        self.samples = self.agreed = self.float_right = self.integer_right = 0
        self._answers: Counter[int] = Counter()
        self._shifted = Counter({1: 0, -1: 0})
        self._seen: set[bytes] = set()
        self._held = [HeldInput() for _ in reference.own_inputs]
        self._clipped = 0
        self.classes = True
        self.labelled = False
        self._rebuilds = any(v.shape[1:] == reference.outputs[0].shape[1:] for v in reference.own_inputs)

    def add_inputs(self, batch: Sequence[np.ndarray], held: Sequence[QuantParams | None]) -> None:
        """A batch of each input, in reals, and what the file's inputs hold."""
        rows = zip(*batch, strict=True)
        self._seen.update(hashlib.sha1(b"".join(x.tobytes() for x in row)).digest() for row in rows)
        for known, x, quant in zip(self._held, batch, held, strict=True):
            known.add(x, quant)

    def add_logits(
        self, expected: Sequence[np.ndarray], found: Sequence[np.ndarray], held: Sequence[QuantParams | None]
    ) -> None:
        """A batch of float and dequantized logits, one array per output, and what the file's logits hold."""
        clipped = np.zeros(len(expected[0]), bool)
        for i, (a, b) in enumerate(zip(expected, found, strict=True)):
            if not self._real[i]:
                self._integers += (a == b.reshape(a.shape)).sum(), a.size
                continue
            a, b = told_apart(self._logits[i], a, b)
            noise = np.square(a.astype(np.float64) - b.reshape(a.shape)).sum()
            self._power[:, i] += np.square(a, dtype=np.float64).sum(), noise
            self._bounds[i].add(a)
            clipped |= clipped_samples(a, held[i])
        self._clipped += int(clipped.sum())

    def add_answers(
        self, expected: Sequence[np.ndarray], found: Sequence[np.ndarray], labels: np.ndarray | None
    ) -> None:
        """A batch of outputs."""
        self.samples += len(expected[0])
        for known, outputs in zip(self._varying, (expected, found), strict=True):
            known.add(outputs)
        scores = len(expected) == 1 and expected[0].ndim == 2 and expected[0].shape[1] > 1
        self.classes = self.classes and scores and (labels is not None or not self._rebuilds)
        if not self.classes:
            return
        self._classes = expected[0].shape[1]
        a, b = expected[0].argmax(axis=1), found[0].argmax(axis=1)
        self.agreed += int((a == b).sum())
        self._answers.update(a.tolist())
        if labels is not None:
            self.labelled = True
            self.float_right += int((a == labels).sum())
            self.integer_right += int((b == labels).sum())
            for shift in self._shifted:
                self._shifted[shift] += int((a == labels + shift).sum())

    def _label_shift(self) -> int | None:
        ((shift, right),) = self._shifted.most_common(1)
        return shift if 2 * right > self.samples and right > 2 * self.float_right else None

    def finish(self, quants: Sequence[QuantParams | None]) -> Comparison:
        """The figures; `quants` are the parameters of the file's logits."""
        labelled = self.classes and self.labelled
        constant, stuck = (known.constant(self._names) if self.samples > 1 else set() for known in self._varying)
        counted = self._real & np.array([name not in constant for name in self._names])
        signal, noise = self._power[:, counted if counted.any() else self._real].sum(axis=1)
        return Comparison(
            samples=self.samples,
            sqnr_db=float(decibels(signal, noise)),
            agreement=self.agreed / self.samples if self.classes and self.samples else None,
            float_accuracy=self.float_right / self.samples if labelled else None,
            integer_accuracy=self.integer_right / self.samples if labelled else None,
            classes=self._classes if self.classes and self.samples else None,
            constant_outputs=tuple(name for name in self._names if name in constant),
            stuck_outputs=tuple(name for name in self._names if name in stuck - constant),
            integer_outputs=tuple(name for name, real in zip(self._names, self._real, strict=True) if not real),
            integer_agreement=float(self._integers[0] / self._integers[1]) if self._integers[1] else None,
            coarse_columns=tuple(coarse_columns(self._reference, self._bounds, quants)),
            label_shift=self._label_shift(),
            commonest=self._answers.most_common(1)[0][1] / self.samples if self._answers else None,
            copies=self.samples - len(self._seen),
            saturated=sum(known.outside for known in self._held) / max(1, sum(known.total for known in self._held)),
            idle_inputs=tuple(
                v.name for v, known in zip(self._reference.own_inputs, self._held, strict=True) if known.idle
            ),
            clipped=self._clipped / max(1, self.samples),
        )


def _of_samples(y: np.ndarray, samples: int) -> np.ndarray:
    """An output with the samples on axis 0; all of an output that has no such axis belongs to the one sample."""
    return y if y.shape[:1] == (samples,) or samples > 1 else y[np.newaxis]


def to_integers(array: np.ndarray, dtype: DType, quant: QuantParams | None) -> np.ndarray:
    """A real input as the file's input takes it."""
    if quant is None:
        return array.astype(dtype.numpy)
    return quant.quantize(array).astype(dtype.numpy)


def to_reals(array: np.ndarray, quant: QuantParams | None) -> np.ndarray:
    """An output of the file as reals."""
    return array.astype(np.float32) if quant is None else quant.dequantize(array)


def compare(
    reference: Graph,
    model: bytes,
    samples: Samples,
    labels: np.ndarray | None = None,
    *,
    profile: Profile | None = None,
    batch_size: int = 8,
    progress: Progress = silent,
) -> Comparison:
    """Runs the float graph and, on the emulator, the emitted file over all samples.

    A graph that was trained quantized is computed as it was trained: as its kernels will.
    """
    integer = to_graph(parse(model))
    together = batchable(reference) and batchable(integer)
    float_expected = [*reference.own_outputs, *logits_of(reference)]
    integer_expected = [*integer.own_outputs, *logits_of(integer)]
    transform = simulated(reference) if any(v.quant is not None for v in reference.values()) else None
    rows = batch_size if together else max(1, reference.inputs[0].shape[0])
    run = runner(
        lambda tensors: run_float(reference, tensors, requested=float_expected, transform=transform),
        len(samples),
        rows,
    )
    sums, done, split = _Sums(reference), 0, len(reference.own_outputs)
    profile = profile or able(integer, JUDGES)
    stream = IntegerStream(integer, profile)
    held = [v.quant for v in integer_expected[split:]]
    for batch in samples.batches(rows):
        expected = run(batch)
        own = batch[: len(integer.own_inputs)]  # of the states the file keeps its own
        sums.add_inputs(own, [v.quant for v in integer.own_inputs])
        inputs = [to_integers(x, v.dtype, v.quant) for x, v in zip(own, integer.own_inputs, strict=True)]
        raw = (
            stream.run(inputs, integer_expected)
            if integer.states
            else run_integer(integer, inputs, profile, requested=integer_expected)
        )
        found = [to_reals(y, v.quant) for y, v in zip(raw, integer_expected, strict=True)]
        expected, found = ([_of_samples(y, len(batch[0])) for y in side] for side in (expected, found))
        part = None if labels is None else labels[done : done + len(batch[0])]
        sums.add_answers(expected[:split], found[:split], part)
        sums.add_logits(expected[split:], found[split:], held)
        done += len(batch[0])
        progress("comparison with the float model", done, len(samples))
    return sums.finish(held)
