"""Codebooks of tables whose rows are chosen: embeddings.

Of a table `W[v]` that is read at row `v` a share `p_v` of the time, entries `V` in its place cost the logits

    sum_v p_v sum_j F_j (V_vj - W_vj)^2

with `F` their sensitivity to the columns (`passes.measuring.sensitivity`): the cost of a layer whose inputs are one-hot.
No row's error is another's to make up for, so k-means in this metric is all. A row that calibration never read counts as
if it had been read once: in a text a good part of the words will be such.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ir.codebook import Codebook
from ir.execute import run_float
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.layer import table_of
from ir.types import given
from passes.compression.codebook import Metric, assign, fit_codebook
from passes.contract.base import Context

_MOST_SAMPLES = 4096  # that rows are counted on


@dataclass(frozen=True, eq=False)
class Table:
    """A quantized table of an annotated graph.

    Attributes:
      shares: `p`, `[rows]`; `importance`: `F`, `[columns]`.
    """

    node: Node
    shares: np.ndarray
    importance: np.ndarray

    @property
    def value(self) -> Value:
        value = table_of(self.node)
        assert value is not None, f"{self.node} has no table"
        return value

    def blocks(self, length: int) -> np.ndarray:
        """`[blocks, length]`, in steps from its zero point."""
        params = self.value.type.params()
        return np.asarray(self.value.array.reshape(-1, length) / params.scale.astype(np.float64))

    def metric(self, length: int) -> Metric:
        """What errors of the blocks cost."""
        parts = self.importance.reshape(-1, length)
        moments = np.stack([np.diag(part) for part in parts])
        weight = self.shares * float(self.value.type.params().scale) ** 2
        return Metric(moments, np.tile(np.arange(len(parts)), len(weight)), np.repeat(weight, len(parts)))

    def code(self, graph: Graph, length: int, entries: int) -> float:
        """Gives the table a codebook; returns the squared error, weighted, relative to what it holds."""
        blocks, metric = self.blocks(length), self.metric(length)
        value, params = self.value, self.value.type.params()
        zero, low = int(params.zero_point), params.qmin
        found = fit_codebook(blocks, entries, metric=metric).entries
        whole = np.unique(np.clip(np.rint(found) + zero, low, params.qmax), axis=0).astype(np.int64)
        indices = assign(blocks, whole - float(zero), metric)
        book = Codebook(entries=whole)
        data = params.dequantize(book.decode(indices, value.shape))
        stored = graph.constant(data, value.name, dataclasses.replace(params, codebook=book))
        graph.set_input(self.node, 0, stored)
        error = metric.costs(blocks - (whole[indices] - zero)).sum()
        return float(error / max(metric.costs(blocks).sum(), 1e-30))


def tables(graph: Graph) -> list[Node]:
    """The nodes that choose rows of a quantized table of their own."""
    found = []
    for node in graph.nodes:
        table = table_of(node)
        alone = table is not None and len(table.uses) == 1 and table.quant is not None and table.quant.bits == 8
        if alone and table is not None and table.type.params().signed and not table.type.params().per_channel:
            found.append(node)
    return found


def shares_of(graph: Graph, context: Context, nodes: Sequence[Node]) -> list[np.ndarray]:
    """How often each row of each table is read on the data, `[rows]`, with one more time for every row."""
    if not nodes:
        return []
    samples = context.data if context.given.tuning is None else context.given.tuning
    counts = [np.ones(_rows(node)) for node in nodes]
    done = 0
    for batch in samples.batches(context.given.batch_size):
        chosen = run_float(
            graph, [K.convert_to_tensor(x) for x in batch], requested=[given(n.inputs, 1) for n in nodes]
        )
        for count, ids in zip(counts, chosen, strict=True):
            count += np.bincount(np.asarray(K.convert_to_numpy(ids)).ravel(), minlength=len(count))[: len(count)]
        done += len(batch[0])
        if done >= _MOST_SAMPLES:
            break
    return [count / count.sum() for count in counts]


def _rows(node: Node) -> int:
    table = table_of(node)
    assert table is not None
    return int(table.shape[0])
