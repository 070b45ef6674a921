"""The library that Keras computes with: TensorFlow where it is installed, else JAX or PyTorch.

Keras decides when it is first imported, and by itself takes TensorFlow whether it is there or not.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ir.errors import OptionError

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch", "numpy": "jax"}  # and the package of each


def choose_backend() -> None:
    """Sets KERAS_BACKEND for a Keras that is not imported yet, unless it, or Keras's own file, names one that is installed.

    Raises:
      OptionError: none is installed, or the one that KERAS_BACKEND names is not.
    """
    if "keras" in sys.modules:
        return
    asked = os.environ.get("KERAS_BACKEND")
    if asked or _installed(_of_keras_file()):
        if asked and not _installed(asked):
            raise _missing(f"KERAS_BACKEND={asked}, which is not installed")
        return
    found = next((name for name in BACKENDS if _installed(name)), None)
    if found is None:
        raise _missing("none")
    os.environ["KERAS_BACKEND"] = found


def _installed(backend: str) -> bool:
    return find_spec(BACKENDS.get(backend, backend)) is not None if backend else False


def _of_keras_file() -> str:
    """The backend that `keras.json` names: Keras writes it when it is imported, so it may be of other days."""
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    try:
        return str(json.loads((Path(home) / "keras.json").read_text()).get("backend", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _missing(found: str) -> OptionError:
    return OptionError(
        expected="TensorFlow or JAX, with which Keras computes the float network",
        found=found,
        where="Keras",
        fix="pip install jax, or tensorflow; the extras [jax] and [tensorflow] of this package bring them",
    )


def tensorflow_for(what: str, instead: str) -> Any:
    """TensorFlow, where it is the subject.

    Args:
      what: what it is needed for, as "SavedModels"; `instead`: what does without it.

    Raises:
      OptionError: it is not installed.
    """
    if find_spec("tensorflow") is None:
        raise OptionError(
            expected="TensorFlow, which reads them",
            found="it is not installed",
            where=what,
            fix=f"pip install tensorflow, or {instead}",
        )
    import tensorflow

    return tensorflow
