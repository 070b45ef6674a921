"""Codebooks for weights and tables of a network, within so many bytes (product quantization; docs/methods/codebooks.md).

Blocks of neighbouring weights `[out, kh, kw, in]` become entries of a codebook of int8 vectors, one for each layer; of
depthwise layers whole filters do; of tables (embeddings) rows are cut (`passes.compression.tables`). What a layer's error costs is its share of the error of the logits: with `F` the
logits' sensitivity to each output channel (`passes.measuring.sensitivity`) and `H` the second moments of the inputs,
`sum_o F_o (v_o - w_o) H (v_o - w_o)^T`. That measure chooses how long each layer's blocks are and how many entries it
gets (`budget`), k-means works in it (`codebook`), and assignment with error feedback does (`coding`).

Layers go in order, each with those before it in place, and aim at the float output from what the coded part makes
(`W*` of `passes.measuring.layer_error`). Layers that stay int8 are rounded as `round_weights` does. Unlabelled data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.codebook import Codebook
from ir.execute import batchable
from ir.graph import Graph, Node, Twin, Value
from ir.layer import Matrix, table_of
from ir.quantization import QuantParams
from passes.compression import coarser, zeros
from passes.compression.blocks import block_lengths, block_metric, row_lengths, row_scales
from passes.compression.budget import Option, Plan, other_bytes
from passes.compression.codebook import Metric, assign, fit_codebook
from passes.compression.coding import Coupling, Rows
from passes.compression.tables import Table, shares_of, tables
from passes.contract.base import Context, Needs, Pass, PassReport, Skip, numeric
from passes.measuring.drawn_samples import TENSOR_BYTES, DrawnSamples, draw_samples
from passes.measuring.layer_error import LayerError, mean_shift, measure_layer
from passes.measuring.lockstep import Slices, run_both
from passes.measuring.logits import before_fixed
from passes.measuring.sensitivity import sensitivities
from passes.quantization.quantize import annotate_bias
from passes.rounding.correct_bias import shift_bias
from passes.rounding.round_weights import Problem, RoundWeights, matrix_of

_ENTRIES = (256, 128, 64, 32, 16, 8, 4)
_FEW_SAMPLES, _FEW_ROWS, _FEW_BLOCKS, _FEW_ITERATIONS = 16, 4000, 1 << 13, 4
_LEAST_SENSITIVITY = 1e-3  # of the largest: no channel is worth nothing
_RIDGES = (np.inf, 1.0)
_PROJECTIONS = 2
_LEAST_SAVING = 0.93  # of fewer entries: what saves less is not worth measuring
_ROUNDING = 1.03  # how much more weights may take that were packed without loss, once they are rounded another way
_Blocks = Callable[[int], np.ndarray]  # by their length
_Metrics = Callable[[int], Metric]


@dataclass(frozen=True, kw_only=True)
class Codebooks(Pass):
    """Gives weights codebooks, so that the file takes at most `max_bytes`.

    `max_bytes` 0 gives every layer blocks of `length` and up to `entries` entries, where that is smaller than int8.
    """

    name: ClassVar[str] = "codebooks"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.DATA})
    keeps_statistics: ClassVar[bool] = True

    max_bytes: int = numeric(0, least=1, zero="for no limit")
    length: int = numeric(4, least=1)
    entries: int = numeric(256, least=2, most=256)
    samples: int = numeric(100, least=1)
    tuning_samples: int = numeric(400, least=0)
    rows: int = numeric(20000, least=1)
    damping: float = numeric(0.1, above=0)
    rounds: int = numeric(2, least=1)

    def run(self, graph: Graph, context: Context) -> PassReport:
        if not batchable(graph):
            return PassReport(skipped=(Skip(graph.name, "it takes one sample at a time: too few for the statistics"),))
        plan = self.plan(graph, context)
        changed, skipped = self.apply(graph, context, plan, floats=context.tables.unrounded)
        return PassReport(changed=tuple(changed), skipped=tuple(skipped), notes=self.notes(graph, plan))

    def plan(self, graph: Graph, context: Context) -> Plan:
        """What each layer gets."""
        drawn = draw_samples(graph, context, self.samples, self.tuning_samples)
        importance = _importance(graph, context)
        return _Measured(self, graph, context, drawn, importance, _tables(graph, context, importance)).plan()

    def apply(
        self,
        graph: Graph,
        context: Context,
        plan: Plan,
        *,
        floats: Twin | None = None,
        only: Collection[Node] | None = None,
    ) -> tuple[list[str], list[Skip]]:
        """Codes the layers that the plan gives a codebook, and rounds the others; what was done, and where not.

        Args:
          floats: the float network to come near to, None for the graph as it is, unquantized.
          only: the layers to change, None for all.
        """
        drawn = draw_samples(graph, context, self.samples, self.tuning_samples)
        importance = _importance(graph, context)
        rounding = RoundWeights(samples=self.samples, tuning_samples=self.tuning_samples, rows=self.rows)
        changed: list[str] = []
        skipped: list[Skip] = []
        chosen = [t for t in _tables(graph, context, importance) if only is None or t.node in only]
        for table in (t for t in chosen if t.node in plan.chosen and plan.chosen[t.node].length):
            option = plan.chosen[table.node]
            noise = table.code(graph, option.length, option.entries)
            changed.append(_told(table.node, option, table.value.type.size, noise))

        def before(node: Node, x: Slices, xq: Slices) -> None:
            if only is not None and node not in only:
                return
            matrix = matrix_of(node)
            if isinstance(matrix, str):
                skipped.append(Skip(node.name, matrix))
                return
            rng = np.random.default_rng(context.given.seed)
            option = plan.chosen.get(node, Option(size_bytes=matrix.layer.data.size))
            if option.plain:
                gain = rounding.round_layer(graph, matrix, x, xq, drawn, rng)
                changed.append(f"{node.name}: int8, {gain:.2f} of the error of nearest rounding")
                taken = dataclasses.replace(option, size_bytes=_taken(node, option, context))
            else:
                noise = self._code(graph, matrix, option, importance[node], drawn, (x, xq), rng)
                taken = dataclasses.replace(option, size_bytes=_taken(node, option, context))
                changed.append(_told(node, taken, matrix.layer.data.size, noise))
            plan.took(node, taken)
            context.services.progress("layers coded", len(changed), max(len(changed), len(plan.chosen)))

        run_both(graph, drawn.arrays, floats=floats, before=before, room=TENSOR_BYTES)
        return changed, skipped

    def _code(
        self,
        graph: Graph,
        matrix: Matrix,
        option: Option,
        importance: np.ndarray,
        drawn: DrawnSamples,
        slices: tuple[Slices, Slices],
        rng: np.random.Generator,
    ) -> float:
        """Gives a layer its codebook, or its zeros; returns the squared error of its output relative to the output."""
        fitting, judging = drawn.parted(sum(len(part) for part in slices[0]))
        fit, means = measure_layer(matrix, *slices, fitting, self.rows, rng)
        judge = fit if fitting is judging else measure_layer(matrix, *slices, judging, self.rows, rng)[0]
        scale = row_scales(matrix)
        book, params = None, coarser.lengthened(matrix.layer.params, option.coarser)
        if option.zeros:
            v = zeros.pruned(fit, judge, option.zeros, scale, importance, self.damping)
        elif option.coarser > 1:
            v = coarser.rounded(Problem.of(matrix, fit), judge, option.coarser, self.damping)
        else:
            entries, v = self._coded(fit, judge, option, scale, importance)
            book = Codebook(entries=entries.astype(np.int64), strided=len(fit.w) > 1)
        params = dataclasses.replace(params, codebook=book)
        stored = graph.constant(matrix.join(v).astype(np.float32), matrix.layer.weight.name, params)
        graph.set_input(matrix.layer.node, matrix.layer.weight_index, stored)
        annotate_bias(graph, matrix.layer.node)
        shift_bias(graph, matrix.layer.node, mean_shift(fit.w, v, means))
        return judge(v) / max(judge.power, 1e-30)

    def _coded(
        self, fit: LayerError, judge: LayerError, option: Option, scale: np.ndarray, importance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Entries in whole steps `[entries, length]`, and the weights `[groups, out, columns]` made of them."""
        h, length = fit.gram + self.damping * fit.unit, option.length
        metric = block_metric(h, len(scale), scale, length, importance)
        coupling = Coupling.of(h[0], length) if len(h) == 1 else None  # else a block is a row: no other makes up for it
        found = []
        for ridge in _RIDGES:
            rows = fit.best(ridge).reshape(len(scale), -1)
            blocks = (rows / scale[:, None]).reshape(-1, length)
            vectors = fit_codebook(blocks, option.entries, metric=metric, iterations=10).entries
            if coupling is None:
                entries = _whole(vectors)
                v = entries[assign(blocks, entries, metric)].reshape(rows.shape) * scale[:, None]
            else:
                entries, v = self._fed_back(Rows(rows, h[0], scale, importance), vectors, coupling)
            found.append((entries, v.reshape(fit.w.shape)))
        return min(found, key=lambda made: judge(made[1]))

    def _fed_back(self, problem: Rows, vectors: np.ndarray, coupling: Coupling) -> tuple[np.ndarray, np.ndarray]:
        """The same, `[out, columns]`, starting from reals, the errors of one block taken out of the others."""
        for _ in range(self.rounds):
            vectors = problem.best_entries(vectors, problem.with_feedback(vectors, coupling))
        entries = _whole(vectors)
        return entries, problem.decode(entries, problem.descend(entries, problem.with_feedback(entries, coupling)))

    def notes(self, graph: Graph, plan: Plan) -> tuple[str, ...]:
        """How many layers have codebooks, how much smaller they are, and whether that is small enough."""
        options = plan.chosen.values()
        total = sum(o.size_bytes for o in options)
        plain = sum(stored(node).type.size for node in plan.chosen)
        coded, zeroed = (sum(bool(getattr(o, what)) for o in options) for what in ("length", "zeros"))
        longer = sum(o.coarser > 1 for o in options)
        also = f", {zeroed} zeros in place of weights" if zeroed else ""
        also += f", {longer} longer steps" if longer else ""
        note = f"{coded} of {len(options)} layers and tables have codebooks{also}: weights take {total / 1e3:.1f} kB of {plain / 1e3:.1f}"
        least = total + other_bytes(graph)
        if self.max_bytes and least > self.max_bytes:
            return note, f"no codebooks make the file as small as {self.max_bytes / 1e3:.0f} kB: {least / 1e3:.0f} kB"
        return (note,)


class _Measured:
    """The options of each layer, measured."""

    def __init__(
        self,
        asked: Codebooks,
        graph: Graph,
        context: Context,
        drawn: DrawnSamples,
        importance: Mapping[Node, np.ndarray],
        tables: Sequence[Table],
    ) -> None:
        self.asked, self.graph, self.context = asked, graph, context
        self.drawn, self.importance, self.tables = drawn, importance, tables

    def plan(self) -> Plan:
        """Of all layers in matrix form and all tables."""
        if not self.asked.max_bytes:
            return Plan({node: [self._longest(node)] for node in self.importance})
        return Plan(self._options(), self.asked.max_bytes - other_bytes(self.graph))

    def _longest(self, node: Node) -> Option:
        """The longest blocks up to those asked for, with the most entries."""
        matrix = matrix_of(node)
        lengths = row_lengths(stored(node)) if isinstance(matrix, str) else block_lengths(matrix)
        sizes = self._sizes(stored(node), [n for n in lengths if n <= self.asked.length])
        if not sizes:
            return Option(size_bytes=stored(node).type.size)
        length, entries = max(sizes)
        return Option(length=length, entries=entries, size_bytes=sizes[length, entries])

    def _options(self) -> dict[Node, list[Option]]:
        """With their costs, measured on a few samples of the float network."""
        few = tuple(array[:_FEW_SAMPLES] for array in self.drawn.arrays)
        found: dict[Node, list[Option]] = {}
        for table in self.tables:
            rng, sizes = (
                np.random.default_rng(self.context.given.seed),
                self._sizes(table.value, row_lengths(table.value)),
            )
            plain = Option(size_bytes=table.value.type.size)
            found[table.node] = [plain, *_measured(sizes, table.blocks, table.metric, rng)]

        def before(node: Node, x: Slices, xq: Slices) -> None:
            matrix = matrix_of(node)
            if isinstance(matrix, str):
                return
            everyone = np.ones(sum(len(part) for part in x), bool)
            rng = np.random.default_rng(self.context.given.seed)
            error, _ = measure_layer(matrix, x, xq, everyone, _FEW_ROWS, rng)
            sizes = self._sizes(stored(node), block_lengths(matrix))
            blocks, metric = self._of_layer(matrix, error)
            found[node] = [*self._without_codebook(matrix, error), *_measured(sizes, blocks, metric, rng)]
            self.context.services.progress("layers measured", len(found), max(len(found), len(self.importance)))

        run_both(self.graph, few, floats=self.context.tables.unrounded, before=before, room=TENSOR_BYTES)
        return found

    def _without_codebook(self, matrix: Matrix, error: LayerError) -> list[Option]:
        """The int8 weights as they are, and with zeros, where a file does not store these."""
        limits, params = self.context.given.limits, matrix.layer.params
        if limits is None:
            return [Option(size_bytes=matrix.layer.data.size)]

        def weight_bytes(q: np.ndarray, params: QuantParams) -> int:
            return min(q.size, int(_ROUNDING * limits.weight_bytes(q, params)))

        q = params.quantize(matrix.layer.data).astype(np.int8)
        plain = Option(size_bytes=weight_bytes(q, params))
        importance = self.importance[matrix.layer.node]
        longer = coarser.options(Problem.of(matrix, error), params, importance, weight_bytes)
        return [plain, *zeros.options(q, params, error, importance, weight_bytes), *longer]

    def _of_layer(self, matrix: Matrix, error: LayerError) -> tuple[_Blocks, _Metrics]:
        """Its blocks of a length, in steps, and what errors of them cost."""
        rows, scale = error.w.reshape(-1, error.w.shape[-1]), row_scales(matrix)
        h, importance = error.gram + self.asked.damping * error.unit, self.importance[matrix.layer.node]
        return (
            lambda length: (rows / scale[:, None]).reshape(-1, length),
            lambda length: block_metric(h, len(rows), scale, length, importance),
        )

    def _sizes(self, value: Value, lengths: Sequence[int]) -> dict[tuple[int, int], int]:
        """The bytes of codebooks `(length, entries)` that are smaller than int8, and than one with more entries."""
        size = value.type.size
        found: dict[tuple[int, int], int] = {}
        for length in lengths:
            least = size
            for entries in _ENTRIES:
                taken = self._bytes(length, entries, value)
                allowed = entries <= self.asked.entries and 2 * entries * length <= size
                if allowed and taken is not None and taken < _LEAST_SAVING * least:
                    found[length, entries] = least = taken
        return found

    def _bytes(self, length: int, entries: int, value: Value) -> int | None:
        limits, size = self.context.given.limits, value.type.size
        if limits is None:
            return size // length + entries * length
        return limits.codebook_bytes(length, entries, size, value.type.params().scale.size, value.name)


def _measured(
    sizes: Mapping[tuple[int, int], int], blocks: _Blocks, metric: _Metrics, rng: np.random.Generator
) -> Iterator[Option]:
    """With many blocks only the largest codebook of each length; `K` of `K0` entries cost `(K0 / K)^(2 / length)` as much.

    That is what a quantizer of many vectors does (Zador, 1982); of few blocks a large codebook holds half.
    """
    costs: dict[int, tuple[int, float]] = {}
    for (length, entries), size_bytes in sizes.items():
        every = blocks(length)
        if length not in costs or len(every) <= _FEW_BLOCKS:
            whole, some = metric(length), rng.permutation(len(every))[:_FEW_BLOCKS]
            part = Metric(whole.moments, whole.position[some], whole.importance[some])
            book = fit_codebook(every[some], entries, metric=part, iterations=_FEW_ITERATIONS)
            costs[length] = entries, float(part.costs(every[some] - book.blocks).sum()) * len(every) / len(some)
        most, least = costs[length]
        yield Option(
            length=length, entries=entries, size_bytes=size_bytes, cost=least * (most / entries) ** (2 / length)
        )


def stored(node: Node) -> Value:
    """What is coded of a node: its weights, or its table."""
    value = node.weight if node.weight is not None else table_of(node)
    assert value is not None, f"{node} has neither weights nor a table"
    return value


def _taken(node: Node, option: Option, context: Context) -> int:
    """What a layer's weights take in a file, now that it is known what they are."""
    limits, value = context.given.limits, stored(node)
    if limits is None:
        return option.size_bytes
    params = value.type.params()
    sizes = [limits.weight_bytes(params.quantize(value.array).astype(np.int8), params)]
    if (book := params.codebook) is not None:
        sizes.append(
            limits.codebook_bytes(book.length, len(book.entries), value.type.size, params.scale.size, value.name)
            or sizes[0]
        )
    return min(sizes)


def _told(node: Node, option: Option, size: int, noise: float) -> str:
    return (
        f"{node.name}: {option}, {option.size_bytes / 1e3:.1f} kB of {size / 1e3:.1f}, "
        f"{-10 * np.log10(max(noise, 1e-12)):.1f} dB"
    )


def _tables(graph: Graph, context: Context, importance: Mapping[Node, np.ndarray]) -> list[Table]:
    """The tables, with what their rows and columns count."""
    nodes = tables(graph)
    shares = shares_of(graph, context, nodes)
    return [Table(node, share, importance[node]) for node, share in zip(nodes, shares, strict=True)]


def _importance(graph: Graph, context: Context) -> dict[Node, np.ndarray]:
    """`F` of the output channels of every layer, and of the columns of every table."""
    chosen = tables(graph)
    nodes = [node for node in graph.nodes if node in chosen or not isinstance(matrix_of(node), str)]
    values = [node.output for node in nodes]
    found = sensitivities(
        graph,
        before_fixed(graph),
        values,
        context.data,
        count=_FEW_SAMPLES,
        batch_size=context.given.batch_size,
        projections=_PROJECTIONS,
        seed=context.given.seed,
        progress=context.services.progress,
    )
    return {
        node: np.maximum(f, max(_LEAST_SENSITIVITY * f.max(), 1e-30))
        for node, f in zip(nodes, found.values(), strict=True)
    }


def _whole(entries: np.ndarray) -> np.ndarray:
    """Entries in whole steps, each once."""
    return np.unique(np.clip(np.rint(entries), -127, 127), axis=0)
