"""Handlers of Keras layers and operations, a file per family; importing this package fills their tables."""

from converter.frontends.keras_layers import (
    activations,
    arithmetic,
    by_table,
    categories,
    composed,
    convolution,
    formulas,
    images,
    linear,
    loops,
    moves,
    normalization,
    ordering,
    pooling,
    recurrent,
    refused,
    scattering,
    spectra,
    timed,
    volumes,
    windows,
)
from converter.frontends.keras_layers._registry import followable, layer_handler, operation_handler, refusal

FAMILIES = (
    activations,
    arithmetic,
    by_table,
    categories,
    composed,
    convolution,
    formulas,
    images,
    linear,
    loops,
    moves,
    normalization,
    ordering,
    pooling,
    recurrent,
    refused,
    scattering,
    spectra,
    timed,
    volumes,
    windows,
)

__all__ = ["FAMILIES", "followable", "layer_handler", "operation_handler", "refusal"]
