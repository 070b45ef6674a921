"""Android devices through the real `adb` client: adb://[SERIAL][/KERNELS][?SETTINGS]; `adb://` is the only one there is.

SETTINGS are `python=PATH`, the device's Python, and `benchmark_model=FILE`, TFLite's tool built for the device, a file
here; joined by `&`.

Two ways to run a file there. TFLite's own `benchmark_model`, where the device has it in `/data/local/tmp` or the user
gives the program: it only measures. Or a Python with a TFLite runtime (as Termux has): the worker script is pushed and
speaks through `adb shell`, and so gives answers, too.

Everything that is pushed lies in a folder of its own under `/data/local/tmp`, which only adb's user can read and which
is removed at the end, by the device's own shell even where the connection was lost. Every command ends by printing its
exit status behind a mark: without the mark, the connection was lost, and the work is done once more from the start.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from converter.runtimes import worker
from converter.runtimes.benchmark_model import parse_report
from converter.runtimes.local import KERNELS, WorkerProcess
from converter.runtimes.remote import RemoteSession
from ir.errors import OptionError, RuntimeFailure

SCHEME = "adb://"
FOLDER = "/data/local/tmp"
TERMUX_PYTHON = "/data/data/com.termux/files/usr/bin/python3"
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_COMMAND_S, _PUSH_S, _TOOL_S = 60, 600, 300
_RECONNECT_S = 15
_SETTLE_S = 3  # until a device that is being connected is in a state that lasts
_PASSING = ("authorizing", "connecting", "offline")
_LOST = re.compile(r"closed|not found|offline|protocol fault|no devices|reset by peer|broken pipe|EOF", re.IGNORECASE)
# What is wrong with a device in one of adb's states, and what to do about it.
_STATES = {
    "unauthorized": ("it has not authorized this computer", "unlock it and accept the question about USB debugging"),
    "offline": ("it is offline", "connect it again, or restart it"),
    "authorizing": ("it is still being authorized", "accept the question on its screen, then try again"),
    "connecting": ("it is still connecting", "try again in a moment"),
}

T = TypeVar("T")


class ConnectionLost(RuntimeFailure):
    """The device went away in the middle of something."""


@dataclass(frozen=True, kw_only=True)
class AdbRuntime:
    """One Android device.

    Attributes:
      serial: as `adb devices` shows it (`R58M123`, `192.168.0.7:5555`); empty for the only device there is.
      kernels: `builtin`, `ref` or `xnnpack` (see `converter.runtimes.local`).
      python: the device's Python, for answers.
      tool: `benchmark_model` for measuring: a file here, which is pushed, or None for the device's own, if it has one.
      processors: to run on; empty for any.
      folder: where private folders are made; `adb`: the client.
    """

    serial: str = ""
    kernels: str = "builtin"
    threads: int = 1
    python: str = TERMUX_PYTHON
    tool: str | None = None
    processors: tuple[int, ...] = ()
    folder: str = FOLDER
    adb: str = "adb"

    def __post_init__(self) -> None:
        if self.serial and not _SERIAL.fullmatch(self.serial):
            raise OptionError(
                expected="a serial number as 'adb devices' shows it",
                found=f"'{self.serial}'",
                where="--runtime=adb://",
                fix="write adb://SERIAL, or adb:// for the only device",
            )

    @property
    def name(self) -> str:
        return f"{SCHEME}{self.serial}/{self.kernels}"

    @property
    def machine(self) -> str:
        """Where it runs: other machines can work at the same time."""
        return f"{SCHEME}{self.serial}"

    def load(self, model: bytes) -> RemoteSession:
        """Starts Python there and loads a model. Raises RuntimeFailure if there is no device or no Python."""
        device = self._connect()
        if "shell_v2" not in device.features():
            raise self._failure("a device that passes bytes through 'adb shell' (Android 7)", "it cannot", "update it")
        return RemoteSession(lambda: self._start_worker(device), model, self.kernels, self.threads)

    def measure(
        self, model: bytes, *, warmup: int, runs: int, min_seconds: float, max_seconds: float
    ) -> dict[str, float | None] | None:
        """Figures of `benchmark_model` under the keys of `benchmark --json`; None if neither side has the program."""
        device = self._connect()
        on_device = None if self.tool else device.program(f"{self.folder}/benchmark_model")
        if self.tool is None and on_device is None:
            return None
        if self.kernels == "ref":
            raise OptionError(
                expected="builtin or xnnpack",
                found="ref, which benchmark_model does not have",
                where=self.name,
                fix="choose one of them",
            )
        options = {
            "num_threads": self.threads,
            "use_xnnpack": "true" if self.kernels == "xnnpack" else "false",
            "warmup_runs": max(1, warmup),
            "warmup_min_secs": 0,
            "num_runs": runs,
            "min_secs": min_seconds,
            "max_secs": max_seconds,
        }
        arguments = " ".join(f"--{name}={value}" for name, value in options.items())

        def once() -> str:
            with _Private(device, self.folder) as there:
                there.push(model, "model.tflite")
                program = on_device or there.push(Path(self.tool or "").read_bytes(), "benchmark_model", mode="700")
                command = f"{self._pinned()}{shlex.quote(program)} --graph={there.quoted('model.tflite')} {arguments}"
                return device.run(f"{command} 2>&1", timeout=_TOOL_S + max_seconds)[1]

        return parse_report(device.retried(once), self.name)

    def _pinned(self) -> str:
        mask = sum(1 << n for n in set(self.processors))
        return f"taskset {mask:x} " if mask else ""

    def _connect(self) -> Device:
        if shutil.which(self.adb) is None:
            raise self._failure("the program adb", "it is not on the PATH", "install Android's platform tools")
        if self.tool is not None and not Path(self.tool).is_file():
            raise self._failure("a file", f"none at {self.tool}", "see --benchmark_model")
        return Device(adb=self.adb, serial=self.serial, where=self.name).found()

    def _start_worker(self, device: Device) -> WorkerProcess:
        """Pushes the script and starts it; the device's shell removes the folder when it ends or is hung up on."""

        def push() -> str:
            with _Private(device, self.folder) as there:
                there.push(Path(worker.__file__).read_bytes(), "worker.py")
                python = device.runnable(self.python)
                there.keep()
                folder, script = shlex.quote(there.path), there.quoted("worker.py")
                return (
                    f"trap 'exit 129' HUP TERM; trap {shlex.quote(f'rm -rf {folder}')} EXIT; "
                    f'{self._pinned()}{python} -u -c "$(cat {script})"; exit $?'
                )

        return _Worker(device.command("shell", "-T", device.retried(push)), self.name)

    def _failure(self, expected: str, found: str, fix: str) -> RuntimeFailure:
        return RuntimeFailure(expected=expected, found=found, where=self.name, fix=fix)


def parse_adb(
    name: str,
    *,
    threads: int = 1,
    processors: Sequence[int] = (),
    python: str | None = None,
    tool: str | None = None,
) -> AdbRuntime:
    """The device that a name means; `python` and `tool` where the name says none. Raises OptionError."""
    rest, _, settings = name.removeprefix(SCHEME).partition("?")
    serial, _, kernels = rest.partition("/")
    known = dict(text.partition("=")[::2] for text in settings.split("&")) if settings else {}
    if (kernels or KERNELS[0]) not in KERNELS or not set(known) <= {"python", "benchmark_model"}:
        raise OptionError(
            expected=f"adb://SERIAL/KERNELS?python=PATH&benchmark_model=FILE with kernels of {', '.join(KERNELS)}",
            found=f"'{name}'",
            where="--runtime",
            fix="all after adb:// may be missing",
        )
    return AdbRuntime(
        serial=serial,
        kernels=kernels or KERNELS[0],
        threads=threads,
        processors=tuple(processors),
        python=known.get("python") or python or TERMUX_PYTHON,
        tool=known.get("benchmark_model") or tool,
    )


class _Worker(WorkerProcess):
    """A worker at the other end of adb."""

    def refused(self, error: str) -> RuntimeFailure:
        """An error that the worker answered with."""
        if not error.startswith(("ImportError", "ModuleNotFoundError")):
            return super().refused(error)
        fix = "install one there: 'pip install tflite-runtime' or 'pip install ai-edge-litert', in Termux"
        return RuntimeFailure(
            expected="the device's Python to have a TFLite runtime", found=error, where=self.where, fix=fix
        )


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device and the client that reaches it; `abandoned`: folders that a lost connection left there."""

    adb: str
    serial: str
    where: str
    abandoned: list[str] = field(default_factory=list)

    def found(self) -> Device:
        """The device itself, once adb says that it can be used. Raises RuntimeFailure saying what it says instead."""
        known = self._known()
        if self.serial and self.serial not in known and ":" in self.serial:
            self._run([self.adb, "connect", self.serial], _RECONNECT_S)
            known = self._known()
        patience = time.monotonic() + _SETTLE_S
        while known.get(self.serial) in _PASSING and time.monotonic() < patience:
            time.sleep(0.1)
            known = self._known()
        serial = self.serial or (next(iter(known)) if len(known) == 1 else "")
        there = ", ".join(f"{name} ({state})" for name, state in known.items()) or "no device"
        if not serial:
            raise self._failure("one device" if known else "a device", there, "connect it, or name it: adb://SERIAL")
        if serial not in known:
            raise self._failure(f"the device {serial}", there, "connect it, and see 'adb devices'")
        state = known[serial]
        if state != "device":
            found, fix = _STATES.get(state, (f"it is in the state '{state}'", "see 'adb devices'"))
            raise self._failure(f"the device {serial} to be ready", found, fix)
        return dataclasses.replace(self, serial=serial)

    def _known(self) -> dict[str, str]:
        """Serial and state of every device."""
        done = self._run([self.adb, "devices"], _COMMAND_S)
        if done.returncode:
            raise self._failure("adb to list devices", _words(done), "see 'adb devices'")
        _, _, listed = done.stdout.decode(errors="replace").partition("List of devices attached")
        rows = (line.split(None, 1) for line in listed.splitlines())
        return {row[0]: row[1].strip() for row in rows if len(row) == 2}

    def features(self) -> set[str]:
        """What the device's side of adb can do."""
        return set(self._run(self.command("features"), _COMMAND_S).stdout.decode(errors="replace").split())

    def command(self, *arguments: str) -> list[str]:
        return [self.adb, "-s", self.serial, *arguments]

    def output(self, command: str, timeout: float = _COMMAND_S) -> str:
        """What a shell command of the device prints. Raises RuntimeFailure if it fails, ConnectionLost without end."""
        status, text = self.run(command, timeout)
        if status:
            last = text.strip().splitlines()[-1:] or [f"exit status {status}"]
            raise self._failure(f"'{command.split()[0]}' to succeed there", last[0], "see the device")
        return text

    def run(self, command: str, timeout: float = _COMMAND_S) -> tuple[int, str]:
        """Exit status and standard output of a shell command there. Raises ConnectionLost."""
        mark = f"intact-{secrets.token_hex(4)}-"
        done = self._run(self.command("shell", f"( {command} ); echo {mark}$?"), timeout)
        text, found, status = done.stdout.decode(errors="replace").replace("\r\n", "\n").rpartition(mark)
        if not found or not status.strip().isdigit():
            raise self._lost(_words(done))
        return int(status), text

    def push(self, file: str, there: str) -> None:
        """Copies a file to the device. Raises ConnectionLost, or RuntimeFailure if the device refuses it."""
        done = self._run(self.command("push", file, there), _PUSH_S)
        if done.returncode:
            words = _words(done)
            raise (
                self._lost(words)
                if _LOST.search(words)
                else self._failure("room for a file", words, "free space on the device")
            )

    def program(self, path: str) -> str | None:
        """The path, if the device has a program there."""
        return path if self.retried(lambda: self.run(f"test -x {shlex.quote(path)}"))[0] == 0 else None

    def runnable(self, python: str) -> str:
        """A command that starts a Python: directly, or as Termux where adb's own user may not. Raises RuntimeFailure."""
        quoted = shlex.quote(python)
        for command in (quoted, f"run-as com.termux {quoted}"):
            if self.run(f"{command} -c 'import numpy' 2>/dev/null")[0] == 0:
                return command
        raise self._failure(
            f"a Python with NumPy at {python}, or benchmark_model in {FOLDER} for measuring",
            "neither that adb's user could start",
            "install Python in Termux (a debuggable build, or a rooted device), name it with --remote_python, "
            "or push benchmark_model",
        )

    def retried(self, work: Callable[[], T]) -> T:
        """Does some work, and once more after connecting again if the connection is lost."""
        try:
            return work()
        except ConnectionLost:
            if ":" in self.serial:  # on the network: adb itself would try again only after some time
                self._run([self.adb, "disconnect", self.serial], _RECONNECT_S)
                self._run([self.adb, "connect", self.serial], _RECONNECT_S)
            else:
                self._run(self.command("wait-for-device"), _RECONNECT_S)
            self.found()
            while self.abandoned:
                self.run(f"rm -rf {shlex.quote(self.abandoned.pop())}")
            return work()

    def _run(self, command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(command, -1, error.stdout or b"", b"no answer in time")
        except OSError as error:
            raise self._failure("the program adb to run", error.strerror or str(error), "reinstall it") from error

    def _lost(self, words: str) -> ConnectionLost:
        return ConnectionLost(
            expected="the connection to the device to last",
            found=f"it was lost ({words or 'without a message'})",
            where=self.where,
            fix="check the cable or the network, and see 'adb devices'",
        )

    def _failure(self, expected: str, found: str, fix: str) -> RuntimeFailure:
        return RuntimeFailure(expected=expected, found=found, where=self.where, fix=fix)


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    """The line of a client's output that names the error, else the last one."""
    lines = (done.stderr + b"\n" + done.stdout).decode(errors="replace").strip().splitlines()
    return next((line.strip() for line in lines if "error" in line or "adb:" in line), lines[-1] if lines else "")


class _Private:
    """A folder on the device that only adb's user can read; removed at the end, unless it is kept."""

    def __init__(self, device: Device, folder: str) -> None:
        self._device, self._kept = device, False
        self.path = f"{folder}/intact.{secrets.token_hex(8)}"

    def __enter__(self) -> _Private:
        self._device.output(f"umask 077 && mkdir {shlex.quote(self.path)}")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._kept and kind is None:
            return
        try:
            self._device.run(f"rm -rf {shlex.quote(self.path)}")
        except ConnectionLost:
            self._device.abandoned.append(self.path)
            if kind is None:
                raise

    def push(self, content: bytes, name: str, mode: str = "600") -> str:
        """Copies bytes there; returns the path."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self._device.push(file.name, f"{self.path}/{name}")
        self._device.output(f"chmod {mode} {self.quoted(name)}")
        return f"{self.path}/{name}"

    def quoted(self, name: str) -> str:
        return shlex.quote(f"{self.path}/{name}")

    def keep(self) -> None:
        """From now on it is not removed at the end."""
        self._kept = True
