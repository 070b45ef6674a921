"""What the Edge TPU compiler will make of a file: a prediction, operator by operator, in the compiler's own words.

The compiler takes one partition: of the operators that it could map, those that are reached before the first one that
it cannot map, branch by branch. (Operators that cannot be mapped and stand before all others, as a cast of the input,
run on the CPU first.) This is how TFLite divides a graph between a delegate and the CPU; only the first part is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from converter.targets.edgetpu_rules import (
    INSTEAD,
    NEWEST_RUNTIME,
    OLDEST_RUNTIME,
    REDUCED_POSITIONS,
    RULES,
)
from converter.targets.rules import EIGHT_BITS, CheckReport, Limit, Verdict, taken
from converter.targets.site import Site, sites, tensor_bytes
from converter.targets.target import CONVOLUTIONS, Target
from converter.targets.versions import EDGETPU as LAST_VERSION
from converter.tflite.records import ModelFile
from ir.ops.conversion import QUANTIZE
from ir.profile import Runtime

MAPPED = "Mapped to Edge TPU"
ONE_SUBGRAPH = "More than one subgraph is not supported"
DATA_TYPE = "Operation is working on an unsupported data type"
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
NOT_SUPPORTED = "Operation not supported"
OLD_VERSION = "Operation version not supported"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
NOT_CONSTANT = "Filter, bias, or other param is not constant at compile-time"
NOT_QUANTIZED = "Model not quantized"
UNKNOWN_VERSION = "Didn't find op for builtin opcode '{}' version '{}'"

# The compiler keeps activations beside the parameters, in at most this much; models with next to no activations
# report 7.9 MiB free, those with large ones 6.9.
ON_CHIP_BYTES = int(7.92 * (1 << 20))
_ACTIVATIONS_BYTES = 1 << 20
_INT8_INTERFACE_RUNTIME = 12
_COMPILED = "CUSTOM:edgetpu-custom-op"


@dataclass(frozen=True)
class _Problem:
    """Why an operator does not map by itself."""

    status: str
    reason: str
    fix: str


def _problem(site: Site, runtime: int | None) -> _Problem | None:
    """What keeps an operator from mapping, whatever stands around it."""
    if site.record.code == _COMPILED:
        return None
    problem = _type_problem(site)
    if problem is not None:
        return problem
    rule = RULES.get(site.op) if site.op is not None else None
    if rule is None:
        fix = (
            INSTEAD.get(site.op, "let the model end before it, or use other layers")
            if site.op
            else "run it outside of the model"
        )
        return _Problem(NOT_SUPPORTED, "the Edge TPU has no such operator", fix)
    if other := rule.other_types(site):
        return _Problem(DATA_TYPE, f"{other}, where it takes {taken(rule)}", "store them in 8 bits (--weight_bits=8)")
    if any(t is not None and t.data is None for t in site.parameters()):
        return _Problem(NOT_CONSTANT, "weights, axes or shapes are computed", "make them constants of the model")
    if any(d != 1 for t in site.activations for d in t.shape[:-3]):
        shape = next(list(t.shape) for t in site.activations if any(d != 1 for d in t.shape[:-3]))
        return _Problem(RANK, f"a tensor of shape {shape}", "use batch 1 and at most three dimensions beside it")
    broken = rule.broken(site)
    if broken is not None:
        return _limited(broken, site)
    if runtime is not None and rule.runtime(site) > runtime:
        reason = f"it needs runtime {rule.runtime(site)}, {runtime} is allowed"
        return _Problem(NOT_SUPPORTED, reason, f"raise --min_runtime_version to {rule.runtime(site)}")
    return None


def _limited(broken: Limit, site: Site) -> _Problem:
    return _Problem(UNSPECIFIED, f"maps only if {broken.reason}; found {broken.found(site)}", broken.fix)


def _type_problem(site: Site) -> _Problem | None:
    parameters = [t for t in site.parameters() if t is not None]
    others = sorted({t.type_name for t in site.activations if not any(t is p for p in parameters)} - EIGHT_BITS)
    if not others:
        return None
    reason = f"{', '.join(others).lower()} beside int8"
    if site.op is QUANTIZE:
        return _Problem(UNSPECIFIED, reason, "give the model integer inputs (--io=int8 or --io=uint8)")
    return _Problem(DATA_TYPE, reason, "keep all tensors int8 (--io=int8, no operators that compute in float or int32)")


def _parts(model: ModelFile, mappable: Sequence[bool]) -> list[int]:
    """The part of the graph that each operator falls into; parts alternate between the two kinds of operators."""
    first = mappable[0] if mappable else True
    part_of: dict[int, tuple[int, bool]] = {}
    parts = []
    for record, kind in zip(model.main.operators, mappable, strict=True):
        part = 0 if kind is first else 1
        for tensor in record.inputs:
            if tensor in part_of:
                before, other = part_of[tensor]
                part = max(part, before + (other is not kind))
        parts.append(part)
        part_of.update((tensor, (part, kind)) for tensor in record.outputs)
    return parts


def _whole_model_failure(model: ModelFile) -> str | None:
    """What stops the compiler before it looks at single operators."""
    for site in sites(model):
        if site.op is not None and site.record.version > LAST_VERSION[site.op]:
            return UNKNOWN_VERSION.format(site.record.code, site.record.version)
    if not any(t.type_name in EIGHT_BITS and t.scale.size for t in model.main.tensors):
        return NOT_QUANTIZED
    return None


def check(model: ModelFile, min_runtime_version: str | None = None, *, multiple_subgraphs: bool = False) -> CheckReport:
    """Predicts what the compiler maps.

    Args:
      min_runtime_version: the oldest runtime that must run the result (10 to 14); the newest if None.
      multiple_subgraphs: as its option `--enable_multiple_subgraphs`: operators after one on the CPU are mapped, too.
    """
    TARGET.at(min_runtime_version)  # raises what is to be raised
    allowed = None if min_runtime_version is None else int(min_runtime_version)
    failure = _whole_model_failure(model)
    if failure is not None:
        refused = tuple(
            _verdict(s, failure, "the compiler refuses the whole model", _failure_fix(model, failure))
            for s in sites(model)
        )
        return _report(model, refused, failure, allowed)
    every = sites(model)
    problems = [_problem(site, allowed) for site in every]
    mappable = [problem is None for problem in problems]
    parts = _parts(model, mappable)
    taken = min((part for part, kind in zip(parts, mappable, strict=True) if kind), default=0)
    verdicts: list[Verdict] = []
    for site, problem, part in zip(every, problems, parts, strict=True):
        if problem is not None:
            verdicts.append(_verdict(site, problem.status, problem.reason, problem.fix))
        elif part == taken or multiple_subgraphs:
            verdicts.append(
                Verdict(index=site.index, name=site.record.code, layer=site.layer, mapped=True, status=MAPPED)
            )
        else:
            verdicts.append(
                _verdict(
                    site,
                    ONE_SUBGRAPH,
                    "it comes after an operator that runs on the CPU",
                    "change what precedes it",
                )
            )
    return _report(model, tuple(verdicts), None, allowed)


def _verdict(site: Site, status: str, reason: str, fix: str) -> Verdict:
    return Verdict(
        index=site.index, name=site.record.code, layer=site.layer, mapped=False, status=status, reason=reason, fix=fix
    )


def _failure_fix(model: ModelFile, failure: str) -> str:
    if failure == NOT_QUANTIZED:
        return "convert it to integers first"
    unknown = next((s.op for s in sites(model) if s.op is not None and not LAST_VERSION[s.op]), None)
    if unknown is not None:
        return INSTEAD.get(unknown, "use other layers")
    return "write the file with --target=edgetpu, which keeps to the versions that the compiler reads"


def _report(model: ModelFile, verdicts: tuple[Verdict, ...], failure: str | None, allowed: int | None) -> CheckReport:
    figures: dict[str, Any] = {
        "failure": failure,
        "partition_end": _partition_end(verdicts),
        "min_runtime_version": _needed_runtime(model, verdicts) if failure is None else None,
        **_memory(model, verdicts),
    }
    notes = []
    if any(v.name == _COMPILED for v in verdicts):
        notes.append("the file was compiled already: one operator stands for all that were mapped")
    if failure is not None:
        notes.append(f"the compiler is predicted to refuse the model: {failure}")
    else:
        needed = figures["min_runtime_version"]
        notes.append(f"needs Edge TPU runtime {needed} or newer")
        if allowed is not None and needed > allowed:
            notes.append(f"runtime {allowed} cannot take int8 inputs and outputs: convert with --io=uint8")
        mebi = {name: figures[name] / (1 << 20) for name in ("parameter_bytes", "on_chip_bytes", "off_chip_bytes")}
        notes.append(
            "parameters {parameter_bytes:.2f} MiB, on-chip room about {on_chip_bytes:.2f} MiB, "
            "streamed at every inference {off_chip_bytes:.2f} MiB".format(**mebi)
        )
    return CheckReport(target=TARGET_NAME, verdicts=verdicts, figures=figures, notes=tuple(notes))


def _partition_end(verdicts: Sequence[Verdict]) -> int:
    """One past the last mapped operator, in the file's order."""
    return max((v.index + 1 for v in verdicts if v.mapped), default=0)


def _needed_runtime(model: ModelFile, verdicts: Sequence[Verdict]) -> int:
    needed = [OLDEST_RUNTIME]
    for site, verdict in zip(sites(model), verdicts, strict=True):
        if verdict.mapped and site.op is not None:
            needed.append(RULES[site.op].runtime(site))
    interface = (*model.main.inputs, *model.main.outputs)
    if any(model.main.tensors[i].type_name == "INT8" for i in interface):
        needed.append(_INT8_INTERFACE_RUNTIME)
    return max(needed)


def _memory(model: ModelFile, verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Predicted bytes: of the mapped operators' constants, of the room for them, of what is kept and what is streamed.

    A constant is kept whole or not at all, in the order of the file: a published log of one layer of 64 MiB tells of
    none that were kept and 64 MiB that were streamed.
    """
    mapped = [site for site, verdict in zip(sites(model), verdicts, strict=True) if verdict.mapped]
    tensors = model.main.tensors
    read = dict.fromkeys(j for site in mapped for j in site.record.inputs if j >= 0 and tensors[j].data is not None)
    sizes = [tensor_bytes(tensors[j]) for j in read]
    busiest = max((sum(tensor_bytes(t) for t in site.activations) for site in mapped), default=0)
    room, kept = ON_CHIP_BYTES - min(busiest, _ACTIVATIONS_BYTES), 0
    for size in sizes:
        kept += size if kept + size <= room else 0
    return {
        "parameter_bytes": sum(sizes),
        "on_chip_bytes": room,
        "on_chip_used_bytes": kept,
        "off_chip_bytes": sum(sizes) - kept,
    }


TARGET_NAME = "edgetpu"
TARGET = Target(
    name=TARGET_NAME,
    summary="Google's Edge TPU",
    per_channel=CONVOLUTIONS,
    rules=RULES,
    check=check,
    last_versions=LAST_VERSION,
    runtimes={str(v): (Runtime.LITERT,) for v in range(OLDEST_RUNTIME, NEWEST_RUNTIME + 1)},
    compiler="edgetpu_compiler",
    rewrites=f"decompose,rows_to_convolution,split_mean{{positions={REDUCED_POSITIONS}}}",
)
