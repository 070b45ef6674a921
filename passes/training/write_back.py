"""Puts what was trained on the values of the graph, so that the emitted file is exactly that."""

from __future__ import annotations

import numpy as np
from keras import ops as K

from ir.codebook import Codebook
from ir.graph import Graph, Value
from ir.quantization import QuantParams
from passes.quantization.quantize import annotate_bias
from passes.training.trainable import TrainableModel


def write_back(model: TrainableModel, graph: Graph) -> list[str]:
    """Puts what was trained on the values of the graph: parameters, biases, and weights that have moved.

    Returns a text per kind of change. Where rounding in float32 and float64 would give other integers for a weight, its
    data become the trained integers' reals: the file holds exactly what was trained.
    """
    activations, scales = model.parameters()
    count = 0
    for value, (start, scale, zero_point) in activations.items():
        old, data = value.type.params(), value.data
        value.quant = QuantParams(
            scale=K.convert_to_numpy(scale),
            zero_point=np.asarray(np.rint(K.convert_to_numpy(zero_point)), np.int64),
            bits=start.bits,
            signed=start.signed,
            codebook=None if old.codebook is None else model.codebook(value),
        )
        if old.codebook is not None and value.quant.codebook is not None and data is not None:
            indices = old.codebook.assign(old.quantize(data))
            value.data = value.quant.dequantize(value.quant.codebook.decode(indices, value.shape))
        count += not value.quant.same_as(old)
    biases = [(layer, K.convert_to_numpy(model.bias(layer))) for layer in model.layers_trained]
    moved = 0
    for value, scale in scales.items():
        q = K.convert_to_numpy(model.weight(value, scale)[0]).astype(np.int64)
        moved += _write_weight(value, K.convert_to_numpy(scale), q, model.codebook(value))
    for layer, bias in biases:
        layer.bias.data = bias.astype(np.float32)
    for node in graph.nodes:
        annotate_bias(graph, node)
    return [f"parameters of {count} activations", f"{moved} weights by whole steps", f"{len(biases)} biases"]


def _write_weight(value: Value, scale: np.ndarray, q: np.ndarray, book: Codebook | None) -> int:
    old, data = value.type.params(), value.array
    start = old.quantize(data)
    value.quant = QuantParams(scale=scale, axis=old.axis, bits=old.bits, narrow=old.narrow, codebook=book)
    if not np.array_equal(value.quant.quantize(data), q):
        value.data = value.quant.dequantize(q)
    return int((start != q).sum())
