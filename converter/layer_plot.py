"""A picture of the layers of a file for notebooks: a bar each, as high as its constants are large, coloured by their width."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from converter.widths import LayerWidths

_WIDTH, _HEIGHT, _MOST = 640, 90, 400  # pixels; bars of more layers would be no pixel wide
_COLOURS = {8: "#2f6fdb", 16: "#1b7a4b"}  # of fewer bits than 8 another
_FEW, _NO_WEIGHTS = "#b4690e", "#8b95a1"


def layer_plot(layers: Sequence[LayerWidths]) -> str:
    """An SVG element; "" where no layer has constants, or there are too many."""
    largest = max((layer.size_bytes for layer in layers), default=0)
    if not largest or len(layers) > _MOST:
        return ""
    step = _WIDTH / len(layers)
    bars = "".join(_bar(layer, i * step, step, largest) for i, layer in enumerate(layers))
    label = f"bytes of the constants of {len(layers)} layers, at most {largest}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{label}">{bars}</svg>'
    )


def _bar(layer: LayerWidths, x: float, step: float, largest: int) -> str:
    height = max(1.0, _HEIGHT * layer.size_bytes / largest)
    bits = layer.weight_bits
    colour = _NO_WEIGHTS if bits is None else _COLOURS.get(bits, _FEW)
    text = escape(f"{layer.layer}: {layer.operator}, {layer.size_bytes} bytes, bits {layer.text}")
    return (
        f'<rect x="{x:.1f}" y="{_HEIGHT - height:.1f}" width="{0.8 * step:.1f}" height="{height:.1f}" '
        f'fill="{colour}"><title>{text}</title></rect>'
    )
