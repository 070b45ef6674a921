"""What a .tflite file holds, as plain data for `inspect`: operators with their tensors, sizes by type, signatures.

Everything is read from the records, so that files with unknown operators are described, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from converter.analysis.arena import plan, tensor_bytes
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord, TensorRecord


def stored_bytes(record: TensorRecord) -> int:
    """Bytes of a constant in the file."""
    return 0 if record.data is None else int(record.data.size)


def quantization(record: TensorRecord) -> dict[str, Any]:
    """`scale` and `zero_point` of a tensor, None where it has none; of several, the smallest and largest scale."""
    scales = record.scale
    if not scales.size:
        return {"scale": None, "zero_point": None}
    zero = int(record.zero_point[0]) if record.zero_point.size else 0
    if scales.size == 1:
        return {"scale": _finite(scales[0]), "zero_point": zero}
    low, high = _finite(scales.min()), _finite(scales.max())
    return {"scale": [low, high], "zero_point": zero, "axis": record.quantized_dimension, "scales": int(scales.size)}


def _finite(number: Any) -> float | None:
    return float(number) if np.isfinite(number) else None


def tensor_json(record: TensorRecord) -> dict[str, Any]:
    """One tensor: name, type, shape, quantization, bytes."""
    found: dict[str, Any] = {
        "name": record.name,
        "type": record.type_name,
        "shape": list(record.shape),
        **quantization(record),
        "bytes": stored_bytes(record) if record.data is not None else tensor_bytes(record),
        "constant": record.data is not None,
    }
    if record.shape_signature != record.shape:
        found["shape_signature"] = list(record.shape_signature)
    return found


def operators_json(graph: SubgraphRecord) -> list[dict[str, Any]]:
    """Every operator: version, operands, results, and what the constants that it is the first to read take."""
    sizes, counted = Counter[int](), set[int]()
    for position, op in enumerate(graph.operators):
        own = {i for i in op.inputs if i >= 0} - counted
        sizes[position] = sum(stored_bytes(graph.tensors[i]) for i in own)
        counted |= own
    return [
        {
            "version": op.version,
            "operands": [None if i < 0 else tensor_json(graph.tensors[i]) for i in op.inputs],
            "results": [tensor_json(graph.tensors[i]) for i in op.outputs],
            "constant_bytes": sizes[position],
        }
        for position, op in enumerate(graph.operators)
    ]


def data_type(graph: SubgraphRecord, op: OperatorRecord) -> str:
    """What an operator computes in: the type of its first result, or of its first operand where it has none."""
    tensors = [*op.outputs, *(i for i in op.inputs if i >= 0)]
    return graph.tensors[tensors[0]].type_name if tensors else ""


def constants_by_type(graphs: Sequence[SubgraphRecord]) -> dict[str, int]:
    """Bytes of the constants of a file by element type, most first; a buffer that tensors share counts once."""
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    for graph in graphs:
        for tensor in graph.tensors:
            if tensor.data is not None and tensor.data.ctypes.data not in seen:
                seen.add(tensor.data.ctypes.data)
                sizes[tensor.type_name] += stored_bytes(tensor)
    return dict(sizes.most_common())


def signatures_json(model: ModelFile) -> list[dict[str, Any]]:
    """Every signature: its key, and the tensor of each argument."""

    def named(graph: int, entries: Any) -> dict[str, str | None]:
        tensors = model.subgraphs[graph].tensors if 0 <= graph < len(model.subgraphs) else ()
        return {name: tensors[i].name if 0 <= i < len(tensors) else None for name, i in entries.items()}

    return [
        {
            "key": s.key,
            "subgraph": s.subgraph,
            "inputs": named(s.subgraph, s.inputs),
            "outputs": named(s.subgraph, s.outputs),
        }
        for s in model.signatures
    ]


def contents_json(model: ModelFile) -> dict[str, Any]:
    """What `inspect` shows of the file as a whole."""
    graph = model.main
    return {
        "description": model.description,
        "subgraphs": len(model.subgraphs),
        "computes_in": dict(Counter(filter(None, (data_type(graph, op) for op in graph.operators))).most_common()),
        "constants": constants_by_type(model.subgraphs),
        "arena": plan(graph).as_json(),
        "signatures": signatures_json(model),
        "metadata": {name: len(data) for name, data in model.metadata.items()},
    }
