"""Options of passes: fields that say which values they may have. `Pass` checks them when a pass is made."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import Field, dataclass, field
from numbers import Real
from typing import Any, Protocol

from ir.errors import OptionError

SAID, VALUES = "said", "values"  # of the metadata of fields


class Values(Protocol):
    """Which values an option may have; its text completes "expected ..."."""

    def __contains__(self, value: Any) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Finite numbers within bounds, and 0 where it stands for something of its own (`zero`: "for no limit")."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    zero: str = ""

    def __contains__(self, value: Any) -> bool:
        number = float(value) if isinstance(value, Real) else math.nan
        within = math.isfinite(number) and self.least <= number <= self.most and self.above < number < self.below
        return within or (bool(self.zero) and number == 0)

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        said = ", ".join(f"{word} {bound:.10g}" for word, bound in bounds.items() if math.isfinite(bound))
        return f"{said}, or 0 {self.zero}" if self.zero else said


SEEDS = Numbers(least=0, most=2**32 - 1)  # that every generator of random numbers takes


@dataclass(frozen=True)
class Names:
    """One of some words."""

    known: tuple[str, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.known

    def __str__(self) -> str:
        return " or ".join(self.known) if len(self.known) == 2 else f"one of {', '.join(self.known)}"


def check_option(value: Any, values: Values, where: str) -> None:
    """Raises OptionError for another value than these."""
    if value not in values:
        finite = ", and finite" if value == math.inf else ""
        raise OptionError(expected=f"{values}{finite}", found=str(value), where=where, fix="change the option")


def told(option: Field[Any]) -> str:
    """`name=default`, and which values it may have where that is declared."""
    values = option.metadata.get(VALUES)
    return f"{option.name}={option.default}" + (f" ({values})" if values is not None else "")


def numeric(default: float, **bounds: Any) -> Any:
    """An option whose values are `Numbers` within these bounds."""
    return field(default=default, metadata={VALUES: Numbers(**bounds)})


def choice(default: str, known: Collection[str]) -> Any:
    """An option whose values are some words."""
    return field(default=default, metadata={VALUES: Names(tuple(known))})


def unsaid(default: Any) -> Any:
    """An option that no text of a pass has: where something is written, which changes nothing of the result."""
    return field(default=default, metadata={SAID: False})
