"""SavedModel directories and frozen GraphDefs (`.pb`), by way of TensorFlow's own converter to a float `.tflite` file.

A SavedModel that `tf_keras` wrote holds the Keras model too; where that loads, it is taken instead, because it keeps
the batch norms. What Keras 3's `export` writes holds functions only. Loading a model is running it: TensorFlow does that
in a process of its own first (`tensorflow_process`).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path

from converter.frontends.naming import rename
from converter.frontends.options import ModelOptions
from converter.frontends.source import Source
from converter.frontends.tensorflow_file import DEFAULT_SIGNATURE, FloatFile, quietly
from converter.frontends.tensorflow_process import check_loads, float_file_of
from converter.frontends.tflite_model import from_tflite
from converter.frontends.trusted_config import check_config
from converter.frontends.trusted_graph import check_files, check_saved_model
from ir.errors import ConversionError, OptionError, first_words
from ir.graph import Graph

_METADATA = "keras_metadata.pb"
_LOG = logging.getLogger(__name__)


def from_saved_model(path: Path, options: ModelOptions) -> Source:
    """The float network of a SavedModel directory or a frozen GraphDef.

    Raises:
      ModelError: it cannot be loaded or converted to a float file.
      OptionError: the signature or an array is not there, or must be named.
    """
    source = None
    check_files(path)
    if path.is_dir():
        check_saved_model(path)
        source = _from_keras_inside(path, options)
    return Source(_graph(path, float_file_of(path, options), options)) if source is None else source


def _graph(path: Path, made: FloatFile, options: ModelOptions) -> Graph:
    """The graph of the float file that TensorFlow's converter made."""
    plain = dataclasses.replace(options, signature=None, input_shapes={}, batch_size=None)
    try:
        graph = from_tflite(made.content, plain)
    except ConversionError as error:
        raise type(error)(
            expected=error.expected, found=error.found, where=error.where.replace("<bytes>", str(path)), fix=error.fix
        ) from error
    if options.output_nodes:
        return graph
    named_by_file = {v.name for v in graph.outputs} == set(made.outputs)
    if not named_by_file and len(made.outputs) == len(graph.outputs):
        rename(graph, dict(zip(graph.outputs, made.outputs, strict=True)))
    order = made.order or sorted(made.outputs, key=_numbered)
    graph.outputs.sort(key=lambda value: order.index(value.name) if value.name in order else len(order))
    return graph


def _numbered(name: str) -> list[str | int]:
    """What sorts `output_10` behind `output_2`, as they were exported."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


# --- a Keras model inside ---------------------------------------------------------------------------------------------


def _from_keras_inside(path: Path, options: ModelOptions) -> Source | None:
    """The Keras model that a SavedModel holds, None if there is none that loads."""
    cut = options.signature not in (None, DEFAULT_SIGNATURE) or options.input_shapes
    if cut or not _holds_keras(path):
        return None
    try:
        import tf_keras
    except ImportError:
        _LOG.info("%s holds a Keras model; it would be used if tf_keras were installed", path)
        return None
    from converter.frontends import _ending_at
    from converter.frontends.tfmot_model import from_tf_keras, known_wrappers

    check_loads(path)
    try:
        with quietly(), known_wrappers():
            _check_metadata(path)
            model = tf_keras.models.load_model(str(path), compile=False)
            source = from_tf_keras(model, batch_size=options.batch_size or 1)
        return _ending_at(source, options)
    except OptionError:
        raise
    except Exception as error:  # of any library underneath; the functions are there in any case
        _LOG.info("the Keras model in %s is not used: %s", path, first_words(error))
        return None


def _holds_keras(path: Path) -> bool:
    """Whether a whole Keras model was saved."""
    metadata = path / _METADATA
    try:
        content = metadata.read_bytes() if metadata.exists() else b""
    except OSError:
        return False
    return any(kind in content for kind in (b"_tf_keras_network", b"_tf_keras_sequential", b"_tf_keras_model"))


def _check_metadata(path: Path) -> None:
    """Raises ModelError where what a SavedModel says of its Keras model is a program."""
    from tf_keras.protobuf import saved_metadata_pb2

    saved = saved_metadata_pb2.SavedMetadata()
    saved.ParseFromString((path / _METADATA).read_bytes())
    for node in saved.nodes:
        check_config(json.loads(node.metadata or "{}"), path)
