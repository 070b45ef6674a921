"""How a `BitsPlan` is written: as a file, to be made, edited and given back, and as options of `quantize`.

The file (`--bits FILE`) is JSON, with the fields of plan and rules as they are called in `passes.quantization.bits`:

    {"weight_bits": 4, "end_bits": 8, "rules": [
      {"layer": "block_1[0-9]_*", "weight_bits": 8},
      {"op": "DEPTHWISE_CONV_2D", "weight_bits": 8, "activation_bits": 16},
      {"position": "last", "activation_bits": 16}]}

A list stands for its rules alone. In the text of a pipeline the rules stand like the queries of URLs, so that the
metadata of an emitted file say all that it was made by:

    quantize{weight_bits=4 rules=layer=block_1[0-9]_*&weight_bits=8;position=last&activation_bits=16}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ir.errors import DataError, OptionError
from passes.quantization.bits import BitsPlan, BitsRule, closest

Bits = BitsPlan | Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path
_NUMBERS = ("weight_bits", "activation_bits")


def plan_of(bits: Bits | None) -> BitsPlan:
    """The plan that a user gives in one of several forms: itself, a file's path, or what stands in such a file.

    Raises DataError for a file that cannot be read, OptionError for what makes no sense in it.
    """
    if bits is None:
        return BitsPlan()
    if isinstance(bits, BitsPlan):
        return bits
    if isinstance(bits, str | Path):
        return _from_json(_read(Path(bits)), str(bits))
    return _from_json(bits, "bits")


def to_json(plan: BitsPlan) -> str:
    """The text of a file, a rule a line; `plan_of` reads it back."""
    head = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.name != "rules"}
    lines = [f'  "{name}": {value}' for name, value in head.items()]
    rules = ",\n".join(f"    {json.dumps(rule.given(), ensure_ascii=False)}" for rule in plan.rules)
    lines.append(f'  "rules": [\n{rules}\n  ]' if rules else '  "rules": []')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def rules_to_text(rules: Sequence[BitsRule]) -> str:
    """Rules as one word, for the text of a pipeline; `rules_of` reads it back."""
    return ";".join(map(str, rules))


def rules_of(text: str) -> tuple[BitsRule, ...]:
    """Rules from the text of a pipeline."""
    rules = []
    for item in filter(None, text.split(";")):
        pairs = (field.partition("=") for field in item.split("&"))
        fields = {name: unquote(value) for name, _, value in pairs}
        numbers = {name: int(fields[name]) for name in _NUMBERS if fields.get(name, "").isdecimal()}
        rules.append(_rule({**fields, **numbers}, f"the rule {item}"))
    return tuple(rules)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DataError(
            expected="a file of rules", found=error.strerror or str(error), where=str(path), fix="check the path"
        ) from None
    except UnicodeDecodeError:
        raise DataError(expected="JSON", found="no text", where=str(path), fix="give another file") from None
    except json.JSONDecodeError as error:
        found = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise DataError(expected="JSON", found=found, where=str(path), fix="mend the file") from None


def _from_json(content: Any, where: str) -> BitsPlan:
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = {"rules": content}
    fields = _fields(BitsPlan, content, where)
    rules = fields.pop("rules", [])
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise OptionError(expected="a list of rules", found=str(rules), where=where, fix="put [ and ] around them")
    return BitsPlan(**fields, rules=tuple(_rule(r, f"rule {i} of {where}") for i, r in enumerate(rules, 1)))


def _rule(content: Any, where: str) -> BitsRule:
    if isinstance(content, BitsRule):
        return content
    fields = _fields(BitsRule, content, where)
    for name, value in fields.items():
        if name not in _NUMBERS and not isinstance(value, str):
            raise OptionError(expected="a text", found=str(value), where=f"{name} of {where}", fix="write a text")
    return BitsRule(**fields)


def _fields(kind: type[BitsPlan] | type[BitsRule], content: Any, where: str) -> dict[str, Any]:
    known = [f.name for f in dataclasses.fields(kind)]
    if not isinstance(content, Mapping):
        raise OptionError(
            expected=f"some of {', '.join(known)}, with their values",
            found=str(content),
            where=where,
            fix="write an object of JSON, between { and }",
        )
    for name in content:
        if name not in known:
            raise OptionError(
                expected=f"one of {', '.join(known)}", found=str(name), where=where, fix=closest(str(name), known)
            )
    return dict(content)
