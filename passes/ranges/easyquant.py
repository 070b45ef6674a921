"""EasyQuant: scales that keep the direction of each layer's output (arXiv:2006.16669).

For a layer with float inputs `x` and inputs `x~` from the already quantized part, `O = W x + b` and
`O~ = Q(W; S_w) Q(x~; S_a) + b`, the scales are searched that make `cos(O, O~)` largest (eq. 4):

1. start from the scales that are there (those of the maxima);
2. with `S_a` as it is, `S_w` over `candidates` equal steps in `[low S_w, high S_w]`, per filter in vector mode;
3. with that `S_w`, `S_a` likewise;
4. again, until the cosine no longer grows or `rounds` are done.

Layers in order, each with those before it in place. In vector mode the cosine of the whole output is a ratio of sums
over filters, `N / sqrt(D)` with `N = sum n_k(S_k)`, `D = sum d_k(S_k)`: one filter after the other takes the scale
that is best beside those of the others, until none moves.

`S_a` belongs to a tensor, so all layers that read it are searched together, where it is made; a tensor keeps its scale
where a kernel ties it to others or fixes it, and so do the network's inputs. What is found on some samples is taken
only if the cosine of no layer falls on others. `b` is not quantized here: its steps are far below those of the output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.execute import batchable
from ir.graph import Graph, Node, Value
from ir.layer import Matrix
from ir.quantization import QuantParams
from passes.contract.base import Context, Needs, Pass, PassReport, Skip, numeric
from passes.measuring.drawn_samples import TENSOR_BYTES, DrawnSamples, draw_samples, drawn_rows
from passes.measuring.lockstep import Slices, run_both
from passes.quantization.groups import tie_groups
from passes.quantization.quantize import annotate_bias
from passes.quantization.tied import fixed_params
from passes.rounding.correct_bias import is_rounded
from passes.rounding.round_weights import matrix_of

_LEAST_GAIN = 1e-6  # of the cosine, for another round
_BIAS_LIMIT = float(1 << 30)  # as quantize has it: half of int32
_SWEEPS = 10  # over filters; after two or three hardly any moves
_SMALLEST = 1e-300


@dataclass(frozen=True, kw_only=True)
class EasyQuant(Pass):
    """Searches the scales of weights and activations that keep the cosine of every layer's output."""

    name: ClassVar[str] = "easyquant"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.DATA})
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    low: float = numeric(0.5, above=0, most=1)
    high: float = numeric(2.0, least=1)
    candidates: int = numeric(100, least=2)
    rounds: int = numeric(3, least=1)
    activations: bool = True
    samples: int = numeric(100, least=1)
    rows: int = numeric(1000, least=1)

    def run(self, graph: Graph, context: Context) -> PassReport:
        if not batchable(graph):
            return PassReport(skipped=(Skip(graph.name, "it takes one sample at a time: too few to search on"),))
        readers, skipped = _readers(graph)
        own = _own_scales(graph) if self.activations else set()
        drawn = draw_samples(graph, context, self.samples, self.samples)
        changed: list[str] = []

        def search(value: Value, matrices: list[Matrix], x: Slices, xq: Slices) -> None:
            found = _Search(self, graph, value, matrices, x, xq, drawn, context.given.seed)
            for name, before, after in found.run(moves_input=value in own):
                if after > before:
                    changed.append(f"{name}: cosine of the output {before:.6f} before, {after:.6f} after")
                else:
                    skipped.append(Skip(name, f"no scales were found that are better: cosine {before:.6f}"))

        def after(node: Node, y: Slices, yq: Slices) -> Slices:
            if node.output in own and readers.get(node.output):
                search(node.output, readers[node.output], y, yq)
            return yq

        def before(node: Node, x: Slices, xq: Slices) -> None:
            if node.input not in own:
                for matrix in readers.get(node.input, []):
                    if matrix.layer.node is node:
                        search(node.input, [matrix], x, xq)

        run_both(graph, drawn.arrays, floats=context.tables.unrounded, before=before, after=after, room=TENSOR_BYTES)
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def _readers(graph: Graph) -> tuple[dict[Value, list[Matrix]], list[Skip]]:
    """The layers whose scales are searched, by what they read; and why others are left out."""
    found: dict[Value, list[Matrix]] = {}
    skipped = []
    for node in graph.nodes:
        if node.weight is None:
            continue
        matrix = matrix_of(node)
        if isinstance(matrix, str):
            skipped.append(Skip(node.name, matrix))
        elif is_rounded(node):
            skipped.append(Skip(node.name, "its weights are rounded already: search scales before"))
        else:
            found.setdefault(node.input, []).append(matrix)
    return found, skipped


def _own_scales(graph: Graph) -> set[Value]:
    """The tensors whose scale no other tensor shares, and that no kernel fixes or limits."""
    found = set()
    for group in tie_groups(graph):
        value = group[0]
        if len(group) > 1 or value.producer is None or value.quant is None or len(value.producer.outputs) > 1:
            continue
        around = [value.producer, *value.consumers]
        if fixed_params(value, value.quant.bits) is None and not any(n.op.quantization.scales for n in around):
            found.add(value)
    return found


@dataclass(frozen=True)
class _Rows:
    """A layer on some of its output positions: its float output and what it reads, before that is quantized.

    Shapes `[groups, n, out]` and `[groups, n, columns]`.
    """

    expected: np.ndarray
    x: np.ndarray


class _Reader:
    """One of the layers that read a tensor."""

    def __init__(
        self, search: EasyQuant, matrix: Matrix, x: Slices, xq: Slices, drawn: DrawnSamples, seed: int
    ) -> None:
        layer = matrix.layer
        self.matrix, self.params = matrix, layer.params
        w, bias = layer.weights()
        self.w = matrix.split(w.astype(np.float32))
        self.bias = bias.astype(np.float32).reshape(len(self.w), 1, -1)
        fitting, judging = drawn.parted(sum(len(part) for part in x))
        self.fitting = self._rows(search, x, xq, fitting, seed)
        self.judging = self.fitting if fitting is judging else self._rows(search, x, xq, judging, seed)

    def _rows(self, search: EasyQuant, x: Slices, xq: Slices, chosen: np.ndarray, seed: int) -> _Rows:
        exact, own = (drawn_rows(self.matrix, part, chosen, search.rows, seed) for part in (x, xq))
        return _Rows(exact @ self.w.transpose(0, 2, 1) + self.bias, own)

    def rounded(self, params: QuantParams) -> np.ndarray:
        """The weights that the integers of `params` stand for, `[groups, out, columns]`."""
        return self.matrix.split(params.dequantize(params.quantize(self.matrix.layer.data)))

    def sums(self, rows: _Rows, x: np.ndarray, params: QuantParams) -> tuple[np.ndarray, np.ndarray]:
        """`n_k = sum O_k O~_k` and `d_k = sum O~_k^2`, `[groups, out]`, for inputs that are quantized already."""
        found = x @ self.rounded(params).transpose(0, 2, 1) + self.bias
        n, d = (np.einsum("gno,gno->go", a, found, dtype=np.float64) for a in (rows.expected, found))
        return n, d

    def cosine(self, rows: _Rows, x: np.ndarray, params: QuantParams) -> float:
        n, d = self.sums(rows, x, params)
        power = np.square(rows.expected, dtype=np.float64).sum()
        return float(n.sum() / np.sqrt(max(d.sum() * power, _SMALLEST)))


def _fitting(reader: _Reader) -> _Rows:
    return reader.fitting


def _judging(reader: _Reader) -> _Rows:
    return reader.judging


class _Search:
    """The scales of a tensor and of the layers that read it."""

    def __init__(
        self,
        options: EasyQuant,
        graph: Graph,
        value: Value,
        matrices: Sequence[Matrix],
        x: Slices,
        xq: Slices,
        drawn: DrawnSamples,
        seed: int,
    ) -> None:
        self._options, self._graph, self._value = options, graph, value
        self._readers = [_Reader(options, m, x, xq, drawn, seed) for m in matrices]
        self._factors = np.linspace(options.low, options.high, options.candidates)

    def run(self, moves_input: bool) -> list[tuple[str, float, float]]:
        """Puts the best scales; per layer its name and the cosine on samples that were not searched on.

        Where a layer's cosine would fall with those of all together, the layers alone are searched, each for itself.
        """
        start, old = self._value.type.params(), [r.params for r in self._readers]
        before = self._cosines(start, old, _judging)
        params, weights = self._found(start, moves_input)
        after = self._cosines(params, weights, _judging)
        if moves_input and any(b < a for a, b in zip(before, after, strict=True)):
            params, weights = self._found(start, moves_input=False)
            after = self._cosines(params, weights, _judging)
        kept = [b >= a for a, b in zip(before, after, strict=True)]
        self._put(params, [w if keep else o for w, o, keep in zip(weights, old, kept, strict=True)])
        names = [r.matrix.layer.name for r in self._readers]
        return [(name, a, max(a, b)) for name, a, b in zip(names, before, after, strict=True)]

    def _found(self, start: QuantParams, moves_input: bool) -> tuple[QuantParams, list[QuantParams]]:
        """Scales of the tensor and of the layers, by turns."""
        params, weights, best = start, [r.params for r in self._readers], -np.inf
        for _ in range(self._options.rounds):
            weights = [self._weights(r, w, params) for r, w in zip(self._readers, weights, strict=True)]
            if moves_input:
                params = self._activation(start, params, weights)
            found = float(np.mean(self._cosines(params, weights, _fitting)))
            if not moves_input or found <= best + _LEAST_GAIN:
                break
            best = found
        return params, weights

    def _cosines(
        self, params: QuantParams, weights: Sequence[QuantParams], rows: Callable[[_Reader], _Rows]
    ) -> list[float]:
        return [
            r.cosine(rows(r), params.dequantize(params.quantize(rows(r).x)), w)
            for r, w in zip(self._readers, weights, strict=True)
        ]

    def _activation(self, start: QuantParams, params: QuantParams, weights: Sequence[QuantParams]) -> QuantParams:
        """The best parameters of the tensor beside these weights; those that it has where no others are better."""
        tried = [params, *(dataclasses.replace(start, scale=start.scale * f) for f in self._factors)]
        means = [float(np.mean(self._cosines(p, weights, _fitting))) for p in tried]
        return tried[int(np.argmax(means))]

    def _weights(self, reader: _Reader, now: QuantParams, params: QuantParams) -> QuantParams:
        """The best scales of a layer's weights beside this input; those that it has where no others are better."""
        x = params.dequantize(params.quantize(reader.fitting.x))
        least = self._least_scale(reader, params)
        tried = [now, *(_scaled(reader.params, f, least) for f in self._factors)]
        sums = [reader.sums(reader.fitting, x, p) for p in tried]
        n, d = (np.stack(parts).reshape(len(tried), -1) for parts in zip(*sums, strict=True))
        scales = np.stack([p.scale for p in tried])
        if now.per_channel:
            return dataclasses.replace(now, scale=np.take_along_axis(scales, _best_together(n, d)[None], axis=0)[0])
        (best,) = _best_together(n.sum(axis=1, keepdims=True), d.sum(axis=1, keepdims=True))
        return dataclasses.replace(now, scale=scales[best])

    @staticmethod
    def _least_scale(reader: _Reader, params: QuantParams) -> np.ndarray | float:
        """At which the bias still fits its integers; what the layer has now, if that is smaller."""
        if params.bits > 8:
            return 0.0
        needed = np.abs(reader.bias.ravel()) / (float(params.scale) * _BIAS_LIMIT)
        return needed if reader.params.per_channel else float(needed.max(initial=0.0))

    def _put(self, params: QuantParams, weights: Sequence[QuantParams]) -> None:
        self._value.quant = params
        for reader, chosen in zip(self._readers, weights, strict=True):
            reader.matrix.layer.weight.quant = chosen
        for node in self._value.consumers:
            if node.weight is not None:
                annotate_bias(self._graph, node)


def _scaled(params: QuantParams, factor: float, least: np.ndarray | float) -> QuantParams:
    return dataclasses.replace(params, scale=np.maximum(params.scale * factor, least).astype(np.float32))


def _best_together(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Which candidate each filter takes, `[filters]`, so that `sum n / sqrt(sum d)` is large; `[candidates, filters]`.

    The first candidate is what there is: filters keep it where nothing is better.
    """
    chosen = np.zeros(n.shape[1], int)
    total_n, total_d = n[0].sum(), d[0].sum()
    for _ in range(_SWEEPS):
        before = chosen.copy()
        for k in range(len(chosen)):
            others_n, others_d = total_n - n[chosen[k], k], total_d - d[chosen[k], k]
            cosines = (others_n + n[:, k]) / np.sqrt(np.maximum(others_d + d[:, k], _SMALLEST))
            best = int(np.argmax(cosines))
            if cosines[best] > cosines[chosen[k]]:
                chosen[k] = best
            total_n, total_d = others_n + n[chosen[k], k], others_d + d[chosen[k], k]
        if np.array_equal(chosen, before):
            break
    return chosen
