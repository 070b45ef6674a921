"""The widths that a user asks for, in any of the forms that are taken: a file, plain data, a plan, single numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ir.errors import DataError, OptionError
from passes.contract.base import Pass
from passes.quantization.bits import BitsPlan, rules_text
from passes.quantization.quantize import Quantize

Bits = BitsPlan | Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path


@dataclass(frozen=True, kw_only=True)
class RequestedBits:
    """Widths as arguments of `convert`: `bits` is a plan, its JSON as data, or the path of such a file.

    The numbers are those of all layers, where they are given, whatever `bits` or the text of the passes says.
    """

    weight_bits: int | None = None
    activation_bits: int | None = None
    bits: Bits | None = None

    def apply(self, steps: Sequence[Pass]) -> list[Pass]:
        """Passes that quantize to these widths.

        Raises:
          DataError: the file cannot be read.
          OptionError: it makes no sense, a width is none, or no pass quantizes.
        """
        numbers = {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits}
        given = {name: bits for name, bits in numbers.items() if bits is not None}
        plan = None if self.bits is None else plan_of(self.bits)
        if plan is None and not given:
            return list(steps)
        if not any(isinstance(step, Quantize) for step in steps):
            raise OptionError(
                expected="a pipeline that quantizes",
                found=", ".join(step.name for step in steps),
                where="--weight_bits, --activation_bits, --bits",
                fix=f"add {Quantize.name} to the passes, or leave the widths out",
            )
        options = given if plan is None else {**options_of(plan), **given}
        return [dataclasses.replace(s, **options) if isinstance(s, Quantize) else s for s in steps]


def options_of(plan: BitsPlan) -> dict[str, Any]:
    """A plan as the options of `quantize`."""
    named = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
    return {**named, "rules": rules_text(plan.rules)}


def plan_of(bits: Bits) -> BitsPlan:
    """The plan that was given in one of its forms. Raises DataError or OptionError where it is none."""
    if isinstance(bits, BitsPlan):
        return bits
    if isinstance(bits, str | Path):
        return BitsPlan.from_json(_read(Path(bits)), str(bits))
    return BitsPlan.from_json(dict(bits) if isinstance(bits, Mapping) else list(bits))


def to_text(plan: BitsPlan) -> str:
    """The text of a file that `plan_of` reads back, with a rule a line, to be edited."""
    data = plan.to_json()
    head = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in data.items() if name != "rules"]
    rules = ",\n".join(f"    {json.dumps(rule, ensure_ascii=False)}" for rule in data["rules"])
    head.append(f'  "rules": [\n{rules}\n  ]' if rules else '  "rules": []')
    return "{\n" + ",\n".join(head) + "\n}\n"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            expected="a JSON file of widths", found=error.strerror or str(error), where=str(path), fix="check the path"
        ) from None
    except UnicodeDecodeError:
        raise DataError(
            expected="a JSON file of widths", found="bytes that are no text", where=str(path), fix="give another file"
        ) from None
    except json.JSONDecodeError as error:
        found = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise DataError(expected="JSON", found=found, where=str(path), fix="correct the file") from None
