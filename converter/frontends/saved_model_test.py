"""SavedModels, frozen graphs and models of Keras 2: what they compute, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.frontends import ModelOptions, Source, load_model
from ir.errors import ModelError, OptionError
from ir.execute import run_float
from ir.ops.normalization import BATCH_NORM

_TOLERANCE = 2e-5  # float32 sums in another order


def _run(source: Source, *inputs: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(y) for y in run_float(source.graph, inputs)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two signatures, neither of them the default one; the first leaves its sizes open."""
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self) -> None:
            self.w = tf.Variable(np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="image")])
        def conv(self, image: Any) -> Any:
            return {"features": tf.nn.relu(tf.nn.conv2d(image, self.w, 1, "SAME"))}

        @tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32, name="x")])
        def pair(self, x: Any) -> Any:
            return {"z": 2.0 * x, "a": tf.tanh(x)}

    path = tmp_path_factory.mktemp("saved") / "two"
    module = Module()
    tf.saved_model.save(module, str(path), signatures={"conv": module.conv, "pair": module.pair})
    return path


def test_a_signature_by_name(two: Path) -> None:
    x = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    source = load_model(two, options=ModelOptions(signature="pair", batch_size=2))
    assert [v.name for v in source.graph.outputs] == ["a", "z"] and source.graph.inputs[0].name == "x"
    a, z = _run(source, x)
    np.testing.assert_allclose(a, np.tanh(x), atol=_TOLERANCE)
    np.testing.assert_array_equal(z, 2 * x)


def test_open_sizes_and_unknown_signatures(two: Path) -> None:
    with pytest.raises(OptionError, match="a signature of conv, pair, found none"):
        load_model(two)
    with pytest.raises(ModelError, match=r"every axis but the batch of input 'image'.*pass --input_shape image=1"):
        load_model(two, options=ModelOptions(signature="conv"))
    shapes = {"image": (1, 9, 7, 3)}
    source = load_model(two, options=ModelOptions(signature="conv", input_shapes=shapes))
    assert source.graph.outputs[0].shape == (1, 9, 7, 4) and source.graph.outputs[0].name == "features"


def test_a_damaged_directory(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01nonsense")
    with pytest.raises(ModelError, match="a SavedModel that TensorFlow can load"):
        load_model(tmp_path)
    (tmp_path / "saved_model.pb").unlink()
    with pytest.raises(ModelError, match=r"a directory without saved_model\.pb"):
        load_model(tmp_path)


def test_what_keras_3_exports(tmp_path: Path) -> None:
    """Functions only: the batch norm is folded by then."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    )
    model.export(str(tmp_path / "m"), verbose=False)
    x = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    source = load_model(tmp_path / "m")
    assert BATCH_NORM not in {node.op for node in source.graph.nodes}
    np.testing.assert_allclose(_run(source, x)[0], model.predict(x, verbose=0), atol=_TOLERANCE)


def test_outputs_keep_their_names_and_order(tmp_path: Path) -> None:
    """TensorFlow's converter puts them into an order of its own."""
    import keras

    x = keras.Input((4,))
    model = keras.Model(x, [x * factor for factor in range(2, 14)])
    model.export(str(tmp_path / "m"), verbose=False)
    source = load_model(tmp_path / "m")
    assert [v.name for v in source.graph.outputs] == [f"output_{i}" for i in range(12)]
    assert [float(y.max()) for y in _run(source, np.ones((1, 4), np.float32))] == list(range(2, 14))


def test_what_tensorflow_cannot_convert_is_said_in_a_few_words(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="mixed_bfloat16")])
    model.export(str(tmp_path / "m"), verbose=False)
    message = r"operators that TFLite does not have: .*MatMul.* on half-precision.*export it in float32"
    with pytest.raises(ModelError, match=message) as error:
        load_model(tmp_path / "m")
    assert len(str(error.value)) < 500


def test_a_frozen_graph(tmp_path: Path) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 12, 12, 3), name="in/x")
        y = tf.nn.relu(tf.nn.conv2d(x, tf.constant(w), 2, "SAME"), name="features/relu")
        tf.identity(tf.nn.softmax(tf.reduce_mean(y, (1, 2))), name="prob")
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    whole = load_model(path)
    assert [v.name for v in whole.graph.outputs] == ["prob"]
    image = rng.normal(size=(1, 12, 12, 3)).astype(np.float32)
    cut = ModelOptions(input_arrays=("in/x",), output_arrays=("prob", "features/relu"))
    prob, features = _run(load_model(path, options=cut), image)
    assert features.shape == (1, 6, 6, 5)
    np.testing.assert_allclose(prob, _run(whole, image)[0], atol=_TOLERANCE)
    with pytest.raises(OptionError, match=r"--output_arrays: expected nodes of the graph.*found nowhere"):
        load_model(path, options=ModelOptions(output_arrays=("nowhere",)))
    for content in (b"no graph", b""):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="a frozen GraphDef"):
            load_model(path)


def test_a_path_where_nothing_is(tmp_path: Path) -> None:
    for name in ("nothing", "net.onnx", "folder/net"):
        with pytest.raises(ModelError, match="found nothing; check the path"):
            load_model(tmp_path / name)


@pytest.mark.parametrize(("name", "remedy"), [("net.pth", "torch.export.save("), ("net.bin", "model.save")])
def test_files_of_other_kinds_are_refused_with_what_makes_them_readable(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(b"net")
    with pytest.raises(ModelError, match=rf"expected \.keras, .*found '\.\w+'; .*{re.escape(remedy)}"):
        load_model(tmp_path / name)


# --- Keras 2 and TensorFlow Model Optimization ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def legacy() -> Any:
    """A Keras 2 model with batch norms that are not those of a fresh layer."""
    tf_keras = pytest.importorskip("tf_keras")
    pytest.importorskip("tensorflow_model_optimization")
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    x = tf_keras.Input((8, 8, 3), name="image")
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, use_bias=False, name="conv")(x))
    y = layers.Flatten(name="flat")(layers.ReLU(6.0, name="act")(y))
    model = tf_keras.Model(x, layers.Dense(3, activation="relu", name="dense")(y))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.2, 1, w.shape) for w in model.get_weights()])
    return model


_IMAGES = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "form"), [("m.h5", "h5"), ("m.keras", "keras"), ("m", "tf")])
def test_keras_2_keeps_its_batch_norms(legacy: Any, tmp_path: Path, name: str, form: str) -> None:
    legacy.save(tmp_path / name, save_format=form)
    source = load_model(tmp_path / name)
    assert BATCH_NORM in {node.op for node in source.graph.nodes}
    np.testing.assert_allclose(_run(source, _IMAGES)[0], legacy.predict(_IMAGES, verbose=0), rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_pruned_models_are_stripped(legacy: Any, tmp_path: Path) -> None:
    import tensorflow_model_optimization as tfmot

    tfmot.sparsity.keras.prune_low_magnitude(legacy).save(tmp_path / "pruned.h5")
    source = load_model(tmp_path / "pruned.h5")
    np.testing.assert_allclose(_run(source, _IMAGES)[0], legacy.predict(_IMAGES, verbose=0), rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_learned_ranges_become_ours(legacy: Any, tmp_path: Path) -> None:
    """The ranges of quantization-aware training are kept by calibration, whatever the data says."""
    import tensorflow_model_optimization as tfmot

    from converter.conversion import convert

    aware = tfmot.quantization.keras.quantize_model(legacy)
    wrapper = next(layer for layer in aware.layers if layer.name == "quant_act")
    for variable, learned in ((v, b) for v in wrapper.weights for s, b in (("min", 0.0), ("max", 5.5)) if s in v.name):
        variable.assign(learned)
    aware.save(tmp_path / "aware.h5")
    source = load_model(tmp_path / "aware.h5")
    by_name = {value.name: r for value, r in source.ranges.items()}
    assert (by_name["act"].low, by_name["act"].high) == (0.0, 5.5)
    np.testing.assert_allclose(_run(source, _IMAGES)[0], legacy.predict(_IMAGES, verbose=0), rtol=1e-4, atol=1e-3)
    result = convert(tmp_path / "aware.h5", calibration_data=_IMAGES, pipeline="fast", check=False)
    scales = [float(v.quant.scale) for v in result.graph.values() if v.quant is not None and not v.is_constant]
    assert any(abs(scale - 5.5 / 255) < 1e-6 for scale in scales)
