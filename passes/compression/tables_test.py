"""Embeddings with codebooks: which entries, what they cost, and that other layers see them."""

import numpy as np
import pytest

from ir.graph import Graph
from ir.keras_ops import K
from ir.layer import table_of
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.slicing import GATHER, GatherAttributes
from ir.types import DType, TensorType
from passes.compression.budget import other_bytes
from passes.compression.codebooks import Codebooks, stored
from passes.compression.tables import Table, shares_of, tables
from passes.contract.base import Context, Given, SamplesInMemory
from passes.graph_testing import Net, outputs, run_alone
from passes.measuring.lockstep import run_both
from passes.measuring.logits import logits_of
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training.coded import CodedWeight
from passes.training.losses import kl
from passes.training.stepped import SteppedModel, Steps
from passes.training.write_back import write_back

ROWS, SIZE, WORDS = 400, 16, 6


def annotated() -> tuple[Graph, Graph, Context]:
    """The mean of some rows of a table, and a layer; row 3 is in every sample."""
    rng = np.random.default_rng(0)
    net = Net(0)
    ids = net.graph.input("ids", TensorType((1, WORDS), DType.INT32))
    table = net.graph.constant(rng.normal(size=(ROWS, SIZE)).astype(np.float32), "table")
    rows = net.graph.add(GATHER, [table, ids], GatherAttributes(), "rows").output
    mean = net.graph.add(MEAN, [rows], ReduceAttributes(axes=(1,)), "mean").output
    graph = net.ends(net.dense(mean, 10, name="dense"))
    reference = graph.copy()
    data = rng.integers(0, ROWS // 2, (200, WORDS)).astype(np.int32)
    data[:, 0] = 3
    context = Context(Given(samples=SamplesInMemory((data,)), reference=reference))
    run_passes(graph, [Calibrate(), Quantize(granularity="per_tensor")], context)
    return graph, reference, context


def noise(graph: Graph, reference: Graph) -> float:
    ids = np.random.default_rng(7).integers(0, ROWS // 2, (50, WORDS)).astype(np.int32)
    ids[:, 0] = 3
    expected = outputs(reference, [ids])[0]
    return float(np.square(outputs(graph, [ids], transform=quantized)[0] - expected).sum() / np.square(expected).sum())


def test_rows_count_as_often_as_they_are_read():
    graph, _, context = annotated()
    (node,) = tables(graph)
    (shares,) = shares_of(graph, context, [node])
    assert shares.sum() == pytest.approx(1) and shares[3] == pytest.approx(shares.max())
    assert shares[3] > 200 / (200 * WORDS + ROWS) - 1e-9
    np.testing.assert_allclose(shares[ROWS // 2 :], 1 / (200 * WORDS + ROWS))


def test_a_row_that_is_read_often_is_kept_better():
    graph, _, _ = annotated()
    (node,) = tables(graph)
    exact, found = stored(node).array[3].copy(), []
    for share in (1.0, 1000.0):
        shares = np.ones(ROWS)
        shares[3] = share
        copy, _, _ = annotated()
        (other,) = tables(copy)
        Table(other, shares / shares.sum(), np.ones(SIZE)).code(copy, 8, 16)
        found.append(float(np.square(stored(other).array[3] - exact).sum()))
    assert found[1] < 0.05 * found[0]


def test_columns_that_count_more_are_kept_better():
    errors = []
    for heavy in (1.0, 100.0):
        graph, _, _ = annotated()
        (node,) = tables(graph)
        exact = stored(node).array.copy()
        Table(node, np.ones(ROWS) / ROWS, np.where(np.arange(SIZE) % 4, 1.0, heavy)).code(graph, 4, 16)
        errors.append(np.square(stored(node).array - exact).mean(axis=0)[::4].mean())
    assert errors[1] < 0.3 * errors[0]


def test_within_a_budget_the_table_gets_a_codebook_and_its_numbers_are_entries():
    graph, reference, context = annotated()
    plain = noise(graph, reference)
    size = ROWS * SIZE
    report = run_alone(graph, Codebooks(max_bytes=int(other_bytes(graph) + 0.45 * size)), context)
    (node,) = tables(graph)
    table = table_of(node)
    assert table is not None and table.quant is not None and table.quant.codebook is not None
    assert any(text.startswith("rows: ") for text in report.changed)
    np.testing.assert_allclose(table.quant.dequantize(table.quant.quantize(table.array)), table.array, atol=1e-7)
    assert plain < noise(graph, reference) < 0.25


def test_a_table_that_two_nodes_read_is_left_alone():
    graph, _, _ = annotated()
    (node,) = tables(graph)
    graph.add(GATHER, node.inputs, GatherAttributes(), "again")
    assert tables(graph) == []


def test_the_float_network_keeps_the_table_that_it_had():
    graph, reference, context = annotated()
    (node,) = tables(graph)
    ids = np.arange(12, dtype=np.int32).reshape(2, WORDS)
    expected = outputs(reference, [ids], requested=[n.output for n in reference.nodes if n.name == "rows"])[0]
    Table(node, np.ones(ROWS) / ROWS, np.ones(SIZE)).code(graph, 8, 16)
    seen = {}

    def after(node, exact, rounded):
        seen[node.name] = np.concatenate([np.asarray(part) for part in exact])
        return rounded

    run_both(graph, [ids], floats=context.tables.unrounded, after=after)
    np.testing.assert_allclose(seen["rows"], expected, rtol=1e-6)


def test_training_moves_entries_of_a_table_and_keeps_its_scale_and_the_choice_of_blocks():
    graph, _, _ = annotated()
    (node,) = tables(graph)
    Table(node, np.ones(ROWS) / ROWS, np.ones(SIZE)).code(graph, 8, 16)
    before, indices = stored(node).type.params(), CodedWeight.of(stored(node)).indices
    model = SteppedModel(graph, logits_of(graph), kl, Steps())
    model._activation_steps.assign(1.1 * model._activation_steps)
    ids = np.arange(2 * WORDS, dtype=np.int32).reshape(2, WORDS)
    np.testing.assert_allclose(_rows_of(model, graph, ids), stored(node).array[ids], atol=1e-6)
    owner = model._owner[stored(node)]
    owner.kernel.assign(owner.kernel + owner.unit)
    write_back(model, graph)
    after = stored(node).type.params()
    np.testing.assert_array_equal(after.codebook.entries, np.clip(before.codebook.entries + 1, -128, 127))
    assert after.scale == before.scale == node.output.quant.scale and after.zero_point == before.zero_point
    np.testing.assert_array_equal(after.quantize(stored(node).array), after.codebook.decode(indices, (ROWS, SIZE)))
    np.testing.assert_allclose(_rows_of(model, graph, ids), stored(node).array[ids], atol=1e-6)


def _rows_of(model: SteppedModel, graph: Graph, ids: np.ndarray) -> np.ndarray:
    """What the trainable network chooses of its table."""
    (node,) = tables(graph)
    activations, _ = model.parameters()
    table = model.on_grid(stored(node), K.convert_to_tensor(stored(node).array), *activations[stored(node)])
    return K.convert_to_numpy(table)[ids]
