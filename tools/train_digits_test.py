"""The split of the digits, and that what is shipped is what the script describes."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tools import train_digits

SHIPPED = Path(__file__).parent.parent / "converter" / "shipped"


@pytest.fixture(scope="module")
def digits() -> train_digits.Digits:
    return train_digits.load_digits(train_digits.IMAGE_SIZE)


@pytest.fixture(scope="module")
def description() -> dict:
    return json.loads((SHIPPED / f"{train_digits.NAME}.json").read_text())


def load(name: str) -> train_digits.Digits:
    with np.load(SHIPPED / name) as arrays:
        return train_digits.Digits(images=arrays["images"], labels=arrays["labels"])


def test_stratified_choice_keeps_the_shares_of_the_classes():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    chosen = train_digits.choose_stratified(labels, 11, np.random.default_rng(0))
    assert len(np.unique(chosen)) == 11
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [6, 3, 2])


def test_stratified_choice_follows_its_generator():
    labels = np.repeat([0, 1], 50)
    first, again, other = (
        train_digits.choose_stratified(labels, 20, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_test_images_are_in_no_other_part(digits: train_digits.Digits):
    parts = train_digits.split(digits.labels, seed=1)
    assert set(parts.calibration) < set(parts.train)
    assert not set(parts.test) & set(parts.train)
    assert len(parts.test) + len(parts.train) == len(digits.labels)


def test_enlarging_keeps_the_ends_of_the_range_and_the_order():
    small = np.zeros((8, 8))
    small[:, 4:] = 16
    large = train_digits.enlarge(small, 48)
    assert large.dtype == np.uint8 and large.shape == (48, 48, 3)
    assert large[:, 0].max() == 0 and large[:, -1].min() == 255
    assert np.all(np.diff(large[..., 0].astype(int), axis=1) >= 0)


@pytest.mark.parametrize(
    ("file", "part"),
    [(train_digits.TEST_FILE, "test"), (train_digits.CALIBRATION_FILE, "calibration")],
)
def test_shipped_images_are_the_split(digits: train_digits.Digits, file: str, part: str):
    expected = digits.take(getattr(train_digits.split(digits.labels, seed=1), part))
    shipped = load(file)
    np.testing.assert_array_equal(shipped.images, expected.images)
    np.testing.assert_array_equal(shipped.labels, expected.labels)


def test_description_names_shipped_files(description: dict):
    files = [description["file"], *description["data"].values()]
    assert [name for name in files if not (SHIPPED / name).is_file()] == []


def test_shipped_model_reaches_the_accuracy_that_its_description_states(description: dict):
    import keras

    model = keras.models.load_model(SHIPPED / description["file"], compile=False)
    test = load(description["data"]["test"])
    assert len(test.labels) == description["test_images"]
    # One image: a float kernel of another machine may turn the one that lies on the edge.
    one_image = 1 / len(test.labels)
    assert train_digits.accuracy(model, test) == pytest.approx(description["float_accuracy"], abs=one_image + 1e-6)


def test_shipped_model_keeps_its_batch_normalizations():
    import keras

    model = keras.models.load_model(SHIPPED / f"{train_digits.NAME}.keras", compile=False)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 52
    assert model.input_shape == (None, 48, 48, 3)


def test_shipped_model_is_of_a_keras_that_every_supported_python_has():
    with zipfile.ZipFile(SHIPPED / f"{train_digits.NAME}.keras") as archive:
        written_by = json.loads(archive.read("metadata.json"))["keras_version"]
    assert tuple(int(part) for part in written_by.split(".")[:2]) <= (3, 12)
