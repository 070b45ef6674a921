"""Where the nodes of a network stand when every node has a row of its own, in the order of the file.

A result keeps one lane (a vertical line) from the row that makes it to the last row that reads it, and no other node
stands in that lane meanwhile: a chain is one straight line however long it is, and a branch runs beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A result on its way: from row `start` in `lane` down to row `end`, which stands in lane `end_lane`."""

    start: int
    lane: int
    end: int
    end_lane: int


def place(sources: Sequence[Sequence[int]]) -> list[int]:
    """The lane of every row.

    Args:
      sources: per row, the earlier rows whose results it reads.

    Returns:
      lanes, 0 the leftmost; as few as the results that are waited for at one time need.
    """
    last_read = {source: row for row, read in enumerate(sources) for source in read}
    lanes: list[int] = []
    held: dict[int, int] = {}  # lane -> the row that must have read its result
    for row, read in enumerate(sources):
        for lane in [lane for lane, until in held.items() if until <= row]:
            del held[lane]
        inherited = [lanes[source] for source in read if lanes[source] not in held]
        lane = min(inherited) if inherited else next(i for i in range(len(held) + 1) if i not in held)
        lanes.append(lane)
        if row in last_read:
            held[lane] = last_read[row]
    return lanes


def edges(sources: Sequence[Sequence[int]], lanes: Sequence[int]) -> list[Edge]:
    """Every edge once, in the order of the rows that they end at."""
    return [
        Edge(start=source, lane=lanes[source], end=row, end_lane=lanes[row])
        for row, read in enumerate(sources)
        for source in dict.fromkeys(read)
    ]
