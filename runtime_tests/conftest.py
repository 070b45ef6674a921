"""Options of the suite for any runtime, and the emulated Raspberry Pi."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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


@pytest.fixture(scope="session")
def raspberry_pi_board() -> Iterator[raspberry_pi.Board]:
    """An emulated Raspberry Pi; skips where there can be none. Its root is made once for all processes and kept."""
    try:
        with raspberry_pi.running() as board:
            yield board
    except raspberry_pi.Unavailable as error:
        pytest.skip(f"no emulated Raspberry Pi: {error}")
