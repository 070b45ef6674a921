"""Options of the suite for any runtime, and the emulated Raspberry Pi."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_tests import proved
from tools import raspberry_pi

FIGURES = "figures"  # the user property of a test under which a line for the summary is kept


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("runtimes", "runtime_suite_test.py")
    group.addoption("--runtime", action="append", help="a runtime as the commands name it, or raspberry-pi; repeatable")
    group.addoption("--model", help="an integer .tflite file; the shipped network by default")
    group.addoption("--data", help="real samples for it: .npz, .npy or a folder of images; random ones by default")
    group.addoption("--preprocess", default="none", help="of images, in Keras's words")
    group.addoption("--samples", type=int, default=16, help="how many")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the suite measured, whatever else is shown."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    lines = [line for r in reports if r.when == "call" for key, line in r.user_properties if key == FIGURES]
    if lines:
        terminalreporter.section(FIGURES)
        for line in lines:
            terminalreporter.line(line)
    if _is_whole_run(terminalreporter.config) and (missing := proved.missing(proved.PROVED)):
        terminalreporter.section("operators without a test that holds them to real kernels", red=True)
        for line in missing:
            terminalreporter.line(line)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A whole run in which an operator was not held to real kernels fails."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["proved"] = sorted(proved.PROVED)
    elif exitstatus == pytest.ExitCode.OK and _is_whole_run(session.config) and proved.missing(proved.PROVED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a process of pytest-xdist proved."""
    proved.PROVED.update(tuple(proof) for proof in getattr(node, "workeroutput", {}).get("proved", ()))


def _is_whole_run(config: pytest.Config) -> bool:
    """Whether all tests of this folder were asked for."""
    here = Path(__file__).resolve().parent
    folders = [(config.invocation_params.dir / argument).resolve() for argument in config.args]
    chosen = any(getattr(config.option, name, False) for name in ("keyword", "markexpr", "collectonly", "lf"))
    return not chosen and any(folder == here or folder in here.parents for folder in folders)


@pytest.fixture(scope="session")
def raspberry_pi_board() -> Iterator[raspberry_pi.Board]:
    """An emulated Raspberry Pi; skips where there can be none. Its root is made once for all processes and kept."""
    try:
        with raspberry_pi.running() as board:
            yield board
    except raspberry_pi.Unavailable as error:
        pytest.skip(f"no emulated Raspberry Pi: {error}")
