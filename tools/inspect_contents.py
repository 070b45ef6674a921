"""What `inspect` prints of a file and of two files: sizes, memory, signatures, operators as a table, differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from converter.analysis.differences import Difference
from converter.targets import CheckReport
from converter.widths import LayerWidths
from tools._command import console

_SHOWN = 10  # entries of a list
_LARGEST = 3


def say(text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, soft_wrap=True)


def size_text(count: float | None) -> str:
    """Bytes in the unit that suits: `1.5 kB`, `2.31 MB`."""
    if count is None:
        return "unknown"
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"


def saved_text(count: int) -> str:
    """`1.5 kB`, with a minus where it is more than before; "" for nothing."""
    return "" if not count else f"{'-' if count < 0 else ''}{size_text(abs(count))}"


def short(layer: str) -> str:
    """A layer's name; of names that were joined in fusing, the first."""
    first, *more = layer.split(";")
    return first + (" ..." if more else "")


def show_contents(contents: dict[str, Any], operators: Sequence[dict[str, Any]], layers: Sequence[str]) -> None:
    """What operators compute in, constants by type, the arena, signatures, the largest layers."""
    computes = ", ".join(f"{count} in {kind.lower()}" for kind, count in contents["computes_in"].items())
    say(f"they compute: {computes or 'nothing'}")
    constants = ", ".join(f"{kind.lower()} {size_text(size)}" for kind, size in contents["constants"].items())
    say(f"constants: {size_text(sum(contents['constants'].values()))} ({constants or 'none'})")
    arena = contents["arena"]
    busiest = arena["busiest_operator"]
    at = f" at operator #{busiest} '{short(layers[busiest])}'" if busiest < len(layers) else ""
    say(
        f"memory arena: {size_text(arena['size_bytes'])} as TFLite plans it, without scratch memory of kernels; "
        f"most alive {size_text(arena['live_bytes'])}{at}"
    )
    for entry in contents["signatures"]:
        sides = (", ".join(f"{k} = '{v}'" for k, v in entry[side].items()) for side in ("inputs", "outputs"))
        say(f"signature {entry['key']}: {' -> '.join(sides)}")
    if contents["subgraphs"] > 1:
        say(f"{contents['subgraphs']} subgraphs; the first is shown")
    largest = sorted(range(len(operators)), key=lambda i: -operators[i]["constant_bytes"])[:_LARGEST]
    named = [f"#{i} '{short(layers[i])}' {size_text(operators[i]['constant_bytes'])}" for i in largest]
    if named and operators[largest[0]]["constant_bytes"]:
        say(f"largest: {', '.join(named)}")


def show_operators(report: CheckReport, operators: Sequence[dict[str, Any]], widths: Sequence[LayerWidths]) -> None:
    """Every operator with its fate on the target, the type, shape and parameters of its result, and its constants.

    `bits` are those of weights x activations, with what unpacks the weights; `zeros` is their share of the weights;
    `saved` is against int8.
    """
    table = Table(
        "#",
        "operator",
        "status",
        "layer",
        "type",
        "shape",
        "scale",
        "zero point",
        "bits",
        "zeros",
        "constants",
        "saved",
    )
    for v, details, width in zip(report.verdicts, operators, widths, strict=True):
        result = details["results"][0] if details["results"] else {}
        zero = result.get("zero_point")
        cells = (
            str(v.index),
            v.name,
            v.status,
            short(v.layer),
            str(result.get("type", "")).lower(),
            "x".join(map(str, result.get("shape", ()))),
            _scale(result.get("scale")),
            "" if zero is None else str(zero),
            width.text,
            "" if width.zeros is None else f"{width.zeros:.0%}",
            size_text(details["constant_bytes"]) if details["constant_bytes"] else "",
            saved_text(width.saved_bytes),
        )
        table.add_row(*(escape(text) for text in cells))
    console.print(table)


def _scale(scale: Any) -> str:
    if isinstance(scale, list):
        return "..".join("?" if s is None else f"{s:.3g}" for s in scale)
    return "" if scale is None else f"{scale:.6g}"


def show_difference(difference: Difference, a: str, b: str) -> None:
    """From one file to the other."""
    sizes, counts = difference.size_bytes, difference.operators
    say(f"from {a} to {b}:")
    say(f"size: {sizes[0]} -> {sizes[1]} bytes ({sizes[1] - sizes[0]:+d}); operators: {counts[0]} -> {counts[1]}")
    for text in difference.interface:
        say(f"  {text}")
    for kind, entries in (("removed", difference.removed), ("added", difference.added)):
        _listed([f"{kind}: #{i} {name} '{short(layer)}'" for i, name, layer in entries], kind)
    _listed(
        [f"changed: #{c.index[0]} {c.name} '{short(c.layer)}': {'; '.join(c.changes)}" for c in difference.changed],
        "changed",
    )
    say(
        f"{difference.same} operators the same, {len(difference.changed)} changed, {len(difference.added)} added, "
        f"{len(difference.removed)} removed"
    )


def _listed(lines: Sequence[str], kind: str) -> None:
    for line in lines[:_SHOWN]:
        say(f"  {line}")
    if len(lines) > _SHOWN:
        say(f"  and {len(lines) - _SHOWN} more {kind} (--json lists all)")
