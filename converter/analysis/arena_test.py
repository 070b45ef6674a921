"""The plan against hand-made cases, and against where the interpreter puts the tensors."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from converter.analysis.analysis_testing import converted
from converter.analysis.arena import lifetimes, plan, tensor_bytes
from converter.tflite.model_file import load
from converter.tflite.records import OperatorRecord, SubgraphRecord, TensorRecord


def tensor(size, **options):
    none = np.zeros(0)
    record = TensorRecord(
        name="t", shape=(size,), shape_signature=(size,), type_name="INT8", data=None, scale=none, zero_point=none,
        quantized_dimension=0, is_variable=False,
    )  # fmt: skip
    return replace(record, **options)


def operator(inputs, outputs):
    return OperatorRecord(
        code="ADD", version=1, inputs=tuple(inputs), outputs=tuple(outputs), options_name="NONE", options=None
    )


def subgraph(sizes, operators, inputs, outputs):
    return SubgraphRecord(
        name="g", tensors=tuple(tensor(s) if isinstance(s, int) else s for s in sizes),
        operators=tuple(operator(*o) for o in operators), inputs=tuple(inputs), outputs=tuple(outputs),
    )  # fmt: skip


def test_a_chain_reuses_what_is_no_longer_read():
    graph = subgraph([64, 640, 640, 640, 64], [([0], [1]), ([1], [2]), ([2], [3]), ([3], [4])], [0], [4])
    found = plan(graph)
    assert found.live_bytes == 64 + 2 * 640 and found.busiest in (1, 2)
    assert found.size_bytes == 64 + 2 * 640  # the third large one lies where the first was; the last in its gap
    places = {p.tensor: p.offset for p in found.tensors}
    assert places[1] == places[3] != places[2]


def test_offsets_are_aligned_and_nobody_overlaps():
    rng = np.random.default_rng(0)
    sizes = [int(s) for s in rng.integers(1, 1000, 40)]
    graph = subgraph(sizes, [([i, max(i - 3, 0)], [i + 1]) for i in range(39)], [0], [39])
    placed = plan(graph).tensors
    assert all(p.offset % 64 == 0 for p in placed) and len(placed) == 40
    for p in placed:
        for q in placed:
            meet = p.first <= q.last and q.first <= p.last
            assert p is q or not meet or p.offset + p.size <= q.offset or q.offset + q.size <= p.offset


def test_constants_and_variables():
    constant, variable = tensor(8, data=np.zeros(8, np.uint8)), tensor(8, is_variable=True)
    graph = subgraph([64, constant, variable, 64, 64], [([0, 1], [3]), ([3, 2], [4])], [0], [4])
    alive = {t.tensor: (t.first, t.last) for t in lifetimes(graph)}
    assert alive == {0: (0, 1), 2: (0, 1), 3: (0, 1), 4: (1, 1)}


def test_sizes():
    assert tensor_bytes(tensor(3, type_name="INT4")) == 2 and tensor_bytes(tensor(3, type_name="STRING")) == 0
    assert tensor_bytes(tensor(3, type_name="FLOAT32")) == 12


SPAN = """
import sys
from {package}.interpreter import Interpreter, OpResolverType

kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
interpreter = Interpreter(model_path=sys.argv[1], experimental_op_resolver_type=kernels)
interpreter.allocate_tensors()
arrays = [interpreter.tensor(int(i))() for i in sys.argv[2].split(",")]
starts = [a.__array_interface__["data"][0] for a in arrays]
print(max(s + a.nbytes for s, a in zip(starts, arrays)) - min(starts))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("arena") / "digits.tflite"
    path.write_bytes(converted().model)
    return path


@pytest.mark.parametrize("package", ["tflite_runtime", "ai_edge_litert"])
def test_the_interpreter_needs_as_much(package, file):
    """The shipped network: the planned tensors span the planned size in the memory of a real interpreter."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed here")
    found = plan(load(file).main)
    tensors = ",".join(str(p.tensor) for p in found.tensors)
    command = [sys.executable, "-c", SPAN.format(package=package), str(file), tensors]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == found.size_bytes >= found.live_bytes > 0
