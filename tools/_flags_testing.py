"""Runs a command with flags of its own in the process of a test, beside other commands that define the same names."""

from __future__ import annotations

from types import ModuleType
from typing import Any
from unittest import mock

from absl import flags

from tools._command import console


def run_with_flags(command: ModuleType, **given: Any) -> str:
    """What the `main` of a command prints; the module must have `define_flags(values)` and `FLAGS`."""
    values = flags.FlagValues()
    command.define_flags(values)
    values.mark_as_parsed()
    for name, value in given.items():
        setattr(values, name, value)
    with mock.patch.object(command, "FLAGS", values), console.capture() as captured:
        command.main()
    return captured.get()
