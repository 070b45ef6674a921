"""The commands and their errors on the emulated Raspberry Pi, by real ssh; and its kernels, operator by operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.runtimes.choose import choose_runtime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import WorkerSession, load_in
from converter.runtimes.ssh import SshWorker, parse_ssh
from ir.errors import RuntimeFailure
from ir.opdef import OpDef
from ir.ops.activation import HARD_SWISH, LOGISTIC, TANH
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, Conv2DAttributes
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import RELU6
from ir.profile import ARM64
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests import cases, matmul_test, one_op, transposed_test
from runtime_tests.convolution_test import GEOMETRY
from runtime_tests.weighted import layers
from tools.raspberry_pi import Board, default_cache, root_folder

ROOT = Path(__file__).parent.parent
X = TensorType((1, 24, 24, 8), DType.INT8, QuantParams(scale=np.float32(0.1), zero_point=np.int64(3)))
OUT = QuantParams(scale=np.float32(0.07), zero_point=np.int64(-5))


@pytest.fixture(scope="module")
def model() -> bytes:
    """A convolution that takes some milliseconds."""
    w = np.random.default_rng(0).integers(-127, 128, (16, 3, 3, 8)).astype(np.int8)
    kernel = TensorType(w.shape, DType.INT8, QuantParams(scale=np.float32(0.004)))
    bias = TensorType((16,), DType.INT32, QuantParams(scale=np.float32(0.1) * np.float32(0.004), bits=32))
    return one_op.one_op(CONV_2D, [X, (w, kernel), (np.zeros(16, np.int32), bias)], Conv2DAttributes(), OUT)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return cases.integers(0, X.shape, DType.INT8, samples=4)


@pytest.fixture(scope="module")
def shell(raspberry_pi_board: Board) -> Callable[[str], str]:
    """Runs a command on the board."""
    board = raspberry_pi_board
    ssh = ["ssh", "-F", str(board.folder / "ssh_config"), "-p", str(board.port), "-o", "BatchMode=yes", "pi@127.0.0.1"]
    return lambda command: subprocess.run([*ssh, command], capture_output=True, text=True, timeout=60).stdout


def nothing_left(shell: Callable[[str], str]) -> bool:
    """No process but those of this question, and no file; a worker whose connection was cut takes its time to end."""
    for _ in range(20):
        found = shell("ls -A /tmp ~; pgrep -u pi -f 'intact: read[y]'")
        if found.split() == ["/home/pi:", "/tmp:"]:
            return True
        time.sleep(0.2)
    raise AssertionError(found)


def test_answers_and_nothing_left(raspberry_pi_board: Board, model: bytes, inputs: np.ndarray, shell) -> None:
    session = choose_runtime(raspberry_pi_board.runtime).load(model)
    expected = EmulatorRuntime(ARM64).load(model).invoke([inputs])
    np.testing.assert_array_equal(session.invoke([inputs])[0], expected[0])
    assert session.runtime == "tflite_runtime 2.14.0 on aarch64"
    assert "intact: ready" in shell("ps -u pi -o args")
    session.close()
    assert nothing_left(shell)


def test_a_connection_that_is_cut(raspberry_pi_board: Board, model: bytes, inputs: np.ndarray, shell) -> None:
    session = choose_runtime(raspberry_pi_board.runtime).load(model)
    (before,) = session.invoke([inputs])
    shell("pkill -KILL -u pi sshd; pkill -KILL -u pi -f 'sshd -[D]'")
    np.testing.assert_array_equal(session.invoke([inputs])[0], before)
    session.close()
    assert nothing_left(shell)


def test_a_client_that_is_killed(raspberry_pi_board: Board, model: bytes, tmp_path: Path, shell) -> None:
    """In the middle of a benchmark that would take minutes."""
    (tmp_path / "m.tflite").write_bytes(model)
    arguments = [str(tmp_path / "m.tflite"), f"--runtime={raspberry_pi_board.runtime}", "--runs=100000"]
    process = subprocess.Popen([sys.executable, "-m", "tools.benchmark", *arguments], cwd=ROOT, env=_environment())
    try:
        for _ in range(100):
            if "intact: ready" in shell("ps -u pi -o args"):
                break
            time.sleep(0.2)
        else:
            raise AssertionError("it did not start")
    finally:
        process.kill()
        process.wait()
    assert nothing_left(shell)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"python": "/usr/bin/python9"}, "expected a Python at /usr/bin/python9 there"),
        ({"package": "ai-edge-litert"}, "No module named 'ai_edge_litert'; install it there"),
        ({"config": "{unknown}"}, "a host key that is not known"),
        ({"config": "{changed}"}, "another host key than the known one"),
        ({"config": "{keyless}"}, "permission denied"),
    ],
)
def test_what_can_be_wrong(raspberry_pi_board: Board, model: bytes, tmp_path: Path, change, message) -> None:
    folder = raspberry_pi_board.folder
    settings = (folder / "ssh_config").read_text()
    known = (folder / "known_hosts").read_text()
    other = (folder / "client_key.pub").read_text().split()[1]
    (tmp_path / "known_hosts").write_text(f"{known.split()[0]} ssh-ed25519 {other}\n")
    configs = {
        "unknown": settings.replace(str(folder / "known_hosts"), "/dev/null"),
        "changed": settings.replace(str(folder / "known_hosts"), str(tmp_path / "known_hosts")),
        "keyless": settings.replace("client_key", "no_key"),
    }
    for name, content in configs.items():
        (tmp_path / name).write_text(content)
    paths = {name: str(tmp_path / name) for name in configs}
    query = {"config": str(folder / "ssh_config")} | {k: v.format(**paths) for k, v in change.items()}
    name = raspberry_pi_board.runtime.partition("?")[0] + "?" + "&".join(f"{k}={v}" for k, v in query.items())
    with pytest.raises(RuntimeFailure) as caught:
        choose_runtime(name).load(model)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_benchmark(raspberry_pi_board: Board, model: bytes, tmp_path: Path) -> None:
    """As a user runs them: on the board, and on this machine beside it."""
    (tmp_path / "m.tflite").write_bytes(model)
    runtimes = [f"--runtime={raspberry_pi_board.runtime}", "--runtime=emulator/builtin@arm64"]
    run = [str(tmp_path / "m.tflite"), *runtimes, f"--json={tmp_path / 'out.json'}"]
    command = [sys.executable, "-m", "tools.benchmark", *run, "--runs=5", "--min_seconds=0", "--affinity=0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=_environment(), timeout=200)
    assert done.returncode == 0, done.stderr
    board, here = json.loads((tmp_path / "out.json").read_text())["results"]
    assert board["runtime"].startswith("ssh://pi@127.0.0.1:") and board["count"] == 5 and board["median_ms"] > 0
    assert board["peak_memory_bytes"] > 1e7 and here["runtime"] == "emulator/builtin@arm64"


def test_the_command_starts_and_stops_one(raspberry_pi_board: Board, tmp_path: Path, model: bytes) -> None:
    """Its root is made by now: a link to it stands for another cache."""
    made = root_folder(default_cache())
    (tmp_path / made.name).symlink_to(made)
    command = [sys.executable, "-m", "tools.raspberry_pi", f"--cache={tmp_path}"]

    def run(what: str) -> str:
        done = subprocess.run(
            [*command, what], capture_output=True, text=True, cwd=ROOT, env=_environment(), timeout=90
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    runtime = choose_runtime(run("start"))
    runtime.load(model).close()
    assert run("stop") == "stopped" and run("stop") == "there was none"
    with pytest.raises(RuntimeFailure, match="expected an ssh connection"):
        runtime.load(model)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


class OneConnection:
    """The board as a runtime whose models, one at a time, share a worker."""

    name = "the emulated Raspberry Pi"

    def __init__(self, board: Board) -> None:
        self.worker = SshWorker(parse_ssh(board.runtime))

    def load(self, model: bytes) -> WorkerSession:
        return load_in(self.worker, model, "", "builtin", 1)


@pytest.fixture(scope="module")
def device(raspberry_pi_board: Board) -> Iterator[None]:
    """Lets the checks of single operators reach the board."""
    runtime = OneConnection(raspberry_pi_board)
    one_op.DEVICES[ARM64] = runtime
    yield
    del one_op.DEVICES[ARM64]
    runtime.worker.end()


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("op", [CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED], ids=lambda op: op.name)
def test_kernels_with_weights(op: OpDef) -> None:
    """A fully connected layer with a scale per channel has a bias: without one, this runtime's kernel crashes."""

    @cases.examples(40)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        attrs, (x, w) = data.draw(GEOMETRY[op])
        data.draw(layers(op, attrs, x, w, with_bias=True)).check([ARM64])

    check()


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("rows", "depth"), [(3, 8), (4, 7), (4, 8), (5, 36)])
@pytest.mark.parametrize("columns", [1, 2])
def test_products_of_a_matrix_and_a_vector(rows: int, depth: int, columns: int) -> None:
    """They have a kernel of their own from 4 rows and a depth of 8 on; powers of two make halves frequent."""
    rng = np.random.default_rng(rows + depth)
    power = lambda e: QuantParams(scale=np.float32(2.0**e))  # noqa: E731
    w = rng.integers(-4, 5, (rows, 1, 1, depth)).astype(np.int8)
    bias = (np.zeros(rows, np.int32), TensorType((rows,), DType.INT32, QuantParams(scale=np.float32(2.0**-7), bits=32)))
    x = TensorType((1, columns, 1, depth), DType.INT8, power(-3))
    operands = [x, (w, TensorType(w.shape, DType.INT8, power(-4))), bias]
    samples = rng.integers(-4, 5, (200, columns, 1, depth)).astype(np.int8)
    cases.check_integer(CONV_2D, operands, Conv2DAttributes(), power(-4), [samples], profiles=[ARM64])


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("op", [RELU6, LOGISTIC, TANH, HARD_SWISH, ADD, SUB, MUL], ids=lambda op: op.name)
def test_kernels_of_elements(op: OpDef) -> None:
    count = len(op.operands)

    @cases.examples(15)
    @given(data=st.data(), seed=cases.seeds, length=st.integers(1, 70))
    def check(data: st.DataObject, seed: int, length: int) -> None:
        operands = [TensorType((1, length, 3), DType.INT8, data.draw(cases.parameters())) for _ in range(count)]
        fixed = op.quantization.fixed.get(8)
        zero = None if fixed is None else QuantParams(scale=fixed.scale, zero_point=np.int64(fixed.zero_point))
        out = zero or data.draw(cases.parameters(scale=0.2))
        samples = [cases.integers(seed + i, operands[0].shape) for i in range(count)]
        cases.check_integer(op, operands, op.attributes(), out, samples, profiles=[ARM64])

    check()


@pytest.mark.usefixtures("device")
def test_kernels_with_a_library_of_their_own() -> None:
    matmul_test.test_integer(ARM64, DType.INT8, constant=True)
    transposed_test.test_integer(DType.INT8, ARM64)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("channels", [3, 8, 20])
def test_the_mean_of_a_picture(channels: int) -> None:
    rng = np.random.default_rng(channels)
    x = TensorType((1, 7, 7, channels), DType.INT8, QuantParams(scale=np.float32(0.25), zero_point=np.int64(9)))
    out = QuantParams(scale=np.float32(0.0625), zero_point=np.int64(-7))
    attrs = ReduceAttributes(axes=(1, 2), keep_dims=True)
    samples = rng.integers(-40, 40, (100, *x.shape[1:])).astype(np.int8)
    cases.check_integer(MEAN, [x], attrs, out, [samples], profiles=[ARM64])
