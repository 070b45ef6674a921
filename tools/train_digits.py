"""Trains the model that is shipped with the converter: a small MobileNetV2 that reads handwritten digits.

    python -m tools.train_digits [--output_dir DIR] [--epochs N] [--seed N]

The images are the 1797 digits of the UCI set "Optical Recognition of Handwritten Digits" as scikit-learn
carries them (8 x 8, 17 grey levels), enlarged to squares of `IMAGE_SIZE` and three equal channels of uint8.
A seeded, stratified choice sets `TEST_COUNT` of them aside; they play no part in training, nor in choosing
anything. The calibration images are some of the training images.

Written to the output folder:

- `digits_mobilenet_v2.keras`: the model, batch normalizations as trained, without the state of the optimizer;
- `digits_calibration.npz`, `digits_test.npz`: `images` (uint8, [count, side, side, 3]) and `labels`;
- `digits_mobilenet_v2.json`: what the model expects, its accuracy on the test images, source and licence.

Keras reads the models of its older releases, but 3.12, the last for Python 3.10, refuses options that later
ones write. So what is shipped is made with Python 3.10.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from converter.preprocess import apply_mode
from tools._command import SEEDS, import_backend, run_own_command

NAME = "digits_mobilenet_v2"
CALIBRATION_FILE = "digits_calibration.npz"
TEST_FILE = "digits_test.npz"
IMAGE_SIZE = 48
CLASSES = 10
ALPHA = 0.35
TEST_COUNT = 450
CALIBRATION_COUNT = 150
SOURCE = (
    "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, "
    "UCI Machine Learning Repository, 1998, doi:10.24432/C50P49; "
    "the copy of scikit-learn's load_digits, enlarged from 8 x 8 by bilinear interpolation"
)
LICENCE = "CC BY 4.0 (the images)"

_FLAGS = flags.FlagValues()  # of its own: other commands have flags of the same names
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "converter/shipped", "Folder for the model and its data.", flag_values=_FLAGS
)
_EPOCHS = flags.DEFINE_integer("epochs", 60, "Times the training images are seen.", lower_bound=1, flag_values=_FLAGS)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images in a training step.", lower_bound=2, flag_values=_FLAGS)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 2e-3, "Adam's learning rate at first; a cosine to 0.", flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed", 1, "Seed of the split, the initial weights and the distortions.", **SEEDS, flag_values=_FLAGS
)


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images (uint8, [count, side, side, 3]) and the digit that each shows (int64, [count])."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> "Digits":
        """The images at `indices`, in that order."""
        return Digits(images=self.images[indices], labels=self.labels[indices])

    def save(self, path: Path) -> None:
        """Writes a compressed .npz with the arrays `images` and `labels`."""
        np.savez_compressed(path, images=self.images, labels=self.labels)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices into the whole set; `calibration` is a part of `train`, and `test` shares nothing with them."""

    train: np.ndarray
    calibration: np.ndarray
    test: np.ndarray


def enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """An 8 x 8 image of the levels 0 to 16 as uint8 [side, side, 3], bilinearly interpolated."""
    from PIL import Image

    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    enlarged = np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR))
    return np.repeat(enlarged[..., np.newaxis], 3, axis=-1)


def load_digits(side: int) -> Digits:
    """All digits of the set, enlarged."""
    from sklearn.datasets import load_digits as load_small_digits

    small = load_small_digits()
    images = np.stack([enlarge(image, side) for image in small.images])
    return Digits(images=images, labels=small.target.astype(np.int64))


def choose_stratified(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` indices in rising order, each class as often (to within one) as in `labels`.

    Every class gets the whole part of its share; the largest remainders get one more each.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    shares = sizes * (count / len(labels))
    counts = np.floor(shares).astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: count - counts.sum()]] += 1
    members = (np.flatnonzero(labels == label) for label in classes)
    chosen = [generator.choice(own, size, replace=False) for own, size in zip(members, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


def split(labels: np.ndarray, seed: int) -> Split:
    """The split of a set with these labels into training, calibration and test images."""
    generator = np.random.default_rng(seed)
    test = choose_stratified(labels, TEST_COUNT, generator)
    train = np.setdiff1d(np.arange(len(labels)), test)
    calibration = train[choose_stratified(labels[train], CALIBRATION_COUNT, generator)]
    return Split(train=train, calibration=calibration, test=test)


def build_model() -> Any:
    """MobileNetV2 with fresh weights.

    The batch normalizations average over about ten steps (momentum 0.9): the 0.999 of the ImageNet recipe
    would not have forgotten the initial statistics by the end of so short a training.
    """
    import keras

    model = keras.applications.MobileNetV2(
        input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3), alpha=ALPHA, weights=None, classes=CLASSES, name=NAME
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return model


def fit(model: Any, digits: Digits, *, epochs: int, batch_size: int, learning_rate: float, seed: int) -> None:
    """Trains `model` in place on randomly moved, turned and scaled copies of the images."""
    import keras

    still = {"fill_mode": "constant", "fill_value": -1.0}
    distorted = keras.Sequential(
        [
            keras.layers.Input(model.input_shape[1:]),
            keras.layers.RandomTranslation(0.1, 0.1, seed=seed, **still),
            keras.layers.RandomRotation(0.03, seed=seed + 1, **still),
            keras.layers.RandomZoom(0.1, seed=seed + 2, **still),
            model,
        ]
    )
    steps = epochs * -(-len(digits.labels) // batch_size)
    distorted.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    distorted.fit(apply_mode(digits.images, "tf"), digits.labels, batch_size=batch_size, epochs=epochs, verbose=2)


def accuracy(model: Any, digits: Digits) -> float:
    """The share of the images whose likeliest class is the right one."""
    predicted = model.predict(apply_mode(digits.images, "tf"), verbose=0).argmax(axis=-1)
    return float(np.mean(predicted == digits.labels))


def describe(measured_accuracy: float, digits: Digits) -> dict[str, Any]:
    """What the description file says."""
    return {
        "file": f"{NAME}.keras",
        "preprocess": "tf",
        "data": {"calibration": CALIBRATION_FILE, "test": TEST_FILE},
        "classes": [str(digit) for digit in range(CLASSES)],
        "float_accuracy": round(measured_accuracy, 6),
        "test_images": len(digits.labels),
        "source": SOURCE,
        "licence": LICENCE,
        "trained_by": "tools/train_digits.py",
    }


def main() -> None:
    """Trains, measures and writes."""
    import_backend()
    import keras

    keras.utils.set_random_seed(_SEED.value)
    digits = load_digits(IMAGE_SIZE)
    parts = split(digits.labels, _SEED.value)
    train, calibration, test = (digits.take(part) for part in (parts.train, parts.calibration, parts.test))
    model = build_model()
    print(f"{len(train.labels)} training images, {model.count_params()} parameters")
    fit(
        model,
        train,
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        seed=_SEED.value,
    )
    measured = accuracy(model, test)
    folder = Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / f"{NAME}.keras")
    calibration.save(folder / CALIBRATION_FILE)
    test.save(folder / TEST_FILE)
    (folder / f"{NAME}.json").write_text(json.dumps(describe(measured, test), indent=2) + "\n")
    print(f"accuracy on {len(test.labels)} test images: {measured:.4f}; written to {folder}")


if __name__ == "__main__":
    run_own_command(main, _FLAGS)
