"""Frontends: from what the user holds to a float Graph, and what is known of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ir.errors import ModelError
from ir.graph import Graph


@dataclass(frozen=True)
class Source:
    """A float graph, and the preprocessing that its network was trained with ("" if that is not known)."""

    graph: Graph
    preprocess: str = ""


KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


def load_model(model: Any, *, weights: str | None = None) -> Source:
    """Reads a model: an object, a path, or a name of the zoo. Raises ModelError if it is none of these."""
    if isinstance(model, Graph):
        return Source(model)
    if not isinstance(model, (str, Path)):
        return _from_object(model)
    path = Path(model)
    if path.suffix in KERAS_SUFFIXES:
        return _from_keras_file(path)
    if path.exists():
        raise ModelError(
            expected=f"a file that ends in {', '.join(KERAS_SUFFIXES)}",
            found="a directory" if path.is_dir() else f"'{path.suffix or 'no suffix'}'",
            where=str(path),
            fix="save the model with model.save('model.keras')",
        )
    return _from_zoo(str(model), weights)


def _from_object(model: Any) -> Source:
    from converter.frontends.keras_model import from_keras

    return Source(from_keras(model))


def _from_keras_file(path: Path) -> Source:
    from converter.frontends.keras_model import from_keras, load_keras

    return Source(from_keras(load_keras(path)))


def _from_zoo(name: str, weights: str | None) -> Source:
    from converter.frontends.keras_model import from_keras
    from converter.zoo import load_zoo

    entry = load_zoo(name, weights)
    return Source(from_keras(entry.model), entry.preprocess)
