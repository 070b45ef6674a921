"""Converts trained networks into TFLite files that compute in integers only, and looks after such files.

    intact convert model.keras --calibration_data=pictures/ --preprocess=tf --target=edgetpu
    intact inspect model.tflite --target=edgetpu
    intact evaluate model.tflite --data=test.npz --float_model=model.keras
    intact benchmark model.tflite
    intact survey models/

Commands; each has --help:
"""

from __future__ import annotations

import difflib
import importlib
import sys
from types import ModuleType

from tools._command import console, say_error

_COMMANDS = ("convert", "inspect", "evaluate", "benchmark", "survey", "completion")


def command_module(name: str) -> ModuleType:
    """The module of a command, which has its flags, `run` and, in its docstring, what it does."""
    return importlib.import_module(f"{__package__}.{name}")


def run() -> None:
    """Entry point of `intact`: hands what follows the command's name to it."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "-help", "--help", "help"):
        sys.exit(_help())
    if name in ("--version", "-V", "version"):
        from converter.version import VERSION

        console.print(f"intact {VERSION}")
        sys.exit(0)
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        meant = near[0] if near else f"convert {name}" if "." in name or "/" in name else "--help"
        sys.exit(say_error(f"expected a command ({', '.join(_COMMANDS)}), found '{name}'; try intact {meant}."))
    sys.argv = [f"intact {name}", *arguments]
    try:
        command = command_module(name)
    except KeyboardInterrupt:  # later on, the command says what was written
        sys.exit(say_error("interrupted; nothing was written."))
    command.run()


def _help() -> int:
    console.print((__doc__ or "").strip(), markup=False, soft_wrap=True)
    for name in _COMMANDS:
        first = (command_module(name).__doc__ or "").strip().splitlines()[0]
        console.print(f"  {name:<11}{first.partition(': ')[2]}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    run()
