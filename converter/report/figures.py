"""The pictures of a report: SVG by Matplotlib, in the colours of the page that holds them.

Matplotlib draws with placeholder colours, which are then replaced by the page's CSS variables: one figure serves light
and dark. A figure's coordinates are CSS pixels. No text of the model goes into a figure; its identifiers begin with a
key, which is its own in the page.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from converter.analysis.table import LayerAnalysis
from converter.mixed.choice import Choice

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no user needs its notes on fonts

# Placeholder -> CSS variable of the page.
_COLOURS = {
    "#010203": "--figure-text",
    "#010204": "--figure-grid",
    "#010205": "--now",
    "#010206": "--before",
    "#010207": "--bad",
}
TEXT, GRID, NOW, BEFORE, BAD = _COLOURS
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: sharp, searchable, in the page's font
    "svg.hashsalt": "report",
    "path.simplify": True,
    "font.family": "DejaVu Sans",  # comes with Matplotlib, for measuring; the page's own font is shown
    "font.size": 11,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "ytick.minor.size": 0,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "legend.frameon": False,
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_PIXELS_PER_INCH = 72  # of Matplotlib's SVG
SMALL, WIDE = (380, 230), (1080, 300)
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 26, 44  # pixels around the axes
_MOST_CHANNELS = 160  # more are drawn as the envelope of neighbours: an outlier stays seen
_MOST_ENTRIES = 96  # of a codebook, evenly over their means
_LOWEST_COUNT = 0.5  # of a logarithmic axis of counts: an empty bin is below it


@dataclass(frozen=True)
class Spot:
    """A point of a picture, in its pixels, that stands for a layer: its name, and what the point says."""

    x: float
    y: float
    layer: str
    text: str


@dataclass(frozen=True)
class Picture:
    """An SVG element as text, what it shows in words, for who does not see it, and points that stand for layers."""

    svg: str
    description: str
    spots: tuple[Spot, ...] = ()


def sqnr_overview(layers: Sequence[LayerAnalysis], key: str) -> Picture | None:
    """SQNR of every layer in the file's order; None where none was measured."""
    together = _finite_points(layer.sqnr_db for layer in layers)
    alone = _finite_points(layer.sqnr_alone_db for layer in layers)
    if not together and not alone:
        return None

    drawn_on: list[Axes] = []

    def plot(axes: Axes) -> None:
        drawn_on.append(axes)
        if alone:
            axes.plot(*zip(*alone, strict=True), "o", ms=4, mfc="none", color=BEFORE, label="this layer alone")
        if together:
            label = "with everything before it"
            axes.plot(*zip(*together, strict=True), "o-", ms=4, lw=1.2, color=NOW, label=label)
        axes.set_xlabel("layer, in the file's order")
        axes.set_ylabel("SQNR of its output (dB)")
        axes.set_xlim(0.5, len(layers) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes)

    lowest = min(together or alone, key=lambda point: point[1])
    words = f"SQNR of {len(layers)} layers; the lowest is {lowest[1]:.1f} dB at layer {lowest[0]}"
    svg = _drawn(plot, WIDE, key)
    named = [(i, db, layers[i - 1].name, what) for i, db, what in _point_texts(together, alone)]
    return Picture(svg, words, tuple(Spot(*_place(drawn_on[0], i, db), name, what) for i, db, name, what in named))


def _point_texts(
    together: Sequence[tuple[int, float]], alone: Sequence[tuple[int, float]]
) -> Iterator[tuple[int, float, str]]:
    """Points of the overview with their texts."""
    yield from ((i, db, f"{db:.1f} dB alone") for i, db in alone)
    yield from ((i, db, f"{db:.1f} dB with everything before it") for i, db in together)


def _place(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Where a point of the axes lies in a wide picture, in its pixels."""
    across, up = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
    width, height = WIDE
    return (
        round(_LEFT + float(across) * (width - _LEFT - _RIGHT), 1),
        round(_TOP + (1 - float(up)) * (height - _TOP - _BOTTOM), 1),
    )


def front(choice: Choice, key: str) -> Picture:
    """Size against loss of every point: predicted, and measured where it was; uniform widths and the choice by name."""
    points = choice.points
    rest = [p for p in points if not p.label.endswith("bits")]
    uniform = [p for p in points if p.label.endswith("bits")]
    measured = [(p.size_bytes / 1e3, p.measured) for p in points if p.measured]

    def plot(axes: Axes) -> None:
        lines = [(p.size_bytes / 1e3, p.predicted) for p in rest if p.predicted > 0]
        axes.plot(*_columns(lines), "-", lw=1.2, color=BEFORE, label="predicted for weights")
        axes.plot(*_columns(measured), "o", ms=4, color=NOW, label="measured, all quantized")
        for p in (*uniform, choice.chosen):
            colour = BAD if p is choice.chosen else BEFORE
            if y := p.measured or p.predicted:
                axes.plot([p.size_bytes / 1e3], [y], "o", ms=9, mfc="none", color=colour)
                axes.annotate(p.label, (p.size_bytes / 1e3, y), (7, 7), textcoords="offset points", color=colour)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.set_xlabel("size of the file (kB)")
        axes.set_ylabel("noise to signal of the logits" if choice.budget.sensitivity == "logits" else "loss")
        _legend(axes)

    sizes = [p.size_bytes / 1e3 for p in points]
    words = f"{len(points)} choices of {min(sizes):.4g} to {max(sizes):.4g} kB; the chosen one has {choice.chosen.size_bytes / 1e3:.4g} kB"
    return Picture(_drawn(plot, WIDE, key), words)


def bits_of_layers(choice: Choice, key: str) -> Picture:
    """A bar for every layer, in the order of the network, as high as its bits."""
    bits = choice.chosen.bits

    def plot(axes: Axes) -> None:
        axes.bar(range(1, len(bits) + 1), bits, color=NOW, alpha=0.7, width=0.8)
        axes.set_xlabel("layer with weights, in the order of the network")
        axes.set_ylabel("bits of its weights")
        axes.set_xlim(0.5, len(bits) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    words = ", ".join(f"{b} bits in {bits.count(b)} layers" for b in sorted(set(bits), reverse=True))
    return Picture(_drawn(plot, WIDE, key), words)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def weight_ranges(layer: LayerAnalysis, key: str) -> Picture | None:
    """The smallest and largest weight of every output channel, now and as they were after folding."""
    if layer.weight_low is None or layer.weight_high is None or not np.size(layer.weight_low):
        return None
    now = _envelope(layer.weight_low, layer.weight_high)
    low, high = layer.weight_low_before, layer.weight_high_before
    before = None if low is None or high is None or np.size(low) == 0 else _envelope(low, high)

    def plot(axes: Axes) -> None:
        low, high, edges = now
        axes.stairs(high, edges, baseline=low, fill=True, color=NOW, alpha=0.55, lw=0, label="in the file")
        if before is not None:
            low, high, edges = before
            axes.stairs(high, edges, baseline=None, color=BEFORE, lw=1.2, label="after folding")
            axes.stairs(low, edges, baseline=None, color=BEFORE, lw=1.2)
        axes.use_sticky_edges = False
        axes.set_xlabel("output channel")
        axes.set_ylabel("weight")
        axes.set_xlim(edges[0], edges[-1])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _legend(axes)

    channels = np.size(layer.weight_low)
    words = f"weights of {channels} channels, from {np.min(layer.weight_low):.4g} to {np.max(layer.weight_high):.4g}"
    return Picture(_drawn(plot, SMALL, key), words)


def codebook(layer: LayerAnalysis, key: str) -> Picture | None:
    """The vectors that blocks of a layer's weights are: a line each, over the places in the block."""
    if layer.codebook is None or not np.size(layer.codebook):
        return None
    entries = np.asarray(layer.codebook, np.float64)
    count, length = entries.shape
    order = np.argsort(entries.mean(axis=1), kind="stable")
    chosen = entries[order[np.unique(np.linspace(0, count - 1, min(count, _MOST_ENTRIES)).astype(int))]]

    def plot(axes: Axes) -> None:
        if length == 1:
            axes.plot(np.arange(1, len(chosen) + 1), chosen[:, 0], "o", ms=3, color=NOW)
            axes.set_xlabel("entry, by size")
        else:
            axes.plot(np.arange(1, length + 1), chosen.T, lw=0.8, alpha=0.4, color=NOW)
            axes.set_xlabel("place in the block")
        axes.set_ylabel("weight")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))

    words = f"{count} entries of {length} weights, from {entries.min():.4g} to {entries.max():.4g}"
    return Picture(_drawn(plot, SMALL, key), words)


def activation_histogram(layer: LayerAnalysis, key: str) -> Picture | None:
    """How often the float output takes which values, and the range that the integers have."""
    histogram = layer.histogram
    if histogram is None or not np.sum(histogram.counts):
        return None
    counts, edges = np.asarray(histogram.counts, np.float64), np.asarray(histogram.edges, np.float64)

    def plot(axes: Axes) -> None:
        drawn = np.maximum(counts, _LOWEST_COUNT)
        axes.stairs(drawn, edges, baseline=_LOWEST_COUNT, fill=True, color=NOW, alpha=0.55, lw=0)
        axes.set_yscale("log")
        axes.set_ylim(_LOWEST_COUNT, max(counts.max() * 2, 2))
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        for bounds, colour, style, label in (
            (layer.range_before_tuning, BEFORE, (0, (4, 3)), "before tuning"),
            (layer.range, BAD, "-", "chosen range"),
        ):
            for i, x in enumerate(bounds or ()):
                axes.axvline(x, color=colour, ls=style, lw=1.4, label=label if i == 0 else None)
        axes.set_xlabel("value of the output")
        axes.set_ylabel("values seen")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        _legend(axes)

    words = f"values of the output from {edges[0]:.4g} to {edges[-1]:.4g}"
    if layer.range is not None:
        words += f"; the integers reach from {layer.range[0]:.4g} to {layer.range[1]:.4g}"
    return Picture(_drawn(plot, SMALL, key), words)


def _finite_points(values: Iterable[float | None]) -> list[tuple[int, float]]:
    """Those that are known and finite, with their numbers from 1."""
    return [(i, y) for i, y in enumerate(values, 1) if y is not None and math.isfinite(y)]


def _tick_text(value: float, _position: float | None = None) -> str:
    """`2k` and `3M` for thousands and millions, else the number itself."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=2, borderaxespad=0, handlelength=1.4)


def _envelope(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`low` and `high` of at most `_MOST_CHANNELS` groups of neighbouring channels, and the groups' edges."""
    low, high = np.ravel(low).astype(np.float64), np.ravel(high).astype(np.float64)
    starts = np.unique(np.linspace(0, low.size, min(low.size, _MOST_CHANNELS), endpoint=False).astype(int))
    edges = np.append(starts, low.size).astype(np.float64)
    return np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts), edges


def _drawn(plot: Any, size: tuple[int, int], key: str) -> str:
    with matplotlib.rc_context(_STYLE):
        width, height = size
        figure = Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH))
        inner = (width - _LEFT - _RIGHT) / width, (height - _TOP - _BOTTOM) / height
        axes = figure.add_axes((_LEFT / width, _BOTTOM / height, *inner))
        plot(axes)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_tick_text)
            axis.set_minor_locator(NullLocator())
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _embedded(file.getvalue(), key)


_LONG_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([\w-]+)")


def _embedded(svg: bytes, key: str) -> str:
    """A file of Matplotlib as an element of a page: its own identifiers, short numbers, the page's colours."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    _rename(root, f"{key}-")
    for element in root.iter():
        for key in ("d", "x", "y", "transform", "points"):
            if key in element.attrib:
                short = _LONG_NUMBER.sub(lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), element.attrib[key])
                element.set(key, " ".join(short.split()))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r"\s*\n\s*", " ", text)


def _rename(root: ElementTree.Element, prefix: str) -> None:
    """Identifiers that nothing refers to go; the others become unique in a page of many figures."""
    used = {name for e in root.iter() for value in e.attrib.values() for name in _REFERENCE.findall(value)}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                if value in used:
                    element.set(key, prefix + value)
                else:
                    del element.attrib[key]
            elif value.startswith("#") or "url(#" in value:
                element.set(key, value.replace("#", f"#{prefix}"))
