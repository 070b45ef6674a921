"""What every command shares: flags, exit status, JSON beside the tables, progress bars."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import app, flags
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from converter.backend import choose_backend
from converter.outputs import check_apart, check_place, write_atomically, written
from converter.report import FILES
from ir.errors import ConversionError, OptionError, ProofError
from passes.contract import options

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

DONE, USERS_MISTAKE, OURS = 0, 1, 2
SEEDS = {"lower_bound": options.SEEDS.least, "upper_bound": options.SEEDS.most}  # of a flag


def run_command(
    main: Callable[..., None], flag_values: flags.FlagValues = flags.FLAGS, *, positional: bool = False
) -> None:
    """Parses flags and runs a command: exit status 0 done, 1 the user's to correct (one sentence), 2 ours.

    With `positional`, what is no flag is passed to `main` as a list; else it is an error.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)

    def guarded(argv: list[str]) -> int:
        if len(argv) > 1 and not positional:
            return say_error(f"expected only flags, found '{argv[1]}'; see --help.")
        with written() as files:
            return _run(lambda: main(argv[1:]) if positional else main(), argv[1:], flag_values, files)

    if {"-h", "-help", "--help"} & set(sys.argv[1:]):
        sys.exit(_help(sys.modules[main.__module__].__doc__ or ""))
    try:
        app.run(guarded, flags_parser=_parse)
    except flags.Error as error:
        sys.exit(say_error(str(error)))


def run_own_command(main: Callable[..., None], own: flags.FlagValues) -> None:
    """The same for a command whose flags stand apart until it runs, since other commands have some of the same names."""
    flags.FLAGS.append_flag_values(own)
    own.mark_as_parsed()  # the flags are shared: what is parsed of one is there of the other
    run_command(main)


def _run(main: Callable[[], None], arguments: list[str], flag_values: flags.FlagValues, files: list[str]) -> int:
    """The exit status of a command; `files`: those that it has written, which an interruption tells of."""
    try:
        check_files(arguments, flag_values)  # better before the work than after it
        main()
    except ConversionError as error:
        return say_error(f"{error} {_listed(files)} had been written." if files else str(error))
    except ProofError as error:
        say_error(str(error))
        return OURS
    except KeyboardInterrupt:
        return say_error(f"interrupted; {f'{_listed(files)} had been written' if files else 'nothing was written'}.")
    except Exception:  # whatever else is raised is a fault of ours: it is shown whole, for the report
        traceback.print_exc()
        say_error("this is a fault of the tool, not of your input; please report the lines above.")
        return OURS
    return DONE


def _listed(files: list[str]) -> str:
    *others, last = files
    return f"{', '.join(others)} and {last}" if others else last


# What flags of all commands name. A flag that names a file belongs in one of the two.
_READ = (
    "model", "weights", "calibration_data", "test_data", "tuning_data", "tuning_labels", "labels", "data", "float_model", "diff",
    "edgetpu_log", "bits", "options",
)  # fmt: skip
_WRITTEN = ("output", "json", "c_array", "write_bits", "write_front")


def check_files(
    arguments: list[str], flag_values: flags.FlagValues = flags.FLAGS, *, more: Mapping[str, str] | None = None
) -> None:
    """Raises OutputError where a file cannot be written, or would take the place of one that is read or written.

    Args:
      more: other files that are written, by what they are.
    """

    def named(names: tuple[str, ...]) -> dict[str, Any]:
        return {f"--{name}": flag_values[name].value for name in names if name in flag_values}

    reads, writes = {**dict(zip(arguments, arguments, strict=True)), **named(_READ)}, named(_WRITTEN)
    for path in filter(None, writes.values()):
        check_place(path)
    if "report" in flag_values and flag_values.report:
        writes |= {f"--report ({name})": Path(flag_values.report) / name for name in FILES}
    check_apart(reads, {**writes, **(more or {})})


def _parse(argv: list[str]) -> list[str]:
    try:
        left: list[str] = flags.FLAGS([_expanded(argument) for argument in argv])
    except flags.Error as error:
        sys.exit(say_error(f"{str(error).rstrip('. ?')}; see --help."))
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            sys.exit(say_error(f"--{name}: expected a finite number, found {value}; see --help."))
    return left


def _expanded(argument: str) -> str:
    """`--flag=~/file` with the home folder, which shells expand only where it begins a word."""
    name, equals, value = argument.partition("=")
    return f"{name}={os.path.expanduser(value)}" if equals and value.startswith("~") else argument


def _help(about: str) -> int:
    """Prints what a command does and its flags in the order of their definition; absl knows no flags of scripts."""
    table = Table.grid(padding=(0, 2))
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in () if module.startswith("absl") else defined:
            name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
            text = " ".join(flag.help.partition(";\n")[0].split())  # absl adds a line to flags that are lists ...
            if text.startswith("<"):  # ... and the choices, in one word
                text = text.replace("|", ", ", text.partition(">")[0].count("|"))
            table.add_row(plain(name), plain(f"{text}{_default(flag.default)}"))
    console.print(f"{about.strip()}\n", markup=False, soft_wrap=True)
    console.print(table)
    return DONE


def _default(value: Any) -> str:
    shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return "" if value is None or value is False or shown == "" else f" Default: {shown}."


def say_error(sentence: str) -> int:
    errors.print(f"[red]error:[/red] {plain(sentence)}", soft_wrap=True)
    return USERS_MISTAKE


def one_argument(
    arguments: list[str],
    flagged: str | None,
    *,
    command: str,
    kind: str = ".tflite file",
    flag: str = "model",
    fix: str = "",
) -> str:
    """What a command works on: its argument, or the flag that may stand for it. Raises OptionError for none or two."""
    named = [*arguments, *([flagged] if flagged else [])]
    if len(named) == 1:
        return named[0]
    raise OptionError(
        expected=f"one {kind}",
        found=" and ".join(named) if named else "none",
        where=command,
        fix=f"run intact {command} {'FILE' if flag == 'model' else flag.upper()}{fix and f', {fix}'}; --help shows examples",
    )


def import_backend() -> None:
    """Imports Keras and its backend with their start-up messages muted: no user needs them."""
    choose_backend()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with _absent("matplotlib.pyplot", "sklearn"):
            import keras

        keras.ops.zeros(())
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _absent(*modules: str) -> Iterator[None]:
    """As if these were not installed: Keras imports them for parts that no command uses, which takes half a second each."""
    hidden: dict[str, Any] = dict.fromkeys(name for name in modules if name not in sys.modules)
    sys.modules.update(hidden)  # None stands for "not there" in the import system
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def plain(text: str) -> str:
    """Text as it is, for a console that reads markup."""
    return text.replace("[", r"\[")


def write_json(path: str | None, content: dict[str, Any] | list[Any]) -> None:
    """Writes what a command showed, under its documented keys."""
    if path:
        write_atomically(Path(path), (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per kind of work, on the terminal's error output; silent where that is no terminal.

    The kind is what stands before the first comma of the text; what follows may change as the work goes on.
    """
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            kind = what.partition(",")[0]
            if kind not in tasks:
                tasks[kind] = bar.add_task(what, total=total)
            bar.update(tasks[kind], description=what, completed=done, total=total)
            if done >= total:
                bar.remove_task(tasks.pop(kind))

        yield update
