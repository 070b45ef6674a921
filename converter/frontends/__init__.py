"""Frontends: from what the user holds to a float Graph, and what is known of its inputs."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.backend import tensorflow_for
from converter.frontends.exporters import EXPORTERS, float_tflite
from converter.frontends.options import ModelOptions, parse_input_shapes
from converter.frontends.source import Source
from converter.frontends.splitting import split_outputs
from converter.regular import other_than_file
from ir.errors import ModelError, OptionError
from ir.graph import Graph, Value
from ir.types import DType

__all__ = [
    "EXPORTERS",
    "KERAS_SUFFIXES",
    "TFLITE_SUFFIXES",
    "ModelOptions",
    "Source",
    "check_there",
    "load_model",
    "parse_input_shapes",
]


KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
TFLITE_SUFFIXES = (".tflite", ".lite")
_UNTRAINED = "the weights are random: the file shows sizes and times, its answers mean nothing"
_KINDS = ".keras, .h5, .tflite, .onnx, .pt2, a frozen .pb, or a SavedModel directory"
_PYTORCH = "save it with torch.export.save(torch.export.export(module.eval(), (example,)), 'net.pt2')"
_EXPORT = dict.fromkeys(
    (".pt", ".pth", ".torchscript"), _PYTORCH
)  # what makes files of other kinds into ones that are read


def load_model(model: Any, *, weights: str | None = None, options: ModelOptions | None = None) -> Source:
    """Reads a model: an object, a path, the bytes of a .tflite file, or a name of the zoo.

    Raises ModelError if it is none of these, OptionError if an option does not concern this kind of model.
    """
    options = options or ModelOptions()
    source = _load(model, weights, options)
    if options.split_outputs:
        split_outputs(source.graph)
    return source


def _load(model: Any, weights: str | None, options: ModelOptions) -> Source:
    if isinstance(model, Graph):
        return _ending_at(Source(model), options)
    if isinstance(model, bytes):
        return _from_tflite(model, options)
    if not isinstance(model, (str, Path)):
        return _ending_at(_from_object(model, options), options)
    path = Path(model)
    check_there(path)
    if path.suffix in TFLITE_SUFFIXES:
        return _from_tflite(path, options)
    if path.suffix in KERAS_SUFFIXES:
        return _ending_at(_from_keras_file(path, options), options)
    if path.suffix in EXPORTERS:
        return _exported(path, options)
    if path.suffix == ".pb" or (path.is_dir() and _is_saved_model(path)):
        return _from_saved_model(path, options)
    return _ending_at(_from_zoo(str(model), weights, options), options)


def check_there(model: str | Path) -> None:
    """Raises ModelError for a path at which there is nothing, or no kind of model; a bare word may be a name of the zoo."""
    path = Path(model)
    if path.exists() and not _is_model(path):
        raise ModelError(
            expected=_KINDS,
            found="a directory without saved_model.pb" if path.is_dir() else f"'{path.suffix or 'no suffix'}'",
            where=str(path),
            fix=_EXPORT.get(path.suffix, "save the model with model.save('model.keras')"),
        )
    if (len(path.parts) > 1 or path.suffix) and other_than_file(path) == "nothing":
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.75)
        meant = f"; there is {path.parent / near[0]}" if near else ""
        raise ModelError(expected=_KINDS, found="nothing", where=str(path), fix=f"check the path{meant}")


def _is_model(path: Path) -> bool:
    """By its name, or what a directory holds."""
    kinds = (*TFLITE_SUFFIXES, *KERAS_SUFFIXES, *EXPORTERS, ".pb")
    return path.suffix in kinds or (path.is_dir() and _is_saved_model(path))


def _is_saved_model(path: Path) -> bool:
    return any((path / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt"))


def _from_object(model: Any, options: ModelOptions) -> Source:
    module = type(model).__module__.split(".")[0]
    if module == "tf_keras" or any(c.__module__.split(".")[0] == "tf_keras" for c in type(model).__mro__):
        from converter.frontends.tfmot_model import from_tf_keras

        return from_tf_keras(model, **_sizes(options))
    return _from_keras(model, options)


def _from_keras(model: Any, options: ModelOptions) -> Source:
    """A model of Keras 3: followed call by call where that is possible, else by way of a SavedModel."""
    from converter.frontends.exported import by_saved_model
    from converter.frontends.keras_model import NotFollowedError, from_keras
    from passes.training.student import Student

    if isinstance(model, Student):
        return Source(model.trained_graph())

    sizes = _sizes(options)
    try:
        return Source(from_keras(model, **sizes))
    except NotFollowedError as error:
        return by_saved_model(model, options, error)


def _from_keras_file(path: Path, options: ModelOptions) -> Source:
    from converter.frontends.keras_model import load_keras
    from converter.frontends.tfmot_model import from_tf_keras_file, needs_tf_keras
    from passes.training import student  # noqa: F401 - Keras has to know the class of a network that was trained quantized

    if needs_tf_keras(path):
        return from_tf_keras_file(path, **_sizes(options))
    return _from_keras(load_keras(path), options)


def _from_zoo(name: str, weights: str | None, options: ModelOptions) -> Source:
    from converter.frontends.keras_model import from_keras
    from converter.zoo import RANDOM, load_zoo

    entry = load_zoo(name, weights)
    warnings = (_UNTRAINED,) if entry.weights == RANDOM else ()
    return Source(from_keras(entry.model, **_sizes(options)), entry.preprocess, warnings=warnings)


def _from_tflite(model: Path | bytes, options: ModelOptions) -> Source:
    from converter.frontends.tflite_model import from_tflite, rounded_weights
    from converter.tflite.model_file import load, parse

    file = parse(model) if isinstance(model, bytes) else load(model)
    return Source(from_tflite(file, options), warnings=rounded_weights(file))


def _exported(path: Path, options: ModelOptions) -> Source:
    """By way of a float .tflite, which has the sizes that the options say."""
    return _from_tflite(float_tflite(path, options), replace(options, batch_size=None, input_shapes={}))


def _from_saved_model(path: Path, options: ModelOptions) -> Source:
    from converter.frontends.saved_model import from_saved_model

    tensorflow_for("SavedModels and frozen graphs", "save the network as .keras, or as a float .tflite")
    return from_saved_model(path, options)


def _sizes(options: ModelOptions) -> dict[str, Any]:
    """The batch and the shapes of a Keras model; options that concern other kinds of models are refused."""
    for flag, given in (
        ("--signature", options.signature),
        ("--input_arrays", options.input_arrays),
        ("--output_arrays", options.output_arrays),
    ):
        if given:
            raise OptionError(
                expected="an option that concerns Keras models",
                found=flag,
                where="convert",
                fix="leave it out",
            )
    return {"batch_size": options.batch_size or 1, "shapes": options.input_shapes}


def ends_of(graph: Graph) -> dict[str, Value]:
    """The values at which a network may be told to end, by the names of layers and of values."""
    by_name = {v.name: v for v in graph.values() if not v.is_constant}
    by_name.update({node.name: node.output for node in graph.nodes if len(node.outputs) == 1})
    return by_name


def _ending_at(source: Source, options: ModelOptions) -> Source:
    """The same network ending at other values: what comes after them is cut off."""
    if not options.output_nodes:
        return source
    twin = source.graph.twin()
    graph, values = twin.graph, twin.values
    by_name = ends_of(graph)
    missing = [name for name in options.output_nodes if name not in by_name]
    if missing:
        raise OptionError(
            expected=f"layers of the model, such as {', '.join(node.name for node in graph.nodes[-3:])}",
            found=", ".join(missing),
            where="--output_nodes",
            fix="name layers; --print_after shows all of them",
        )
    graph.outputs = list(dict.fromkeys(by_name[name] for name in options.output_nodes))
    if any(v in graph.inputs or v.dtype is DType.BOOL for v in graph.outputs):
        raise OptionError(
            expected="results of layers",
            found="an input",
            where="--output_nodes",
            fix="name layers that compute numbers",
        )
    graph.prune()
    kept = set(graph.values())
    return replace(source, graph=graph, ranges={values[v]: r for v, r in source.ranges.items() if values[v] in kept})
