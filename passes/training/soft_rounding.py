"""Rounding up or down as something that can be learned (AdaRound, arXiv:2004.10568).

`W~ = S clip(floor(W / S) + h(V), qmin, qmax)` (eq. 22) with the rectified sigmoid
`h(V) = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1)` (eq. 23), which reaches 0 and 1 where its slope is not yet 0.
`sum(1 - |2 h(V) - 1|^beta)` (eq. 24) is 0 where every weight has decided: a large `beta` leaves those between alone and
gathers the others at the ends, a small one drives all of them there. `beta` falls along half a cosine, after a warm-up
in which only the error of the output counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.errors import OptionError
from ir.keras_ops import K

ZETA, GAMMA = 1.1, -0.1
_EDGE = 0.01  # how near to 0 or 1 a weight may start: at the very ends the slope is 0


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """When, and how strongly, weights are made to decide.

    Attributes:
      steps: of the whole training; in the share `warmup` of them the penalty is off.
      strength: `lambda`, of the penalty beside the error of the output.
      first, last: `beta` after the warm-up and in the end.
    """

    steps: int
    warmup: float = 0.2
    strength: float = 0.01
    first: float = 20.0
    last: float = 2.0

    def __post_init__(self) -> None:
        checks = {
            "warmup": (0 <= self.warmup < 1, "at least 0, below 1"),
            "strength": (self.strength >= 0, "at least 0"),
            "beta": (1 <= self.last <= self.first, "a last one of at least 1, and no larger than the first"),
        }
        for option, (good, expected) in checks.items():
            if not good:
                raise OptionError(
                    expected=expected, found=str(self), where=f"learned rounding, {option}", fix="change the option"
                )

    def at(self, step: Any) -> tuple[Any, Any]:
        """Strength and `beta` at a step, a tensor."""
        begin = self.warmup * self.steps
        done = K.clip((K.cast(step, "float32") - begin) / max(1.0, self.steps - begin), 0.0, 1.0)
        beta = self.last + (self.first - self.last) * 0.5 * (1.0 + K.cos(math.pi * done))
        return K.where(done > 0, self.strength, 0.0), beta


def rectified_sigmoid(v: Any, zeta: float = ZETA, gamma: float = GAMMA) -> Any:
    """`h(V)`, in [0, 1]."""
    return K.clip(K.sigmoid(v) * (zeta - gamma) + gamma, 0.0, 1.0)


def start_at(fraction: np.ndarray, zeta: float = ZETA, gamma: float = GAMMA) -> np.ndarray:
    """The `V` of which `h(V)` is `fraction`, in [0, 1]."""
    share = (np.clip(fraction.astype(np.float64), _EDGE, 1 - _EDGE) - gamma) / (zeta - gamma)
    return -np.log(1.0 / share - 1.0).astype(np.float32)


def penalty(h: Any, beta: Any) -> Any:
    """`sum(1 - |2 h - 1|^beta)`; its slope at `h = 1/2` is 0."""
    return K.sum(1.0 - K.power(K.abs(2.0 * h - 1.0) + 1e-12, beta))
