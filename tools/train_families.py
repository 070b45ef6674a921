"""Trains small networks of the families that people bring, to compare converters on them.

    python -m tools.train_families --output_dir=DIR [--families=bert,unet] [--shared=../shared]

Each learns for some seconds, a minute at most, from the data of the `--shared` folder: pictures (CIFAR-10), sounds (MLPerf Tiny's
features of words) or sentences (SST-2). They are no good networks: they have weights and activations as training makes them.

Written to the output folder for each: `NAME.keras`, `NAME_train.npz` and `NAME_test.npz` with `x` (and `labels`, where the outputs
are classes), and `NAME.json`, which says what is in them: `python -m tools.compare_converters --models=DIR/NAME.json` reads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from ir.errors import DataError, OptionError
from tools._command import SEEDS, import_backend, run_own_command

if TYPE_CHECKING:  # both bring Keras, whose backend is chosen first
    from tools._family_data import Task

_KEPT = 1000  # samples to calibrate on that are written

_FLAGS = flags.FlagValues()  # of its own: other commands have flags of the same names
_FAMILIES = flags.DEFINE_list("families", [], "Which to train; all, if none is named.", flag_values=_FLAGS)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for networks and data.", flag_values=_FLAGS)
_SHARED = flags.DEFINE_string(
    "shared", str(Path(__file__).resolve().parent.parent.parent / "shared"), "The folder with data.", flag_values=_FLAGS
)
_SCALE = flags.DEFINE_float("effort", 1, "Times the epochs of each family.", lower_bound=0, flag_values=_FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.", **SEEDS, flag_values=_FLAGS)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A network, what it learns, and for how long: `epochs` at the learning rate `rate` of Adam."""

    task: Callable[[Path], Task]
    network: Callable[[Task], Any]
    epochs: int = 3
    rate: float = 2e-3


def families() -> Mapping[str, Family]:
    """All, by name."""
    from keras import layers

    from tools import _family_data as data
    from tools import _family_pictures as pictures
    from tools import _family_sequences as sequences

    def seen(network: Callable[[Task], Any], task: Callable[[Path], Task] = data.pictures, **more: Any) -> Family:
        return Family(task=task, network=network, **more)

    def heard(network: Callable[[Task], Any], task: Callable[[Path], Task] = data.sounds, epochs: int = 20) -> Family:
        return Family(task=task, network=network, epochs=epochs)

    def read(network: Callable[[Task], Any], task: Callable[[Path], Task] = data.sentences) -> Family:
        return Family(task=task, network=network, epochs=2, rate=1e-3)

    return {
        "lstm": heard(sequences.recurrent("LSTM"), epochs=40),
        "gru": heard(sequences.recurrent("GRU"), epochs=30),
        "bilstm": read(sequences.bilstm),
        "crnn": heard(sequences.crnn),
        "tcn": heard(sequences.tcn),
        "bert": read(sequences.bert),
        "gpt": read(sequences.gpt, data.next_words),
        "attention_pooling": heard(sequences.attention_pooling),
        "tabular": heard(sequences.tabular, data.table, epochs=40),
        "self_normalizing": heard(sequences.self_normalizing, data.table, epochs=40),
        "vit": seen(pictures.vit, rate=1e-3),
        "mixer": seen(pictures.mixer, rate=1e-3),
        "convnext": seen(pictures.convnext, rate=1e-3),
        "unet": seen(pictures.unet, data.restoring, epochs=1),
        "autoencoder": seen(pictures.autoencoder, data.repeating),
        "super_resolution": seen(pictures.super_resolution, data.enlarging, rate=1e-3),
        "yolo": seen(pictures.yolo, data.things),
        "two_outputs": seen(pictures.two_outputs, data.colours),
        "efficientnet": seen(pictures.inverted("silu", "sigmoid")),
        "mobilenet_v3": seen(pictures.inverted("hard_silu", "hard_sigmoid")),
        "densenet": seen(pictures.densenet),
        "shufflenet": seen(pictures.shufflenet),
        "ghostnet": seen(pictures.ghostnet),
        "inception": seen(pictures.inception),
        "repvgg": seen(pictures.repvgg),
        "selu": seen(pictures.selu),
        "elu": seen(pictures.plain("elu")),
        "prelu": seen(pictures.plain(lambda: layers.PReLU(shared_axes=[1, 2]))),
        "leaky_relu": seen(pictures.plain(lambda: layers.LeakyReLU(0.2))),
        "mish": seen(pictures.plain("mish")),
        "group_norm": seen(pictures.plain("relu", lambda: layers.GroupNormalization(8))),
        "instance_norm": seen(pictures.plain("relu", lambda: layers.GroupNormalization(-1))),
    }


def train(family: Family, task: Task) -> Any:
    """The trained network."""
    import keras

    keras.utils.set_random_seed(_SEED.value)
    model = family.network(task)
    model.compile(keras.optimizers.Adam(family.rate), task.loss, jit_compile=False)
    model.fit(task.inputs(), task.y, batch_size=64, epochs=max(1, round(family.epochs * _SCALE.value)), verbose=0)
    return model


def write(name: str, model: Any, task: Task, folder: Path) -> None:
    """The network, its data and what they are."""
    labels = (
        {"train": {}, "test": {}}
        if task.labels is None
        else {"train": {"labels": task.y}, "test": {"labels": task.labels}}
    )
    for part, x in (("train", task.x), ("test", task.test)):
        kept = {key: values[:_KEPT] for key, values in labels[part].items()}
        np.savez_compressed(folder / f"{name}_{part}.npz", x=x[:_KEPT], **kept)
    model.save(folder / f"{name}.keras")
    about = {
        "file": f"{name}.keras",
        "preprocess": task.preprocess,
        "data": {"calibration": f"{name}_train.npz", "test": f"{name}_test.npz"},
    }
    (folder / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n")


def _chosen() -> Mapping[str, Family]:
    known = families()
    unknown = [name for name in _FAMILIES.value if name not in known]
    if unknown:
        raise OptionError(
            expected=f"families of {', '.join(known)}",
            found=", ".join(unknown),
            where="--families",
            fix="choose some of them",
        )
    return {name: known[name] for name in _FAMILIES.value or known}


def main() -> None:
    """Trains and writes."""
    if _OUTPUT_DIR.value is None:
        raise OptionError(expected="--output_dir", found="none", where="train_families", fix="name a folder")
    shared, folder = Path(_SHARED.value), Path(_OUTPUT_DIR.value)
    if not (shared / "data").is_dir():
        raise DataError(
            expected="the folder with networks and data", found="none", where=str(shared), fix="name it with --shared"
        )
    import_backend()
    chosen = _chosen()
    folder.mkdir(parents=True, exist_ok=True)
    for name, family in chosen.items():
        start = time.process_time()
        task = family.task(shared)
        model = train(family, task)
        write(name, model, task, folder)
        print(f"{name}: {model.count_params()} parameters, {time.process_time() - start:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    run_own_command(main, _FLAGS)
