"""`keras.ops`, imported at the first call: reading, writing and emulating files must not wait seconds for a backend."""

from __future__ import annotations

import functools
import sys
from typing import Any


class _KerasOps:
    """Has the functions of `keras.ops`; taking one imports nothing, calling it does."""

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(_ops(), name)(*args, **kwargs)

        call.__name__ = name
        setattr(self, name, call)
        return call


@functools.cache
def _ops() -> Any:
    """The module, once; TensorFlow's graphs are told to keep sums as they are written.

    Its arithmetic optimizer flattens sums of sums: 26 times `x = x + x` would become one sum of 2^26 terms. Without it the
    remapper fuses a convolution with an addition to what was padded, and oneDNN's kernel of that ends the process.
    """
    from keras import ops

    if (backend := sys.modules.get("tensorflow")) is not None:
        backend.config.optimizer.set_experimental_options({"arithmetic_optimization": False, "remapping": False})
    return ops


K: Any = _KerasOps()
