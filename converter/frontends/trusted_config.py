"""Configurations of Keras 2 are programs: what they may not name is refused before `tf_keras` sees them.

It loads `.h5` files and SavedModels without a safe mode, so that a `Lambda` runs the byte code it holds; it imports the
`module` of any object; and while it builds a network it calls the functions of TensorFlow that layers name, with constants
where the file says so. Taken are the classes that Keras has, or that are registered, and functions that compute.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converter.frontends.refused_operators import REFUSED
from ir.errors import ModelError

_FUNCTION_LAYERS = ("TFOpLambda", "SlicingOpLambda")
_CODE = ("Lambda",)
_VALUES = ("TensorShape", "TypeSpec", "InputSpec", "__tuple__", "__ellipsis__", "__tensor__", "__numpy__", "__slice__")
_MODULES = re.compile(r"((tf_)?keras|tensorflow_model_optimization|builtins)(\..*)?")
_COMPUTE = re.compile(
    r"(compat\.v1\.)?((math|nn|linalg|image|signal|bitwise|quantization|random|strings|sparse|ragged|sets|__operators__"
    r"|keras\.(backend|activations))\.)?\w+"
)
_REACH = re.compile(
    r"file|py_func|numpy_func|library|print|reader|import|load|save|restore|summar|graph|session|queue|function|proto",
    re.I,
)
_NOT_LOADED = ("training_config", "compile_config", "optimizer_config")  # where `compile` is false


def check_config(config: Any, path: Path) -> None:
    """Raises ModelError for a configuration that names what is no part of a network; `config` is what its JSON says."""
    for entry in _objects(config):
        if problem := _problem(entry):
            raise ModelError(
                expected="layers of Keras, and functions that compute",
                found=problem,
                where=str(path),
                fix="load it in Python, if you trust where it is from, and convert the model object",
            )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """What the JSON says of objects, at any depth."""
    waiting = [config]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            if "class_name" in entry:
                yield entry
            waiting += [value for key, value in entry.items() if key not in _NOT_LOADED]
        elif isinstance(entry, list):
            waiting += entry


def _problem(entry: dict[str, Any]) -> str:
    """What in an object is none of Keras's, "" if nothing is."""
    for key in ("class_name", "registered_name"):
        name = entry.get(key)
        if name is not None and not _is_known(str(name)):
            return f"an object of the class '{name}'"
    module = entry.get("module")
    if module is not None and not _MODULES.fullmatch(str(module)):
        return f"an object of the module '{module}'"
    config = entry.get("config")
    inner = config if isinstance(config, dict) else {}
    if entry["class_name"] in _FUNCTION_LAYERS and not _computes(str(inner.get("function"))):
        return f"the function '{inner.get('function')}'"
    if isinstance(inner.get("vocabulary"), str):
        return f"a vocabulary in the file '{inner['vocabulary']}'"
    return ""


def _computes(function: str) -> bool:
    last = function.rpartition(".")[2]
    is_refused = last.title().replace("_", "") in REFUSED
    return bool(_COMPUTE.fullmatch(function)) and not is_refused and not _REACH.search(last)


def _is_known(name: str) -> bool:
    """Whether a class is one of Keras's, or of those that are registered here."""
    import tf_keras

    if name in _known():
        return True
    return isinstance(tf_keras.saving.get_registered_object(name), type) and name.rpartition(">")[2] not in _CODE


@functools.cache
def _known() -> frozenset[str]:
    """Names of the classes that Keras 2 has in public, and TensorFlow Model Optimization where that is installed."""
    import tf_keras

    kinds = ("layers", "initializers", "regularizers", "constraints", "models", "losses", "metrics", "optimizers")
    modules = [tf_keras.mixed_precision, *(getattr(tf_keras, kind) for kind in kinds)]
    with contextlib.suppress(ImportError):
        import tensorflow_model_optimization as tfmot

        modules += [tfmot.sparsity.keras, tfmot.clustering.keras, tfmot.quantization.keras]
    found = {name for module in modules for name, value in vars(module).items() if isinstance(value, type)}
    return frozenset({*found, "Functional", *_FUNCTION_LAYERS, *_VALUES} - {*_CODE})
