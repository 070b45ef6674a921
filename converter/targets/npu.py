"""Accelerators without per-channel scales (Axis advises per-tensor for ARTPEC-8; older DSPs): one scale per tensor."""

from __future__ import annotations

from converter.targets.rules import (
    EIGHT_BITS,
    CheckReport,
    Rule,
    Rules,
    Takes,
    check_each,
    constant_parameters,
    per_tensor_weights,
)
from converter.targets.target import Target
from converter.tflite.records import ModelFile
from ir.ops import OPERATORS

_INT8 = Takes(activations=EIGHT_BITS, weights=EIGHT_BITS)
_RULE = Rule(takes=(_INT8,), limits=(constant_parameters, per_tensor_weights))
RULES: Rules = {
    op: _RULE for op in OPERATORS if op.encoding is not None and op.quantization.integer and op.integer is not None
}


def check(model: ModelFile, min_runtime_version: str | None = None) -> CheckReport:
    """Which operators keep to int8 and one scale per tensor; what a single accelerator lacks is not known here."""
    verdicts = check_each(
        model,
        RULES,
        on="Suits per-tensor accelerators",
        off="Left on the CPU",
        missing="it has no integer form",
        fix="use other layers",
    )
    note = "integer types and one scale per tensor; the operators that your device lacks are in its own manual"
    return CheckReport(target=TARGET.name, verdicts=verdicts, notes=(note,))


TARGET = Target(
    name="npu-per-tensor",
    summary="accelerators without per-channel scales",
    granularity="per_tensor",
    rules=RULES,
    check=check,
    exclusive=False,
)
