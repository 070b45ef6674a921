"""What a program around TensorFlow Lite Micro has to know of a file: the size of its arena, the operators to register."""

from __future__ import annotations

from dataclasses import dataclass

from converter.analysis.arena import plan
from converter.benchmarking import random_inputs
from converter.runtimes.local import LocalRuntime
from converter.targets.tflm import registrations
from converter.tflite.model_file import parse
from converter.tflite.records import ModelFile
from ir.errors import RuntimeFailure
from ir.profile import TFLM

# Bytes of the interpreter's own records, on 64 bits: of a scale per channel its multiplier and shift; what the records of
# an operator with its tensors take at most in the networks of the tests, and what is left of an empty one.
_PER_SCALE, _PER_OPERATOR, _ALWAYS = 8, 400, 4096


@dataclass(frozen=True, kw_only=True)
class MicroNeeds:
    """Of one file.

    Attributes:
      arena_bytes: enough on a processor of 64 bits; of 32 bits less is.
      measured: by the interpreter itself; else it is an estimate.
      register: methods of `MicroMutableOpResolver`.
    """

    arena_bytes: int
    measured: bool
    register: tuple[str, ...]

    def __str__(self) -> str:
        how = "as its interpreter uses here" if self.measured else "estimated; install the extra tflm to measure it"
        return (
            f"TensorFlow Lite Micro: an arena of {self.arena_bytes} bytes ({self.arena_bytes / 1024:.1f} KiB, {how}, with "
            "pointers of 64 bits)"
        )


def micro_needs(model: bytes) -> MicroNeeds:
    """Asks TensorFlow Lite Micro itself where it is installed and runs the file."""
    file, used = parse(model), _measured(model)
    return MicroNeeds(
        arena_bytes=_estimated(file) if used is None else used,
        measured=used is not None,
        register=registrations(file),
    )


def _measured(model: bytes) -> int | None:
    try:
        session = LocalRuntime.of(TFLM).load(model)
        session.invoke(random_inputs(model))
    except RuntimeFailure:
        return None
    return session.timing.arena_bytes


def _estimated(file: ModelFile) -> int:
    laid = plan(file.main)
    scales = sum(int(tensor.scale.size) for tensor in file.main.tensors if tensor.scale.size > 1)
    activations = laid.live_bytes if laid.size_bytes is None else laid.size_bytes
    return activations + _PER_SCALE * scales + _PER_OPERATOR * len(file.main.operators) + _ALWAYS
