"""Trains a small network on Fashion-MNIST, to try training with quantization on.

    python -m tools.train_fashion --output_dir=DIR [--data=/usr/share/datasets/fashion-mnist]

The 60 000 and 10 000 pictures (H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747; MIT) are those of Debian's package
`dataset-fashion-mnist`, in MNIST's files. The test pictures play no part in training.

Written to the output folder: `fashion.keras`, five convolutions with batch norms; `fashion_train.npz` and
`fashion_test.npz` with `images` (uint8, `[count, 28, 28, 1]`) and `labels`; `fashion.json`, which says what is in them:
`python -m tools.compare_tuning --model=DIR/fashion.json` reads it.
"""

import gzip
import json
from pathlib import Path

import numpy as np
from absl import flags

from converter.preprocess import apply_mode
from ir.errors import DataError, OptionError
from tools._command import SEEDS, import_backend, run_own_command

NAME = "fashion"
SIDE = 28
PREPROCESS = "tf"
_MAGIC = {2051: 16, 2049: 8}  # of pictures and of labels: the bytes before the first
_CHANNELS, _STRIDES = (16, 32, 32, 64, 64), (1, 2, 1, 2, 1)
_MOST = 1 << 27  # bytes of a file

_FLAGS = flags.FlagValues()  # of its own: other commands have flags of the same names
_DATA = flags.DEFINE_string(
    "data", "/usr/share/datasets/fashion-mnist", "Folder with MNIST's four files.", flag_values=_FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the network and its data.", flag_values=_FLAGS)
_EPOCHS = flags.DEFINE_integer("epochs", 8, "Times the pictures are seen.", lower_bound=1, flag_values=_FLAGS)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Pictures in a step.", lower_bound=2, flag_values=_FLAGS)
_RATE = flags.DEFINE_float("learning_rate", 2e-3, "Adam's at first; a cosine to 0.", flag_values=_FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.", **SEEDS, flag_values=_FLAGS)


def read(folder: str | Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `[count, 28, 28, 1]` and labels of `train` or `t10k`. Raises DataError where a file is none of MNIST's."""
    pictures, labels = (_values(Path(folder) / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    if len(pictures) != len(labels) * SIDE**2:
        raise DataError(
            expected=f"pictures of {SIDE} x {SIDE}, one for each of {len(labels)} labels",
            found=f"{len(pictures)} pixels",
            where=f"{folder}, {part}",
            fix="take both files from one source",
        )
    return pictures.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int64)


def _values(path: Path) -> np.ndarray:
    try:
        with gzip.open(path) as file:
            content = file.read(_MOST)
        start = _MAGIC[int.from_bytes(content[:4], "big")]
    except (OSError, EOFError, KeyError) as error:
        raise DataError(
            expected="one of MNIST's files, compressed",
            found=getattr(error, "strerror", None) or "another",
            where=str(path),
            fix="install Debian's dataset-fashion-mnist, or name the folder with --data",
        ) from error
    return np.frombuffer(content, np.uint8, offset=start)


def network():
    """Pictures -> logits."""
    import keras
    from keras import layers

    x = shown = keras.Input((SIDE, SIDE, 1), name="picture")
    for i, (channels, stride) in enumerate(zip(_CHANNELS, _STRIDES, strict=True)):
        x = layers.Conv2D(channels, 3, stride, "same", use_bias=False, name=f"conv{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(layers.BatchNormalization(name=f"norm{i}")(x))
    return keras.Model(shown, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D(name="mean")(x)), name=NAME)


def train(pictures: np.ndarray, labels: np.ndarray):
    """The trained network."""
    import keras

    keras.utils.set_random_seed(_SEED.value)
    model = network()
    steps = _EPOCHS.value * -(-len(labels) // _BATCH.value)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_RATE.value, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(apply_mode(pictures, PREPROCESS), labels, batch_size=_BATCH.value, epochs=_EPOCHS.value, verbose=2)
    return model


def main() -> None:
    """Trains and writes."""
    if _OUTPUT_DIR.value is None:
        raise OptionError(expected="--output_dir", found="none", where="train_fashion", fix="name a folder")
    parts = {"train": read(_DATA.value, "train"), "test": read(_DATA.value, "t10k")}  # before the work
    import_backend()
    model = train(*parts["train"])
    pictures, labels = parts["test"]
    right = float((model.predict(apply_mode(pictures, PREPROCESS), verbose=0).argmax(1) == labels).mean())
    folder = Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    for part, (pictures, labels) in parts.items():
        np.savez_compressed(folder / f"{NAME}_{part}.npz", images=pictures, labels=labels)
    model.save(folder / f"{NAME}.keras")
    about = {
        "file": f"{NAME}.keras",
        "preprocess": PREPROCESS,
        "data": {"calibration": f"{NAME}_train.npz", "test": f"{NAME}_test.npz"},
        "float_accuracy": round(right, 6),
    }
    (folder / f"{NAME}.json").write_text(json.dumps(about, indent=2) + "\n")
    print(f"{model.count_params()} parameters, {right:.1%} of the test pictures; written to {folder}")


if __name__ == "__main__":
    run_own_command(main, _FLAGS)
