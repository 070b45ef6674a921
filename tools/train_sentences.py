"""Trains a small text network that tells sentences of praise from those of blame: an embedding and attention.

    python -m tools.train_sentences --train=train.tsv --output_dir=DIR

A line of `train.tsv` is a sentence, words with spaces between, a tab, and 0 or 1. Words that occur at least `--least` times
make the vocabulary; 0 stands for nothing, 1 for any other word. A seeded tenth of the sentences is held out, and the epoch
that is best on them is kept.

Written to the output folder: `sentences.keras`; `sentences.npz` with `calibration` (ids of some training sentences, int32,
`[count, words]`), `tuning` and `tuning_labels` (all that were trained on); `vocabulary.txt`, a word a line, the first of
number 2. `--judge=dev.tsv` writes `judged` and `judged_labels`, too.
"""

import collections
from pathlib import Path

import numpy as np
from absl import flags

from ir.errors import DataError, OptionError
from tools._command import SEEDS, import_backend, run_own_command

NAME = "sentences"
OTHER = 1  # the number of words that are not in the vocabulary; 0 fills sentences up
_FIRST = 2
_CALIBRATION = 300
_HELD_OUT = 10

_FLAGS = flags.FlagValues()  # of its own: other commands have flags of the same names
_TRAIN = flags.DEFINE_string("train", None, "Sentences to train on.", flag_values=_FLAGS)
_JUDGE = flags.DEFINE_string("judge", None, "Sentences to judge on, written as ids.", flag_values=_FLAGS)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the network and its data.", flag_values=_FLAGS)
_LEAST = flags.DEFINE_integer("least", 2, "Times a word occurs, at least.", lower_bound=1, flag_values=_FLAGS)
_WORDS = flags.DEFINE_integer("words", 40, "Of a sentence; others are cut off.", lower_bound=1, flag_values=_FLAGS)
_SIZE = flags.DEFINE_integer("size", 64, "Numbers that stand for a word.", lower_bound=4, flag_values=_FLAGS)
_EPOCHS = flags.DEFINE_integer("epochs", 6, "Times the sentences are seen.", lower_bound=1, flag_values=_FLAGS)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Sentences in a step.", lower_bound=1, flag_values=_FLAGS)
_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Adam's.", lower_bound=0.0, flag_values=_FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.", **SEEDS, flag_values=_FLAGS)

Sentences = tuple[list[list[str]], np.ndarray]


def read(path: str | Path) -> Sentences:
    """Words of every sentence, and labels `[sentences]`. Raises DataError where the file is none of sentences."""
    try:
        lines = [line.rsplit("\t", 1) for line in Path(path).read_text().splitlines()]
        found = [text.split() for text, _ in lines], np.array([int(label) for _, label in lines])
        if not lines or not {*found[1]} <= {0, 1}:
            raise ValueError("no lines, or other labels than 0 and 1")
    except (OSError, ValueError) as error:
        raise DataError(
            expected="lines of a sentence, a tab, and 0 or 1",
            found=getattr(error, "strerror", None) or str(error),
            where=str(path),
            fix="correct the file or its path",
        ) from error
    return found


def vocabulary(sentences: list[list[str]], least: int) -> list[str]:
    """Words that occur so often, the most frequent first."""
    counts = collections.Counter(word for words in sentences for word in words)
    return [word for word, count in sorted(counts.items(), key=lambda c: (-c[1], c[0])) if count >= least]


def ids(sentences: list[list[str]], known: list[str], words: int) -> np.ndarray:
    """int32 `[sentences, words]`."""
    number = {word: i for i, word in enumerate(known, _FIRST)}
    found = np.zeros((len(sentences), words), np.int32)
    for row, sentence in zip(found, sentences, strict=True):
        shown = sentence[:words]
        row[: len(shown)] = [number.get(word, OTHER) for word in shown]
    return found


def network(count: int, words: int, size: int):
    """Ids -> logits of two classes: an embedding, attention of two heads beside it, a layer for every word, their mean."""
    import keras
    from keras import layers

    x = keras.Input((words,), dtype="int32", name="ids")
    e = layers.Embedding(count, size, mask_zero=True, name="embedding")(x)
    e = layers.SpatialDropout1D(0.3)(e)
    h = layers.Add()([e, layers.MultiHeadAttention(2, size // 2, dropout=0.1, name="attention")(e, e)])
    h = layers.Dense(size, "relu", name="each")(h)
    h = layers.GlobalAveragePooling1D(name="mean")(h)
    return keras.Model(x, layers.Dense(2, name="logits")(layers.Dropout(0.3)(h)))


def train(x: np.ndarray, labels: np.ndarray, count: int):
    """The network, as good as it was on the held-out sentences."""
    import keras

    keras.utils.set_random_seed(_SEED.value)
    model = network(count, x.shape[1], _SIZE.value)
    model.compile(
        keras.optimizers.Adam(_RATE.value),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    held = np.random.default_rng(_SEED.value).permutation(len(x)) % _HELD_OUT == 0
    best = keras.callbacks.EarlyStopping("val_accuracy", patience=_EPOCHS.value, restore_best_weights=True)
    model.fit(
        x[~held],
        labels[~held],
        batch_size=_BATCH.value,
        epochs=_EPOCHS.value,
        validation_data=(x[held], labels[held]),
        callbacks=[best],
        verbose=2,
    )
    return model


def main() -> None:
    """Trains and writes."""
    if _TRAIN.value is None or _OUTPUT_DIR.value is None:
        raise OptionError(
            expected="--train and --output_dir",
            found="one of them left out",
            where="train_sentences",
            fix="name both",
        )
    sentences, labels = read(_TRAIN.value)
    others, judged = read(_JUDGE.value) if _JUDGE.value else ([], np.zeros(0, int))  # before the work
    import_backend()
    known = vocabulary(sentences, _LEAST.value)
    x = ids(sentences, known, _WORDS.value)
    model = train(x, labels, len(known) + _FIRST)
    folder = Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"calibration": x[:: max(1, len(x) // _CALIBRATION)], "tuning": x, "tuning_labels": labels}
    if _JUDGE.value:
        arrays |= {"judged": ids(others, known, _WORDS.value), "judged_labels": judged}
    model.save(folder / f"{NAME}.keras")
    np.savez_compressed(folder / f"{NAME}.npz", **arrays)
    (folder / "vocabulary.txt").write_text("\n".join(known) + "\n")
    print(f"{len(known)} words, {model.count_params()} parameters; written to {folder}")


if __name__ == "__main__":
    run_own_command(main, _FLAGS)
