"""From a trained network to a fully integer TFLite file: frontends, writer, runtimes, reports.

`converter.convert(...)` is the command `convert` from Python, `converter.analyze(result)` says where accuracy was lost; errors of the user's making are `ConversionError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converter.backend import choose_backend
from ir.errors import (
    ConversionError,
    DataError,
    GateError,
    ModelError,
    OptionError,
    OutputError,
    ProofError,
    RuntimeFailure,
)

if TYPE_CHECKING:
    from converter.analysis import Analysis
    from converter.analysis.analyzing import analyze
    from converter.conversion import convert
    from converter.quantization_aware import Student, quantize_aware
    from converter.result import ConversionResult

__all__ = [
    "Analysis",
    "ConversionError",
    "ConversionResult",
    "DataError",
    "GateError",
    "ModelError",
    "OptionError",
    "OutputError",
    "ProofError",
    "RuntimeFailure",
    "Student",
    "analyze",
    "convert",
    "quantize_aware",
]


def __getattr__(name: str) -> Any:
    """`convert` and its result are imported when asked for: they bring Keras, which errors and readers do not need."""
    if name in ("convert", "ConversionResult", "analyze", "Analysis", "quantize_aware", "Student"):
        choose_backend()
    if name in ("convert", "ConversionResult"):
        from converter import conversion

        return getattr(conversion, name)
    if name in ("quantize_aware", "Student"):
        from converter import quantization_aware

        return getattr(quantization_aware, name)
    if name in ("analyze", "Analysis"):
        from converter import analysis

        return getattr(analysis, name)
    raise AttributeError(f"module 'converter' has no attribute '{name}'")
