"""Lets variables meet symbolic tensors.

`variable * tensor` asks the variable first, which hands a symbolic tensor to its backend, where it fails; the tensor's
own operators can do it. So for the time of a recording variables leave such operands to them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

_OPERATORS = ("__add__", "__sub__", "__mul__", "__truediv__", "__matmul__", "__pow__")


@contextmanager
def variables_meet_symbols() -> Iterator[None]:
    """While it lasts, `variable * symbolic tensor` and its like are recorded."""
    cls: Any = keras.Variable
    own = {name: vars(cls).get(name) for name in _OPERATORS}
    try:
        for name in _OPERATORS:
            setattr(cls, name, _leaving_symbols(getattr(cls, name)))
        yield
    finally:
        for name, method in own.items():
            if method is None:
                delattr(cls, name)
            else:
                setattr(cls, name, method)


def _leaving_symbols(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def operator(self: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, keras.KerasTensor) else method(self, other)

    return operator
