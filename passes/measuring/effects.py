"""What quantizing one thing alone does to the logits: the weights of a layer, its output, or an input.

The float activations of a few samples are held; a change is carried only through what depends on it. The noise is the
larger of two ratios: of energies, `sum e^2 / sum l^2`, and the median over the channels of the logits of the same
ratio, which a single huge channel cannot hide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.execute import batchable, walk
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from passes.contract.base import Progress
from passes.measuring.decibels import decibels
from passes.quantization.simulate import fake_quantize, quantized

WEIGHTS, OUTPUT, INPUT = "weights", "output", "input"
_MEMORY = 1 << 28  # bytes of float activations that are held
Key = tuple[str, str]  # what, name of the node or of the input
Loss = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], float]  # of the logits expected, and found


def noise_ratio(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Noise to signal of logits, a list entry per output, samples first; 0 where nothing differs."""
    ratios = [_ratio(a, b) for a, b in zip(expected, found, strict=True) if a.size]
    return max(ratios, default=0.0)


def _ratio(a: np.ndarray, b: np.ndarray) -> float:
    rows = a.reshape(-1, a.shape[-1]) if a.ndim > 1 else a.reshape(-1, 1)
    error = b.reshape(rows.shape).astype(np.float64) - rows
    signal, noise = np.square(rows, dtype=np.float64).mean(axis=0), np.square(error).mean(axis=0)
    live = signal > 0
    if not live.any():
        return 1.0 if noise.any() else 0.0
    return float(max(noise.sum() / signal.sum(), np.median(noise[live] / signal[live])))


def decibel(ratio: float) -> float:
    """SQNR of a noise-to-signal ratio; infinite for 0."""
    return -float(decibels(ratio, 1.0))


@dataclass(frozen=True)
class Effects:
    """Noise to signal at the logits by what was quantized alone; `asked` how many there were, and the time taken."""

    noise: dict[Key, float]
    asked: int
    seconds: float

    def of_place(self, name: str) -> float | None:
        """Weights and output of a layer (or an input) together: independent errors add. None where none is known."""
        parts = [self.noise.get((kind, name)) for kind in (WEIGHTS, OUTPUT, INPUT)]
        known = [p for p in parts if p is not None]
        return sum(known) if known else None


def quantized_constants(node: Node) -> bool:
    """Whether any operand of an annotated node is a constant that becomes integers."""
    return any(v is not None and v.is_constant and v.quant is not None and v.dtype.is_float for v in node.inputs)


def with_quantized_constants(node: Node, tensors: Sequence[Any]) -> Any:
    """First output of an annotated node from these inputs, its constants as their integers will be."""
    operands = [
        t if v is None or not v.is_constant else quantized(v, K.convert_to_tensor(v.data))
        for v, t in zip(node.inputs, [*tensors, *[None] * len(node.inputs)], strict=False)
    ]
    result = node.op.compute(node.attrs, *operands)
    return result[0] if isinstance(result, (tuple, list)) else result


class Held:
    """The float network's activations on as many of the samples as fit the memory."""

    def __init__(self, floats: Graph, arrays: Sequence[np.ndarray], logits: Sequence[Value]) -> None:
        self._floats = floats
        self._logits = list(logits)
        self._nodes = {n.name: n for n in floats.nodes}
        self._tensors: dict[Value, Any] = {}
        batch = [a[: _affordable(floats, len(a))] for a in arrays]

        def keep(value: Value, tensor: Any) -> Any:
            self._tensors[value] = tensor
            return tensor

        inputs = [K.convert_to_tensor(x) for x in batch]
        found = walk(floats, inputs, lambda v: K.convert_to_tensor(v.data), self._compute, keep, self._logits)
        self._expected = [np.asarray(K.convert_to_numpy(t)) for t in found]

    def effect(self, key: Key, annotated: Mapping[Node, Node], loss: Loss = noise_ratio) -> float | None:
        """Noise to signal at the logits, or another loss; None where nothing is quantized there.

        None, too, of what goes into states alone: it reaches the logits of the next sample.

        `annotated`: of each node, the same with the parameters, and the constants, that it is quantized with.
        """
        changed = self._change(*key, annotated)
        if changed is None:
            return None
        value, tensor = changed
        tensors = {value: tensor}
        for node in self._reached():
            if any(v in tensors for v in node.inputs) and value not in node.outputs:
                results = self._compute(
                    node, [None if v is None else tensors.get(v, self._tensors[v]) for v in node.inputs]
                )
                tensors.update(zip(node.outputs, results, strict=True))
        found = [np.asarray(K.convert_to_numpy(tensors.get(v, self._tensors[v]))) for v in self._logits]
        return loss(self._expected, found)

    def _change(self, kind: str, name: str, annotated: Mapping[Node, Node]) -> tuple[Value, Any] | None:
        if kind == INPUT:
            value = next(v for v in self._floats.inputs if v.name == name)
            return None if value.quant is None else (value, fake_quantize(self._tensors[value], value.quant))
        node = self._nodes[name]
        twin = annotated[node]
        value, quant = node.output, twin.output.quant
        if value not in self._tensors:
            return None
        if kind == OUTPUT:
            return None if quant is None else (value, fake_quantize(self._tensors[value], quant))
        if not quantized_constants(twin):
            return None
        tensors = [None if v is None else self._tensors[v] for v in node.inputs]
        return value, with_quantized_constants(twin, tensors)

    def _reached(self) -> Iterator[Node]:
        """The nodes that the logits follow from."""
        return (node for node in self._floats.nodes if any(v in self._tensors for v in node.outputs))

    @staticmethod
    def _compute(node: Node, tensors: list[Any]) -> list[Any]:
        result = node.op.compute(node.attrs, *tensors)
        return list(result) if isinstance(result, (tuple, list)) else [result]


def _affordable(graph: Graph, samples: int) -> int:
    own = graph.inputs[0].shape[0] if graph.inputs[0].shape else 1
    each = sum(v.type.size for v in graph.values() if not v.is_constant) * 4 / max(own, 1)
    count = int(np.clip(_MEMORY // max(each, 1), 1, samples))
    return count if batchable(graph) else own


def measure_effects(
    held: Held,
    annotated: Mapping[Node, Node],
    keys: Iterable[Key],
    seconds: float,
    progress: Progress,
    what: str = "sensitivity",
) -> Effects:
    """Effects in the order asked for, until the time is up."""
    start = time.perf_counter()
    asked = list(dict.fromkeys(keys))
    noise: dict[Key, float] = {}
    for done, key in enumerate(asked):
        if time.perf_counter() - start > seconds:
            break
        found = held.effect(key, annotated)
        if found is not None:
            noise[key] = found
        progress(what, done + 1, len(asked))
    progress(what, len(asked), len(asked))
    return Effects(noise, len(asked), time.perf_counter() - start)
