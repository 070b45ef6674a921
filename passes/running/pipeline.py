"""Pipelines as text: `fold_batch_norm,calibrate{method=kl},quantize`; and the named ones.

Every `Pass` subclass of the packages of `passes` is found by its name; its fields are the options between the braces.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import passes as package
from ir.errors import OptionError
from passes.channels.reuse_channels import ReuseChannels
from passes.contract.base import Pass
from passes.contract.options import Names
from passes.quantization.lower import IO_TYPES
from passes.quantization.quantize import Quantize
from passes.quantization.tied import NARROW


def _discover() -> dict[str, type[Pass]]:
    found: dict[str, type[Pass]] = {}
    for module in sorted(pkgutil.walk_packages(package.__path__, f"{package.__name__}."), key=lambda m: m.name):
        if module.name.endswith(("_test", "_testing")) or module.name == __name__:
            continue
        for member in vars(importlib.import_module(module.name)).values():
            if type(member) is abc.ABCMeta and issubclass(member, Pass) and not inspect.isabstract(member):
                found[member.name] = member
    return found


def registry() -> dict[str, type[Pass]]:
    """All passes by name."""
    return _discover()


_ITEM = re.compile(r"\s*([a-z0-9_]+)\s*(?:\{([^{}]*)\})?\s*(?:,|$)")


def parse(text: str) -> list[Pass]:
    """Passes with options, from text. Raises OptionError naming the pass or option that is not known."""
    known, result, position = registry(), [], 0
    while position < len(text.rstrip()):
        match = _ITEM.match(text, position)
        if match is None:
            raise OptionError(
                expected="passes like a,b{option=value}",
                found=text[position:],
                where="--passes",
                fix="see --list_passes",
            )
        name, options = match.groups()
        if name not in known:
            raise OptionError(
                expected=f"a pass of {', '.join(sorted(known))}", found=name, where="--passes", fix="see --list_passes"
            )
        result.append(make(known[name], dict(option_of(o, name) for o in (options or "").split())))
        position = match.end()
    return result


def option_of(text: str, name: str) -> tuple[str, str]:
    """An option of a pass and its value, from `option=value`. Raises OptionError where there is none."""
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(
            expected="option=value", found=text, where=f"pass {name}", fix="write {option=value option=value}"
        )
    return key, value


def make(kind: type[Pass], options: Mapping[str, str]) -> Pass:
    """A pass from its options as text. Raises OptionError for an unknown option or a value of the wrong type."""
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in fields:
            raise OptionError(
                expected=f"an option of {', '.join(sorted(fields)) or 'none'}",
                found=key,
                where=f"pass {kind.name}",
                fix="see --list_passes",
            )
        values[key] = _value(hints[key], text, f"pass {kind.name}, option {key}")
    return kind(**values)


def _value(kind: Any, text: str, where: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        return kind(text) if kind in (int, float) else text
    except (ValueError, KeyError):
        raise OptionError(expected=kind.__name__, found=text, where=where, fix="write another value") from None


def to_text(passes: Sequence[Pass]) -> str:
    """The text that `parse` reads back."""
    return ",".join(map(str, passes))


class Choice(enum.Enum):
    """What a conversion chooses, and options of passes follow."""

    GRANULARITY = "granularity"
    IO = "io"


class Part(enum.Enum):
    """Passes that another decides on: the target, or the granularity."""

    REWRITES = "what the target requires once the graph is prepared"
    CHANNELS = "what the granularity requires of the channels"


@dataclass(frozen=True)
class Step:
    """A pass of a named pipeline, with the options that are not its defaults."""

    name: str
    options: Mapping[str, str | Choice] = field(default_factory=dict)


_PREPARE = (
    Step("remove_dead_code"),
    Step("fold_batch_norm"),
    Step("join_affine"),
    Step("remove_dead_code"),
    Step("fuse_pad"),
    Step("recurrence"),
    Part.REWRITES,
    Step("tabulate"),
)
_QUANTIZE = (Step("quantize", {"granularity": Choice.GRANULARITY}),)
_ROUND, _CORRECT = (Step("round_weights"),), (Step("correct_bias"),)
_EMIT = (Step("fuse_activation"), Step("lower_to_integer", {"io": Choice.IO}))
_QUOTIENTS, _MASKS, _COLUMNS = Step("divide"), Step("bound_masks"), Step("separate_columns")
_FITTED = (_QUOTIENTS, _MASKS, _COLUMNS)  # rewrites that look at data
_ANNOTATED = (*_PREPARE, *_FITTED, Part.CHANNELS, Step("calibrate"), Step("spare_ranges"), *_QUANTIZE)
_FROM_DATA = (*_ANNOTATED, *_ROUND)
_BLOCKS = Step("adaround", {"unit": "block", "learning_rate": "0.05"})

CHANNELS: Mapping[str, tuple[Step, ...]] = {
    "per_channel": (Step("level_activations"), Step("reuse_channels")),
    "per_tensor": (
        Step("equalize"),
        Step("absorb_bias"),
        Step("balance", {"granularity": Choice.GRANULARITY}),
        Step("reuse_channels"),
    ),
}
PIPELINES: Mapping[str, tuple[Step | Part, ...]] = {
    "fast": (*_PREPARE, *_FITTED, Step("calibrate"), *_QUANTIZE, *_EMIT),
    "default": (*_FROM_DATA, *_CORRECT, *_EMIT),
    "mixed": (*_FROM_DATA, *_CORRECT, *_EMIT),  # `default`, at widths that are chosen for a budget
    "thorough": (*_FROM_DATA, _BLOCKS, *_CORRECT, *_EMIT),
    "compress": (*_ANNOTATED, Step("codebooks"), *_CORRECT, *_EMIT),
    "fat": (*_FROM_DATA, *_CORRECT, Step("tune_thresholds"), *_EMIT),
    "prune": (
        *_PREPARE,
        *_FITTED,
        Part.CHANNELS,
        Step("prune_weights"),
        Step("calibrate"),
        *_QUANTIZE,
        *_ROUND,
        *_CORRECT,
        *_EMIT,
    ),
    "narrow": (*_PREPARE, Step("prune_channels"), *_FROM_DATA[len(_PREPARE) :], *_CORRECT, *_EMIT),
    "emit": _EMIT,
    "lsq": (*_ANNOTATED, Step("lsq"), *_EMIT),
    "share": (
        *_PREPARE,
        *_FITTED,
        Step("share_weights"),
        Part.CHANNELS,
        Step("calibrate"),
        *_QUANTIZE,
        Step("lsq"),
        *_EMIT,
    ),
    "hawq": (*_ANNOTATED, Step("hawq"), *_EMIT),
    "ipq": (*_ANNOTATED, Step("ipq"), *_EMIT),
    "data_free": (
        *_PREPARE,
        Step("distill_samples"),
        _QUOTIENTS,
        _MASKS,
        Part.CHANNELS,
        Step("moment_ranges"),
        *_QUANTIZE,
        *_ROUND,
        *_EMIT,
    ),
    "data_free_fast": (
        *_PREPARE,
        _QUOTIENTS,
        Step("equalize"),
        Step("moment_ranges"),
        *_QUANTIZE,
        Step("correct_bias", {"method": "analytic"}),
        *_EMIT,
    ),
}
GRANULARITIES = tuple(CHANNELS)


def named(name: str, *, granularity: str, io: str, changes: str | None = None, rewrites: str = "") -> list[Pass]:
    """A named pipeline. Raises OptionError if there is none of that name.

    `rewrites` are passes, as text, that the target requires once the graph is prepared.
    `changes` is a text of passes that take the place of those of the same name; `-name` leaves one out.
    """
    if name not in PIPELINES:
        raise OptionError(
            expected=f"a pipeline of {', '.join(PIPELINES)}",
            found=name,
            where="--pipeline",
            fix="choose one, or use --passes",
        )
    for where, found, values in (("granularity", granularity, Names(GRANULARITIES)), ("io", io, Names(IO_TYPES))):
        if found not in values:
            raise OptionError(expected=str(values), found=found, where=f"--{where}", fix="choose one of them")
    choices = {Choice.GRANULARITY: granularity, Choice.IO: io}
    known, steps = registry(), list[Pass]()
    for part in PIPELINES[name]:
        if part is Part.REWRITES:
            steps += parse(rewrites)
        else:
            chosen = CHANNELS[granularity] if isinstance(part, Part) else (part,)
            steps += [_made(known[step.name], step, choices) for step in chosen]
    return steps if changes is None else _changed(steps, changes, name)


def for_widths(steps: Sequence[Pass]) -> list[Pass]:
    """A named pipeline for the widths that it quantizes to: passes that weigh steps know how many there are.

    Activations of 16 bits have levels enough for small channels: what makes these finer would only coarsen the weights
    that read them, which are all the error that is left. Below 8 bits, too, the weights are nearly all the error: there
    scales are those that `balance` predicts least noise for (MobileNetV1 and V2 at 4 bits: 0.4 to 0.5 dB better).
    """
    from passes.channels.balance import Balance  # they bring Keras, which names and options do not need
    from passes.channels.level_activations import LevelActivations

    quantize = next((s for s in steps if isinstance(s, Quantize)), None)
    if quantize is None:
        return list(steps)
    if quantize.activation_bits > NARROW:
        steps = [s for s in steps if not isinstance(s, LevelActivations | ReuseChannels)]
    elif quantize.weight_bits < NARROW:
        steps = [Balance(granularity=quantize.granularity) if s == LevelActivations() else s for s in steps]
    return [_informed(step, quantize) for step in steps]


_WIDTHS = ("weight_bits", "activation_bits", "ends", "rules")  # options of `quantize` that passes before it may have


def _informed(step: Pass, quantize: Quantize) -> Pass:
    """A pass with the widths of `quantize`, where it asks for them and its own options name no others."""
    known = {f.name: f.default for f in dataclasses.fields(step) if f.name in _WIDTHS}
    if step is quantize or any(getattr(step, name) != usual for name, usual in known.items()):
        return step
    return dataclasses.replace(step, **{name: getattr(quantize, name) for name in known})


def _made(kind: type[Pass], step: Step, choices: Mapping[Choice, str]) -> Pass:
    """The pass of a step, with what the conversion chose."""
    return make(kind, {key: choices[v] if isinstance(v, Choice) else v for key, v in step.options.items()})


def _changed(steps: list[Pass], changes: str, name: str) -> list[Pass]:
    items = re.split(r",(?![^{]*})", changes)
    dropped = {item.strip()[1:] for item in items if item.strip().startswith("-")}
    replaced = {p.name: p for p in parse(",".join(i for i in items if not i.strip().startswith("-")))}
    unknown = sorted((dropped | set(replaced)) - {s.name for s in steps})
    if unknown:
        raise OptionError(
            expected=f"passes of the pipeline {name}",
            found=", ".join(unknown),
            where="--passes beside --pipeline",
            fix="change passes that it has, leave some out with -name, or give all passes without --pipeline",
        )
    return [replaced.get(s.name, s) for s in steps if s.name not in dropped]


def automatic(
    has_data: bool, budget_seconds: float | None = None, tuning_seconds: Callable[[], float] | None = None
) -> str:
    """The pipeline for a user who names none.

    Args:
      budget_seconds: what training may take, None for no training.
      tuning_seconds: estimates what it would take (asked only where there are data and a budget).
    """
    if not has_data:
        return "data_free"
    fits = budget_seconds is not None and tuning_seconds is not None and tuning_seconds() <= budget_seconds
    return "fat" if fits else "default"
