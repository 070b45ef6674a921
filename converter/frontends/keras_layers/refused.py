"""Layers that cannot be converted, with what to do instead."""

from __future__ import annotations

import keras

from converter.frontends.keras_layers._registry import refuse

refuse(
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
    found="a recurrent layer of convolutions",
    fix="use convolutions over time (Conv1D), or convert the part of the model without recurrence",
)
refuse(
    keras.layers.TimeDistributed,
    found="a layer that treats time steps as a batch",
    fix="apply the inner layer directly (Dense and pointwise layers take any rank), or reshape around it",
)
refuse(
    keras.layers.Conv3DTranspose,
    found="a layer over three spatial axes",
    fix="split the depth into channels or frames and use the layer for two axes",
)
refuse(
    keras.layers.StringLookup,
    keras.layers.IntegerLookup,
    keras.layers.TextVectorization,
    keras.layers.Hashing,
    keras.layers.Discretization,
    keras.layers.CategoryEncoding,
    found="a layer that prepares text or categories",
    fix="do this outside the model and convert the rest",
)
