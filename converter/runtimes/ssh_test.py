"""Names, quoting, errors and retries, with a program in place of `ssh` that runs the command here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converter.runtimes import ssh
from converter.runtimes.choose import choose_runtime
from converter.runtimes.local import WorkerSession, installed_packages
from converter.runtimes.remote import RemoteSession
from converter.runtimes.ssh import SshRuntime, parse_ssh
from converter.tflite.writer import to_bytes
from ir.errors import OptionError, RuntimeFailure
from ir.graph import Graph
from ir.opdef import Attributes
from ir.ops.relu import RELU
from ir.quantization import QuantParams
from ir.types import DType, TensorType

QUANT = QuantParams(scale=np.float32(0.1), zero_point=np.int64(3))
X = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)

needs_a_runtime = pytest.mark.skipif(not installed_packages(), reason="no TFLite runtime is installed")


@pytest.fixture(scope="module")
def model() -> bytes:
    """RELU."""
    graph = Graph("relu")
    type_ = TensorType(X.shape, DType.INT8, QUANT)
    graph.outputs = list(graph.add(RELU, [graph.input("x", type_)], Attributes(), "y", [type_]).outputs)
    return to_bytes(graph)


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a shell script in place of ssh; "$command" is the last argument, "$count" how often it was started."""

    def place(script: str = 'exec sh -c "$command"') -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        count = f'echo >> "{folder}/count"; count=$(wc -l < "{folder}/count")'
        (folder / "ssh").write_text(f"#!/bin/sh\nfor command; do :; done\n{count}\n{script}\n")
        (folder / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    return place


def here(**settings: str) -> str:
    """A device that is this machine."""
    return "ssh://pi@board?" + "&".join(f"{k}={v}" for k, v in {"python": sys.executable, **settings}.items())


def test_names() -> None:
    full = parse_ssh("ssh://pi@board.local:2222/ref?python=~/tf/bin/python&package=ai-edge-litert", threads=4)
    assert full == SshRuntime(
        host="board.local", user="pi", port=2222, kernels="ref", threads=4,
        python="tf/bin/python", package="ai_edge_litert",
    )  # fmt: skip
    assert full.name == "ssh://pi@board.local:2222/ref" and full.machine == "ssh://pi@board.local:2222"
    short = choose_runtime("ssh://MyPi", remote_python="/opt/python", processors=[1, 3])
    assert short == SshRuntime(host="MyPi", python="/opt/python", processors=(1, 3))
    assert parse_ssh("ssh://pi@[fe80::1%eth0]:22").host == "fe80::1%eth0"
    assert parse_ssh("ssh://pi@[::1]:22").machine == "ssh://pi@[::1]:22"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ssh://", "ssh://USER@HOST"),
        ("ssh://-oProxyCommand=reboot", "ssh://USER@HOST"),
        ("ssh://-l@board", "ssh://USER@HOST"),
        ("ssh://pi:secret@board", "ssh://USER@HOST"),
        ("ssh://pi@board;reboot", "ssh://USER@HOST"),
        ("ssh://pi@board:99999", "ssh://USER@HOST"),
        ("ssh://pi@board/fast", "'fast'"),
        ("ssh://pi@board?package=torch", "package=tflite-runtime or ai-edge-litert, found 'torch'"),
        ("ssh://pi@board?pyton=x", "'pyton=x'"),
        ("ssh://pi@board?config=/no/such/file", "none at /no/such/file"),
    ],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_runtime(name)
    assert message in str(caught.value) and f"--runtime={name}" in str(caught.value)


def test_the_host_key_is_checked_whatever_the_users_settings(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  StrictHostKeyChecking no\n  NoHostAuthenticationForLocalhost yes\n")
    command = parse_ssh(f"ssh://pi@board:22?config={config}").command()
    assert command[command.index("--") + 1] == "board" and command[-2] == "board"
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    shown = subprocess.run(
        [command[0], "-G", *command[1 : command.index("--")], "board"], capture_output=True, text=True, check=True
    )
    settings = dict(line.split(" ", 1) for line in shown.stdout.splitlines() if " " in line)
    assert settings["stricthostkeychecking"] in ("true", "yes") and settings["batchmode"] == "yes"
    assert settings["nohostauthenticationforlocalhost"] == "no" and settings["user"] == "pi"


@needs_a_runtime
def test_the_same_answers_as_here(model: bytes, fake_ssh) -> None:
    fake_ssh('echo "Welcome to this board"; sh -c "$command"; exit $?')
    session = choose_runtime(here()).load(model)
    (found,) = session.invoke([X], repeats=3)
    np.testing.assert_array_equal(found, np.maximum(X, 3))
    assert len(session.timing.times_ns) == 3 and session.timing.load_ns > 0
    assert session.timing.peak_memory_bytes and session.runtime.split()[0] in installed_packages()
    session.close()


@needs_a_runtime
def test_messages_of_the_device_do_not_stop_it(model: bytes, fake_ssh) -> None:
    fake_ssh('head -c 300000 /dev/zero | tr "\\0" "w" >&2; exec sh -c "$command"')
    session = choose_runtime(here()).load(model)
    np.testing.assert_array_equal(session.invoke([X])[0], np.maximum(X, 3))
    session.close()


# A connection that breaks in the middle of the answer to the first inputs.
BREAKS = """sh -c "$command" | (dd bs=1 count=400 2> /dev/null; echo "Connection to board closed by remote host." >&2; kill $$)"""


@needs_a_runtime
def test_a_device_that_never_answers(model: bytes, fake_ssh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "START_S", 0.5)
    folder = fake_ssh("exec sleep 600")
    with pytest.raises(RuntimeFailure, match=r"ssh://pi@board/builtin: .* found no answer after 0\.5 s"):
        choose_runtime(here()).load(model)
    assert (folder / "count").read_text() == "\n"  # it is not tried a second time


def test_a_lost_connection_is_made_again_once(model: bytes, fake_ssh) -> None:
    folder = fake_ssh(f'[ $count -gt 1 ] && exec sh -c "$command"; {BREAKS}')
    session = choose_runtime(here()).load(model)
    np.testing.assert_array_equal(session.invoke([X])[0], np.maximum(X, 3))
    assert (folder / "count").read_text().count("\n") == 2
    session.close()


@needs_a_runtime
def test_a_connection_that_is_lost_again(model: bytes, fake_ssh) -> None:
    folder = fake_ssh(BREAKS)
    session = choose_runtime(here()).load(model)
    with pytest.raises(
        RuntimeFailure, match=r"found it was lost \(Connection to board closed by remote host.\); check"
    ):
        session.invoke([X])
    assert (folder / "count").read_text().count("\n") == 2


def test_a_connection_that_is_lost_before_the_model_is_loaded(model: bytes, fake_ssh) -> None:
    folder = fake_ssh(
        r"printf 'intact: ready\n'; head -c 100 > /dev/null; echo 'Connection reset by peer' >&2; exit 255"
    )
    with pytest.raises(
        RuntimeFailure, match=r"connection to last, found it was lost \(Connection reset by peer\); check"
    ):
        choose_runtime(here()).load(model)
    assert (folder / "count").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Host key verification failed.' >&2; exit 255", "a host key that is not known; run 'ssh pi@board' once"),
        (
            "echo '@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @' >&2; echo 'Host key verification failed.' >&2; "
            "exit 255",
            "another host key than the known one; make sure",
        ),
        (
            "echo 'pi@board: Permission denied (publickey).' >&2; exit 255",
            "permission denied; set up a key: 'ssh-copy-id",
        ),
        (
            "echo 'ssh: connect to host board port 22: Connection refused' >&2; exit 255",
            "connection refused; check the",
        ),
        ("echo 'ssh: connect to host board port 22: Connection timed out' >&2; exit 255", "no answer in time"),
        ("echo 'ssh: Could not resolve hostname board' >&2; exit 255", "no host of that name"),
        ("echo 'something new' >&2; exit 255", "something new; check the device and the network with 'ssh"),
        ("echo 'sh: 1: python3: not found' >&2; exit 127", "python3: not found; name one that is there: ?python=PATH"),
        (
            "echo \"ModuleNotFoundError: No module named 'numpy'\" >&2; exit 1",
            "No module named 'numpy'; install it there",
        ),
        ("exit 139", "signal 11 (Segmentation fault); see the device's memory"),
        ("exit 3", "closed the connection; try 'ssh"),
    ],
)
def test_failures_are_one_sentence(model: bytes, fake_ssh, script: str, message: str) -> None:
    folder = fake_ssh(script)
    with pytest.raises(RuntimeFailure) as caught:
        choose_runtime(here()).load(model)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert (folder / "count").read_text().count("\n") == 1  # what is wrong from the start is not tried again


@needs_a_runtime
def test_a_package_that_is_missing(model: bytes, fake_ssh, tmp_path: Path) -> None:
    fake_ssh()
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift\ncode=$1; shift\nexec {sys.executable} -c "import sys; sys.modules[\'tflite_runtime\'] = None; sys.modules[\'ai_edge_litert\'] = None; $code" "$@"\n')  # fmt: skip
    python.chmod(0o755)
    with pytest.raises(RuntimeFailure, match=r"neither of tflite_runtime.*pip install tflite-runtime"):
        choose_runtime(here(python=str(python))).load(model)


def test_a_hostile_python_is_only_a_name(model: bytes, fake_ssh, tmp_path: Path) -> None:
    fake_ssh()
    victim = tmp_path / "made"
    with pytest.raises(RuntimeFailure, match="expected a Python at"):
        choose_runtime(here(python=f"x'; touch {victim}; $(touch {victim}) `touch {victim}` \"")).load(model)
    assert not victim.exists()


def test_inputs_are_sent_once() -> None:
    class Process:
        def __init__(self) -> None:
            self.sent: list[int] = []

        def ask(self, header, arrays, limit_s=None, answers=()):
            assert header["same_inputs"] == (not len(arrays))
            self.sent.append(sum(a.nbytes for a in arrays))
            return {"times_ns": [1], "peak_memory_bytes": 1, "overall_memory_bytes": 1}, []

    process = Process()
    session = WorkerSession(process, 0)
    x = X.copy()
    for _ in range(3):
        session.invoke([x])
    x[0, 0] += 1
    session.invoke([x])
    session.invoke([x.reshape(2, 128)])
    assert process.sent == [256, 0, 0, 256, 256]


@pytest.mark.parametrize(
    "wrong", [[], [np.zeros((2, 3), np.int8)] * 2, [np.zeros((2, 3), np.int32)], [np.zeros((2, 9), np.int8)]]
)
def test_arrays_that_are_no_outputs_of_the_model(model: bytes, wrong: list[np.ndarray]) -> None:
    class Process:
        def next_handle(self) -> int:
            return 0

        def ask(self, header, arrays, limit_s=None, answers=()):
            return {**dict.fromkeys(answers, 1), "times_ns": [1], "runtime": "r"}, wrong

    session = RemoteSession(Process, model, "builtin", 1)
    with pytest.raises(RuntimeFailure, match=r"expected outputs of the model, int8 .*, found"):
        session.invoke([X])
