"""From a trained network to a fully integer TFLite file: frontends, writer, runtimes, reports.

`converter.convert(...)` is the command `convert` from Python, `converter.analyze(result)` says where accuracy was lost; errors of the user's making are `ConversionError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from converter.backend import choose_backend
from converter.mixed.budget import Budget
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
    "Budget",
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


_HOMES = {  # of what is imported when asked for: it brings Keras, which errors and readers do not need
    "Analysis": "analysis",
    "ConversionResult": "conversion",
    "Student": "quantization_aware",
    "analyze": "analysis",
    "convert": "conversion",
    "quantize_aware": "quantization_aware",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """What `_HOMES` names, from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'converter' has no attribute '{name}'")
    choose_backend()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
