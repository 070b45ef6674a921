"""Models of `tf_keras` (Keras 2), and what TensorFlow Model Optimization made of them.

Pruning and clustering wrappers are stripped. A model from quantization-aware training becomes its float network: the
wrappers are taken off, the trained weights kept, and the ranges that its quantizers learned become the quantization
ranges of the same activations. All of it then goes the way of an `.h5` file through Keras 3.

`tensorflow_model_optimization` and `tf_keras` are an extra (`pip install '.[tfmot]'`) and are imported only here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from converter.frontends.options import ModelOptions
from converter.frontends.source import Source
from converter.frontends.trusted_config import check_config
from converter.keras_file import check_keras_file
from ir.errors import ModelError
from ir.graph import Graph, Value
from passes.contract.base import Range

Shapes = Mapping[str, tuple[int, ...]]

_OF_KERAS_2 = ("TFOpLambda", "SlicingOpLambda", "ClassMethod")  # what `tf.*` in a functional model became
_WRAPPERS = ("PruneLowMagnitude", "ClusterWeights", "QuantizeWrapper", "QuantizeWrapperV2", "QuantizeLayer")


def needs_tf_keras(path: Path) -> bool:
    """Whether only `tf_keras` can load a file: `.keras` of Keras 2, wrappers or calls of TensorFlow inside; False for what is no model.

    Raises ModelError for a file that claims to hold far more than it does, or that cannot be read to its end.
    """
    check_keras_file(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if json.loads(archive.read("metadata.json"))["keras_version"].startswith("2."):
                    return True
        return any(name in (*_WRAPPERS, *_OF_KERAS_2) for name in _class_names(_config(path)))
    except (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, zipfile.BadZipFile):
        return False  # the Keras frontend says what is wrong with it


def _config(path: Path) -> Any:
    """What a file says of its network."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs["model_config"])


def _class_names(config: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(config, dict):
        registered = config.get("registered_name") or config.get("class_name")
        found |= {str(config.get("class_name")), str(registered).rsplit(">", 1)[-1]}
    items = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for item in items:
        found |= _class_names(item)
    return found


def from_tf_keras_file(path: Path, *, batch_size: int = 1, shapes: Shapes | None = None) -> Source:
    """The network of a file of Keras 2, with or without what TensorFlow Model Optimization put into it."""
    tf_keras = _package("tf_keras", str(path))
    try:
        with known_wrappers():
            check_config(_config(path), path)
            model = tf_keras.models.load_model(str(path), compile=False, safe_mode=True)
    except ModelError:
        raise
    except Exception as error:  # of any library underneath: the file can be wrong in any way
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            expected="a model that tf_keras can load",
            found=words,
            where=str(path),
            fix="save it with model.save('model.h5') in the environment that made it",
        ) from error
    return from_tf_keras(model, batch_size=batch_size, shapes=shapes)


@contextlib.contextmanager
def known_wrappers() -> Iterator[None]:
    """Within it, tf_keras knows the layers of TensorFlow Model Optimization, if that is installed."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import tensorflow_model_optimization as tfmot

            stack.enter_context(tfmot.quantization.keras.quantize_scope())
            stack.enter_context(tfmot.sparsity.keras.prune_scope())
            stack.enter_context(tfmot.clustering.keras.cluster_scope())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def _package(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            expected="tf_keras and tensorflow-model-optimization, which this model was made with",
            found=f"no package {error.name}",
            where=where,
            fix="pip install 'intact-tflite[tfmot]'",
        ) from error


def from_tf_keras(model: Any, *, batch_size: int = 1, shapes: Shapes | None = None) -> Source:
    """The network of a `tf_keras` model object; arguments as for `from_keras`."""
    from converter.frontends.exported import by_saved_model
    from converter.frontends.keras_model import from_keras, load_keras

    plain, ranges, input_ranges = stripped(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.h5"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain.save(path, save_format="h5", include_optimizer=False)
        try:
            graph = from_keras(load_keras(path), batch_size=batch_size, shapes=shapes)
        except ModelError as error:
            why = ModelError(
                expected=error.expected,
                found=f"layers that Keras 3 does not load ({error.found})",
                where=f"model '{plain.name}'",
                fix=error.fix,
            )
            return by_saved_model(plain, ModelOptions(batch_size=batch_size, input_shapes=dict(shapes or {})), why)
    return Source(graph, ranges=_by_value(graph, ranges, input_ranges))


def stripped(model: Any) -> tuple[Any, dict[str, Range], list[Range]]:
    """The float model, the learned ranges by layer name, and those of the inputs."""
    names = {type(layer).__name__ for layer in _layers(model)}
    if not names & set(_WRAPPERS):
        return model, {}, []
    where = f"model '{model.name}'"
    tf_keras, tfmot = _package("tf_keras", where), _package("tensorflow_model_optimization", where)
    if "PruneLowMagnitude" in names:
        model = tfmot.sparsity.keras.strip_pruning(model)
    if "ClusterWeights" in names:
        model = tfmot.clustering.keras.strip_clustering(model)
    ranges: dict[str, Range] = {}
    inputs: list[Range] = []
    if not names & {"QuantizeWrapper", "QuantizeWrapperV2", "QuantizeLayer"}:
        return model, ranges, inputs
    taken_off: list[tuple[Any, Any]] = []

    def plain(layer: Any) -> Any:
        kind = type(layer).__name__
        if kind == "QuantizeLayer":
            inputs.extend(_ranges_in(layer.quantizer_vars))
            return tf_keras.layers.Activation("linear", name=layer.name)
        if kind not in ("QuantizeWrapper", "QuantizeWrapperV2"):
            return layer.__class__.from_config(layer.get_config())
        inner = _plain_layer(tf_keras, layer)
        taken_off.append((layer, inner))
        learned = _learned(layer)
        if learned:
            ranges[inner.name] = learned[-1]
        return inner

    duplicate = tf_keras.models.clone_model(model, clone_function=plain)
    for wrapper, inner in taken_off:
        _copy_weights(wrapper, inner)
    wrapped = {id(wrapper) for wrapper, _ in taken_off}
    for old, new in zip(model.layers, duplicate.layers, strict=True):
        if id(old) not in wrapped and new.weights:
            new.set_weights(old.get_weights())
    return duplicate, ranges, inputs


def _layers(model: Any) -> list[Any]:
    found = []
    for layer in model.layers:
        found += [layer, *(_layers(layer) if hasattr(layer, "layers") else [])]
    return found


def _plain_layer(tf_keras: Any, wrapper: Any) -> Any:
    """The layer inside a wrapper, with the activation it had before quantizers were put around it."""
    layer = wrapper.layer
    activation: Any = getattr(layer, "activation", None)
    while hasattr(activation, "activation") and type(activation).__name__.startswith("QuantizeAware"):
        activation = activation.activation
    if type(activation).__name__ == "NoOpActivation":
        activation = None
    held = getattr(layer, "activation", None)
    try:
        if held is not None:
            layer.activation = tf_keras.activations.get(activation)
        return layer.__class__.from_config(layer.get_config())
    finally:
        if held is not None:
            layer.activation = held


def _learned(wrapper: Any) -> list[Range]:
    """The ranges of what a wrapped layer gives out; the last one is that of its result."""
    found: list[Range] = []
    for activation in getattr(wrapper, "_quantize_activations", []):
        found += _ranges_in(getattr(activation, "_post_activation_vars", None))
    for entry in getattr(wrapper, "_output_quantizer_vars", None) or []:
        found += _ranges_in(entry if isinstance(entry, dict) else None)
    if isinstance(getattr(wrapper, "_output_quantizer_vars", None), dict):
        found += _ranges_in(wrapper._output_quantizer_vars)
    return found


def _ranges_in(variables: Any) -> list[Range]:
    if not isinstance(variables, dict) or not {"min_var", "max_var"} <= set(variables):
        return []
    low, high = (float(np.asarray(variables[k])) for k in ("min_var", "max_var"))
    return [Range(min(low, 0.0), max(high, 0.0))] if low < high else []


def _copy_weights(wrapper: Any, inner: Any) -> None:
    """The trained weights: those that are fake-quantized belong to the wrapper, the others to the layer inside."""

    def base(variable: Any) -> str:
        return variable.name.rsplit("/", 1)[-1].split(":")[0]

    held = {base(v): v for v in wrapper.layer.weights}
    held.update({base(entry[0]): entry[0] for entry in getattr(wrapper, "_weight_vars", [])})
    inner.set_weights([np.asarray(held[base(v)]) for v in inner.weights])


def _by_value(graph: Graph, ranges: dict[str, Range], inputs: list[Range]) -> dict[Value, Range]:
    by_name = {v.name: v for v in graph.values() if not v.is_constant}
    found = {by_name[name]: learned for name, learned in ranges.items() if name in by_name}
    found.update(dict(zip(graph.inputs, inputs, strict=False)))
    return found
