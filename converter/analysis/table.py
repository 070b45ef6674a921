"""What an analysis found: plain frozen records with small arrays, each as JSON and as columns."""

from __future__ import annotations

import dataclasses
import importlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.recording import History
from converter.records import Record

_SHOWN = 3  # of a kind, in few words


@dataclass(frozen=True, kw_only=True)
class Histogram(Record):
    """`counts` of float values between neighbouring `edges` (one more)."""

    counts: np.ndarray
    edges: np.ndarray


@dataclass(frozen=True, kw_only=True)
class LayerAnalysis(Record):
    """One operator of the emitted file.

    Attributes:
      name: the node in the emitted graph; `operator` its TFLite name; `layers` the layers of the source it stands for.
      output: name of its (first) output, of `shape`.
      sqnr_alone_db: SQNR of its output when it alone is quantized (exact inputs; quantized weights, bias and output).
      sqnr_db: SQNR of its output in the integer network, everything before it quantized too.
      cosine: between that integer output and the float one.
      clipped: share of the float values outside the range that the integers have.
      scale, zero_point: of the output. `range` is what they represent, `float_range` what was seen.
      histogram: of the float output.
      weight_bytes: of its constants in the file, `share_of_size` their part of the file.
      weight_low, weight_high: `[channels]`, as quantized; `_before`: after folding, before any scaling of channels.
      codebook: the entries `[entries, length]` that blocks of the weights are; None without.
      range_before_tuning: the range that calibration chose, None where nothing changed it later.
      cause, suggestion: what most likely costs accuracy here and the option to try; None where nothing stands out.
      contribution: share of this layer in the sum of the squared errors that each layer, quantized alone, makes in
        the logits; None where sensitivity was not measured.
      logits_sqnr_db: SQNR of the logits with this layer alone quantized; None where not measured.
    """

    name: str
    operator: str
    layers: tuple[str, ...] = ()
    output: str = ""
    shape: tuple[int, ...] = ()
    sqnr_alone_db: float | None = None
    sqnr_db: float | None = None
    cosine: float | None = None
    clipped: float | None = None
    scale: float | None = None
    zero_point: int | None = None
    range: tuple[float, float] | None = None
    float_range: tuple[float, float] | None = None
    histogram: Histogram | None = None
    weight_bytes: int = 0
    share_of_size: float = 0.0
    weight_low: np.ndarray | None = None
    weight_high: np.ndarray | None = None
    weight_low_before: np.ndarray | None = None
    weight_high_before: np.ndarray | None = None
    codebook: np.ndarray | None = None
    range_before_tuning: tuple[float, float] | None = None
    cause: str | None = None
    suggestion: str | None = None
    contribution: float | None = None
    logits_sqnr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class WorstInput(Record):
    """A sample that the integer network answers worst: `(class, probability or score)` best first.

    Attributes:
      index: of the sample in the data; `name` its file's, "" where it has none.
      label: its true class, if known.
      image: uint8 `[height, width, 3]`, None where the input is no image.
    """

    index: int
    float_top: tuple[tuple[int, float], ...]
    integer_top: tuple[tuple[int, float], ...]
    sqnr_db: float
    name: str = ""
    label: int | None = None
    image: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Cause(Record):
    """Why accuracy is lost: `severity` 0 (nothing) to 1, `where` a layer, "input" or None (the whole network)."""

    severity: float
    title: str
    explanation: str
    suggestion: str
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class PassChange(Record):
    """What a pass of the pipeline did: `changed` nodes, `skipped` `(where, reason)`, its notes."""

    name: str
    changed: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Analysis(Record):
    """Where a conversion lost accuracy, and why.

    Attributes:
      layers: operators in the file's order.
      causes: worst first.
      worst_inputs: worst first.
      summary: `samples`, `float_accuracy` and `integer_accuracy` and `agreement` (each None, or `value`, `low`, `high`
        with the 95 % Wilson interval), `sqnr_db`, `size_bytes`, `pipeline`, `target` (None, or `name`, `mapped`,
        `operators`), `sensitivity` (None, or `measured`, `layers`, `seconds`).
      passes: the passes in order.
      history: ranges after each pass; empty if the conversion did not record it.
    """

    layers: tuple[LayerAnalysis, ...] = ()
    causes: tuple[Cause, ...] = ()
    worst_inputs: tuple[WorstInput, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    passes: tuple[PassChange, ...] = ()
    history: History = field(default_factory=History)

    def __repr__(self) -> str:
        """A line each for the figure, the layers that cost most and the causes: a notebook prints it by itself."""
        figure = self.summary.get("sqnr_db")
        lines = [f"Analysis of {len(self.layers)} layers{'' if figure is None else f', {figure:.1f} dB'}"]
        lines += [f"{layer.operator} '{layer.name}'{_alone(layer)}" for layer in self.worst(_SHOWN)]
        lines += [f"{cause.title}: {cause.suggestion}" for cause in self.causes[:_SHOWN]]
        return "\n  ".join(lines)

    def columns(self) -> dict[str, list[Any]]:
        """A list per column of the layer table, one entry per layer: what a DataFrame takes."""
        names = [f.name for f in dataclasses.fields(LayerAnalysis)]
        return {name: [getattr(layer, name) for layer in self.layers] for name in names}

    def to_pandas(self) -> Any:
        """The layer table as a `pandas.DataFrame`. Raises ImportError where pandas is not installed."""
        return importlib.import_module("pandas").DataFrame(self.columns())

    def worst(self, n: int = 5) -> tuple[LayerAnalysis, ...]:
        """The `n` layers that cost most: by what they do to the logits where it was measured, then by their own SQNR."""
        return tuple(sorted(self.layers, key=_badness)[:n])


def _alone(layer: LayerAnalysis) -> str:
    return "" if layer.sqnr_alone_db is None else f": {layer.sqnr_alone_db:.1f} dB alone"


def _badness(layer: LayerAnalysis) -> tuple[float, float, float]:
    share = -1.0 if layer.contribution is None else layer.contribution
    effect = math.inf if layer.logits_sqnr_db is None else layer.logits_sqnr_db
    alone = math.inf if layer.sqnr_alone_db is None else layer.sqnr_alone_db
    return -share, effect, alone
