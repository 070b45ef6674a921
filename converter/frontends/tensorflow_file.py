"""What TensorFlow makes of a SavedModel or a frozen GraphDef: a float `.tflite` file. TensorFlow is imported in here."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.frontends.options import ModelOptions
from converter.frontends.tensorflow_loops import is_unread, readable
from converter.frontends.trusted_graph import check_graph
from ir.errors import ModelError, OptionError, first_words

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True, kw_only=True)
class FloatFile:
    """What TensorFlow's converter made.

    Attributes:
      content: the file's bytes.
      outputs: what its outputs are called, in its order.
      order: the order in which they were asked for, empty for the file's.
    """

    content: bytes
    outputs: list[str]
    order: list[str] = field(default_factory=list)


def float_file(path: Path, options: ModelOptions) -> FloatFile:
    """The float file of a SavedModel directory or a frozen GraphDef.

    Raises:
      ModelError: it cannot be loaded or converted.
      OptionError: the signature or an array is not there, or must be named.
    """
    return _of_signature(path, options) if path.is_dir() else _of_frozen(path, options)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """TensorFlow's converter writes to the error output from C++; warnings are about its own internals."""
    import absl.logging

    level = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        absl.logging.set_verbosity(level)


def _error(path: Path, expected: str, found: str, fix: str) -> ModelError:
    return ModelError(expected=expected, found=found, where=str(path), fix=fix)


def _lacking(error: BaseException) -> tuple[str, str]:
    """What TensorFlow's converter could not do, in a few words, and what to do about it."""
    text = str(error)
    found = dict.fromkeys(
        name for line in re.findall(r"TF (?:Select|Custom) ops: (.+)", text) for name in line.split(", ")
    )
    if found:
        half = " on half-precision numbers" if re.search(r"x(?:b?f16)>", text) else ""
        fix = "export it in float32, or without them" if half else "export it without them, or end it before them"
        return f"operators that TFLite does not have: {', '.join(found)}{half}", fix
    if "TensorList" in text:
        fix = "save the model as .keras, or build its recurrent layers with unroll=True"
        return "a loop over lists of tensors, as recurrent layers export it", fix
    complaints = dict.fromkeys(re.findall(r"error: ('tf\.[^\n]{0,120})", text))
    return "; ".join(complaints) or first_words(error), "export it without these operators, or end it before them"


# --- signatures -------------------------------------------------------------------------------------------------------


def loaded_model(path: Path) -> Any:
    """A SavedModel. Raises ModelError if it cannot be loaded."""
    import tensorflow as tf

    try:
        with quietly():
            return tf.saved_model.load(str(path))
    except Exception as error:  # the directory can be wrong in any way
        raise _error(
            path, "a SavedModel that TensorFlow can load", first_words(error), "save or download it again"
        ) from error


def _of_signature(path: Path, options: ModelOptions) -> FloatFile:
    loaded = loaded_model(path)
    key = _signature(path, list(loaded.signatures), options)
    function = _fixed(path, loaded, key, options)
    if is_unread(function):
        function = _readable(path, function)
    return FloatFile(content=_converted(path, function, loaded), outputs=sorted(function.structured_outputs))


def _readable(path: Path, function: Any) -> Any:
    batches = [tensor.shape[0] for tensor in function.inputs if tensor.shape.rank]
    try:
        with quietly():
            return readable(function, batches[0] if batches else 1)
    except Exception as error:  # a function that holds what cannot be a constant
        raise _error(
            path, "loops whose variables are constants", first_words(error), "save it without the loop"
        ) from error


def _signature(path: Path, keys: list[str], options: ModelOptions) -> str:
    requested = options.signature
    if requested is None and (DEFAULT_SIGNATURE in keys or len(keys) == 1):
        requested = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in keys else keys[0]
    if requested not in keys:
        raise OptionError(
            expected=f"a signature of {', '.join(sorted(keys)) or 'none: it has no signatures'}",
            found=requested or "none",
            where=f"{path}, --signature",
            fix="choose one of them" if keys else "export the model with a signature",
        )
    return requested


def _fixed(path: Path, loaded: Any, key: str, options: ModelOptions) -> Any:
    """The signature's function, traced again where options give sizes that it leaves open."""
    import tensorflow as tf

    function = loaded.signatures[key]
    arguments = function.structured_input_signature[1]
    given = options.shapes_of(sorted(arguments))
    specs = {}
    for name, spec in arguments.items():
        shape = given.get(name) or _static(path, name, spec.shape, options.batch_size)
        if not spec.shape.is_compatible_with(shape):
            raise OptionError(
                expected=f"a shape that fits {spec.shape}", found=str(shape), where=f"--input_shape {name}",
                fix="keep the sizes that the model fixes",
            )  # fmt: skip
        specs[name] = tf.TensorSpec(shape, spec.dtype, name=name)
    wrapped = tf.function(lambda **tensors: function(**tensors))
    with quietly():
        return wrapped.get_concrete_function(**specs)


def _static(path: Path, name: str, shape: Any, batch: int | None) -> tuple[int, ...]:
    if shape.rank is None or None in shape.as_list()[1:]:
        raise _error(
            path,
            f"a fixed size of every axis but the batch of input '{name}'",
            f"the shape {shape}",
            f"pass --input_shape {name}=1,... with every size",
        )
    sizes = shape.as_list()
    return tuple([batch or sizes[0] or 1, *sizes[1:]]) if sizes else ()


def _converted(path: Path, function: Any, loaded: Any) -> bytes:
    """The float file that TensorFlow's converter makes."""
    import tensorflow as tf

    try:
        with quietly():
            return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], loaded).convert())
    except Exception as error:  # of the converter: most are operators that TFLite does not have
        found, fix = _lacking(error)
        raise _error(path, "a network that TensorFlow converts to a float .tflite file", found, fix) from error


# --- frozen graphs ----------------------------------------------------------------------------------------------------


def _of_frozen(path: Path, options: ModelOptions) -> FloatFile:
    """A GraphDef whose variables are constants, between the arrays that are named, or between its ends."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
    except Exception as error:  # google.protobuf raises its own kinds
        raise _error(
            path, "a frozen GraphDef", f"a file that is none ({first_words(error)})", "check the path"
        ) from error
    if not definition.node:
        raise _error(path, "a frozen GraphDef", "a graph without nodes", "write or download the file again")
    check_graph(path, definition)
    inputs = options.input_arrays or _placeholders(definition)
    outputs = options.output_arrays or _ends(definition)
    _check_arrays(definition, inputs, outputs)
    function = _pruned(path, definition, inputs, outputs, options)
    if is_unread(function):
        function = _readable(path, function)
    names = [_plain(name) for name in outputs]
    return FloatFile(content=_converted(path, function, None), outputs=sorted(names), order=names)


def _plain(array: str) -> str:
    """The name that an input or output gets from its array: TensorFlow takes no `/` and `:` there."""
    name, _, index = array.replace("/", "_").partition(":")
    return name if index in ("", "0") else f"{name}_{index}"


def _placeholders(definition: Any) -> tuple[str, ...]:
    return tuple(node.name for node in definition.node if node.op == "Placeholder")


def _ends(definition: Any) -> tuple[str, ...]:
    """What nothing reads: the outputs, where none are named."""
    read = {name.lstrip("^").split(":")[0] for node in definition.node for name in node.input}
    idle = ("Const", "NoOp", "Assert", "Placeholder")
    return tuple(node.name for node in definition.node if node.name not in read and node.op not in idle)


def _check_arrays(definition: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    names = [node.name for node in definition.node]
    for flag, arrays in (("--input_arrays", inputs), ("--output_arrays", outputs)):
        missing = [a for a in arrays if a.split(":")[0] not in names]
        if missing or not arrays:
            raise OptionError(
                expected=f"nodes of the graph, such as {', '.join((names[:1] + names[-2:]) if names else ['none'])}",
                found=", ".join(missing) or "none",
                where=flag,
                fix="name tensors of the graph",
            )


def _pruned(
    path: Path, definition: Any, inputs: tuple[str, ...], outputs: tuple[str, ...], options: ModelOptions
) -> Any:
    """A function from the input arrays to the output arrays, with static shapes."""
    import tensorflow as tf

    def tensor(name: str) -> str:
        return name if ":" in name else f"{name}:0"

    try:
        with quietly():
            imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
            ends = [imported.graph.get_tensor_by_name(tensor(n)) for n in (*inputs, *outputs)]
            starts, results = ends[: len(inputs)], ends[len(inputs) :]
            function = imported.prune(starts, results)
    except Exception as error:  # an operator of another version, a cut that leaves something open
        raise _error(
            path,
            "a graph that can be computed from --input_arrays to --output_arrays",
            first_words(error),
            "name the arrays that the network begins and ends at",
        ) from error
    given = dict(options.input_shapes)
    if "" in given and len(inputs) == 1:
        given[inputs[0]] = given.pop("")
    specs = [
        tf.TensorSpec(given.get(n) or _static(path, n, t.shape, options.batch_size), t.dtype, name=_plain(n))
        for n, t in zip(inputs, starts, strict=True)
    ]
    names = [_plain(name) for name in outputs]

    def call(*tensors: Any) -> Any:
        found = function(*tensors)
        return dict(zip(names, found if isinstance(found, (list, tuple)) else [found], strict=True))

    with quietly():
        return tf.function(call, input_signature=specs).get_concrete_function()
