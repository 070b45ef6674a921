"""Intervals against known values; an evaluation with a float network and labels on two runtimes."""

import numpy as np
import pytest

from converter.data import InputSpec, from_arrays
from converter.evaluation import Share, evaluate, sqnr_interval, with_logits
from converter.runtimes.choose import choose_runtime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import installed_packages
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.errors import DataError, OptionError


def test_wilson_interval_has_the_textbook_values():
    # Newcombe 1998, table I: 81 of 263 (0.2553 to 0.3662), 0 of 20 (0 to 0.1611).
    np.testing.assert_allclose(Share(right=81, total=263).interval, (0.2553, 0.3662), atol=1e-4)
    np.testing.assert_allclose(Share(right=0, total=20).interval, (0.0, 0.1611), atol=1e-4)


def test_sqnr_interval_holds_the_value_and_shrinks_with_samples():
    rng = np.random.default_rng(0)

    def width(count: int) -> float:
        value, (low, high) = sqnr_interval(rng.uniform(50, 150, count), rng.uniform(0.5, 1.5, count))
        assert low < value < high and 18 < value < 22
        return high - low

    assert width(4000) < width(40) / 3


def test_no_noise_is_infinite():
    assert sqnr_interval(np.ones(3), np.zeros(3))[0] == np.inf


@pytest.fixture(scope="module")
def converted():
    import keras

    from converter.conversion import convert

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2), batch_size=1),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(7, activation="softmax"),
        ]
    )
    x = np.random.default_rng(1).normal(size=(24, 8, 8, 2)).astype(np.float32)
    result = convert(model, calibration_data=[x])
    inputs = [InputSpec(name=v.name, shape=v.shape) for v in result.reference.inputs]
    return result, from_arrays([x], inputs, labels=np.argmax(model.predict(x, verbose=0), axis=1))


def test_evaluation_of_a_small_network(converted):
    result, data = converted
    done = []
    found = evaluate(
        result.model,
        data,
        EmulatorRuntime(),
        reference=result.reference,
        labels=data.labels,
        progress=lambda what, n, total: done.append((n, total)),
    )
    assert found.samples == 24 and done[-1] == (24, 24)
    assert found.shares["float_top1"].value == 1.0  # the labels are the float network's own answers
    assert found.shares["top1"] == found.shares["agreement"]
    assert found.shares["top5"].right >= found.shares["top1"].right
    # The same figure as the conversion's own comparison: on the logits, not on the softmax.
    assert found.sqnr_db == pytest.approx(result.quality.sqnr_db, abs=0.01)
    assert found.sqnr_interval_db[0] < found.sqnr_db < found.sqnr_interval_db[1]
    assert found.as_json()["top1"]["total"] == 24


@pytest.mark.skipif(not installed_packages(), reason="no TFLite runtime is installed")
def test_a_local_runtime_gives_the_same_figures(converted):
    result, data = converted
    here, there = (
        evaluate(result.model, data, choose_runtime(name), reference=result.reference, labels=data.labels)
        for name in ("emulator", "tflite-runtime" if "tflite_runtime" in installed_packages() else "emulator")
    )
    assert here.shares == there.shares and here.sqnr_db == there.sqnr_db


def test_without_a_float_network(converted):
    result, data = converted
    found = evaluate(result.model, data, EmulatorRuntime(), labels=data.labels)
    assert set(found.shares) == {"top1", "top5"} and found.sqnr_db is None


def test_logits_are_added_to_the_outputs_once(converted):
    content, own = with_logits(converted[0].model)
    assert own == 1 and len(to_graph(parse(content)).outputs) == 2
    assert with_logits(content)[0] == content


def test_labels_that_do_not_fit(converted):
    result, data = converted
    with pytest.raises(DataError, match="24 labels"):
        evaluate(result.model, data, EmulatorRuntime(), labels=data.labels[:5])


@pytest.mark.parametrize("name", ["nowhere", "emulator/fast", "local/quick"])
def test_unknown_runtimes_are_named(name):
    with pytest.raises(OptionError, match=f"--runtime={name}"):
        choose_runtime(name)
