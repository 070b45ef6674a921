"""What widths may cost: bytes of the file, bits of a weight in the mean, bit operations, or time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ir.errors import GateError, OptionError
from passes.contract.options import Numbers, check_option

LOGITS, QUADRATIC, CURVATURE = SENSITIVITIES = ("logits", "quadratic", "curvature")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "KIB": 1 << 10, "MIB": 1 << 20}
_FLAGS = {"max_size": "--max_size", "mean_bits": "--mean_bits", "max_bops": "--max_bops"}
_LATENCY = "--max_latency"  # alone, or beside one of them
_TIMES = {"": 1.0, "NS": 1e-6, "US": 1e-3, "MS": 1.0, "S": 1e3}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit, one of the first three, of time, or both; and what the loss of layers is judged by.

    Attributes:
      max_size: bytes of the file; an int, or a text such as "1.2MB" or "400 KiB".
      mean_bits: of a weight, over all weights of all layers, as they are stored.
      max_bops: bit operations of an inference: multiplications times bits of the weights times bits of what they read.
      max_latency: milliseconds of an inference on one thread of this machine (`converter.mixed.latency`); a number, or a
        text such as "5ms" or "800us".
      sensitivity: of `SENSITIVITIES`: what each layer alone does to the logits, measured; what the second term of the loss's
        series predicts for it; or its Hessian's trace (HAWQ-V2).

    Raises OptionError where none or several are given, or one cannot be read.
    """

    max_size: int | str | None = None
    mean_bits: float | None = None
    max_bops: float | None = None
    max_latency: float | str | None = None
    sensitivity: str = "logits"

    def __post_init__(self) -> None:
        given = [flag for name, flag in _FLAGS.items() if getattr(self, name) is not None]
        if len(given) > 1 or (not given and self.max_latency is None):
            raise OptionError(
                expected=f"one of {', '.join(_FLAGS.values())}, or {_LATENCY} alone or beside one",
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
        if isinstance(self.max_latency, str):
            object.__setattr__(self, "max_latency", parse_latency(self.max_latency))
        for flag, limit in ((self.flag, self.limit), (_LATENCY, self.max_latency)):
            if limit is not None:
                check_option(float(limit), Numbers(above=0), flag)

    @property
    def limit(self) -> float:
        """The limit, in its own unit."""
        return float(next(v for name in (*_FLAGS, "max_latency") if (v := getattr(self, name)) is not None))

    @property
    def flag(self) -> str:
        """The flag that gives it."""
        return next((flag for name, flag in _FLAGS.items() if getattr(self, name) is not None), _LATENCY)

    @property
    def time_alone(self) -> bool:
        """Whether time is all that is limited."""
        return self.flag == _LATENCY

    @property
    def latency_ms(self) -> float | None:
        """The limit of time, None where there is none."""
        return None if self.max_latency is None else float(self.max_latency)

    def text(self, limit: float) -> str:
        """A limit of this kind in words."""
        if self.time_alone:
            return f"{limit:.4g} ms"
        if self.max_size is not None:
            return f"{limit / 1e6:.4g} MB" if limit >= 1e6 else f"{limit / 1e3:.4g} kB"
        return f"{limit:.4g} bits in the mean" if self.mean_bits is not None else f"{limit:.4g} bit operations"

    def refused(self, possible: float) -> OptionError:
        """The sentence for a limit that no choice meets; `possible`: the least that one does."""
        kind = "fastest" if self.time_alone else "narrowest"
        return OptionError(
            expected=f"at least {self.text(possible)}, which the {kind} widths of this network and target take",
            found=self.text(self.limit),
            where=self.flag,
            fix="raise the limit, or convert a smaller network",
        )

    def refused_time(self, possible_ms: float) -> OptionError:
        """The sentence for a limit of time that no choice within the other limit meets; `possible_ms`: the least that one takes."""
        return OptionError(
            expected=f"at least {possible_ms:.4g} ms, which the fastest widths within {self.text(self.limit)} take",
            found=f"{self.latency_ms:.4g} ms",
            where=_LATENCY,
            fix="raise one of the limits, or convert a smaller network",
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


def parse_latency(text: str) -> float:
    """Milliseconds from `5`, `5ms`, `800us`, `0.1s`. Raises OptionError for another text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = None if match is None else _TIMES.get(match[2].upper())
    if match is None or unit is None:
        raise OptionError(expected="a time such as 5ms or 800us", found=text, where=_LATENCY, fix="write another time")
    return float(match[1]) * unit


def only_one(given: Sequence[str]) -> OptionError:
    """For widths that are given beside a budget."""
    return OptionError(
        expected="widths, or a budget that they are chosen for",
        found=f"a budget and {', '.join(given)}",
        where="--max_size, --mean_bits, --max_bops, --max_latency",
        fix="leave one of the two out",
    )
