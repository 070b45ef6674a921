"""The zoo: names, preprocessing, weights from files, and every way in which these can be wrong."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from converter import zoo
from converter.data import InputSpec, open_data
from converter.frontends import load_model
from converter.zoo import load_zoo, zoo_names, zoo_preprocess
from ir.errors import ModelError, OptionError

SHARED = Path(os.environ.get("INTACT_SHARED") or Path(__file__).resolve().parents[1] / "../shared")


def _same_weights(first: object, second: object) -> bool:
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)  # type: ignore[attr-defined]
    return all(np.array_equal(a, b) for a, b in pairs)


def test_names_are_those_of_keras() -> None:
    names = zoo_names()
    assert names == sorted(set(names))
    # All classes of the applications page of Keras 3.
    assert len(names) >= 40 + 1
    assert {
        "mobilenet",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "resnet50",
        "resnet152_v2",
        "efficientnet_b0",
        "efficientnet_v2_b3",
        "efficientnet_v2_s",
        "densenet121",
        "nasnet_mobile",
        "xception",
        "convnext_tiny",
        "convnext_xlarge",
        "inception_v3",
        "inception_resnet_v2",
        "vgg16",
        "digits_mobilenet_v2",
    } <= set(names)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("mobilenet", "tf"),
        ("mobilenet_v2", "tf"),
        ("mobilenet_v3_large", "none"),
        ("resnet50", "caffe"),
        ("resnet50_v2", "tf"),
        ("efficientnet_b7", "none"),
        ("efficientnet_v2_l", "none"),
        ("densenet201", "torch"),
        ("nasnet_large", "tf"),
        ("xception", "tf"),
        ("convnext_base", "none"),
        ("inception_v3", "tf"),
        ("inception_resnet_v2", "tf"),
        ("vgg19", "caffe"),
    ],
)
def test_preprocessing(name: str, mode: str) -> None:
    assert zoo_preprocess(name) == mode


def test_random_weights_are_the_same_each_time() -> None:
    state = random.getstate()
    first = load_zoo("MobileNetV2", "random", alpha=0.35, input_size=96, classes=7)
    assert random.getstate() == state
    assert (first.name, first.input_size, first.preprocess, first.weights) == (
        "mobilenet_v2",
        (96, 96),
        "tf",
        "random",
    )
    assert first.model.output_shape == (None, 7)
    assert first.model.layers[-1].activation.__name__ == "softmax"
    assert _same_weights(first.model, load_zoo("mobilenet-v2", "random", alpha=0.35, input_size=96, classes=7).model)
    other = load_zoo("mobilenet_v2", "random", alpha=0.35, input_size=(96, 128), classes=7, seed=1)
    assert other.input_size == (96, 128)
    assert not _same_weights(first.model, other.model)


def test_default_size_where_keras_states_none() -> None:
    assert load_zoo("mobilenet_v3_small", "random", minimalistic=True).input_size == (224, 224)


@pytest.mark.parametrize("file", ["a.weights.h5", "a.h5", "a.keras"])
def test_weights_from_files(tmp_path: Path, file: str) -> None:
    model = load_zoo("mobilenet", "random", alpha=0.25, input_size=32, classes=3).model
    path = tmp_path / file
    model.save_weights(path) if file == "a.weights.h5" else model.save(path)
    loaded = load_zoo("mobilenet", path, alpha=0.25, input_size=32, classes=3, seed=9)
    assert loaded.weights == str(path)
    assert _same_weights(loaded.model, model)
    if file != "a.keras":
        with pytest.raises(ModelError, match=r"expected the weights of mobilenet with classes=3, found a file that"):
            load_zoo("mobilenet", path, classes=3)
    with pytest.raises(ModelError, match=r"a\..*: expected the .* of mobilenet_v2"):
        load_zoo("mobilenet_v2", path, input_size=32, classes=3)
    path.write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"a\."):
        load_zoo("mobilenet", path, alpha=0.25, input_size=32, classes=3)


def test_weights_that_a_file_does_not_hold(tmp_path: Path) -> None:
    import h5py

    model = load_zoo("mobilenet", "random", alpha=0.25, input_size=32, classes=3).model
    path = tmp_path / "a.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        kernel = next(
            file["model_weights/conv1"][name]
            for name in file["model_weights/conv1"].attrs["weight_names"]
            if "kernel" in str(name)
        )
        kernel[0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match=r"no values, or NaN, for conv1/kernel"):
        load_zoo("mobilenet", path, alpha=0.25, input_size=32, classes=3)


def test_efficientnet_weights_from_a_file_are_scaled_as_by_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    from keras.src.applications import efficientnet

    model = load_zoo("efficientnet_b0", "random", input_size=32).model
    layer = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    deviations = np.asarray([0.229, 0.224, 0.225], np.float32)
    layer.set_weights([np.asarray([0.485, 0.456, 0.406], np.float32), deviations, np.asarray(0)])
    path = tmp_path / "efficientnetb0.h5"
    model.save(path)
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *_, **__: str(path))
    expected = load_zoo("efficientnet_b0", "imagenet").model
    found = load_zoo("efficientnet_b0", path, input_size=32).model

    def before_stem(network: keras.Model) -> np.ndarray:
        part = keras.Model(network.input, network.get_layer("stem_conv_pad").input)
        size = network.input_shape[1]
        pixels = np.full((1, size, size, 3), 255.0, np.float32)
        pixels[..., 1] = 0.0
        return keras.ops.convert_to_numpy(part(pixels))[0, 0, 0]

    # Two square roots against one, in float32.
    assert np.allclose(before_stem(found), before_stem(expected), rtol=1e-5, atol=0)


def test_imagenet_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from keras.src.applications import mobilenet

    def refuse(*_: object, **__: object) -> str:
        raise Exception("URL fetch failure on https://example.org/x.h5: None -- no route")

    monkeypatch.setattr(mobilenet.file_utils, "get_file", refuse)
    with pytest.raises(
        ModelError,
        match=r"mobilenet: expected ImageNet weights, .*, found no download \(URL fetch .* no route\); "
        r"download https://example.org/x.h5 elsewhere and put it into \S*models as x.h5, or pass it with --weights x.h5",
    ):
        load_zoo("mobilenet")


def test_a_name_means_the_weights_that_lie_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from keras.src.utils import file_utils

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked, although the file is there")

    trained = load_zoo("mobilenet", "random", seed=3).model
    (tmp_path / "models").mkdir()
    trained.save(tmp_path / "models" / "mobilenet_1_0_224_tf.h5")
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", refuse)
    found = load_zoo("mobilenet")
    assert found.weights == "imagenet" and _same_weights(found.model, trained)


def test_random_weights_are_warned_of() -> None:
    (warning,) = load_model("mobilenet", weights="random").warnings
    assert warning.startswith("the weights are random")
    assert load_model("digits_mobilenet_v2").warnings == ()


def test_names_that_are_not_known() -> None:
    with pytest.raises(OptionError, match=r"found 'mobilnet_v2'; did you mean mobilenet_v2 or"):
        load_zoo("mobilnet_v2")
    with pytest.raises(OptionError, match=r"found 'qqq'; choose one of convnext_base, "):
        load_zoo("qqq")


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"resnet50: .*\('alpha' is one of mobilenet, mobilenet_v2, mobilenet_v3"):
        load_zoo("resnet50", "random", alpha=0.5)
    with pytest.raises(OptionError, match=r"found alpha=-1; change them \(Keras says: .*filters"):
        load_zoo("mobilenet", "random", alpha=-1)
    with pytest.raises(OptionError, match=r"alpha=0\.3, weights=imagenet"):
        load_zoo("mobilenet", "imagenet", alpha=0.3)
    with pytest.raises(OptionError, match=r"found input_size=\(5, 5\); change them \(Keras says: .* at least 32x32"):
        load_zoo("mobilenet", "random", input_size=5)
    with pytest.raises(ModelError, match=r"weights nowhere\.h5: .* found nothing there; check the path"):
        load_zoo("mobilenet", "nowhere.h5")
    (tmp_path / "a.ckpt").write_bytes(b"")
    with pytest.raises(ModelError, match=r"found 'a\.ckpt'"):
        load_zoo("mobilenet", tmp_path / "a.ckpt")
    with pytest.raises(OptionError, match="they come with the network"):
        load_zoo("digits_mobilenet_v2", "imagenet")


def test_shipped_network_and_its_data() -> None:
    digits = load_zoo("digits_mobilenet_v2")
    assert digits.weights == "shipped"
    assert len(digits.classes) == digits.model.output_shape[-1]
    inputs = [InputSpec(name="image", shape=(1, *digits.input_size, 3))]
    assert len(open_data(digits.data["calibration"], inputs)) > 0
    test = open_data(digits.data["test"], inputs, preprocess=digits.preprocess).subset(range(0, 450, 10))
    (batch,) = test.batches(len(test))
    found = np.argmax(digits.model(batch[0], training=False), axis=-1)
    assert np.mean(found == test.labels) > 0.9


def test_shipped_descriptions_that_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    monkeypatch.setattr(zoo, "_SHIPPED", tmp_path)
    monkeypatch.setattr(zoo, "_shipped_files", lambda: {"x": path})
    for text in ("{", "{}", json.dumps({"file": "x.keras", "preprocess": "tf"})):
        path.write_text(text)
        with pytest.raises(ModelError, match=r"x\.json: expected a description .*; install the package again"):
            load_zoo("x")


@pytest.mark.parametrize(
    ("name", "file"),
    [("mobilenet", "mobilenet_v1_075_imagenet.keras"), ("mobilenet_v2", "mobilenet_v2_100_imagenet.keras")],
)
def test_imagenet_models_keep_their_accuracy(name: str, file: str) -> None:
    if not (SHARED / "models" / file).is_file():
        pytest.skip(f"no shared models at {SHARED} (set INTACT_SHARED)")
    network = load_zoo(name, SHARED / "models" / file)
    root = SHARED / "data/imagenet_samples"
    inputs = [InputSpec(name="image", shape=(1, *network.input_size, 3))]
    source = open_data(root, inputs, preprocess=network.preprocess, samples=16, labels=root / "labels.csv")
    (batch,) = source.batches(16)
    found = np.argmax(network.model(batch[0], training=False), axis=-1)
    # 85 % and 80 % of all; 40 % is four standard deviations of 16 draws below.
    assert np.mean(found == source.labels) > 0.4
