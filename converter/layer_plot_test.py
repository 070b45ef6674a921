"""The picture of layers in notebooks: a bar each, none where there is nothing to show, names stay text."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from converter.layer_plot import layer_plot
from converter.widths import LayerWidths

_SVG = "{http://www.w3.org/2000/svg}"


def layer(name: str, size: int, bits: int | None = 8) -> LayerWidths:
    return LayerWidths(
        layer=name,
        operator="CONV_2D",
        activation_bits=8,
        weight_bits=bits,
        storage=None,
        size_bytes=size,
        saved_bytes=0,
    )


def test_a_bar_for_every_layer_in_proportion() -> None:
    bars = ElementTree.fromstring(layer_plot([layer("a", 100), layer("<b>", 50, 4), layer("c", 0, None)])).findall(
        f"{_SVG}rect"
    )
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] == 2 * heights[1] and heights[2] == 1
    assert len({bar.attrib["fill"] for bar in bars}) == 3
    title = bars[1].find(f"{_SVG}title")
    assert title is not None and (title.text or "").startswith("<b>: CONV_2D, 50 bytes")


@pytest.mark.parametrize("layers", [[], [layer("a", 0)], [layer("a", 1)] * 401])
def test_nothing_where_there_is_nothing_to_show(layers: list[LayerWidths]) -> None:
    assert layer_plot(layers) == ""
