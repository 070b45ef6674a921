"""`TimeDistributed`: one layer on every step. The steps become rows of the batch, which no layer mixes at inference."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer
from converter.frontends.keras_layers._shapes import reshape
from ir.graph import Value


@layer(keras.layers.TimeDistributed)
def time_distributed(b: Builder, layer: Any, x: Value, mask: Any = None) -> Any:
    inner, (batch, steps) = layer.layer, x.shape[:2]
    takes_mask = mask is not None and "mask" in inspect.signature(inner.call).parameters
    masks = {"mask": _rows(b, mask)} if takes_mask else {}
    results = b.apply(inner, _rows(b, x), **masks)
    return keras.tree.map_structure(lambda y: reshape(b, y, (batch, steps, *y.shape[1:]), "steps"), results)


def _rows(b: Builder, x: Value) -> Value:
    return reshape(b, x, (x.shape[0] * x.shape[1], *x.shape[2:]), "rows")
