"""Complex numbers in `.tflite` files: a transform of reals, and what makes reals of it again; between them, pairs of tensors.

    RFFT2D:       x C^T and -x S^T along the last axis; down the one before, (re C + im S, im C - re S)
    COMPLEX_ABS:  sqrt(re^2 + im^2)
    REAL, IMAG:   one of the pair

`C` and `S` are cosines and sines of `2 pi k t / n`. What only moves numbers (RESHAPE) moves both of a pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from converter.frontends.tflite_part import file_error
from converter.frontends.waves import waves
from converter.tflite.records import ModelFile, SubgraphRecord
from ir.errors import ModelError
from ir.graph import Graph, Value
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.elementwise import ADD, MUL, SQRT
from ir.ops.shape import TRANSPOSE, TransposeAttributes

Pair = tuple[Value, Value]
TRANSFORM = "RFFT2D"
COMPLEX = "COMPLEX64"
_LARGEST = 1 << 13  # a matrix of 256 MB


def with_reals(subgraph: SubgraphRecord) -> SubgraphRecord:
    """The subgraph with real tensors in place of complex ones that it computes: each is one of a pair."""
    made = {i for operator in subgraph.operators for i in operator.outputs}
    tensors = (
        dataclasses.replace(t, type_name="FLOAT32") if i in made and t.type_name == COMPLEX else t
        for i, t in enumerate(subgraph.tensors)
    )
    return dataclasses.replace(subgraph, tensors=tuple(tensors))


def complex_found(file: ModelFile, found: str, where: str) -> ModelError:
    """That there are complex numbers where only reals are followed."""
    fix = "take the real and the imaginary part, or the absolute value, right after the transform"
    return file_error(file, "real numbers", f"complex ones ('{found}')", fix, where)


def transform_size(file: ModelFile, sizes: np.ndarray | None, where: str) -> tuple[int, int]:
    """The size of a transform. Raises ModelError where it is not constant, or none."""
    if sizes is None or sizes.size != 2 or sizes.min() < 1 or sizes.max() > _LARGEST:
        expected = f"two constant sizes of 1 to {_LARGEST}"
        raise file_error(file, expected, f"{sizes}", "export the transform with a fixed size", where)
    rows, columns = sizes.reshape(-1).tolist()
    return rows, columns


def transformed(graph: Graph, x: Value, sizes: tuple[int, int], name: str) -> Pair:
    """The transform of the last two axes, of which `sizes` are taken: zeros make up what they have not."""
    rows, columns = sizes
    cosine, sine = _rows(x.shape[-1], columns, columns // 2 + 1)
    re, im = _product(graph, x, cosine, f"{name}/cosine"), _product(graph, x, -sine, f"{name}/sine")
    if (rows, x.shape[-2]) == (1, 1):
        return re, im
    cosine, sine = _rows(x.shape[-2], rows, rows)
    re, im = _turned(graph, re, name), _turned(graph, im, name)
    parts = [
        graph.add(ADD, [_product(graph, a, cosine, f"{name}/cosine"), _product(graph, b, c, f"{name}/sine")]).output
        for a, b, c in ((re, im, sine), (im, re, -sine))
    ]
    return _turned(graph, parts[0], name), _turned(graph, parts[1], name)


def _rows(length: int, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of so many numbers those that are transformed; the others count nothing."""
    cosine, sine = waves(count, length, size)
    cosine[:, size:] = sine[:, size:] = 0
    return cosine, sine


def _product(graph: Graph, x: Value, weights: np.ndarray, name: str) -> Value:
    attrs = FullyConnectedAttributes(keep_num_dims=True)
    return graph.add(FULLY_CONNECTED, [x, graph.constant(weights, f"{name}/waves"), None], attrs, name).output


def _turned(graph: Graph, x: Value, name: str) -> Value:
    rank = len(x.shape)
    attrs = TransposeAttributes(perm=(*range(rank - 2), rank - 1, rank - 2))
    return graph.add(TRANSPOSE, [x], attrs, f"{name}/turned").output


def _size(graph: Graph, pair: Pair, name: str) -> Value:
    squares = [graph.add(MUL, [part, part], name=f"{name}/square").output for part in pair]
    return graph.add(SQRT, [graph.add(ADD, squares, name=f"{name}/power").output], name=name).output


TO_REALS: Mapping[str, Callable[[Graph, Pair, str], Value]] = {
    "COMPLEX_ABS": _size,
    "REAL": lambda graph, pair, name: pair[0],
    "IMAG": lambda graph, pair, name: pair[1],
}
OF_COMPLEX = (TRANSFORM, *TO_REALS)
