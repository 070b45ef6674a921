"""Which handler imports which Keras layer or operation: two tables, filled by decorators.

A handler is `handler(builder, layer_or_operation, *args, **kwargs) -> Value or a structure of Values`. It is
called as Keras would call the layer, with a `Value` wherever Keras had a tensor; arguments that say
"inference" (training, empty masks) are taken out before. Layers without a handler are imported through the
operations that their `call`
is made of, so a handler is written only where that would lose something: a weight's layout, a batch norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import keras

from converter.frontends.keras_layers._builder import Builder


class Handler(Protocol):
    """Imports one call of a layer or an operation (see the module)."""

    def __call__(self, b: Builder, instance: Any, /, *args: Any, **kwargs: Any) -> Any: ...


_LAYERS: dict[type, Handler] = {}
_OPERATIONS: dict[str, Handler] = {}
_STAND_INS: dict[Any, Callable[..., Any]] = {}
_REFUSED: list[tuple[type, str, str]] = []

_HARMLESS_OVERRIDES = frozenset({"build", "get_config", "from_config", "compute_output_shape", "add_weight"})


def layer(*classes: type) -> Callable[[Handler], Handler]:
    """Registers the handler of layer classes, for them and for subclasses that compute the same."""

    def register(handler: Handler) -> Handler:
        _LAYERS.update(dict.fromkeys(classes, handler))
        return handler

    return register


def operation(*names: str) -> Callable[[Handler], Handler]:
    """Registers the handler of operations of `keras.ops`, by the names of their (private) classes."""

    def register(handler: Handler) -> Handler:
        _OPERATIONS.update(dict.fromkeys(names, handler))
        return handler

    return register


def refuse(*classes: type, found: str, fix: str) -> None:
    """Registers layer classes that cannot be converted, nor their subclasses, and what to do about it."""
    _REFUSED.extend((cls, found, fix) for cls in classes)


def follow_instead(function: Any, other: Callable[..., Any]) -> None:
    """Registers `other`, on `keras.ops`, for a function of Keras that does not take symbolic tensors."""
    _STAND_INS[function] = other


def followable(function: Any) -> Any:
    """The function, or what computes the same on symbolic tensors."""
    try:
        return _STAND_INS.get(function, function)
    except TypeError:  # an object of the user's that has no hash
        return function


def layer_handler(instance: keras.Layer) -> Handler | None:
    """The handler of a layer, None if its `call` has to be followed."""
    for cls in type(instance).__mro__:
        if cls in _LAYERS:
            return _LAYERS[cls] if _computes_the_same(type(instance), cls) else None
    return None


def operation_handler(instance: keras.Operation) -> Handler | None:
    """The handler of an operation, None if there is none."""
    cls = type(instance)
    return _OPERATIONS.get(cls.__name__) if cls.__module__.split(".")[0] == "keras" else None


def refusal(instance: keras.Layer) -> tuple[str, str] | None:
    """`(found, fix)` of a layer that is known not to work."""
    return next(((found, fix) for cls, found, fix in _REFUSED if isinstance(instance, cls)), None)


def _computes_the_same(cls: type, known: type) -> bool:
    """Whether `cls`, which may be the user's, overrides nothing of `known` that could matter."""
    for ancestor in cls.__mro__[: cls.__mro__.index(known)]:
        for name in vars(ancestor):
            private = name.startswith("__") and name != "__call__"
            if not private and name not in _HARMLESS_OVERRIDES and hasattr(known, name):
                return False
    return True
