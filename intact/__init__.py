"""Trained networks into TFLite files that compute in integers only: `intact.convert(...)`, `intact.analyze(result)`,
`intact.quantize_aware(model, ...)`.

The one package that is installed. Its rooms are `intact.ir`, `intact.passes`, `intact.converter` and `intact.tools`, which stand at the
root of the repository; the build (setup.py) puts them into this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import converter
from converter.version import VERSION as __version__

if TYPE_CHECKING:
    from converter import *  # noqa: F403

if Path(__file__).with_name("checkout.py").exists():  # not installed: the rooms stand at the root of the repository
    from intact.checkout import name_rooms

    name_rooms()

__all__ = [*converter.__all__, "__version__"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """What brings Keras is imported when asked for."""
    if name in __all__:
        return getattr(converter, name)
    raise AttributeError(f"module 'intact' has no attribute '{name}'")
