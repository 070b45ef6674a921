"""What unpacking costs: bytes by hand, the arena against the plan and against TensorFlow Lite Micro's own count."""

import dataclasses

import numpy as np
import pytest

from converter.analysis.arena import plan
from converter.analysis.unpacking import Unpacking, unpacking
from converter.runtimes.local import LocalRuntime
from converter.tflite.decoding import Carrier
from converter.tflite.model_file import parse
from converter.tflite.writer import to_bytes
from ir.codebook import Codebook
from ir.graph import Graph
from ir.profile import TFLM
from ir.quantization import QuantParams
from passes.contract.base import Context, Given, SamplesInMemory
from passes.graph_testing import Net, random_inputs
from passes.running.pipeline import parse as passes
from passes.running.runner import run_passes

ENTRIES, LENGTH = 16, 4


def emitted(coded: bool) -> Graph:
    """Two layers of integers; the weights `[64, 3, 3, 16]` of the first with a codebook."""
    net = Net(0)
    graph = net.ends(net.conv(net.conv(net.input(4, 4, 16), 64, name="wide"), 2, name="last"))
    context = Context(Given(samples=SamplesInMemory(random_inputs(graph))))
    run_passes(graph, passes("calibrate,quantize,fuse_activation,lower_to_integer"), context)
    weight = next(node for node in graph.nodes if node.name == "wide").weight
    assert weight is not None
    rng = np.random.default_rng(0)
    book = Codebook(entries=rng.integers(-127, 128, (ENTRIES, LENGTH)))
    indices = rng.integers(0, ENTRIES, weight.type.size // LENGTH)
    weight.data = book.decode(indices, weight.shape)
    weight.quant = QuantParams(scale=np.float32(0.01), codebook=book if coded else None)
    return graph


def test_indices_blocks_and_weights_are_written_and_take_room():
    size = 64 * 9 * 16
    model, plain = (parse(to_bytes(emitted(coded))) for coded in (True, False))
    assert unpacking(plain) is None
    found = unpacking(model)
    arena, alone = (plan(m.main).size_bytes for m in (model, plain))
    assert found == Unpacking(
        layers=1,
        stored_bytes=size // LENGTH + ENTRIES * LENGTH,
        weight_bytes=size,
        written_bytes=size // LENGTH * 4 + 2 * size,  # CAST to int32, GATHER, RESHAPE
        arena_bytes=arena,
        plain_arena_bytes=alone,
    )
    assert str(found) == (
        f"weights of 1 layer are unpacked at every inference: 2.4 kB become 9.2, 27.6 kB are written for it; the arena "
        f"takes {(arena - alone) / 1e3:.1f} kB more than for weights that lie in the file"
    )


def test_a_plan_that_is_too_large_says_nothing_of_the_arena():
    found = unpacking(parse(to_bytes(emitted(True))))
    assert found is not None
    assert "arena" not in str(dataclasses.replace(found, arena_bytes=None))


@pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed")
@pytest.mark.parametrize("carriers", [{Carrier.GATHER}, {Carrier.LOOKUP, Carrier.HUFFMAN}])
def test_the_arena_grows_on_a_microcontroller_as_predicted(carriers):
    content, plain = to_bytes(emitted(True), carriers=carriers), to_bytes(emitted(False))
    used = []
    for file in (content, plain):
        session = LocalRuntime.of(TFLM).load(file)
        session.invoke([np.zeros((1, 4, 4, 16), np.int8)])
        used.append(session.timing.arena_bytes)
    found = unpacking(parse(content))
    assert found is not None and found.arena_bytes is not None and found.plain_arena_bytes is not None
    records = 400 * len(parse(content).main.operators)  # of the interpreter, for operators and their tensors
    assert 0 <= used[0] - used[1] - (found.arena_bytes - found.plain_arena_bytes) < records
