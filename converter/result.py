"""What a conversion made: the bytes of the file, and everything the user should know about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from converter.compare import Comparison
from converter.layer_plot import layer_plot
from converter.mixed.choice import Choice
from converter.outputs import check_place, write_atomically
from converter.proof import RuntimeProof
from converter.recording import Trace
from converter.targets import CheckReport
from converter.tflite.model_file import parse
from converter.widths import LayerWidths, layer_widths
from ir.graph import Graph
from passes.contract.base import Pass
from passes.running.runner import PassRecord


@dataclass(frozen=True, kw_only=True, repr=False)
class ConversionResult:
    """What a conversion made.

    Attributes:
      model: the bytes of the .tflite file; `output` is where they were written, if they were.
      quality: comparison with the float model on the test data, or else the calibration data (None without data);
        `judged_on` says on which.
      passes: a record per pass; `pipeline` is their text.
      warnings: what the user should look at.
      proof: what each runtime that is installed made of the file, empty where it was not run.
      reference, graph: the float graph as read and the integer graph as written.
      prediction: which operators of the file the target is predicted to run.
      choice: the widths that were chosen for a budget, and from what.
      trace: what `converter.analyze` needs beside them.
    """

    model: bytes
    output: Path | None
    quality: Comparison | None
    passes: tuple[PassRecord, ...]
    pipeline: str
    warnings: tuple[str, ...]
    seconds: float
    reference: Graph = field(repr=False)
    graph: Graph = field(repr=False)
    prediction: CheckReport = field(repr=False)
    judged_on: str = "calibration"
    proof: tuple[RuntimeProof, ...] = ()
    choice: Choice | None = None
    trace: Trace = field(repr=False, default_factory=Trace)

    def __repr__(self) -> str:
        return "\n  ".join(["ConversionResult", *(f"{name}: {text}" for name, text in self._figures())])

    def _repr_html_(self) -> str:
        """A small table of the figures and a picture of the layers' sizes, for notebooks."""
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self._figures())
        return f"<table>{rows}</table>{layer_plot(self.widths)}"

    def _figures(self) -> list[tuple[str, str]]:
        """What a user asks first, by name."""
        where = "not written; .save(path) writes it" if self.output is None else str(self.output)
        rows = [
            ("file", f"{self.size_bytes / 1e6:.2f} MB, {where}"),
            ("operators", f"{sum(self.operators.values())}, in float: {len(self.float_operators) or 'none'}"),
        ]
        q = self.quality
        if q is not None:
            rows.append((f"against float, {q.samples} {self.judged_on} samples", ", ".join(q.closeness("SQNR"))))
        if q is not None and q.float_accuracy is not None:
            rows.append(("accuracy", f"{q.integer_accuracy:.1%} (float {q.float_accuracy:.1%})"))
        return [*rows, *(("warning", text) for text in self.warnings)]

    def save(self, path: str | Path) -> Path:
        """Writes the .tflite file, whole or not at all. Raises OutputError if it cannot be written there."""
        check_place(path)
        write_atomically(path, self.model)
        return Path(path)

    @property
    def kinds(self) -> frozenset[type[Pass]]:
        """The kinds of passes that ran."""
        return frozenset(type(r.step) for r in self.passes if r.step is not None)

    @property
    def size_bytes(self) -> int:
        return len(self.model)

    @cached_property
    def operators(self) -> dict[str, int]:
        """Operators of the file by TFLite name, most frequent first."""
        counts = Counter(op.code for op in parse(self.model).main.operators)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @cached_property
    def widths(self) -> tuple[LayerWidths, ...]:
        """The width of every operator of the file, and what it saves against int8."""
        return layer_widths(parse(self.model))

    @cached_property
    def float_operators(self) -> tuple[str, ...]:
        """Operators of the file that compute in float."""
        return float_operators(self.graph)

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `convert --json`; `sqnr_db` is null without data, and where nothing differs."""
        q = self.quality
        return {
            "output": None if self.output is None else str(self.output),
            "size_bytes": self.size_bytes,
            "operators": self.operators,
            "float_operators": list(self.float_operators),
            "agreement": None if q is None else q.agreement,
            "sqnr_db": None if q is None or not np.isfinite(q.sqnr_db) else q.sqnr_db,
            "accuracy": None
            if q is None or q.float_accuracy is None
            else {"float": q.float_accuracy, "integer": q.integer_accuracy},
            "samples": 0 if q is None else q.samples,
            "judged_on": None if q is None else self.judged_on,
            "classes": [] if self.trace.data is None else list(self.trace.data.classes),
            "pipeline": self.pipeline,
            "passes": [_record_json(r) for r in self.passes],
            "warnings": list(self.warnings),
            "proof": [p.as_json() for p in self.proof],
            "widths": [layer.as_json() for layer in self.widths],
            "choice": None if self.choice is None else self.choice.as_json(),
            "prediction": self.prediction.as_json(),
            "seconds": self.seconds,
        }


def _record_json(record: PassRecord) -> dict[str, Any]:
    return {
        "pass": record.name,
        "changed": list(record.report.done),
        "skipped": [{"where": s.where, "reason": s.reason} for s in record.report.skipped],
        "notes": list(record.report.notes),
        "seconds": record.seconds,
    }


def float_operators(graph: Graph) -> tuple[str, ...]:
    """The operators of an emitted graph that compute with floats; conversions at the ends do not count."""
    return tuple(
        f"{node.op.name} '{node.name}'"
        for node in graph.nodes
        if not node.op.is_conversion and any(v is not None and v.dtype.is_float for v in (*node.inputs, *node.outputs))
    )
