"""`keras.ops`, imported at the first call: reading, writing and emulating files must not wait seconds for a backend."""

from __future__ import annotations

from typing import Any


class _KerasOps:
    """Has the functions of `keras.ops`; taking one imports nothing, calling it does."""

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            from keras import ops

            return getattr(ops, name)(*args, **kwargs)

        call.__name__ = name
        setattr(self, name, call)
        return call


K: Any = _KerasOps()
