"""Where to end a network so that a device runs all that is left: tried on the file, cut by cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from itertools import combinations

from converter.targets.rules import CheckReport
from converter.targets.site import Site, sites
from converter.tflite.records import ModelFile

_MOST_TRIED = 50  # last operators of a file that is refused as a whole
_MOST_ENDS = 4  # results that are tried alone and in every combination; of more only alone and all together
_LISTED = 3  # operators that a sentence names


def ending_at(model: ModelFile, tensors: Sequence[int]) -> ModelFile:
    """The file with these outputs, without the operators that they do not need."""
    needed, kept = set(tensors), []
    for record in reversed(model.main.operators):
        if needed & set(record.outputs):
            needed |= set(record.inputs)
            kept.append(record)
    main = dataclasses.replace(model.main, operators=tuple(reversed(kept)), outputs=tuple(tensors))
    return dataclasses.replace(model, subgraphs=(main, *model.subgraphs[1:]))


def advice(
    model: ModelFile,
    report: CheckReport,
    check: Callable[[ModelFile], CheckReport],
    layers: Collection[str] | None = None,
) -> tuple[str, ...]:
    """The cut after which everything maps, with the most operators left, as a sentence; none where no cut leaves half.

    Args:
      check: what of a file runs on the device.
      layers: names that `--output_nodes` takes, None for those of the file.
    """
    ends = _ends(model, report, layers)
    sizes = range(1, len(ends) + 1) if len(ends) <= _MOST_ENDS else (1, len(ends))
    best: tuple[int, tuple[int, ...]] = (0, ())
    for chosen in (c for size in sizes for c in combinations(ends, size)):
        found = check(ending_at(model, chosen))
        if not found.unmapped and found.mapped > best[0]:
            best = found.mapped, chosen
    mapped, chosen = best
    if 2 * mapped < len(model.main.operators):
        return ()
    names = ",".join(model.main.tensors[t].name for t in chosen)
    left = {id(record) for record in ending_at(model, chosen).main.operators}
    cut = [f"{s.record.code} '{s.layer}'" for s in sites(model) if id(s.record) not in left]
    more = f" and {len(cut) - _LISTED} more" if len(cut) > _LISTED else ""
    return (
        f"with --output_nodes={names} all {mapped} operators that are left map (now {report.mapped} of "
        f"{len(model.main.operators)}); {', '.join(cut[:_LISTED])}{more} would be your program's to compute",
    )


def _ends(model: ModelFile, report: CheckReport, layers: Collection[str] | None) -> list[int]:
    """The results of mapped operators that others read, or the nearest ones before them that have the name of a layer."""
    every = sites(model)
    makers = {tensor: site for site in every for tensor in site.record.outputs}
    mapped = {verdict.index for verdict in report.verdicts if verdict.mapped}
    read = [t for site in every if site.index not in mapped for t in site.record.inputs]
    ends = [t for t in (*read, *model.main.outputs) if t in makers and makers[t].index in mapped]
    if not mapped:
        ends = [t for site in every[-_MOST_TRIED:] for t in site.record.outputs]
    found = []
    for tensor in ends:
        named: int | None = tensor
        while named is not None and not (layers is None or model.main.tensors[named].name in layers):
            named = _before(makers[named], makers)
        found += [] if named is None else [named]
    return list(dict.fromkeys(found))


def _before(site: Site, makers: dict[int, Site]) -> int | None:
    """The first operand that an operator computes."""
    return next((t for t in site.record.inputs if t in makers), None)
