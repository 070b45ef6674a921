"""Figures are SVG elements that fit into a page: its colours, no identifiers twice, few bytes, the same every time."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from converter.analysis.table import Histogram, LayerAnalysis
from converter.report import figures
from converter.report.report_testing import invented_layer

LAYER = invented_layer("conv", 1)
BARE = LayerAnalysis(name="reshape", operator="RESHAPE")


def texts(picture: figures.Picture | None) -> list[str]:
    assert picture is not None
    return [t.text or "" for t in ElementTree.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}text")]


def test_axes_and_series_are_named():
    assert {"value of the output", "values seen", "chosen range", "before tuning"} <= set(
        texts(figures.activation_histogram(LAYER, "k"))
    )
    assert {"output channel", "weight", "in the file", "after folding"} <= set(texts(figures.weight_ranges(LAYER, "k")))
    assert {"layer, in the file's order", "SQNR of its output (dB)", "this layer alone"} <= set(
        texts(figures.sqnr_overview([LAYER, LAYER], "k"))
    )


def test_what_was_not_measured_has_no_figure():
    assert figures.activation_histogram(BARE, "k") is None
    assert figures.weight_ranges(BARE, "k") is None
    assert figures.sqnr_overview([BARE], "k") is None and figures.sqnr_overview([], "k") is None


def test_colours_are_the_pages_and_identifiers_unique():
    layers = [LAYER, invented_layer("b", 2)]
    picture, other = figures.sqnr_overview(layers, "one"), figures.sqnr_overview(layers, "two")
    assert picture is not None and other is not None
    assert "#0102" not in picture.svg and "var(--now)" in picture.svg
    first, second = (set(re.findall(r' id="([^"]+)"', p.svg)) for p in (picture, other))
    assert first and not first & second
    assert set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', picture.svg)) == first
    assert picture == figures.sqnr_overview(layers, "one")


def test_many_channels_are_few_bytes_and_an_outlier_stays_seen():
    high = np.ones(2048)
    high[1001] = 40
    picture = figures.weight_ranges(dataclasses.replace(LAYER, weight_low=-high, weight_high=high), "k")
    assert picture is not None and len(picture.svg) < 40_000 and "from -40 to 40" in picture.description
    low, top, edges = figures._envelope(-high, high)
    assert top.size == figures._MOST_CHANNELS == edges.size - 1 and top.max() == 40 and (top > 1).sum() == 1
    assert low.min() == -40 and edges[-1] == 2048


def test_degenerate_numbers_are_drawn():
    """One channel, all values the same, an infinite SQNR."""
    histogram = Histogram(counts=np.array([7]), edges=np.array([0.0, 1e-9]))
    odd = dataclasses.replace(
        LAYER, histogram=histogram, weight_low=np.zeros(1), weight_high=np.zeros(1), sqnr_db=np.inf, sqnr_alone_db=50.0
    )
    assert (
        figures.activation_histogram(odd, "k") and figures.weight_ranges(odd, "k") and figures.sqnr_overview([odd], "k")
    )


@pytest.mark.parametrize("shape", [(256, 4), (16, 1), (1, 9)])
def test_a_codebook_is_drawn_entry_by_entry(shape):
    entries = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    picture = figures.codebook(dataclasses.replace(LAYER, codebook=entries), "k")
    assert f"{shape[0]} entries of {shape[1]} weights" in picture.description
    label = "entry, by size" if shape[1] == 1 else "place in the block"
    assert {label, "weight"} <= set(texts(picture))
    assert figures.codebook(LAYER, "k") is None
