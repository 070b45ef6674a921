"""What a handler may do to the graph: the importer, as far as handlers see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ir.errors import ModelError
from ir.graph import Value
from ir.opdef import OpDef
from ir.types import DType


class Builder(Protocol):
    """Adds what one call of Keras computes; names are inside the present layer."""

    def node(self, op: OpDef, *inputs: Value | None, name: str = "", **attributes: Any) -> Value:
        """Adds a node and returns its first result; without a name it is the main one of the layer."""

    def nodes(self, op: OpDef, *inputs: Value | None, name: str = "", **attributes: Any) -> tuple[Value, ...]:
        """Adds a node and returns all its results."""

    def constant(self, data: Any, name: str, dtype: DType = DType.FLOAT32) -> Value:
        """A constant of the present layer."""

    def weight(self, x: Any, name: str, layout: Callable[[np.ndarray], np.ndarray] | None = None) -> Value:
        """A variable or array as a float32 constant, in TFLite's layout; all uses of a variable share it."""

    def operand(self, x: Any, name: str = "constant", like: Value | None = None) -> Value:
        """A tensor as it is; a number, an array or a variable as a constant."""

    def activation(self, function: Any, x: Value) -> Value:
        """What a layer's `activation` makes of its result."""

    def apply(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Imports what a function computes on `keras.ops`, such as a layer's `call`, on Values."""

    def fail(self, expected: str, found: str, fix: str) -> ModelError:
        """The error that the present layer causes; to be raised."""
