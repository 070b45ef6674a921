"""Families of networks: what is written is compared, networks that are no classifiers, of words and of several outputs among them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from ir.errors import DataError, OptionError
from tools import _family_data, _judging, _subjects, train_families
from tools._converters import ours, tflite_converter
from tools._runs_testing import run_process
from tools.train_sentences_test import sentences

FAMILIES = train_families.families()


def write_pictures(folder: Path, count: int) -> None:
    """Archives of JPEG files, as those of CIFAR-10."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        files = []
        for picture in rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8):
            Image.fromarray(picture).resize((32, 32)).save(file := io.BytesIO(), "JPEG")
            files.append(np.frombuffer(file.getvalue(), np.uint8))
        ends = np.cumsum([len(f) for f in files])
        labels = np.arange(count, dtype=np.uint8) % 10
        np.savez(folder / f"{part}.npz", jpeg=np.concatenate(files), ends=ends, labels=labels)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the shared one, with little in it."""
    root = tmp_path_factory.mktemp("shared")
    data, models = root / "data", root / "models" / "mlperf_tiny"
    for folder in (data / "cifar10_jpeg", data / "sst2", data / "mlperf_tiny", models):
        folder.mkdir(parents=True)
    write_pictures(data / "cifar10_jpeg", 24)
    for part in ("train", "dev"):
        (data / "sst2" / f"{part}.tsv").write_text("\n".join(sentences(60)) + "\n")
    x = np.random.default_rng(0).normal(size=(280, 49, 10, 1)).astype(np.float32)
    heard = {"calibration": x[:40], "test": x[40:], "test_labels": np.arange(240) % 12}
    np.savez(data / "mlperf_tiny" / "keyword_spotting.npz", **heard)
    layers = keras.layers
    keras.Sequential([keras.Input((49, 10, 1)), layers.Flatten(), layers.Dense(12)]).save(models / "kws_dscnn.keras")
    return root


def train(shared: Path, folder: Path, name: str) -> _subjects.Subject:
    options = {"shared": shared, "output_dir": folder, "families": name, "effort": 0}
    train_families._FLAGS(["train", *(f"--{key}={value}" for key, value in options.items())])
    train_families.main()
    return _subjects.load_subject(str(folder / f"{name}.json"), shared, 10, 12)


@pytest.mark.trains
def test_of_several_outputs_the_worst_is_told(shared: Path, tmp_path: Path):
    subject = train(shared, tmp_path, "two_outputs")
    assert subject.metric == "SQNR" and subject.labels is None and len(subject.test) == 12
    made = ours(subject, "fast", "per_channel")
    assert made.content is not None, made.refusal
    expected = _judging.float_answers(subject)
    judged = _judging.judge(made.content, expected)
    assert judged.score is None and judged.agreement is None and judged.sqnr_db > 15
    turned = dataclasses.replace(expected, outputs=[expected.outputs[0], -expected.outputs[1]])
    assert -6.5 < _judging.judge(made.content, turned).sqnr_db < -5.5


def test_ids_stay_as_they_are_in_both_converters(shared: Path, tmp_path: Path):
    task, layers = _family_data.sentences(shared), keras.layers
    shown = keras.Input(task.shape, dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(task.vocabulary, 8)(shown))
    train_families.write("words", keras.Model(shown, layers.Dense(2)(x)), task, tmp_path)
    subject = _subjects.load_subject(str(tmp_path / "words.json"), shared, 10, 12)
    assert subject.metric == "top-1" and len(subject.calibration) == 10
    expected = _judging.float_answers(subject)
    for made in (ours(subject, "fast", "per_channel"), tflite_converter(subject, "per_channel")):
        assert made.content is not None, made.refusal
        judged = _judging.judge(made.content, expected)
        assert judged.io == "int32 int8" and judged.float_operators == () and judged.sqnr_db > 15


@pytest.mark.trains
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_what_its_task_asks_for(shared: Path, name: str):
    family = FAMILIES[name]
    task = family.task(shared)
    model = family.network(task)
    model.compile(loss=task.loss)
    asked = [y[:4] for y in task.y] if isinstance(task.y, list) else task.y[:4]
    assert np.isfinite(model.test_on_batch(task.inputs()[:4], asked)).all()
    assert model.input_shape[1:] == task.test.shape[1:]


def test_outputs_in_another_order_are_put_in_that_of_the_network():
    a, b, c = np.zeros((3, 10)), np.ones((3, 4)), np.full((3, 10), 2.0)
    ordered = _judging.in_order([b, a, c], [np.empty((3, 10)), np.empty((3, 10)), np.empty((3, 4))])
    assert [x.flat[0] for x in ordered] == [0, 2, 1]


def test_a_canvas_has_its_pictures_where_its_cells_say(shared: Path):
    task = _family_data.things(shared)
    sizes = task.y[task.y[..., 4] == 1]
    assert 1 <= len(sizes) / len(task.y) <= 2 and {*np.unique(sizes[:, 2])} <= {16, 32}
    assert task.y[..., 5:].sum(-1).max() == 1


def test_the_next_words_are_those_after_the_words(shared: Path):
    task = _family_data.next_words(shared)
    np.testing.assert_array_equal(task.y[:, :-1], task.x[:, 1:])
    assert task.x.max() < task.vocabulary


def test_what_has_no_score_is_shown_without_one(capsys: pytest.CaptureFixture[str]):
    from tools import _score_table

    row = {"model": "net", "metric": "SQNR", "granularity": "per_channel", "float_score": None, "score": None}
    _score_table.show_scores([{**row, "agreement": None, "sqnr_db": 12.34}], {}, {})
    assert "net -" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({}, OptionError, "expected --output_dir"),
        ({"output_dir": "out", "families": "bert,ernie"}, OptionError, "expected families of .* found ernie"),
        ({"output_dir": "out", "shared": "nowhere"}, DataError, "name it with --shared"),
    ],
)
def test_a_mistake_is_named(shared: Path, flags: dict[str, str], error: type[Exception], message: str):
    train_families._FLAGS.unparse_flags()
    for name in train_families._FLAGS:
        train_families._FLAGS[name].unparse()
    train_families._FLAGS(["train", *(f"--{key}={value}" for key, value in {"shared": shared, **flags}.items())])
    with pytest.raises(error, match=message):
        train_families.main()
    assert not Path("out").exists()


def test_missing_data_is_one_sentence(tmp_path: Path):
    (tmp_path / "data").mkdir()
    options = (f"--shared={tmp_path}", f"--output_dir={tmp_path / 'out'}", "--families=unet")
    done = run_process("train_families", *options)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cifar10_jpeg/train.npz: expected data to train on, found no such file" in done.stderr
    assert not [*(tmp_path / "out").iterdir()]
