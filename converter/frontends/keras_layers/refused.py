"""Layers that cannot be converted, with what to do instead."""

from __future__ import annotations

import keras

from converter.frontends.keras_layers._registry import refuse

refuse(
    keras.layers.ConvLSTM3D,
    found="a recurrent layer of convolutions over three axes",
    fix="use convolutions over time (Conv1D), or convert the part of the model without recurrence",
)
refuse(
    keras.layers.StringLookup,
    keras.layers.IntegerLookup,
    keras.layers.TextVectorization,
    keras.layers.Hashing,
    found="a layer that prepares text or categories",
    fix="do this outside the model and convert the rest",
)
