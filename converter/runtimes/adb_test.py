"""The real adb client against a device that speaks its wire protocol on the loopback; what that does not carry (a
device that is offline, one without permissions) by a program in adb's place that prints adb's words.

The device runs commands on this machine: `benchmark_model` there is a script that prints a report; Python is this one.
"""

import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from converter.benchmarking import Options, benchmark_all
from converter.runtimes import local
from converter.runtimes.adb import AdbRuntime
from converter.runtimes.adb_testing import FakeDevice
from converter.runtimes.benchmark_model_test import NEW
from converter.runtimes.choose import choose_runtime
from converter.tflite.model_file import parse
from ir.errors import OptionError, RuntimeFailure

ROOT = Path(__file__).parents[2]
needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed (Debian: adb)")
needs_runtime = pytest.mark.skipif(not local.installed_packages(), reason="no TFLite runtime is installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An adb server of our own, on a port of its own; ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    patch = pytest.MonkeyPatch()
    patch.setenv("ANDROID_ADB_SERVER_PORT", port)
    patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # adb keeps its key there
    subprocess.run(["adb", "start-server"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    yield
    subprocess.run(["adb", "kill-server"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    patch.undo()


@pytest.fixture
def make_device(server):
    made: list[FakeDevice] = []

    def make(**options) -> FakeDevice:
        made.append(FakeDevice(**options))
        return made[-1]

    yield make
    for device in made:
        device.close()
        subprocess.run(["adb", "disconnect", device.serial], capture_output=True, check=False)


@pytest.fixture
def device(make_device):
    return make_device()


def runtime(device: FakeDevice, folder: Path, **options) -> AdbRuntime:
    return AdbRuntime(**{"serial": device.serial, "folder": str(folder), "python": sys.executable, **options})


def left(folder: Path) -> list[str]:
    """What lies in a folder once the device's shells have ended."""
    deadline = time.monotonic() + 10
    while list(folder.glob("intact.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return sorted(p.name for p in folder.iterdir())


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(scope="module")
def model() -> bytes:
    import keras

    from converter.conversion import convert

    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((4,), batch_size=1), keras.layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return convert(network, calibration_data=[x], check=False).model


@pytest.fixture(scope="module")
def inputs(model) -> list[np.ndarray]:
    tensor = parse(model).main.tensors[parse(model).main.inputs[0]]
    return [np.random.default_rng(1).integers(-128, 128, (5, *tensor.shape[1:])).astype(np.int8)]


@needs_adb
@needs_runtime
def test_a_python_on_the_device_gives_what_the_emulator_gives(device, tmp_path, model, inputs):
    session = runtime(device, tmp_path).load(model)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (*tmp_path.iterdir(), *tmp_path.glob("*/*"))]
    assert modes == [0o700, 0o600]
    (found,) = session.invoke(inputs, repeats=2)
    (expected,) = choose_runtime("emulator/ref").load(model).invoke(inputs)
    np.testing.assert_array_equal(found, expected)
    assert len(session.timing.times_ns) == 10 and session.timing.load_ns > 0
    session.close()
    assert left(tmp_path) == []


@needs_adb
@needs_runtime
def test_a_line_before_the_workers_does_not_stop_it(device, tmp_path, model, inputs):
    python = executable(tmp_path / "python", f'#!/bin/sh\necho "Welcome"; exec {sys.executable} "$@"\n')
    session = runtime(device, tmp_path, python=str(python)).load(model)
    (found,) = session.invoke(inputs)
    np.testing.assert_array_equal(found, choose_runtime("emulator/ref").load(model).invoke(inputs)[0])
    session.close()


@needs_adb
@needs_runtime
def test_a_lost_connection_is_made_again_once(device, tmp_path, model, inputs):
    session = runtime(device, tmp_path).load(model)
    (before,) = session.invoke(inputs)
    device.drop()
    (after,) = session.invoke(inputs)
    np.testing.assert_array_equal(before, after)
    device.close()
    with pytest.raises(RuntimeFailure, match=device.serial):
        session.invoke(inputs)
    session.close()
    assert left(tmp_path) == []  # the first worker's folder and the second one's


@needs_adb
def test_the_devices_own_tool_measures(device, tmp_path):
    executable(tmp_path / "benchmark_model", f"#!/bin/sh\necho \"$@\" >&2\ncat <<'END'\n{NEW}END\n")
    figures = runtime(device, tmp_path, threads=3).measure(
        b"model", warmup=7, runs=1000, min_seconds=0.5, max_seconds=9
    )
    assert figures["count"] == 1000 and figures["median_ms"] == 51.891
    (command,) = [c for c in device.commands if "--graph" in c]
    for part in ("--num_threads=3", "--use_xnnpack=false", "--warmup_runs=7", "--num_runs=1000", "--max_secs=9"):
        assert part in command
    assert left(tmp_path) == ["benchmark_model"]


@needs_adb
def test_devices_are_measured_at_once(make_device, tmp_path):
    """Each device's tool waits for the other's to have started."""
    running = threading.Barrier(2, timeout=20)
    runtimes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        executable(tmp_path / name / "benchmark_model", f"#!/bin/sh\ncat <<'END'\n{NEW}END\n")
        device = make_device(before=lambda command: running.wait() if "--graph" in command else None)
        runtimes.append(runtime(device, tmp_path / name))
    found = benchmark_all(b"model", runtimes, Options(warmup=1, runs=1, min_seconds=0))
    assert [r.error for r in found] == [None, None]
    assert [r.as_json()["median_ms"] for r in found] == [51.891, 51.891]
    assert found[0].as_json()["measured_by"] == "benchmark_model"


@needs_adb
def test_a_tool_of_the_user_is_pushed_and_taken_away(device, tmp_path):
    there = tmp_path / "there with space's"
    there.mkdir()
    tool = executable(
        tmp_path / "mine", '#!/bin/sh\nfor a; do case $a in --graph=*) cat "${a#*=}" >&2;; esac; done; exit 3\n'
    )
    mine = runtime(device, there, tool=str(tool))
    with pytest.raises(RuntimeFailure, match="it stopped with 'the very model'"):
        mine.measure(b"the very model", warmup=1, runs=1, min_seconds=0, max_seconds=1)
    assert left(there) == []


@needs_adb
def test_without_tool_there_is_nothing_to_measure_with(device, tmp_path):
    assert runtime(device, tmp_path).measure(b"", warmup=1, runs=1, min_seconds=0, max_seconds=1) is None


@needs_adb
def test_a_connection_that_is_lost_while_measuring_is_tried_once_more(device, tmp_path):
    executable(tmp_path / "benchmark_model", f"#!/bin/sh\ncat <<'END'\n{NEW}END\n")
    lost = []

    def before(command: str) -> None:
        if "--graph" in command and len(lost) < most:
            lost.append(command)
            device.drop()
            time.sleep(0.2)

    device.before, most = before, 1
    mine, options = runtime(device, tmp_path), {"warmup": 1, "runs": 1, "min_seconds": 0, "max_seconds": 1}
    assert mine.measure(b"model", **options)["count"] == 1000
    assert left(tmp_path) == ["benchmark_model"]
    lost, most = [], 2
    with pytest.raises(RuntimeFailure, match="the connection to the device to last, found it was lost"):
        mine.measure(b"model", **options)


@needs_adb
def test_no_python_on_the_device(device, tmp_path):
    with pytest.raises(RuntimeFailure, match="a Python with NumPy at /no/python"):
        runtime(device, tmp_path, python="/no/python").load(b"")
    assert left(tmp_path) == []


@needs_adb
def test_an_old_device_cannot_pass_bytes(make_device, tmp_path):
    with pytest.raises(RuntimeFailure, match="Android 7"):
        runtime(make_device(features="cmd"), tmp_path).load(b"")


@needs_adb
def test_a_device_that_does_not_trust_this_computer(make_device, tmp_path):
    with pytest.raises(RuntimeFailure, match="has not authorized this computer; unlock it"):
        runtime(make_device(authorized=False), tmp_path).load(b"")


@needs_adb
def test_no_such_device(server):
    with pytest.raises(RuntimeFailure, match="expected the device R58M, found no device; connect it"):
        AdbRuntime(serial="R58M").load(b"")
    with pytest.raises(RuntimeFailure, match="expected a device, found no device"):
        AdbRuntime().load(b"")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("R58M\toffline", "it is offline; connect it again"),
        ("R58M\tno permissions; see [http://developer.android.com]", "in the state 'no permissions"),
        ("other\tdevice", r"found other \(device\); connect it"),
    ],
)
def test_words_of_a_program_in_adbs_place(tmp_path, listed, message):
    program = executable(
        tmp_path / "adb", f"#!/bin/sh\nprintf '* daemon started\\nList of devices attached\\n{listed}\\n'\n"
    )
    with pytest.raises(RuntimeFailure, match=message):
        AdbRuntime(serial="R58M", adb=str(program)).load(b"")


def test_no_adb():
    with pytest.raises(RuntimeFailure, match="it is not on the PATH; install Android's platform tools"):
        AdbRuntime(serial="R58M", adb="no-such-adb").load(b"")


@needs_adb
def test_a_python_without_a_runtime(device, tmp_path):
    python = executable(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: no site packages
    site = Path(np.__file__).parents[1]
    device.environment["PYTHONPATH"] = str(tmp_path / "path")
    (tmp_path / "path").mkdir()
    for name in ("numpy", "numpy.libs"):
        (tmp_path / "path" / name).symlink_to(site / name)
    with pytest.raises(RuntimeFailure, match="a TFLite runtime, found ImportError: neither of tflite_runtime"):
        runtime(device, tmp_path, python=str(python)).load(b"model")
    assert left(tmp_path) == ["path", "python"]


def test_names():
    found = choose_runtime("adb://192.168.0.7:5555/xnnpack?python=/p&benchmark_model=b", threads=2, remote_python="/q")
    assert found == AdbRuntime(serial="192.168.0.7:5555", kernels="xnnpack", python="/p", tool="b", threads=2)
    assert choose_runtime("adb://", remote_python="/q") == AdbRuntime(python="/q")
    for wrong in ("adb://x/fast", "adb://x?pyton=/p"):
        with pytest.raises(OptionError, match="python=PATH"):
            choose_runtime(wrong)


@pytest.mark.parametrize("serial", ["-d", "a b", "x;reboot", "$(id)", "x" * 200])
def test_serials_that_are_none(serial):
    with pytest.raises(OptionError, match="serial number"):
        AdbRuntime(serial=serial)
