"""`keras.ops`, imported at first use: reading, writing and emulating files must not wait seconds for a backend."""

from __future__ import annotations

from typing import Any


class _KerasOps:
    def __getattr__(self, name: str) -> Any:
        from keras import ops

        return getattr(ops, name)


K: Any = _KerasOps()
