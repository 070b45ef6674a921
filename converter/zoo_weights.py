"""Weights from files: into a network of the zoo, or as a whole .keras model in its place."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import numpy as np

from converter.keras_file import first_words, load_keras
from ir.errors import ModelError

WEIGHT_SUFFIXES = (".weights.h5", ".h5", ".hdf5", ".keras")


def check_weights_path(path: Path) -> Path:
    """Returns `path`; raises ModelError where it is no file of a known kind."""
    if not path.is_file() or not path.name.endswith(WEIGHT_SUFFIXES):
        raise ModelError(
            expected=f"'imagenet' or a file of weights ({', '.join(WEIGHT_SUFFIXES)})",
            found="nothing there" if not path.exists() else f"'{path.name}'",
            where=f"weights {path}",
            fix="check the path",
        )
    return path


def with_weights(model: keras.Model, path: Path, what: str) -> keras.Model:
    """`model` with the weights of a file; of a .keras file the network itself, where its layers are the same.

    Args:
      model: the network as built, changed in place.
      path: .weights.h5, .h5 (weights or a whole model of the old format), or .keras.
      what: the network and its options, for messages.

    Raises:
      ModelError: the file is damaged, or holds the weights of another network.
    """
    if path.name.endswith(".keras"):
        return _checked_whole(what, model, load_keras(path), path)
    _mark_as_missing(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(str(path))
        missing = next((v.path for v in model.weights if np.isnan(np.asarray(v)).any()), None)
        if missing is not None:
            raise ValueError(f"no values, or NaN, for {missing}")
    except Exception as error:
        raise ModelError(
            expected=f"the weights of {what}",
            found=f"a file that does not fit ({first_words(error)})",
            where=f"weights {path}",
            fix="name the network, its alpha and its number of classes as they were trained",
        ) from error
    _restore_input_scaling(model)
    return model


def _mark_as_missing(model: keras.Model) -> None:
    """Sets every float weight to NaN: Keras only warns of some weights that a file does not hold."""
    for variable in model.weights:
        if np.issubdtype(np.asarray(variable).dtype, np.floating):
            variable.assign(np.full(variable.shape, np.nan, np.float32))


def _checked_whole(what: str, reference: keras.Model, model: keras.Model, path: Path) -> keras.Model:
    """`model`, after a check that its layers with weights are of the reference's types, in its order."""
    expected, found = (
        [type(layer).__name__ for layer in network.layers if layer.weights] for network in (reference, model)
    )
    if expected != found:
        raise ModelError(
            expected=f"the layers of {what} ({len(expected)} with weights)",
            found=f"another network '{model.name}' ({len(found)} with weights)",
            where=f"weights {path}",
            fix="give the file as the model itself, and its preprocessing with it",
        )
    return model


def _restore_input_scaling(model: keras.Model) -> None:
    """Corrects EfficientNet (the first version) with ImageNet weights from a file.

    In these weights the variance of the `Normalization` layer holds standard deviations. Keras makes up for
    that by another layer, x / sqrt(deviation), but only for weights="imagenet"; here the variance v becomes
    v * v instead, since (x - mean) / sqrt(v) / sqrt(v) = (x - mean) / sqrt(v * v).
    """
    deviations = np.asarray([0.229, 0.224, 0.225], np.float32)
    for layer in model.layers:
        if not (isinstance(layer, keras.layers.Normalization) and len(layer.get_weights()) == 3):
            continue
        mean, variance, count = layer.get_weights()
        if variance.size == 3 and np.allclose(variance.reshape(-1), deviations, atol=1e-4):
            layer.set_weights([mean, variance * variance, count])
            layer.finalize_state()
