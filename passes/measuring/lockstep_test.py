"""Tests of the two networks side by side: slices change nothing, and the memory that they take is bounded."""

import numpy as np
import pytest

from ir.graph import Graph, Node
from ir.ops._common import Padding
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU, RELU6
from passes.contract.base import Context, Given, Pass
from passes.graph_testing import Net, random_inputs
from passes.measuring import lockstep
from passes.measuring.lockstep import Slices, run_both
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.rounding.correct_bias import CorrectBias
from passes.rounding.round_weights import RoundWeights
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

_MIB = 1 << 20


def net(size: int = 8, channels: int = 12) -> Graph:
    """A network with a shortcut, and with a node that reads constants only."""
    made = Net(3)
    x = made.then(RELU6, made.conv(made.input(size, size, 3), channels, name="first"), name="clip")
    y = made.then(RELU, made.depthwise(x, name="depth"), name="rectify")
    offset = made.then(ADD, *(made.constant(np.full(channels, v), f"part_{v}") for v in (0.1, 0.2)), name="offset")
    total = made.then(ADD, made.then(ADD, x, y, name="sum"), offset, name="shifted")
    return made.ends(made.conv(total, 4, 1, name="last"))


def annotated(graph: Graph, count: int) -> Context:
    context = Context(Given(samples=in_memory(random_inputs(graph, count)[0])))
    run_passes(graph, [Calibrate(), Quantize()], context)
    return context


def constants_after(step: Pass) -> list[np.ndarray]:
    graph = net()
    step.run(graph, annotated(graph, 23))
    return [v.data for v in graph.constants()]


@pytest.mark.parametrize("step", [RoundWeights(samples=20), CorrectBias(block=20)], ids=str)
def test_slices_of_one_or_five_samples_give_what_all_samples_at_once_give(monkeypatch, step):
    expected = constants_after(step)
    for samples in (1, 5):
        monkeypatch.setattr(lockstep, "SLICE_BYTES", samples * 4 * 8 * 8 * 12)
        found = constants_after(step)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)  # float32 means are summed in another order


def test_a_pass_sees_every_sample_once_and_in_order(monkeypatch):
    monkeypatch.setattr(lockstep, "SLICE_BYTES", 3 * 4 * 8 * 8 * 12)
    graph = net()
    context = annotated(graph, 7)
    (x,) = next(iter(context.samples.batches(7)))
    seen = {}
    run_both(graph, (x,), before=lambda n, y, yq: seen.update({n.name: np.concatenate(y)}))
    np.testing.assert_array_equal(seen["first"], x)
    assert len(seen["last"]) == 7


def narrowing() -> Graph:
    """Tensors of 300, 1200, 768 and 64 elements."""
    made = Net(4)
    x = made.then(RELU6, made.conv(made.input(10, 10, 3), 12, name="first"), name="clip")
    y = made.depthwise(x, padding=Padding.VALID, name="depth")
    return made.ends(made.conv(y, 4, 5, padding=Padding.VALID, name="last"))


def both_inputs(graph: Graph, batch: np.ndarray, room: int | None, floats: Graph | None) -> dict[str, list[np.ndarray]]:
    """What every layer reads in the float and in the quantized network, where each gets other weights on the way."""
    seen: dict[str, list[np.ndarray]] = {}

    def before(node: Node, x: Slices, xq: Slices) -> None:
        seen[node.name] = [np.concatenate(x), np.concatenate(xq)]
        graph.set_input(
            node, 1, graph.constant(node.weight.data * np.float32(0.75), f"{node.name}/less", node.weight.quant)
        )

    run_both(graph, (batch,), floats=floats, before=before, room=room)
    return seen


@pytest.mark.parametrize("copied", [True, False])
def test_samples_without_room_follow_through_what_is_done_to_where_tensors_are_smaller(monkeypatch, copied):
    monkeypatch.setattr(lockstep, "SLICE_BYTES", 2 * 4 * 1200)
    found = {}
    for room in (None, 4 * 4 * 1200):
        graph = narrowing()
        annotated(graph, 8)
        (batch,) = random_inputs(graph, 14, seed=5)
        found[room] = both_inputs(graph, batch, room, graph.twin() if copied else None)
    expected, staged = found.values()
    assert {name: len(pair[0]) for name, pair in staged.items()} == {"first": 4, "depth": 4, "last": 6}
    for name, pair in staged.items():
        for a, b in zip(pair, expected[name], strict=True):
            np.testing.assert_allclose(a, b[: len(a)], rtol=1e-5, atol=1e-6)


def peak_bytes(step: Pass, samples: int) -> int:
    """The most that the backend's tensors take at once in one run of a pass, by its allocator's count."""
    memory = pytest.importorskip("tensorflow").config.experimental
    graph = net(size=64, channels=32)
    context = annotated(graph, 20)
    context = Context(Given(samples=in_memory(random_inputs(graph, samples)[0])), context.tables)
    try:
        memory.reset_memory_stats("CPU:0")
    except ValueError:
        pytest.skip(
            "TensorFlow's allocator counts with oneDNN only, left out on this make of processor (TF_ENABLE_ONEDNN_OPTS=1)"
        )
    before = memory.get_memory_info("CPU:0")["current"]
    step.run(graph, context)
    return memory.get_memory_info("CPU:0")["peak"] - before


@pytest.mark.parametrize("step", [RoundWeights(samples=20), CorrectBias(block=20)], ids=str)
def test_memory_is_that_of_the_tensors_alive_at_the_widest_place(monkeypatch, step):
    monkeypatch.setattr(lockstep, "SLICE_BYTES", _MIB)
    widest = 20 * 4 * 64 * 64 * 32
    # Both sides of the shortcut (its sum takes the place of one), in both networks, and a tenth for slices.
    assert peak_bytes(step, 20) < 2 * 2 * widest * 1.1


@pytest.mark.parametrize("step", [RoundWeights(samples=20), CorrectBias(block=20)], ids=str)
def test_memory_does_not_grow_with_the_number_of_samples(step):
    assert peak_bytes(step, 80) < 1.05 * peak_bytes(step, 20)
