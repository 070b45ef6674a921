"""Judges .tflite files, whoever made them, by the same runtime on the same samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from converter.compare import to_integers, to_reals
from converter.frontends.keras_model import load_keras
from converter.runtimes.local import LocalRuntime
from converter.tflite.model_file import parse
from converter.tflite.records import TensorRecord
from ir.quantization import QuantParams
from ir.types import DType
from passes.measuring.decibels import decibels
from tools._subjects import Subject

KERNELS = LocalRuntime(package="ai_edge_litert", kernels="builtin", threads=2)
TIMED = LocalRuntime(package="ai_edge_litert", kernels="xnnpack", threads=1)
_ENDS = ("QUANTIZE", "DEQUANTIZE")
_BATCH = 50
_ROUNDS = 5
_REPEATS = 12


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Figures of one file.

    Attributes:
      score, float_score: the subject's metric, of the file and of the float network.
      agreement: share of samples with the float network's answer; None for outputs that are no classes.
      sqnr_db: `10 log10(sum float^2 / sum (float - file)^2)` of the output; of several, of the one with the least.
      float_operators: operators that compute with floats, by TFLite name; conversions at the ends do not count.
      io: types of inputs and outputs.
    """

    samples: int
    score: float | None
    float_score: float | None
    agreement: float | None
    sqnr_db: float
    float_operators: tuple[str, ...]
    io: str


@dataclass(frozen=True, kw_only=True)
class FloatAnswers:
    """The test samples and what the float network makes of them: `[samples, ...]` of every output."""

    subject: Subject
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]

    @property
    def score(self) -> float | None:
        return self.subject.score(self.outputs[0], _reconstruction(self.inputs, self.outputs[0]))


def float_answers(subject: Subject) -> FloatAnswers:
    """Reads the test samples and runs the float network, in Keras."""
    model = load_keras(subject.path)
    inputs = [batch[0] for batch in subject.test.batches(_BATCH)]
    answers = [keras.tree.flatten(model(x, training=False)) for x in inputs]
    outputs = [np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*answers, strict=True)]
    return FloatAnswers(subject=subject, inputs=inputs, outputs=outputs)


def _reconstruction(inputs: Sequence[np.ndarray], outputs: np.ndarray) -> np.ndarray:
    if inputs[0].shape[1:] != outputs.shape[1:]:
        return np.zeros(len(outputs))
    done, parts = 0, []
    for x in inputs:
        parts.append(np.square(x - outputs[done : done + len(x)]).reshape(len(x), -1).mean(axis=1))
        done += len(x)
    return np.concatenate(parts)


def judge(content: bytes, expected: FloatAnswers) -> Judgement:
    """Runs a file on all test samples. Raises RuntimeFailure if the runtime refuses it."""
    main = parse(content).main
    before, ends = main.tensors[main.inputs[0]], [main.tensors[i] for i in main.outputs]
    session, entry = KERNELS.load(content), _quantization(before)
    answers = [session.invoke([to_integers(x, DType(before.type_name), entry)]) for x in expected.inputs]
    found = [
        np.concatenate([to_reals(part, _quantization(end)) for part in parts])
        for parts, end in zip(zip(*answers, strict=True), ends, strict=True)
    ]
    outputs = in_order(found, expected.outputs)
    subject, answer = expected.subject, outputs[0]
    agree = answer.argmax(axis=1) == expected.outputs[0].argmax(axis=1) if subject.metric == "top-1" else None
    return Judgement(
        samples=len(answer),
        score=subject.score(answer, _reconstruction(expected.inputs, answer)),
        float_score=expected.score,
        agreement=None if agree is None else float(agree.mean()),
        sqnr_db=min(map(_sqnr_db, expected.outputs, outputs)),
        float_operators=float_operators(content),
        io=" ".join(dict.fromkeys(tensor.type_name.lower() for tensor in (before, *ends))),
    )


def in_order(found: list[np.ndarray], expected: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs in the order of those expected, which TFLiteConverter does not keep: of each shape one after the other."""
    left, ordered = list(found), []
    for floats in expected:
        at = next(i for i, x in enumerate(left) if x.shape[1:] == floats.shape[1:] or len(expected) == 1)
        ordered.append(left.pop(at).reshape(floats.shape))
    return ordered


def _sqnr_db(floats: np.ndarray, found: np.ndarray) -> float:
    noise = np.square(found.astype(np.float64) - floats).sum()
    return float(decibels(float(np.square(floats, dtype=np.float64).sum()), float(noise)))


def _quantization(tensor: TensorRecord) -> QuantParams | None:
    if DType(tensor.type_name).is_float or not tensor.scale.size:
        return None
    unsigned = tensor.type_name.startswith("UINT")
    return QuantParams(
        scale=tensor.scale[0], zero_point=tensor.zero_point[0], bits=DType(tensor.type_name).bits, signed=not unsigned
    )


def float_operators(content: bytes) -> tuple[str, ...]:
    """Names of operators with an operand or result in float, those at the ends that only convert left out."""
    found = []
    for graph in parse(content).subgraphs:
        for op in graph.operators:
            touched = [graph.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
            at_end = set(op.inputs) & set(graph.inputs) or set(op.outputs) & set(graph.outputs)
            if any(t.type_name.startswith("FLOAT") for t in touched) and not (op.code in _ENDS and at_end):
                found.append(op.code)
    return tuple(found)


def has_channel_scales(content: bytes) -> bool:
    """Whether some weights have more than one scale."""
    graph = parse(content).main
    weights = (graph.tensors[i] for op in graph.operators for i in op.inputs if i >= 0)
    return any(t.data is not None and t.type_name == "INT8" and t.scale.size > 1 for t in weights)


def latencies_ms(files: Sequence[bytes], sample: np.ndarray) -> list[float]:
    """Median milliseconds of an inference (XNNPACK, one thread); files take turns, so that a busy machine hits all."""
    times: list[list[int]] = [[] for _ in files]
    for _ in range(_ROUNDS):
        for content, kept in zip(files, times, strict=True):
            main = parse(content).main
            tensor = main.tensors[main.inputs[0]]
            session = TIMED.load(content)
            session.invoke([to_integers(sample, DType(tensor.type_name), _quantization(tensor))], repeats=_REPEATS)
            kept += session.timing.times_ns[2:]  # the first ones warm the caches
    return [statistics.median(t) / 1e6 for t in times]
