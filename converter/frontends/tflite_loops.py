"""Loops and branches of `.tflite` files, written out: a `WHILE` whose number of steps is known when the file is read, and
an `IF` whose condition is.

A loop hands its operands to a subgraph that says whether to go on, and then to one that makes the next operands of them. What
counts the steps is constant, so it is computed while both are read, step after step, into the graph around the loop.
What it made of lists, `tflite_lists` mends. A branch hands its operands but the condition to one of two subgraphs.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from converter.frontends.tflite_part import AGAIN, file_error, reachable
from converter.tflite.constants import constant_array
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord
from converter.tflite.variables import ASSIGN, ONCE
from ir.errors import ModelError
from ir.graph import Graph, Value

WHILE, IF = CALLS = ("WHILE", "IF")
_MOST_STEPS = 2000  # of all loops of a file
_MOST_OPERATORS = 50_000  # of all subgraphs that are written out, as often as they are
_MOST_NESTED = 32
_ONE = "export the one that is meant, or both and a choice of their results (tf.where)"
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
    """What the loops and branches of a file share: constants by subgraph, which are the same in every step, how many steps
    there were, how many operators were written out, and how many subgraphs are being read, one in another.
    """

    constants: dict[int, dict[int, Value]] = field(default_factory=lambda: defaultdict(dict))
    steps: int = 0
    operators: int = 0
    nested: int = 0


def called(file: ModelFile, record: OperatorRecord) -> tuple[int, int]:
    """The subgraphs of a loop: whether to go on, and what comes next; of a branch: where the condition holds, and where not.

    Raises ModelError where they are not there, or have other operands than the operator.
    """
    options, taken, given = record.options, len(record.inputs), len(record.outputs)
    found, results = (-1, -1), (given, given)
    if record.code == WHILE:
        results = (1, taken)
        if record.options_name == "WhileOptions":
            found = (options.CondSubgraphIndex(), options.BodySubgraphIndex())
    else:
        taken -= 1
        if record.options_name == "IfOptions":
            found = (options.ThenSubgraphIndex(), options.ElseSubgraphIndex())
    for index, count in zip(found, results, strict=True):
        inner = file.subgraphs[index] if 0 < index < len(file.subgraphs) else None
        fits = inner is not None and (len(inner.inputs), len(inner.outputs)) == (taken, count)
        if not fits or -1 in record.inputs or given != results[1]:
            expected = f"{record.code} over subgraphs that take its operands, and give its results"
            raise file_error(file, expected, f"one of {taken} operands over subgraphs {found}", AGAIN)
    return found


def _followed(file: ModelFile, part: SubgraphRecord, record: OperatorRecord) -> tuple[int, ...]:
    """The subgraphs that are read: where the file holds the condition of a branch, only one is."""
    found = called(file, record)
    condition = part.tensors[record.inputs[0]] if record.code == IF else None
    if condition is None or condition.data is None:
        return found
    return (found[not constant_array(condition, file.path).any()],)


def operators(
    file: ModelFile, subgraph: SubgraphRecord, requested: Sequence[int]
) -> list[tuple[SubgraphRecord, OperatorRecord]]:
    """The requested operators, and those of loops and branches among them. Raises ModelError for some that cannot be written out."""
    found = [(subgraph, subgraph.operators[position]) for position in requested]
    seen: set[int] = set()
    for part, record in found:  # which grows
        if record.code not in CALLS:
            continue
        for index in _followed(file, part, record):
            inner = file.subgraphs[index]
            if inner is part or any(each.code in (ASSIGN, ONCE) for each in inner.operators):
                raise file_error(
                    file,
                    "loops and branches that assign no variables, and are not in themselves",
                    f"'{inner.name}'",
                    _FIX,
                )
            if index not in seen:
                seen.add(index)
                found += [(inner, inner.operators[position]) for position in reachable(file, inner, inner.outputs)]
    return found


@contextlib.contextmanager
def within(file: ModelFile, loops: Loops, part: SubgraphRecord, operators: int) -> Iterator[None]:
    """While so many operators of a subgraph are read. Raises ModelError where they become too many, or too deep."""
    loops.operators += operators
    loops.nested += 1
    if loops.operators > _MOST_OPERATORS or loops.nested > _MOST_NESTED:
        expected = f"loops and branches of at most {_MOST_OPERATORS} operators when written out, at most {_MOST_NESTED} in one another"
        raise file_error(file, expected, "more", _FIX, f"subgraph '{part.name}'")
    yield
    loops.nested -= 1


def written_out(
    reader: Steps, loops: Loops, record: OperatorRecord, operands: list[Operand], name: str
) -> list[Operand]:
    """The results of a loop. Raises ModelError where it asks data when to end, or takes too many steps."""

    def refused(expected: str, found: str) -> ModelError:
        return file_error(reader.model, f"loops of {expected}", found, _FIX, f"WHILE '{name}'")

    goes_on, following = called(reader.model, record)
    while True:
        (answer,) = reader.inside(goes_on, operands)
        if isinstance(answer, str) or answer.data is None:
            raise refused("a number of steps that no data decide", "one that its data decide")
        if not answer.data.all():
            return operands
        loops.steps += 1
        if loops.steps > _MOST_STEPS:
            raise refused(f"at most {_MOST_STEPS} steps, as each is written out", "more")
        operands = reader.inside(following, operands)


def chosen(reader: Steps, record: OperatorRecord, operands: list[Operand], name: str) -> list[Operand]:
    """The results of the branch that is taken. Raises ModelError where data choose it."""
    condition, *given = operands
    if isinstance(condition, str) or condition.data is None:
        expected = "branches that are chosen when the file is written"
        raise file_error(reader.model, expected, "one that its data choose", _ONE, f"IF '{name}'")
    return reader.inside(called(reader.model, record)[not condition.data.any()], given)
