"""The choice of widths for a budget, and the front that it is a point of."""

from __future__ import annotations

import csv
import functools
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.mixed.budget import Budget
from converter.mixed.candidates import Candidates, Group
from converter.mixed.latency import Latencies
from converter.mixed.sensitivities import Losses
from converter.mixed.solver import Option, choose, least
from ir.widths import container
from passes.contract.base import Progress, silent
from passes.measuring.scores import better
from passes.quantization.bits import BitsPlan

CHOSEN = "chosen"  # the label of its point
_ROUNDING = 1e-6  # of a limit in whole bits or bytes, as a float
_POINTS = 13  # of the front, between its ends
_NS = 1e6  # of a millisecond
_MEASURED_EACH = 4  # of them every fourth is measured


@dataclass(frozen=True, kw_only=True)
class Point:
    """One choice of widths.

    Attributes:
      bits: of each group of weights.
      size_bytes: of the file; mean_bits: of a weight, as stored.
      predicted: the sum of the losses of all layers; measured: noise to signal at the logits, activations quantized too, on
        samples that weights were not fitted to, None where it was not measured.
      latency_ms: of an inference, None where time is not limited.
      label: "chosen", "8 bits" and the like for uniform widths, "" for others of the front.
    """

    bits: tuple[int, ...]
    size_bytes: int
    mean_bits: float
    predicted: float
    measured: float | None = None
    latency_ms: float | None = None
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and from what.

    Attributes:
      plan: with a rule for every layer; `groups`, `losses`: the layers, and what each loses by its bits.
      points: the front by size, uniform widths and the chosen one among them.
    """

    budget: Budget
    plan: BitsPlan
    groups: tuple[Group, ...]
    losses: tuple[dict[int, float], ...]
    points: tuple[Point, ...]

    @property
    def chosen(self) -> Point:
        return next(p for p in self.points if p.label == CHOSEN)

    @property
    def sentence(self) -> str:
        """What was chosen, for the summary."""
        counts = {b: self.chosen.bits.count(b) for b in sorted(set(self.chosen.bits), reverse=True)}
        widths = ", ".join(f"{bits} bits in {count} layers" for bits, count in counts.items())
        time = self.chosen.latency_ms
        return (
            f"widths chosen for {self.budget.flag} by {self.budget.sensitivity}: {widths}, "
            f"{self.chosen.mean_bits:.2f} in the mean of all weights"
            + ("" if time is None else f", {time:.3g} ms by the times of its operators on this machine")
        )

    def command(self, point: Point) -> str:
        """The flag with which `convert` chooses a point of the front."""
        if self.budget.time_alone:
            assert point.latency_ms is not None
            return f"--max_latency={math.ceil(1e3 * point.latency_ms)}us"
        if self.budget.max_bops is not None:
            spent = sum(g.multiplications * b * g.read_bits for g, b in zip(self.groups, point.bits, strict=True))
            return f"--max_bops={spent}"
        if self.budget.mean_bits is not None:
            return f"--mean_bits={math.ceil(round(1e4 * point.mean_bits, 6)) / 1e4:.4f}"
        return f"--max_size={point.size_bytes}"

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `choice` in `convert --json`."""
        return {
            "budget": self.budget.flag,
            "limit": self.budget.limit,
            "sensitivity": self.budget.sensitivity,
            "layers": [
                {
                    "layers": list(g.layers),
                    "weights": g.elements,
                    "bits": b,
                    "losses": {str(k): v for k, v in losses.items()},
                }
                for g, b, losses in zip(self.groups, self.chosen.bits, self.losses, strict=True)
            ],
            "points": [
                {
                    "size_bytes": p.size_bytes,
                    "mean_bits": p.mean_bits,
                    "predicted": p.predicted,
                    "measured": p.measured,
                    "latency_ms": p.latency_ms,
                    "label": p.label,
                    "option": self.command(p),
                }
                for p in self.points
            ],
        }

    def as_csv(self) -> str:
        """The front: a row per point, its figures and then the bits of every layer."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        head = ["label", "size_bytes", "mean_bits", "predicted", "measured", "latency_ms", "option"]
        rows.writerow([*head, *(group.name for group in self.groups)])
        for p in self.points:
            known = ["" if v is None else v for v in (p.measured, p.latency_ms)]
            rows.writerow([p.label, p.size_bytes, p.mean_bits, p.predicted, *known, self.command(p), *p.bits])
        return text.getvalue()


class Chooser:
    """Chooses from candidates.

    `size_of` is the size of the file that a plan makes, in bytes; `latencies` are known where the budget limits time.
    """

    def __init__(
        self,
        candidates: Candidates,
        losses: Losses,
        budget: Budget,
        size_of: Callable[[BitsPlan], int],
        latencies: Latencies | None = None,
    ) -> None:
        self.groups, self.losses = candidates.groups, losses
        self._latencies = latencies
        self._candidates, self._budget, self._size_of = candidates, budget, functools.cache(size_of)
        self._score = candidates.score

    def choose(self, progress: Progress = silent) -> Choice:
        """The choice for the budget. Raises OptionError where none meets it."""
        bits = self.bits()
        return Choice(
            budget=self._budget,
            plan=self.plan(bits),
            groups=tuple(self.groups),
            losses=tuple(self.losses),
            points=tuple(self._front(bits, progress)),
        )

    def bits(self) -> tuple[int, ...]:
        """Of each group, for the budget. Raises OptionError where none meets it."""
        solved = self._within_size() if self._budget.max_size is not None else self._within(self._budget.limit)
        return self._or_simple(solved)

    def plan(self, bits: Sequence[int]) -> BitsPlan:
        """With a rule for every layer: a file of it says all that may be edited."""
        own = self._candidates.quantize
        return BitsPlan(
            weight_bits=min(bits, default=own.weight_bits),
            activation_bits=own.activation_bits,
            ends=own.ends,
            rules=tuple(self._candidates.rules(bits)),
        )

    def solve(self, limit: float, time: int | None = None) -> tuple[int, ...]:
        """Bits of least loss whose costs sum to at most `limit`, in the budget's unit. ValueError where there are none.

        `time`: of the layers, at most, in nanoseconds.
        """
        chosen = choose(self._options(), self._whole(limit), time)
        return self._bits_of(chosen)

    def _bits_of(self, chosen: Sequence[int]) -> tuple[int, ...]:
        return tuple(group.bits[i] for group, i in zip(self.groups, chosen, strict=True))

    def _whole(self, limit: float) -> int:
        """A limit as a sum of costs."""
        rest = self._latencies.rest if self._latencies is not None and self._budget.time_alone else 0
        return math.floor(limit * self._unit - rest + _ROUNDING)

    def _options(self) -> list[list[Option]]:
        return [
            [Option(losses[b], self._cost(i, b), self._time(i, b)) for b in group.bits]
            for i, (group, losses) in enumerate(zip(self.groups, self.losses, strict=True))
        ]

    def _time(self, index: int, bits: int) -> int:
        return 0 if self._latencies is None else self._latencies.layers[index][bits]

    def _cost(self, index: int, bits: int) -> int:
        """Of a group at a width."""
        group = self.groups[index]
        if self._budget.time_alone:
            return self._time(index, bits)
        if self._budget.mean_bits is not None:
            return group.elements * container(bits).bits
        return group.multiplications * bits * group.read_bits if self._budget.max_bops else group.size_bytes(bits)

    @property
    def _unit(self) -> float:
        """Costs in a limit of 1."""
        if self._budget.time_alone:
            return _NS
        return sum(g.elements for g in self.groups) if self._budget.mean_bits is not None else 1

    @property
    def _time_left(self) -> int | None:
        """Nanoseconds that layers may take; None where time is not limited, or is what costs are."""
        limit = self._budget.latency_ms
        if limit is None or self._latencies is None or self._budget.time_alone:
            return None
        return math.floor(_NS * limit) - self._latencies.rest

    @property
    def _narrowest(self) -> tuple[int, ...]:
        return tuple(group.bits[-1] for group in self.groups)

    def _within(self, limit: float) -> tuple[int, ...]:
        lowest = (least(self._options()) - self._whole(0)) / self._unit
        if limit < lowest:
            raise self._budget.refused(lowest)
        return self._in_time(limit)

    def _in_time(self, limit: float) -> tuple[int, ...]:
        """`solve`, within the limit of time if there is one. Raises OptionError where the fastest widths take longer."""
        try:
            return self.solve(limit, self._time_left)
        except ValueError:
            assert self._latencies is not None
            timed = [[replace(option, loss=float(option.time)) for option in row] for row in self._options()]
            fastest = self._bits_of(choose(timed, self._whole(limit)))
            raise self._budget.refused_time(self._latencies.of(fastest) / _NS) from None

    def _within_size(self) -> tuple[int, ...]:
        """For a file: what is left for weights is tightened until the file, written, is small enough."""
        limit = int(self._budget.limit)
        left = self._room
        while left >= least(self._options()):
            bits = self._in_time(left)
            excess = self._size_of(self.plan(bits)) - limit
            if excess <= 0:
                return bits
            left -= excess
        smallest = self._size_of(self.plan(self._narrowest))
        if smallest > limit:
            raise self._budget.refused(smallest)
        return self._in_time(least(self._options()))

    def _or_simple(self, bits: tuple[int, ...]) -> tuple[int, ...]:
        """The choice, or a simple one that fits and is measured to be better: a sum over layers knows not what they do together."""
        best = bits
        for simple in dict.fromkeys(self._simple()):
            wider = any(b > a for a, b in zip(best, simple, strict=True))  # one that is nowhere wider loses more
            if (
                wider
                and self._quick_enough(simple)
                and self._fits(simple)
                and better(self._score(best), self._score(simple), 0.0)
            ):
                best = simple
        return best

    def _simple(self) -> Iterator[tuple[int, ...]]:
        """Choices that need no losses: uniform widths, with wide ends or without, and the largest layers the narrowest."""
        for width in self._candidates.nearest:
            for ends in dict.fromkeys((self._candidates.quantize.ends, width)):
                yield self._plain(BitsPlan(weight_bits=width, ends=ends))
        bits = [group.bits[0] for group in self.groups]
        for i in sorted(range(len(bits)), key=lambda i: -self.groups[i].elements):
            if self._spent(bits) <= self._room:
                break
            bits[i] = self.groups[i].bits[-1]
        yield tuple(bits)

    def _plain(self, plan: BitsPlan) -> tuple[int, ...]:
        """The widths that groups have under a plan, as far as the target has them."""
        requested = plan.requested(self._candidates.graph)
        asked = {node.name: requested(node).weight_bits for node in self._candidates.graph.nodes}
        return tuple(
            min((b for b in g.bits if b >= max(asked[name] for name in g.layers)), default=g.bits[0])
            for g in self.groups
        )

    def _fits(self, bits: tuple[int, ...]) -> bool:
        if self._budget.max_size is not None:
            return self._size_of(self.plan(bits)) <= self._budget.limit
        return self._spent(bits) <= self._room

    def _quick_enough(self, bits: Sequence[int]) -> bool:
        limit = self._budget.latency_ms
        return limit is None or self._latencies is None or self._latencies.of(bits) <= _NS * limit

    def _spent(self, bits: Sequence[int]) -> int:
        return sum(self._cost(i, b) for i, b in enumerate(bits))

    @property
    def _room(self) -> int:
        """What may be spent; of a file's bytes, about."""
        if self._budget.max_size is not None:
            return int(self._budget.limit) - self._rest
        return self._whole(self._budget.limit)

    @functools.cached_property
    def _rest(self) -> int:
        """Bytes of the file besides weights."""
        return self._size_of(self.plan(self._narrowest)) - self._bytes(self._narrowest)

    def _bytes(self, bits: Sequence[int]) -> int:
        return sum(group.size_bytes(b) for group, b in zip(self.groups, bits, strict=True))

    def _point(self, bits: tuple[int, ...], label: str = "") -> Point:
        stored = sum(g.elements * container(b).bits for g, b in zip(self.groups, bits, strict=True))
        return Point(
            bits=bits,
            size_bytes=self._size_of(self.plan(bits)) if label == CHOSEN else self._rest + self._bytes(bits),
            mean_bits=stored / max(sum(g.elements for g in self.groups), 1),
            latency_ms=None if self._latencies is None else self._latencies.of(bits) / _NS,
            predicted=sum(losses[b] for losses, b in zip(self.losses, bits, strict=True)),
            label=label,
        )

    def _front(self, chosen: tuple[int, ...], progress: Progress) -> list[Point]:
        """By size; points that several budgets give stand once."""
        options = self._options()
        low, high = least(options), sum(max(o.cost for o in row) for row in options)
        whole = (low + (high - low) * i / (_POINTS - 1) for i in range(_POINTS))
        steps = [(cost - self._whole(0)) / self._unit for cost in whole]
        found = {bits: self._point(bits) for bits in map(self.solve, steps)}
        kept = {bits: i % _MEASURED_EACH == 0 for i, bits in enumerate(found)}
        for width in self._candidates.nearest:
            uniform = tuple(group.at_most(width) for group in self.groups)
            found[uniform] = self._point(uniform, f"{width} bits")
        found[chosen] = self._point(chosen, CHOSEN)
        for number, (bits, point) in enumerate(found.items()):
            if point.label or kept[bits]:
                found[bits] = replace(point, measured=self._score(bits).error)
            progress("points of the front", number + 1, len(found))
        return sorted(found.values(), key=lambda p: p.size_bytes)
