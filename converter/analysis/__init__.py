"""Where accuracy is lost, layer by layer, and why."""

from __future__ import annotations

from typing import Any

from converter.analysis.table import Analysis, Cause, LayerAnalysis, WorstInput
from converter.recording import History

__all__ = ["Analysis", "Cause", "History", "LayerAnalysis", "WorstInput", "analyze"]


def __getattr__(name: str) -> Any:
    """`analyze` is imported when asked for: the recorder of a conversion does not need it."""
    if name == "analyze":
        from converter.analysis.analyzing import analyze

        return analyze
    raise AttributeError(f"module 'converter.analysis' has no attribute '{name}'")
