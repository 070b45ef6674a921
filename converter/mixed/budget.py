"""What widths may cost: bytes of the file, bits of a weight in the mean, or bit operations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ir.errors import GateError, OptionError

LOGITS, QUADRATIC, CURVATURE = SENSITIVITIES = ("logits", "quadratic", "curvature")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "KIB": 1 << 10, "MIB": 1 << 20}
_FLAGS = {"max_size": "--max_size", "mean_bits": "--mean_bits", "max_bops": "--max_bops"}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit, one of the three, and what the loss of layers is judged by.

    Attributes:
      max_size: bytes of the file; an int, or a text such as "1.2MB" or "400 KiB".
      mean_bits: of a weight, over all weights of all layers, as they are stored.
      max_bops: bit operations of an inference: multiplications times bits of the weights times bits of what they read.
      sensitivity: of `SENSITIVITIES`: what each layer alone does to the logits, measured; what the second term of the loss's
        series predicts for it; or its Hessian's trace (HAWQ-V2).

    Raises OptionError where none or several are given, or one cannot be read.
    """

    max_size: int | str | None = None
    mean_bits: float | None = None
    max_bops: float | None = None
    sensitivity: str = "logits"

    def __post_init__(self) -> None:
        given = [flag for name, flag in _FLAGS.items() if getattr(self, name) is not None]
        if len(given) != 1:
            raise OptionError(
                expected=f"one of {', '.join(_FLAGS.values())}",
                found=" and ".join(given) or "none",
                where="the budget of widths",
                fix="give one of them",
            )
        if self.sensitivity not in SENSITIVITIES:
            raise OptionError(
                expected=", ".join(SENSITIVITIES), found=self.sensitivity, where="--sensitivity", fix="choose one"
            )
        if isinstance(self.max_size, str):
            object.__setattr__(self, "max_size", parse_size(self.max_size))
        if self.limit <= 0:
            raise OptionError(expected="more than 0", found=f"{self.limit:g}", where=given[0], fix="give another limit")

    @property
    def limit(self) -> float:
        """The limit, in its own unit."""
        return float(next(v for name in _FLAGS if (v := getattr(self, name)) is not None))

    @property
    def flag(self) -> str:
        """The flag that gives it."""
        return next(flag for name, flag in _FLAGS.items() if getattr(self, name) is not None)

    def text(self, limit: float) -> str:
        """A limit of this kind in words."""
        if self.max_size is not None:
            return f"{limit / 1e6:.4g} MB" if limit >= 1e6 else f"{limit / 1e3:.4g} kB"
        return f"{limit:.4g} bits in the mean" if self.mean_bits is not None else f"{limit:.4g} bit operations"

    def refused(self, possible: float) -> OptionError:
        """The sentence for a limit that no choice meets; `possible`: the least that one does."""
        return OptionError(
            expected=f"at least {self.text(possible)}, which the narrowest widths of this network and target take",
            found=self.text(self.limit),
            where=self.flag,
            fix="raise the limit, or convert a smaller network",
        )

    def check_size(self, size_bytes: int) -> None:
        """Raises GateError for a file that is larger than was promised."""
        if self.max_size is not None and size_bytes > self.limit:
            raise GateError(
                expected=f"a file of at most {int(self.limit)} bytes",
                found=f"{size_bytes}",
                where=self.flag,
                fix=f"ask for {int(2 * self.limit) - size_bytes}",
            )


def parse_size(text: str) -> int:
    """Bytes from `1200000`, `1.2MB` (10^6), `400 KiB` (2^10). Raises OptionError for another text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = None if match is None else _UNITS.get(match[2].upper())
    if match is None or unit is None:
        raise OptionError(
            expected="a size such as 300000, 1.2MB or 400KiB", found=text, where="--max_size", fix="write another size"
        )
    return int(float(match[1]) * unit)


def only_one(given: Sequence[str]) -> OptionError:
    """For widths that are given beside a budget."""
    return OptionError(
        expected="widths, or a budget that they are chosen for",
        found=f"a budget and {', '.join(given)}",
        where="--max_size, --mean_bits, --max_bops",
        fix="leave one of the two out",
    )
