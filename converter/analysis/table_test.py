"""What an analysis says of itself in a notebook."""

from __future__ import annotations

import numpy as np

import converter
from converter.analysis.table import Analysis, Cause, Histogram, LayerAnalysis


def test_an_analysis_says_itself_in_few_lines() -> None:
    """All of it, with its histograms, was 800 kB."""
    bins = Histogram(counts=np.arange(2048), edges=np.arange(2049))
    layers = tuple(
        LayerAnalysis(name=f"layer_{i}", operator="CONV_2D", histogram=bins, sqnr_alone_db=30.0 + i) for i in range(60)
    )
    cause = Cause(severity=1.0, title="The range is too wide", explanation="", suggestion="--pipeline=default")
    said = repr(Analysis(layers=layers, causes=(cause,) * 60, summary={"sqnr_db": 31.25})).splitlines()
    assert said[0] == "Analysis of 60 layers, 31.2 dB" and len(said) == 7
    assert said[1].strip() == "CONV_2D 'layer_0': 30.0 dB alone"
    assert said[4].strip() == "The range is too wide: --pipeline=default"
    assert repr(Analysis()) == "Analysis of 0 layers"


def test_what_can_be_asked_for_is_listed() -> None:
    assert {"convert", "analyze"} <= set(dir(converter))
