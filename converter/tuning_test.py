"""What reaches the pass that trains, what is refused, and what a conversion that trains leaves in its file."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from converter.conversion import convert
from converter.tuning import Tuning
from ir.errors import OptionError
from ir.graph import Graph
from passes.graph_testing import Net
from passes.quantization.quantize import Quantize
from passes.training.lsq import Lsq
from passes.training.tune_thresholds import TuneThresholds

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def network() -> Graph:
    net = Net(0)
    return net.ends(net.dense(net.input(6), 2))


def test_labels_are_those_of_the_data_that_is_trained_on() -> None:
    graph = network()
    other = Tuning(data=X[:20], labels=Y[:20]).source(X, graph, "none", 0, Y)
    same = Tuning(samples=10).source(X, graph, "none", 0, Y)
    assert other is not None and np.array_equal(other.labels, Y[:20])
    assert same is not None and np.array_equal(same.labels, Y[:: len(Y) // len(same)])


def test_labels_of_the_calibration_data_are_trained_on() -> None:
    tuning = Tuning(options={"epochs": 2, "teacher": 0.0, "learning_rate": 0.05, "batch_size": 8})
    options = dict(pipeline="lsq", calibration_data=X, labels=Y, tuning=tuning, weight_bits=4, prove=False)
    record = next(r for r in convert(network(), **options).passes if isinstance(r.step, Lsq))
    assert any(note.startswith("held-out accuracy after each epoch") for note in record.report.notes)
    assert record.step == Lsq(epochs=2, teacher=0.0, learning_rate=0.05, batch_size=8)


def test_options_of_another_pass_are_refused() -> None:
    noise = Tuning(options={"noise": 0.5})
    noise.check([Quantize(), Lsq()])
    with pytest.raises(OptionError, match="expected options of tune_thresholds, found noise; choose a pipeline"):
        noise.check([Quantize(), TuneThresholds()])
    with pytest.raises(OptionError, match="expected a pipeline that trains, for tuning_labels, found one that does"):
        Tuning(labels=Y).check([Quantize()])


def test_a_resumed_conversion_writes_the_same_file_which_tells_no_places(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((12, 12, 3)), *layers, keras.layers.Dense(4)])
    x = np.random.default_rng(0).normal(size=(32, 12, 12, 3)).astype(np.float32)

    def converted(**options: object) -> bytes:
        tuning = Tuning(options={"epochs": 1, "checkpoint_dir": str(tmp_path), **options})
        return convert(model, calibration_data=[x], pipeline="fat", tuning=tuning, prove=False, check=False).model

    first = converted()
    assert converted(resume=True) == first
    assert str(tmp_path).encode() not in first and b"resume" not in first
