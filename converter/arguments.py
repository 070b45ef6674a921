"""What callers from Python give for arguments is of the types that these declare, or is said in one sentence."""

from __future__ import annotations

import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ir.errors import OptionError

P = ParamSpec("P")
R = TypeVar("R")

_MOST_SHOWN = 43  # letters
_ACCEPTED: dict[type, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (float, int, np.floating, np.integer),
}
_WORDS: dict[type, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    np.ndarray: "an array",
    types.NoneType: "None",
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which raises OptionError for an argument of another type than it declares.

    Only plain classes, and unions of them, are looked at; what is declared as anything else the function looks at itself.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        declared = _declared(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            kinds = _kinds(declared.get(name, Any))
            if kinds and not any(_is_of(value, kind) for kind in kinds):
                raise OptionError(
                    expected=" or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds),
                    found=f"{_shown(value)} ({type(value).__name__})",
                    where=f"{function.__name__}({name}=...)",
                    fix="give one",
                )
        return function(*args, **kwargs)

    return call


@functools.cache
def _declared(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


def _kinds(hint: Any) -> tuple[type, ...]:
    """The classes that a hint names; none where it names something else, too."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return tuple(parts) if all(map(_is_plain, parts)) else ()


def _is_plain(part: Any) -> bool:
    return part is not Any and inspect.isclass(part) and not getattr(part, "_is_protocol", False)


def _is_of(value: Any, kind: type) -> bool:
    if isinstance(value, bool) and kind in (int, float):
        return False
    return isinstance(value, _ACCEPTED.get(kind, (kind,)))


def _shown(value: Any) -> str:
    return textwrap.shorten(repr(value), _MOST_SHOWN, placeholder=" ...")
