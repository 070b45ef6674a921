"""Runtimes by name, as the commands take them.

emulator            the emulator of tflite-runtime's built-in kernels; emulator/PROFILE for another (see `ir.profile`)
local               the first runtime installed here, by its built-in kernels; local/KERNELS with builtin, ref or xnnpack
tflite-runtime, ai-edge-litert   that package, here; also with /KERNELS
tflm                TensorFlow Lite Micro, here: the package tflite-micro, built for this machine's processor
ssh://USER@HOST     a Raspberry Pi or another device with Python, by ssh; ssh://USER@HOST:PORT/KERNELS (see `ssh.py`)
adb://SERIAL        an Android device, adb:// for the only one; adb://SERIAL/KERNELS (see `adb.py`)
"""

from __future__ import annotations

from collections.abc import Sequence

from converter.runtimes import adb, ssh
from converter.runtimes.base import ModelRuntime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import KERNELS, MICRO, MICRO_KERNELS, PACKAGES, LocalRuntime, installed_packages
from ir.errors import OptionError, RuntimeFailure
from ir.profile import EMULATED

EMULATOR, LOCAL, TFLM = "emulator", "local", "tflm"
USUAL = "ai-edge-litert/xnnpack"  # LiteRT as an interpreter is made without options: with its default delegate
_TIMED = (USUAL, "ai-edge-litert/builtin", "tflite-runtime/builtin")


def timed_here() -> tuple[str, ...]:
    """The names of the installed runtimes in the order in which users meet them."""
    installed = {PACKAGES[package] for package in installed_packages()}
    return tuple(name for name in _TIMED if name.partition("/")[0] in installed)


def choose_runtime(
    name: str,
    *,
    threads: int = 1,
    own_process: bool = False,
    processors: Sequence[int] = (),
    remote_python: str | None = None,
    benchmark_model: str | None = None,
) -> ModelRuntime:
    """A runtime by its name. Raises OptionError if there is none of that name, RuntimeFailure if none is installed.

    Args:
      threads: of an interpreter.
      own_process: a local interpreter shares its process with no other.
      processors: of a device, to run on; empty for any.
      remote_python: the Python of a device; by default where it usually is.
      benchmark_model: TFLite's benchmark tool built for a device, a file here.
    """
    if name.startswith(adb.SCHEME):
        return adb.parse_adb(name, threads=threads, processors=processors, python=remote_python, tool=benchmark_model)
    if name.startswith(ssh.SCHEME):
        return ssh.parse_ssh(name, threads=threads, processors=processors, python=remote_python)
    kind, _, part = name.partition("/")
    if kind == EMULATOR:
        return EmulatorRuntime(EMULATED[_one_of(part or "builtin", list(EMULATED), name)])
    packages = {package.replace("_", "-"): package for package in PACKAGES}
    _one_of(kind, [EMULATOR, LOCAL, *packages, TFLM, f"{ssh.SCHEME}HOST", f"{adb.SCHEME}SERIAL"], name)
    if kind == TFLM:
        kernels = _one_of(part or MICRO_KERNELS, [MICRO_KERNELS], name)
        return LocalRuntime(package=MICRO, kernels=kernels, own_process=own_process)
    package = packages.get(kind) or _first_installed()
    kernels = _one_of(part or "builtin", list(KERNELS), name)
    return LocalRuntime(package=package, kernels=kernels, threads=threads, own_process=own_process)


def _one_of(value: str, known: list[str], name: str) -> str:
    if value not in known:
        raise OptionError(
            expected=f"one of {', '.join(known)}",
            found=f"'{value}'",
            where=f"--runtime={name}",
            fix="choose one of them",
        )
    return value


def _first_installed() -> str:
    packages = installed_packages()
    if not packages:
        raise RuntimeFailure(
            expected="tflite-runtime or ai-edge-litert",
            found="neither is installed",
            where="--runtime=local",
            fix="install one of them, or use --runtime=emulator",
        )
    return packages[0]
