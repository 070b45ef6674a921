"""Runtimes by name, as the commands take them.

emulator            the emulator of tflite-runtime's built-in kernels; emulator/PROFILE for another (see `ir.profile`)
local               the first runtime installed here; local/KERNELS with builtin, ref or xnnpack
tflite-runtime, ai-edge-litert   that package, here; also with /KERNELS
"""

from __future__ import annotations

from converter.runtimes.base import ModelRuntime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import KERNELS, PACKAGES, LocalRuntime, installed_packages
from ir.errors import OptionError, RuntimeFailure
from ir.profile import PROFILES

EMULATOR, LOCAL = "emulator", "local"


def choose_runtime(name: str, *, threads: int = 1) -> ModelRuntime:
    """A runtime by its name. Raises OptionError if there is none of that name, RuntimeFailure if none is installed."""
    kind, _, part = name.partition("/")
    if kind == EMULATOR:
        return EmulatorRuntime(PROFILES[_one_of(part or "builtin", list(PROFILES), name)])
    packages = {package.replace("_", "-"): package for package in PACKAGES}
    _one_of(kind, [EMULATOR, LOCAL, *packages], name)
    package = packages.get(kind) or _first_installed()
    return LocalRuntime(package=package, kernels=_one_of(part or "builtin", list(KERNELS), name), threads=threads)


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
