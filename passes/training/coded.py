"""Weights and tables with a codebook, as functions of its entries (product quantization, arXiv:2004.07320, eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.codebook import Codebook
from ir.graph import Value
from ir.keras_ops import K


@dataclass(frozen=True)
class CodedWeight:
    """A weight with a codebook: the entry of every block `[blocks]`, and the share of each entry that one block is."""

    book: Codebook
    shape: tuple[int, ...]
    indices: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, weight: Value) -> CodedWeight | None:
        """Of a value; None if it has no codebook."""
        params = weight.type.params()
        if params.codebook is None:
            return None
        scale, zero_point = params.shaped(weight.array.ndim)
        indices = params.codebook.assign(weight.array / scale.astype(np.float64) + zero_point)
        counts = np.bincount(indices, minlength=len(params.codebook.entries))
        return cls(params.codebook, weight.shape, indices, (1.0 / np.maximum(counts, 1))[:, None].astype(np.float32))

    def decoded(self, entries: Any) -> Any:
        """The weights, in steps, of entries `[entries, length]`, whose gradient is the mean over their blocks."""
        entries = entries * self.shares + K.stop_gradient(entries * (1.0 - self.shares))
        blocks = K.take(entries, self.indices, axis=0)
        return K.reshape(K.transpose(blocks) if self.book.strided else blocks, self.shape)
