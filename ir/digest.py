"""A digest of a graph: two graphs have the same one if and only if they are equal in everything.

It covers structure, operators and attributes, names, element types and shapes, quantization parameters and the bytes of
constants. A few milliseconds for a network of some megabytes: tests hold every pass to what it says that it changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from ir.graph import Graph, Value


def digest(graph: Graph) -> str:
    """Of a graph, as hexadecimal text."""
    hashed = hashlib.blake2b(digest_size=16)
    numbers = {value: number for number, value in enumerate(graph.values())}

    def add(*parts: Any) -> None:
        for part in parts:
            if isinstance(part, np.ndarray):
                add(part.shape, str(part.dtype))
                hashed.update(np.ascontiguousarray(part).data)
            else:
                hashed.update(f"{part!r};".encode())

    for value in numbers:
        add(value.name, value.shape, value.dtype.value, *_quantization(value), value.data)
    for node in graph.nodes:
        add(node.name, node.op.name, node.attrs)
        add([None if v is None else numbers[v] for v in node.inputs], [numbers[v] for v in node.outputs])
    add(graph.name, [numbers[v] for v in graph.inputs], [numbers[v] for v in graph.outputs])
    add(*graph.states)
    return hashed.hexdigest()


def _quantization(value: Value) -> list[Any]:
    """Its parameters, with those of a codebook in its place."""
    if value.quant is None:
        return []
    fields = [getattr(value.quant, f.name) for f in dataclasses.fields(value.quant) if f.name != "codebook"]
    book = value.quant.codebook
    return fields if book is None else [*fields, book.entries, book.strided]
