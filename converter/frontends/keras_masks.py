"""Masks of Keras: which steps of a sequence count.

Keras hangs a mask on a tensor (an embedding with `mask_zero`, `Masking`), hands it on through layers that support
masks (`compute_mask`), and gives it to those whose `call` has an argument for it: `mask` where one argument is a
tensor, `query_mask`, `value_mask` and so on where several are. Calls are recorded without the masks that Keras
fills in, so they are filled in here, as `keras.Layer.__call__` does it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import tree

from ir.graph import Value

Apply = Callable[..., Any]


class Masks:
    """The masks of values, and what layers make of them."""

    def __init__(self, apply: Apply) -> None:
        """`apply` imports what a function of `keras.ops` computes."""
        self._apply = apply
        self._of: dict[Value, Value] = {}

    def of(self, value: Value) -> Value | None:
        """The mask that hangs on a value."""
        return self._of.get(value)

    def fill_in(self, layer: keras.Layer, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of a call, with the masks of its tensors."""
        names = inspect.signature(layer.call).parameters
        tensors = {name: x for name, x in _bound(layer, args, kwargs).items() if _holds_values(x)}
        found = dict(kwargs)
        for name, x in tensors.items():
            argument = "mask" if len(tensors) == 1 else f"{name}_mask"
            if argument in names and found.get(argument) is None and (mask := self._masks_of(x)) is not None:
                found[argument] = mask
        return found

    def give(self, values: Any, masks: Any) -> None:
        """Hangs masks, None where there is none, on values."""
        flat = tree.flatten(masks)
        for value, mask in zip(tree.flatten(values), flat, strict=False):  # Keras stops at the shorter one, too
            if isinstance(mask, Value) and isinstance(value, Value):
                self._of.setdefault(value, mask)

    def hand_on(self, layer: keras.Layer, args: Any, kwargs: Mapping[str, Any], results: Any) -> None:
        """Hangs on a layer's results the masks that the layer says."""
        bound = list(_bound(layer, args, kwargs).values())
        if not layer.supports_masking or not bound:
            return
        previous = kwargs.get("mask")
        previous = self._masks_of(bound[0]) if previous is None else previous
        makes_one = type(layer).compute_mask is not keras.Layer.compute_mask
        if previous is not None or makes_one:
            self.give(results, self._apply(layer.compute_mask, bound[0], previous))

    def _masks_of(self, x: Any) -> Any:
        """The masks of a tensor or a structure of them, None where there is none at all."""
        found = tree.map_structure(lambda v: self.of(v) if isinstance(v, Value) else None, x)
        return found if any(m is not None for m in tree.flatten(found)) else None


def _bound(layer: keras.Layer, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a call gives by the names of the layer's parameters."""
    return dict(inspect.signature(layer.call).bind_partial(*args, **kwargs).arguments)


def _holds_values(x: Any) -> bool:
    return any(isinstance(v, Value) for v in tree.flatten(x))
