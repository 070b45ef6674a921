"""iPQ (A. Fan et al., arXiv:2004.07320, section 4.2; docs/methods/codebooks.md): codebooks layer by layer, training between.

The layers that get a codebook, zeros or longer steps (those of `codebooks`, within `max_bytes` or of `length` and `entries`) are taken in the
network's order, in `stages` parts of about as many weights. A part is coded as `codebooks` codes it, to what the network
as it is then computes from it, its inputs quantized. Then everything is trained as `lsq` trains: layers that have
no codebook yet make up for those that have, on their int8 grids; of those that have, entries learn, by the mean gradient
of their blocks, and biases and steps do. Blocks keep the entry that they were given.
Entries are int8 throughout, and activations are quantized: what is judged is what the file holds. Weights in Huffman codes
may take more bytes once they are trained; nothing here holds them to the size, but `convert` refuses such a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph, Node
from passes.compression.budget import Option, Plan
from passes.compression.codebooks import Codebooks, stored
from passes.contract.base import Context, Needs, PassReport, Skip, choice, numeric
from passes.training.lsq import Lsq
from passes.training.stages import parts_of
from passes.training.stepped import BATCH_NORMS


@dataclass(frozen=True, kw_only=True)
class Ipq(Lsq):
    """Gives weights codebooks, some layers at a time, and trains the others and the entries after each."""

    name: ClassVar[str] = "ipq"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.TUNING_DATA, Needs.DATA})

    epochs: int = numeric(2, least=1)
    batch_norm: str = choice("frozen", BATCH_NORMS)
    max_bytes: int = numeric(0, least=1, zero="for no limit")
    length: int = numeric(4, least=1)
    entries: int = numeric(256, least=2, most=256)
    stages: int = numeric(4, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._coder  # noqa: B018 - raises where its options are none

    def _checks(self) -> dict[str, tuple[bool, str]]:
        return {
            **super()._checks(),
            "checkpoint_dir": (not self.checkpoint_dir, "none: stages cannot be resumed"),
        }

    @property
    def _coder(self) -> Codebooks:
        return Codebooks(max_bytes=self.max_bytes, length=self.length, entries=self.entries)

    def run(self, graph: Graph, context: Context) -> PassReport:
        """In stages."""
        plan = self._coder.plan(graph, context)
        parts = stages_of(graph, plan.chosen, self.stages)
        if not parts:
            return PassReport(skipped=(Skip(graph.name, "no layer gets smaller with such a codebook"),))
        changed, skipped, notes = list[str](), list[Skip](), list[str]()
        for number, part in enumerate(parts, 1):
            coded, refused = self._coder.apply(graph, context, Plan.fixed(part), only=part.keys())
            report = super().run(graph, context)
            changed += [*coded, *(f"stage {number}: {text}" for text in report.changed)]
            skipped += [*refused, *report.skipped]
            notes += [f"stage {number}: {text}" for text in report.notes]
        notes += self._coder.notes(graph, plan)
        return PassReport(changed=tuple(changed), skipped=tuple(skipped), notes=tuple(notes))


def stages_of(graph: Graph, plan: Mapping[Node, Option], count: int) -> list[dict[Node, Option]]:
    """The layers that do not stay as they are, in order, in at most `count` parts of about as many weights."""
    coded = [node for node in graph.nodes if node in plan and not plan[node].plain]
    parts = parts_of(coded, [stored(node).type.size for node in coded], count)
    return [{node: plan[node] for node in part} for part in parts]
