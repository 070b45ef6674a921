"""SavedModels that would write a file, when loaded or when called, are refused before TensorFlow sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.trackable.resource import CapturableResource

from converter.frontends.options import ModelOptions
from converter.frontends.saved_model import from_saved_model
from converter.frontends.trusted_graph import check_saved_model
from ir.errors import ModelError

_X = tf.TensorSpec([1, 2], tf.float32)


def _writer(path: Path, *, at_load: bool) -> tf.Module:
    class Resource(CapturableResource):
        def _create_resource(self):  # type: ignore[no-untyped-def]
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self) -> None:
            tf.io.write_file(str(path), "x")

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.resource = Resource() if at_load else None

        @tf.function(input_signature=[_X])
        def call(self, x):  # type: ignore[no-untyped-def]
            if self.resource is None:
                tf.io.write_file(str(path), "x")
            else:
                _ = self.resource.resource_handle
            return {"y": x * 2.0}

    return Module()


@pytest.mark.parametrize("at_load", [True, False])
def test_operators_that_write_files(tmp_path: Path, at_load: bool) -> None:
    module = _writer(tmp_path / "written", at_load=at_load)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.call)
    (tmp_path / "written").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="reach files, the network or Python: WriteFile"):
        from_saved_model(tmp_path / "model", ModelOptions())
    assert not (tmp_path / "written").exists()


def test_weights_may_be_saved_and_restored(tmp_path: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    module.call = tf.function(lambda x: {"y": x @ module.w}, input_signature=[_X])
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)
    check_saved_model(tmp_path)
