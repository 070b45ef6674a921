"""Transforms in .tflite files: what becomes of them computes what TFLite's float kernels compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from converter.conversion import convert
from converter.frontends.tflite_model import from_tflite
from converter.frontends.tflite_testing import check, numbers
from converter.tflite.file_testing import File
from converter.tflite.model_file import parse
from ir.errors import ModelError

_SAMPLES = 64


def _file(function: Callable[[Any], Any]) -> bytes:
    traced = tf.function(function, autograph=False, input_signature=[tf.TensorSpec((1, _SAMPLES), name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()])
    return bytes(converter.convert())


def _table(x: Any) -> Any:
    return tf.reshape(x, (1, 8, 8))


_CASES: dict[str, Callable[[Any], Any]] = {
    "spectrogram": lambda x: tf.abs(tf.signal.stft(x, 16, 8)),
    "zeros make up the size": lambda x: tf.abs(tf.signal.rfft(x, [128])),
    "a part is taken": lambda x: tf.abs(tf.signal.rfft(x, [32])),
    "real": lambda x: tf.math.real(tf.signal.rfft(x)),
    "imaginary": lambda x: tf.math.imag(tf.signal.rfft(x)),
    "both": lambda x: (lambda z: tf.math.real(z) - 2 * tf.math.imag(z))(tf.signal.rfft(x)),
    "of two axes": lambda x: tf.abs(tf.signal.rfft2d(_table(x))),
    "of two axes, other sizes": lambda x: tf.math.imag(tf.signal.rfft2d(_table(x), [4, 16])),
    "of two axes, one row": lambda x: tf.math.real(tf.signal.rfft2d(_table(x), [1, 8])),
}


@pytest.mark.parametrize("name", _CASES)
def test_transforms_are_products(name: str) -> None:
    content = _file(_CASES[name])
    assert any(o.code == "RFFT2D" for o in parse(content).main.operators)
    check(content, numbers(1, _SAMPLES))


def test_a_spectrogram_becomes_integers() -> None:
    data = np.random.default_rng(0).normal(size=(64, _SAMPLES)).astype(np.float32)
    content = _file(_CASES["spectrogram"])
    result = convert(content, calibration_data=data[:32], test_data=data[32:], pipeline="fast")
    assert not result.float_operators
    assert result.quality is not None and result.quality.sqnr_db > 26  # of squares in 8 bits


def test_complex_numbers_elsewhere_are_refused() -> None:
    file = File()
    x, z, y = file.tensor([1, 8], name="x"), file.tensor([1, 5], "COMPLEX64"), file.tensor([1, 5], "COMPLEX64")
    sizes = file.constant(np.array([1, 8], np.int32))
    file.op("RFFT2D", [x, sizes], [z])
    with pytest.raises(ModelError, match=r"real numbers, found complex ones \('t1'\); take the real and the imaginary"):
        from_tflite(file.finish([x], [z]))
    file.op("ADD", [z, z], [y], schema.AddOptionsT())
    with pytest.raises(ModelError, match=r"operator 1 \(ADD\): expected real numbers, found complex ones"):
        from_tflite(file.finish([x], [y]))


@pytest.mark.parametrize("sizes", [[1], [0, 8], [1, 1 << 14]])
def test_sizes_that_are_none_are_refused(sizes: list[int]) -> None:
    file = File()
    x, z, y = file.tensor([1, 8], name="x"), file.tensor([1, 5], "COMPLEX64"), file.tensor([1, 5])
    file.op("RFFT2D", [x, file.constant(np.array(sizes, np.int32))], [z])
    file.op("COMPLEX_ABS", [z], [y])
    with pytest.raises(ModelError, match="two constant sizes of 1 to 8192"):
        from_tflite(file.finish([x], [y]))


def test_a_transform_of_one_axis_is_refused() -> None:
    file = File()
    x, z, y = file.tensor([8], name="x"), file.tensor([5], "COMPLEX64"), file.tensor([5])
    file.op("RFFT2D", [x, file.constant(np.array([1, 8], np.int32))], [z])
    file.op("COMPLEX_ABS", [z], [y])
    with pytest.raises(ModelError, match="a transform of two axes"):
        from_tflite(file.finish([x], [y]))
