"""Devices reached by the real `ssh` client, such as a Raspberry Pi: ssh://[USER@]HOST[:PORT][/KERNELS][?SETTINGS].

SETTINGS are `python=PATH` (from the home folder; `python3` by default), `package=tflite-runtime` or `ai-edge-litert`
(by default the first that this Python has) and `config=FILE`, a configuration for ssh, where keys, known hosts and
proxies of a device are told. HOST may also be an alias of ~/.ssh/config.

One connection serves a model: through it the worker script goes to the device's Python, which runs it without storing
it, then the model, then inputs, each once. Nothing is written on the device, so nothing is left there, however it ends;
and the worker ends when the connection does. Host keys are always checked, and ssh never asks for a password.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.runtimes import worker
from converter.runtimes.local import KERNELS, PACKAGES, START_S, WorkerLost, WorkerProcess
from converter.runtimes.remote import RemoteSession
from ir.errors import OptionError, RuntimeFailure

SCHEME = "ssh://"
PYTHON = "python3"
_SETTINGS = ("python", "package", "config")
_NAME = re.compile(
    r"ssh://(?:(?P<user>\w[\w.-]*)@)?(?P<host>\w[\w.-]*|\[[0-9A-Fa-f:.]+(?:%\w+)?\])(?::(?P<port>\d{1,5}))?"
    r"(?:/(?P<kernels>[^?]*))?(?:\?(?P<settings>.*))?",
    re.ASCII,
)
# What is set here wins over the user's own configuration.
_OPTIONS = (
    "BatchMode=yes",  # no questions
    "StrictHostKeyChecking=yes",
    "NoHostAuthenticationForLocalhost=no",
    "ControlPath=none",  # a connection of its own, so that its loss and its host key are its own
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "LogLevel=INFO",  # its messages name what went wrong
    "ConnectTimeout=20",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
)
# Run there: says that it is ready, because shells may print before; takes the processors and the script's length.
_BOOT = (
    "import os, sys; p = sys.argv[1]; p and os.sched_setaffinity(0, map(int, p.split(','))); "
    "o = sys.stdout.buffer; o.write(b'intact: ready\\n'); o.flush(); "
    "exec(compile(sys.stdin.buffer.read(int(sys.argv[2])), 'worker.py', 'exec'))"
)
_SSH_FAILED, _NOT_EXECUTABLE, _NOT_FOUND, _BY_SIGNAL = 255, 126, 127, 128
# What ssh says, what that means, and what to do about it; {host} is the destination on ssh's command line.
_REFUSALS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "another host key than the known one",
        "make sure that it is your device, then remove the old key (ssh-keygen -R) and run 'ssh {host}' once",
    ),
    (
        "Host key verification failed",
        "a host key that is not known",
        "run 'ssh {host}' once, and accept the key if it is your device's",
    ),
    ("Permission denied", "permission denied", "set up a key: 'ssh-copy-id {host}'"),
    ("Too many authentication failures", "permission denied", "name the key in ~/.ssh/config, with IdentitiesOnly"),
    ("Could not resolve hostname", "no host of that name", "check the name"),
    ("Connection refused", "connection refused", "check the port, and that an ssh server runs there"),
    ("No route to host", "no route to it", "check the address, and that it is switched on"),
    ("timed out", "no answer in time", "check the address, and that it is switched on"),
)


@dataclass(frozen=True, kw_only=True)
class SshRuntime:
    """A Python with a TFLite runtime on a device.

    Attributes:
      host, user, port: where; without a user or a port, as ssh's configuration says.
      kernels, threads: of the interpreter (see `converter.runtimes.local`).
      python: the Python's path there, from the home folder.
      package: `tflite_runtime` or `ai_edge_litert`; empty for the first that is installed.
      config: a file for ssh's `-F`; None for ssh's own.
      processors: to run on; empty for any.
    """

    host: str
    user: str = ""
    port: int | None = None
    kernels: str = "builtin"
    threads: int = 1
    python: str = PYTHON
    package: str = ""
    config: str | None = None
    processors: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.machine}/{self.kernels}"

    @property
    def machine(self) -> str:
        """Where it runs: other machines can work at the same time."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{self.user}{'@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    def load(self, model: bytes) -> RemoteSession:
        """Connects, and loads a model. Raises RuntimeFailure, saying which part of that did not work."""
        return RemoteSession(lambda: SshWorker(self), model, self.kernels, self.threads, self.package)

    def command(self) -> list[str]:
        """What starts the worker there, as arguments."""
        options = [x for option in _OPTIONS for x in ("-o", option)]
        where = ["-F", self.config] if self.config else []
        where += ["-p", str(self.port)] if self.port else []
        where += ["-l", self.user] if self.user else []
        size = str(len(_script()))
        python = shlex.join([self.python, "-c", _BOOT, ",".join(map(str, self.processors)), size])
        # A shell that stays shows by its exit status how the Python ended; ssh itself exits with 255.
        return ["ssh", "-T", *options, *where, "--", self.host, shlex.join(["sh", "-c", f"{python}; exit $?"])]


def parse_ssh(name: str, *, threads: int = 1, processors: Sequence[int] = (), python: str | None = None) -> SshRuntime:
    """The device that a name means; `python` where the name says none. Raises OptionError."""
    found = _NAME.fullmatch(name)
    port = int(found["port"]) if found and found["port"] else None
    if not found or (port is not None and not 0 < port < 1 << 16):
        raise _refused(
            name, "ssh://USER@HOST:PORT/KERNELS?SETTINGS", "something else", "USER@ and all after HOST may be missing"
        )
    known = _settings(found["settings"] or "", name)
    kernels, package = found["kernels"] or KERNELS[0], known.get("package", "").replace("-", "_")
    if kernels not in KERNELS:
        raise _refused(name, f"one of {', '.join(KERNELS)}", f"'{kernels}'", "choose one of them")
    if package and package not in PACKAGES:
        raise _refused(name, f"package={' or '.join(PACKAGES.values())}", f"'{package}'", "choose one of them")
    config = Path(known["config"]).expanduser() if "config" in known else None
    if config is not None and not config.is_file():
        raise _refused(name, "a file of ssh's settings", f"none at {config}", "name one, or leave config out")
    return SshRuntime(
        host=found["host"].strip("[]"),
        user=found["user"] or "",
        port=port,
        kernels=kernels,
        threads=threads,
        python=(known.get("python") or python or PYTHON).removeprefix("~/"),
        package=package,
        config=None if config is None else str(config),
        processors=tuple(processors),
    )


def _settings(text: str, name: str) -> dict[str, str]:
    known = dict(x.partition("=")[::2] for x in text.split("&")) if text else {}
    for key, value in known.items():
        if key not in _SETTINGS or not value or not value.isprintable():
            raise _refused(
                name, f"settings {', '.join(_SETTINGS)}", f"'{key}={value}'", "write ?python=PATH&package=NAME"
            )
    return known


def _refused(name: str, expected: str, found: str, fix: str) -> OptionError:
    return OptionError(expected=expected, found=found, where=f"--runtime={name}", fix=fix)


def _script() -> bytes:
    return Path(worker.__file__).read_bytes()


class SshWorker(WorkerProcess):
    """A worker at the other end of an ssh connection."""

    def __init__(self, runtime: SshRuntime) -> None:
        if shutil.which("ssh") is None:
            raise RuntimeFailure(
                expected="the program ssh",
                found="it is not on the PATH",
                where=runtime.name,
                fix="install OpenSSH's client",
            )
        self._runtime, self._answered = runtime, False
        super().__init__(runtime.command(), runtime.name)
        assert self._process.stdin is not None and self._process.stdout is not None
        with self.talking(START_S):
            self.read_until_ready()
        self._answered, self.is_ready = True, False  # so far it is the loader
        try:
            self._process.stdin.write(_script())
            self._process.stdin.flush()
        except OSError as error:
            raise self.ended(str(error)) from error

    def refused(self, error: str) -> RuntimeFailure:
        """An error that the worker answered with."""
        if not error.startswith(("ImportError", "ModuleNotFoundError")):
            return super().refused(error)
        return self._failed("the device's Python to have a TFLite runtime", error, self._install())

    def ended(self, reason: str) -> RuntimeFailure:
        """The process ended, the one here or the one there: why, from its exit status and what it printed."""
        self.close()
        printed, status = self.stderr_text(), self._process.returncode
        self.end()
        last = printed.strip().splitlines()[-1:] or [reason]
        python, there = self._runtime.python, shlex.join(["ssh", self._destination])
        if status == _SSH_FAILED or status < 0:  # or ssh itself was killed
            for words, found, fix in _REFUSALS:
                if words in printed and not self._answered:
                    return self._failed("an ssh connection", found, fix.format(host=self._destination))
            fix = f"check the device and the network with '{there}'"
            if not self._answered:
                return self._failed("an ssh connection", last[0], fix)
            found = f"it was lost ({last[0]})"
            return WorkerLost(expected="the connection to last", found=found, where=self.where, fix=fix)
        if status in (_NOT_FOUND, _NOT_EXECUTABLE):
            return self._failed(f"a Python at {python} there", last[0], "name one that is there: ?python=PATH")
        if "No module named" in printed:
            return self._failed("the device's Python to have NumPy", last[0], self._install())
        if status > _BY_SIGNAL:
            number = status - _BY_SIGNAL
            what = f"signal {number} ({signal.strsignal(number) or 'unknown'})"
            return self._failed(
                "the worker there to go on", f"it was ended by {what}", "see the device's memory and log"
            )
        return self._failed("the worker there to go on", last[0], f"try '{there} {python} --version'")

    @property
    def _destination(self) -> str:
        """What a person writes after `ssh`."""
        runtime = self._runtime
        where = ["-F", runtime.config] if runtime.config else []
        where += ["-p", str(runtime.port)] if runtime.port else []
        return shlex.join([*where, f"{runtime.user}{'@' if runtime.user else ''}{runtime.host}"])

    def _install(self) -> str:
        packages = "ai-edge-litert" if self._runtime.package == "ai_edge_litert" else 'tflite-runtime "numpy<2"'
        return f"install it there, with '{self._runtime.python} -m pip install {packages}', or name another Python"

    def _failed(self, expected: str, found: str, fix: str) -> RuntimeFailure:
        return RuntimeFailure(expected=expected, found=found, where=self.where, fix=fix)
