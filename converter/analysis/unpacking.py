"""What it costs that a file's weights are unpacked at every inference: bytes written, and room in the arena.

Predicted from the file: the arena as TFLite plans it (`converter.analysis.arena`), and the same without whatever
unpacking makes (indices that a CAST widens, gathered blocks, the weights).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converter.analysis.arena import plan, tensor_bytes
from converter.tflite.packing import packings
from converter.tflite.records import ModelFile


@dataclass(frozen=True, kw_only=True)
class Unpacking:
    """Of the main subgraph.

    Attributes:
      layers: whose weights are unpacked.
      stored_bytes: what these take in the file; `weight_bytes`: once they are unpacked.
      written_bytes: into the arena, at every inference: the weights, and what comes before them.
      arena_bytes: as planned; `plain_arena_bytes`: if the weights lay in the file. None where it is too large to plan.
    """

    layers: int
    stored_bytes: int
    weight_bytes: int
    written_bytes: int
    arena_bytes: int | None
    plain_arena_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `unpacking`."""
        return dict(self.__dict__)

    def __str__(self) -> str:
        text = (
            f"weights of {self.layers} layer{'s' if self.layers > 1 else ''} are unpacked at every inference: "
            f"{self.stored_bytes / 1e3:.1f} kB become {self.weight_bytes / 1e3:.1f}, {self.written_bytes / 1e3:.1f} kB are "
            "written for it"
        )
        if self.arena_bytes is None or self.plain_arena_bytes is None:
            return text
        more = self.arena_bytes - self.plain_arena_bytes
        return f"{text}; the arena takes {more / 1e3:.1f} kB more than for weights that lie in the file"


def unpacking(model: ModelFile) -> Unpacking | None:
    """The cost, None where no weights are packed."""
    graph, found = model.main, packings(model)
    if not found:
        return None
    made = {i for p in found.values() for position in p.operators for i in graph.operators[position].outputs}
    return Unpacking(
        layers=len(found),
        stored_bytes=sum(p.size_bytes for p in found.values()),
        weight_bytes=sum(tensor_bytes(p.record) for p in found.values()),
        written_bytes=sum(tensor_bytes(graph.tensors[i]) for i in made),
        arena_bytes=plan(graph).size_bytes,
        plain_arena_bytes=plan(graph, without=made).size_bytes,
    )
