"""A .tflite file as plain records: what parsing gives and every reader of a file is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class DimensionRecord:
    """How one level of a sparse tensor is stored: all `dense_size` indices, or those that the arrays list.

    Entry `i` of the level above owns `indices[segments[i] : segments[i + 1]]`.
    """

    sparse: bool
    dense_size: int
    segments: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SparsityRecord:
    """Order of the levels (axes of the tensor, then axes within blocks), and which axis each block axis divides."""

    traversal_order: tuple[int, ...]
    block_map: tuple[int, ...]
    dimensions: tuple[DimensionRecord, ...]


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """One tensor. `data` is a read-only byte view of its constant, None for activations."""

    name: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    type_name: str
    data: np.ndarray | None
    scale: np.ndarray
    zero_point: np.ndarray
    quantized_dimension: int
    is_variable: bool
    sparsity: SparsityRecord | None = None

    @property
    def is_sparse(self) -> bool:
        return self.sparsity is not None


@dataclass(frozen=True, kw_only=True)
class OperatorRecord:
    """One operator: `code` is a builtin's name or `CUSTOM:name`; -1 in `inputs` is an absent operand.

    `intermediates` are tensors that only say parameters to the kernel.
    """

    code: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_name: str
    options: Any
    intermediates: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A signature: argument name to tensor index, in both directions of the model."""

    key: str
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class SubgraphRecord:
    """Tensors and operators of one subgraph, in the file's order."""

    name: str
    tensors: tuple[TensorRecord, ...]
    operators: tuple[OperatorRecord, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A whole file. `metadata` maps names to the bytes of their buffers."""

    path: str
    size_bytes: int
    description: str
    subgraphs: tuple[SubgraphRecord, ...]
    signatures: tuple[Signature, ...]
    metadata: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def main(self) -> SubgraphRecord:
        return self.subgraphs[0]
