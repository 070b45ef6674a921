"""What devices run, as data; pipelines and passes ask a target and never know its name."""

from __future__ import annotations

from converter.targets import cpu, edgetpu, ethos_u, npu, tflm
from converter.targets.rules import CheckReport, Verdict
from converter.targets.target import Target
from ir.errors import OptionError

__all__ = ["TARGETS", "CheckReport", "Target", "Verdict", "get_target"]

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (*cpu.TARGETS.values(), edgetpu.TARGET, npu.TARGET, *ethos_u.TARGETS.values(), tflm.TARGET)
}


def get_target(name: str) -> Target:
    """A target by name. Raises OptionError if there is none."""
    if name not in TARGETS:
        raise OptionError(
            expected=f"a target of {', '.join(TARGETS)}", found=name, where="--target", fix="choose one of them"
        )
    return TARGETS[name]
