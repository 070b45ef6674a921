"""What is different while calls on symbolic tensors are recorded.

- `variable * tensor` asks the variable first, which hands a symbolic tensor to its backend, where it fails; the tensor's
  own operators can do it. So variables leave such operands to them.
- A random draw would be made once and become a constant of the file. So it is an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

_OPERATORS = ("__add__", "__sub__", "__mul__", "__truediv__", "__matmul__", "__pow__")


class RandomDraw(Exception):
    """Something asked for random numbers."""


@contextmanager
def recording() -> Iterator[None]:
    """While it lasts, `variable * symbolic tensor` and its like are recorded, and random draws raise RandomDraw."""
    variable: Any = keras.Variable
    changed = {(variable, name): _leaving_symbols(getattr(variable, name)) for name in _OPERATORS}
    changed[keras.random.SeedGenerator, "next"] = _drawn
    own = {(cls, name): vars(cls).get(name) for cls, name in changed}
    try:
        for (cls, name), method in changed.items():
            setattr(cls, name, method)
        yield
    finally:
        for (cls, name), method in own.items():
            if method is None:
                delattr(cls, name)
            else:
                setattr(cls, name, method)


def _drawn(*_: Any, **__: Any) -> Any:
    raise RandomDraw


def _leaving_symbols(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def operator(self: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, keras.KerasTensor) else method(self, other)

    return operator
