"""The report on a conversion: one page that opens from a file, without a network, and its numbers as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.records import plain
from converter.report.writing import check_folder, write_files
from passes.contract.base import Progress, silent

if TYPE_CHECKING:
    from converter.analysis.table import Analysis
    from converter.result import ConversionResult

PAGE, DATA = "index.html", "report.json"
FILES = (PAGE, DATA, *(f"model_explorer_{figure}.json" for figure in ("sqnr", "bytes", "latency")))

__all__ = ["DATA", "FILES", "PAGE", "check_folder", "write_report"]


def write_report(
    folder: str | Path,
    result: ConversionResult,
    analysis: Analysis | None = None,
    *,
    command: str = "",
    progress: Progress = silent,
) -> Path:
    """Writes `index.html`, `report.json` and node data for Model Explorer into a folder, which is made if need be; returns the page's path.

    The conversion is analysed on its calibration data unless an analysis is given; without data the report holds what
    is known without measuring. `command` is what was typed, for the page's head. Raises OutputError if it cannot be written.
    """
    from converter.report.content import gather  # brings Matplotlib, which a conversion without report does not need
    from converter.report.measuring import analysed
    from converter.report.overlay import overlays
    from converter.report.page import render

    if analysis is None:
        analysis = analysed(result, progress)
    content = gather(result, analysis, command=command, progress=progress)
    page = {PAGE: render(content, progress=progress).encode()}
    data = {DATA: content.as_json(), **overlays(content)}
    write_files(folder, {**page, **{name: _json(plain(content)) for name, content in data.items()}})
    return Path(folder) / PAGE


def _json(content: dict[str, Any]) -> bytes:
    """Compact, with as many digits as a float32 has."""
    short = json.loads(json.dumps(content), parse_float=lambda text: float(f"{float(text):.7g}"))
    return json.dumps(short, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
