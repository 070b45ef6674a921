"""Model files: what loads, in which versions, and what is refused before Keras sees it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from converter.frontends.keras_model import from_keras, load_keras
from converter.frontends.keras_testing import assert_same_function, random_inputs, randomized
from converter.frontends.tfmot_model import needs_tf_keras
from converter.keras_file import _corrected_config, check_keras_file
from ir.errors import ModelError
from ir.execute import run_float

SHARED = Path(os.environ.get("INTACT_SHARED") or Path(__file__).resolve().parents[1] / "../shared")


def _shared(name: str) -> Path:
    path = SHARED / "models" / name
    if not path.exists():
        pytest.skip(f"no shared models at {SHARED} (set INTACT_SHARED)")
    return path


def _model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return randomized(
        keras.Sequential(
            [
                keras.Input((6, 6, 3), name="image"),
                layers.Conv2D(4, 3, name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.DepthwiseConv2D(3, name="depthwise"),
                layers.Flatten(name="flatten"),
                layers.Dense(2, activation="softmax", name="dense"),
            ]
        )
    )


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    _model().save(path)
    return path


@pytest.fixture
def h5_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.h5"
    _model().save(path)
    return path


def _results(model: keras.Model) -> list[np.ndarray]:
    graph = from_keras(model)
    return [keras.ops.convert_to_numpy(y) for y in run_float(graph, random_inputs(graph))]


def _edit_zip(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrites config.json of a .keras file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _edit_h5(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)


def test_both_formats_load_the_same_model(keras_file: Path, h5_file: Path) -> None:
    expected = _results(_model())
    for path in (keras_file, h5_file, str(keras_file)):
        np.testing.assert_array_equal(_results(load_keras(path))[0], expected[0])


def test_a_file_is_what_it_holds_whatever_its_suffix(keras_file: Path, h5_file: Path) -> None:
    for path in (keras_file, h5_file):
        other = path.with_name("network.model" if path.suffix == ".keras" else "weights.keras")
        shutil.copy(path, other)
        assert len(load_keras(other).layers) == 5


def _old(config: dict[str, Any]) -> None:
    """As older versions wrote it: obsolete arguments, `/` in names, two names that differ in `/` and `_`."""
    for layer in config["config"]["layers"]:
        inner = layer["config"]
        if layer["class_name"] == "DepthwiseConv2D":
            inner["groups"] = 1
            inner["name"] = "block/depthwise/conv"
        if layer["class_name"] == "Conv2D":
            inner["name"] = "block_depthwise_conv"
        if layer["class_name"] == "BatchNormalization":
            inner.update(fused=True, virtual_batch_size=None)


def test_what_older_versions_wrote_is_corrected(keras_file: Path, h5_file: Path) -> None:
    expected = _results(_model())
    _edit_zip(keras_file, _old)
    _edit_h5(h5_file, _old)
    for path in (keras_file, h5_file):
        before = path.read_bytes()
        model = load_keras(path)
        assert [layer.name for layer in model.layers][:3] == [
            "block_depthwise_conv",
            "norm",
            "block_depthwise_conv_",
        ]
        assert path.read_bytes() == before
        np.testing.assert_array_equal(_results(model)[0], expected[0])


def test_files_of_this_version_are_not_copied() -> None:
    config = json.loads(_model().to_json())
    assert _corrected_config(config) == (config, False)


def test_obsolete_arguments_that_mean_something_are_not_dropped(h5_file: Path) -> None:
    def grouped(config: dict[str, Any]) -> None:
        next(c for c in config["config"]["layers"] if c["class_name"] == "DepthwiseConv2D")["config"]["groups"] = 2

    _edit_h5(h5_file, grouped)
    with pytest.raises(ModelError, match=r"Unrecognized keyword.*groups"):
        load_keras(h5_file)


@pytest.mark.parametrize("name", ["ic_resnet8", "vww_mobilenet025"])
def test_real_old_files_compute_what_the_new_ones_compute(name: str) -> None:
    old = load_keras(_shared(f"mlperf_tiny/{name}.h5"))
    new = load_keras(_shared(f"mlperf_tiny/{name}.keras"))
    assert_same_function(old, tolerance=1e-6)
    np.testing.assert_array_equal(_results(old)[0], _results(new)[0])


@pytest.mark.parametrize("name", ["mlperf_tiny/kws_dscnn", "mlperf_tiny/ad_autoencoder", "mobilenet_v2_100_imagenet"])
def test_real_files(name: str) -> None:
    assert_same_function(load_keras(_shared(f"{name}.keras")), tolerance=1e-5)


# --- what is refused --------------------------------------------------------------------------------------


def test_nothing_there_and_directories(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing there"):
        load_keras(tmp_path / "missing.keras")
    with pytest.raises(ModelError, match=r"a directory.*model\.save"):
        load_keras(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match="a SavedModel directory"):
        load_keras(tmp_path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="another kind of file"):
        load_keras(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"without config\.json"):
        load_keras(path)
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ModelError, match="weights only"):
        load_keras(path)


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_files_that_are_cut_off(kind: str, share: float, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(f"{kind}_file")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError):
        load_keras(path)


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_files_with_damaged_bytes(kind: str, request: pytest.FixtureRequest) -> None:
    """Any damage is a ModelError, or nothing that matters."""
    path: Path = request.getfixturevalue(f"{kind}_file")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(15):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 20):
            damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            from_keras(load_keras(path))
        except ModelError:
            continue


def test_archives_that_unpack_to_too_much(keras_file: Path) -> None:
    with zipfile.ZipFile(keras_file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(80 << 20))
    with pytest.raises(ModelError, match="claim to unpack to"):
        load_keras(keras_file)


def test_datasets_that_unpack_to_too_much(h5_file: Path) -> None:
    with h5py.File(h5_file, "r+") as file:
        file.create_dataset("model_weights/huge", (1 << 20, 1 << 20), np.float32, chunks=(1 << 10, 1 << 10))
    with pytest.raises(ModelError, match="claim to unpack to"):
        load_keras(h5_file)


def test_datasets_inside_archives_are_looked_at(tmp_path: Path, keras_file: Path) -> None:
    with zipfile.ZipFile(keras_file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = tmp_path / "weights.h5"
    weights.write_bytes(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        file.create_dataset("huge", (1 << 20, 1 << 20), np.float32, chunks=(1 << 10, 1 << 10))
    members["model.weights.h5"] = weights.read_bytes()
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(keras_file, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        with pytest.raises(ModelError, match="claim to unpack to"):
            load_keras(keras_file)


def test_datasets_in_other_files(h5_file: Path) -> None:
    with h5py.File(h5_file, "r+") as file:
        file.create_dataset("other", (4,), np.float32, external=[("/etc/hostname", 0, 16)])
    with pytest.raises(ModelError, match="stored in another file"):
        load_keras(h5_file)


def test_links_into_other_files(h5_file: Path, keras_file: Path) -> None:
    """What `tf_keras` would follow; Keras 3 refuses them itself."""
    with h5py.File(h5_file, "r+") as file:
        file["model_weights/other"] = h5py.ExternalLink("/etc/hostname", "/kernel")
    weights = h5_file.with_name("weights.h5")
    with zipfile.ZipFile(keras_file) as archive:
        weights.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        file["other"] = h5py.ExternalLink("/etc/hostname", "/kernel")
    with zipfile.ZipFile(keras_file, "w") as archive:
        archive.writestr("config.json", json.dumps({}))
        archive.write(weights, "model.weights.h5")
    for path, name in ((h5_file, "model_weights/other"), (keras_file, "other")):
        with pytest.raises(ModelError, match=f"'{name}', which is stored in another file"):
            check_keras_file(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_python_code_in_files_is_not_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2)]).save(path)
    with pytest.raises(ModelError, match=r"carries Python code \(files are loaded in safe mode\).*safe_mode=False"):
        load_keras(path)


def test_lambda_layers_in_memory_are_followed() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2, name="twice")])
    assert [node.name for node in assert_same_function(model).nodes] == ["twice"]


class _Unknown(keras.Layer):
    def call(self, x: Any) -> Any:
        return x + 1.0


def test_classes_that_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), _Unknown()]).save(path)
    _edit_zip(path, lambda config: config["config"]["layers"][1].update(module="elsewhere", class_name="Gone"))
    with pytest.raises(ModelError, match=r"a class that is not of Keras.*custom_objects"):
        load_keras(path)


def test_an_archive_that_claims_far_more_than_it_holds_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("config.json", "w") as stream:
        for _ in range(8):
            stream.write(b" " * (1 << 24))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("inflated"))
    with pytest.raises(ModelError, match="claim to unpack to 134217728"):
        needs_tf_keras(path)


def test_a_file_that_cannot_be_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The HDF5 library never returns from an attribute of it."""
    monkeypatch.setattr("converter.keras_file._LEAST_S", 2)
    with pytest.raises(ModelError, match="cannot be read to its end"):
        load_keras(_shared("../cases/hangcase.h5"))
