"""What came of a pass, in types: readers ask these, and never look for words in texts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Skip:
    """A place where a pass could have acted and did not, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Trial:
    """The error of the logits before and after a pass, relative to their power."""

    before: float
    after: float

    def __str__(self) -> str:
        return f"error of the logits {self.before:.3%} before, {self.after:.3%} after"


@dataclass(frozen=True)
class Applied:
    """The graph is another, or more is known of it; `trial` where the guard measured it."""

    trial: Trial | None = None


@dataclass(frozen=True)
class NothingToDo:
    """Nowhere did the pass find what it changes, or it refused everywhere."""


@dataclass(frozen=True)
class LeftOut:
    """The guard measured that the pass does harm: graph and side tables are what they were before."""

    trial: Trial


@dataclass(frozen=True)
class Undone:
    """The pass itself measured that what it tried does not help, and undid it."""

    why: str


Outcome = Applied | NothingToDo | LeftOut | Undone


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """What one run of a pass did.

    Attributes:
      changed: one short text per change of the graph, naming the node; empty if and only if the graph is what it was.
      recorded: what was added to the side tables or the samples, without any change of the graph.
      skipped: where it refused, and why.
      notes: what the user should know besides (warnings, measured figures).
      verdict: where something else was decided than the texts say: see `outcome`.
    """

    changed: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()
    skipped: tuple[Skip, ...] = ()
    notes: tuple[str, ...] = ()
    verdict: Applied | LeftOut | Undone | None = None

    def __post_init__(self) -> None:
        assert not (self.changed and isinstance(self.verdict, LeftOut | Undone)), "what was taken back changed nothing"

    @property
    def outcome(self) -> Outcome:
        """What came of the pass."""
        if self.verdict is not None:
            return self.verdict
        return Applied() if self.changed or self.recorded else NothingToDo()

    @property
    def done(self) -> tuple[str, ...]:
        """Everything it did, in short texts."""
        return self.changed + self.recorded

    def kept(self, trial: Trial) -> PassReport:
        """The same of a pass that the guard measured and kept."""
        return dataclasses.replace(self, notes=(*self.notes, str(trial)), verdict=Applied(trial))

    def left_out(self, name: str, trial: Trial) -> PassReport:
        """The same of a pass that the guard measured and undid."""
        skip = Skip(name, f"left out, because it makes the result worse: {trial}")
        return PassReport(skipped=(skip, *self.skipped), notes=(f"{name} left out: {trial}",), verdict=LeftOut(trial))
