"""Loops of `.tflite` files, written out: a `WHILE` whose number of steps is known when the file is read.

It hands its operands to a subgraph that says whether to go on, and then to one that makes the next operands of them. What
counts the steps is constant, so it is computed while both are read, step after step, into the graph around the loop.
What it made of lists, `tflite_lists` mends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from converter.frontends.tflite_part import AGAIN, file_error, reachable
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord
from converter.tflite.variables import ASSIGN, ONCE
from ir.errors import ModelError
from ir.graph import Graph, Value

WHILE = "WHILE"
_MOST_STEPS = 2000  # of all loops of a file
_MOST_NODES = 50_000
_FIX = "export it with fewer or a fixed number of steps, or end the model before the loop (--output_nodes)"

Operand = Value | str  # a tensor, or the name of a variable


class Steps(Protocol):
    """What reads subgraphs into the graph around them."""

    graph: Graph
    model: ModelFile

    def inside(self, subgraph: int, operands: Sequence[Operand]) -> list[Operand]:
        """The results of a subgraph."""


@dataclass
class Loops:
    """What the loops of a file share: constants by subgraph, which are the same in every step, and how many steps there were."""

    constants: dict[int, dict[int, Value]] = field(default_factory=lambda: defaultdict(dict))
    steps: int = 0


def bodies(file: ModelFile, record: OperatorRecord) -> tuple[int, int]:
    """The subgraphs of a loop: whether to go on, and what comes next.

    Raises ModelError where they are not there, or have other operands than the loop.
    """
    options = record.options if record.options_name == "WhileOptions" else None
    found = (-1, -1) if options is None else (options.CondSubgraphIndex(), options.BodySubgraphIndex())
    count = len(record.inputs)
    for index, results in zip(found, (1, count), strict=True):
        inner = file.subgraphs[index] if 0 < index < len(file.subgraphs) else None
        fits = inner is not None and (len(inner.inputs), len(inner.outputs)) == (count, results)
        if not fits or -1 in record.inputs or len(record.outputs) != count:
            expected = "loops over subgraphs that take their operands, and give them back"
            raise file_error(file, expected, f"WHILE of {count} operands over subgraphs {found}", AGAIN)
    return found


def operators(
    file: ModelFile, subgraph: SubgraphRecord, requested: Sequence[int]
) -> list[tuple[SubgraphRecord, OperatorRecord]]:
    """The requested operators, and those of loops among them. Raises ModelError for loops that cannot be written out."""
    found = [(subgraph, subgraph.operators[position]) for position in requested]
    seen: set[int] = set()
    for part, record in found:  # which grows
        if record.code != WHILE:
            continue
        for index in bodies(file, record):
            inner = file.subgraphs[index]
            if inner is part or any(each.code in (ASSIGN, ONCE) for each in inner.operators):
                raise file_error(
                    file, "loops that assign no variables, and are not in themselves", f"'{inner.name}'", _FIX
                )
            if index not in seen:
                seen.add(index)
                found += [(inner, inner.operators[position]) for position in reachable(file, inner, inner.outputs)]
    return found


def written_out(
    reader: Steps, loops: Loops, record: OperatorRecord, operands: list[Operand], name: str
) -> list[Operand]:
    """The results of a loop. Raises ModelError where it asks data when to end, or takes too many steps."""

    def refused(expected: str, found: str) -> ModelError:
        return file_error(reader.model, f"loops of {expected}", found, _FIX, f"WHILE '{name}'")

    goes_on, following = bodies(reader.model, record)
    while True:
        (answer,) = reader.inside(goes_on, operands)
        if isinstance(answer, str) or answer.data is None:
            raise refused("a number of steps that no data decide", "one that its data decide")
        if not answer.data.all():
            return operands
        loops.steps += 1
        if loops.steps > _MOST_STEPS or len(reader.graph.nodes) > _MOST_NODES:
            raise refused(f"at most {_MOST_STEPS} steps and {_MOST_NODES} operators, as each is written out", "more")
        operands = reader.inside(following, operands)
