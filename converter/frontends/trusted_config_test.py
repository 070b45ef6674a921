"""What crafted models of Keras 2 would run, import or call is refused before `tf_keras` reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from converter.frontends.options import ModelOptions
from converter.frontends.saved_model import from_saved_model
from converter.frontends.tfmot_model import from_tf_keras_file
from converter.frontends.trusted_config import check_config
from ir.errors import ModelError

tf_keras = pytest.importorskip("tf_keras")
tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def _model(function: Callable[[Any], Any] | None = None) -> Any:
    """With a function of TensorFlow, and maybe one of Python."""
    x = tf_keras.Input((4,))
    y = tf_keras.layers.Dense(3)(x if function is None else tf_keras.layers.Lambda(function)(x))
    return tf_keras.Model(x, tf.math.add(y, 1.0))


def _config() -> dict[str, Any]:
    return dict(json.loads(_model().to_json()))


def test_honest_configurations_are_taken(tmp_path: Path) -> None:
    check_config(_config(), tmp_path)
    x = tf_keras.Input((8, 8, 3))
    y = tf.image.resize(tf.nn.relu6(tf_keras.layers.Conv2D(4, 3, kernel_initializer="he_normal")(x)), (4, 4))
    y = tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(3))(tf.reshape(y, (-1, 16, 4))[:, ::2])
    y = tf_keras.layers.Dense(2, kernel_regularizer="l2", activation="softmax")(tf.concat([y, y], -1))
    check_config(json.loads(tf_keras.Model(x, y).to_json()), tmp_path)


def _layer(**what: Any) -> Callable[[dict[str, Any]], None]:
    """Changes what a configuration says of its last layer."""

    def change(config: dict[str, Any]) -> None:
        layer = config["config"]["layers"][-1]
        layer |= what | {"config": layer["config"] | what.get("config", {})}

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_layer(class_name="Lambda"), "class 'Lambda'"),
        (_layer(registered_name="keras>Lambda"), "class 'keras>Lambda'"),
        (_layer(class_name="TensorFlowOpLayer"), "class 'TensorFlowOpLayer'"),
        (_layer(config={"initializer": {"class_name": "__typespec__", "module": "os"}}), "class '__typespec__'"),
        (_layer(config={"activation": {"class_name": "function", "config": "eval"}}), "class 'function'"),
        (_layer(module="os"), "module 'os'"),
        (_layer(module="kerasx"), "module 'kerasx'"),
        (_layer(config={"function": "io.write_file"}), "function 'io.write_file'"),
        (_layer(config={"function": "compat.v1.write_file"}), r"function 'compat\.v1\.write_file'"),
        (_layer(config={"function": "io.gfile.rmtree"}), r"function 'io\.gfile\.rmtree'"),
        (_layer(config={"function": "load_op_library"}), "function 'load_op_library'"),
        (_layer(config={"function": "raw_ops.WriteFile"}), r"function 'raw_ops\.WriteFile'"),
        (_layer(config={"function": "keras.models.load_model"}), r"function 'keras\.models\.load_model'"),
        (_layer(class_name="StringLookup", config={"vocabulary": "/etc/passwd"}), "file '/etc/passwd'"),
    ],
)
def test_what_is_no_part_of_a_network(tmp_path: Path, change: Callable[[dict[str, Any]], None], found: str) -> None:
    config = _config()
    change(config)
    with pytest.raises(ModelError, match=f"found an? (object of the )?{found}|found the {found}|in the {found}"):
        check_config(config, tmp_path)


def test_a_function_that_is_called_on_a_constant(tmp_path: Path) -> None:
    model, path = _model(), tmp_path / "m.h5"
    model.save(path, save_format="h5")
    assert [v.shape for v in from_tf_keras_file(path).graph.outputs] == [(1, 3)]
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        node = ["_CONSTANT_VALUE", -1, str(tmp_path / "written"), {"contents": "x"}]
        config["config"]["layers"].append(
            {
                "class_name": "TFOpLambda",
                "name": "f",
                "config": {"name": "f", "function": "io.write_file"},
                "inbound_nodes": [node],
            }
        )
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ModelError, match=r"found the function 'io\.write_file'"):
        from_tf_keras_file(path)
    assert not (tmp_path / "written").exists()


def _with_code(left: Path) -> Any:
    """A model whose byte code leaves a folder behind, wherever it runs."""
    name = str(left)
    return _model(eval(f"lambda x: (__import__('os').makedirs({name!r}, exist_ok=True), x)[1]"))


def test_byte_code_in_an_h5_file(tmp_path: Path) -> None:
    left = tmp_path / "left"
    _with_code(left).save(tmp_path / "m.h5", save_format="h5")
    left.rmdir()  # building the model ran it
    with pytest.raises(ModelError, match="class 'Lambda'"):
        from_tf_keras_file(tmp_path / "m.h5")
    assert not left.exists()


def test_byte_code_in_a_saved_model(tmp_path: Path) -> None:
    """Under a name that only JSON's reader recognizes; the functions that were traced are converted."""
    from tf_keras.protobuf import saved_metadata_pb2

    left, path = tmp_path / "left", tmp_path / "model"
    tf_keras.models.save_model(_with_code(left), str(path))
    left.rmdir()
    saved = saved_metadata_pb2.SavedMetadata.FromString((path / "keras_metadata.pb").read_bytes())
    for node in saved.nodes:
        node.metadata = node.metadata.replace('"Lambda"', '"Lambd\\u0061"')
    (path / "keras_metadata.pb").write_bytes(saved.SerializeToString())
    graph = from_saved_model(path, ModelOptions()).graph
    assert graph.outputs[0].shape == (1, 3)
    assert not left.exists()
