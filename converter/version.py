"""Versions that go into a file's metadata."""

from __future__ import annotations

import importlib.metadata

VERSION = "0.1.0"


def versions() -> dict[str, str]:
    """This project's version and those of the packages whose numbers end up in a file."""
    packages = ("keras", "numpy", "ai-edge-litert")
    return {"intact": VERSION, **{name: importlib.metadata.version(name) for name in packages}}
