"""Networks converted for the targets: operators that a target lacks are written out, versions capped, all of it maps."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest

from converter.conversion import ConversionResult, convert
from converter.runtimes.choose import choose_runtime
from converter.runtimes.local import installed_packages
from converter.targets import TARGETS, get_target
from converter.targets.versions import EDGETPU as LAST_VERSION
from converter.tflite.file_testing import File
from converter.tflite.model_file import parse
from ir.errors import ModelError, OptionError
from ir.kernels import Granularity
from ir.ops import OPERATORS
from ir.ops.convolution import CONV_2D, FULLY_CONNECTED
from ir.types import DType, TensorType
from ir.widths import Widths

SHIPPED = Path(__file__).parent.parent / "shipped"
NETWORKS = Path(__file__).parents[3] / "shared" / "models"
layers = keras.layers


def converted(*made: keras.Layer, shape: tuple[int, ...] = (12, 12, 3), **options) -> ConversionResult:
    """A network of layers, converted with random data."""
    model = keras.Sequential([keras.Input(shape, batch_size=1), *made])
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    return convert(model, **{"target": "edgetpu", "calibration_data": [x], "pipeline": "fast", **options})


def conv(activation: object = None) -> keras.Layer:
    return layers.Conv2D(4, 3, activation=activation)


LOGARITHM = [conv(), layers.Lambda(lambda x: keras.ops.log(keras.ops.abs(x) + 1), name="log")]
GELU = functools.partial(keras.activations.gelu, approximate=True)
CASES = {
    "leaky_relu": (lambda: [conv(), layers.LeakyReLU(0.2), conv()], {"CONV_2D": 2, "PRELU": 1}),
    "hard_swish": (lambda: [conv("hard_swish"), conv()], {"CONV_2D": 2, "ADD": 1, "MUL": 2}),
    "gelu": (lambda: [conv(), layers.Activation(GELU)], {"CONV_2D": 1, "MUL": 4, "ADD": 1, "LOGISTIC": 1}),
    "dense on rows": (lambda: [conv(), layers.Dense(5)], {"CONV_2D": 2}),
    "upsampling": (
        lambda: [conv("relu"), layers.UpSampling2D(2), layers.Conv2DTranspose(2, 3, strides=2), layers.Flatten()],
        {"CONV_2D": 1, "RESIZE_NEAREST_NEIGHBOR": 1, "TRANSPOSE_CONV": 1, "RESHAPE": 1},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_all_operators_map_to_the_edge_tpu(name):
    made, expected = CASES[name]
    result = converted(*made())
    assert result.operators == expected
    report = result.prediction
    assert report.unmapped == () and report.figures["failure"] is None
    assert result.as_json()["prediction"]["mapped"] == sum(expected.values())
    assert result.quality.sqnr_db > 25


@pytest.mark.skipif(not installed_packages(), reason="no TFLite runtime is installed")
def test_what_is_written_out_is_emulated_exactly():
    result = converted(conv(), layers.LeakyReLU(0.2), conv("hard_swish"), layers.Dense(5))
    x = np.random.default_rng(1).integers(-128, 128, (6, 12, 12, 3)).astype(np.int8)
    (expected,), (found,) = (choose_runtime(r).load(result.model).invoke([x]) for r in ("local/ref", "emulator/ref"))
    np.testing.assert_array_equal(expected, found)


def test_a_large_mean_is_taken_in_steps():
    result = converted(layers.GlobalAveragePooling2D(), layers.Dense(3), shape=(160, 120, 4))
    assert result.operators["MEAN"] == 2 and result.prediction.unmapped == ()


def test_older_runtimes_get_other_forms():
    made = [conv(), layers.LeakyReLU(0.2), conv()]
    result = converted(*made, min_runtime_version=12)
    assert result.operators == {"CONV_2D": 2, "MUL": 1, "MAXIMUM": 1}
    assert result.prediction.figures["min_runtime_version"] == 12 and result.prediction.unmapped == ()


def test_an_old_runtime_of_a_cpu_gets_what_it_has():
    made, wide = [conv(), layers.Activation(GELU)], {"target": "cpu", "activation_bits": 16}
    new, old = converted(*made, **wide), converted(*made, **wide, min_runtime_version="2.14")
    assert [w.activation_bits for w in new.widths if w.operator == "GELU"] == [16]
    assert (
        {w.activation_bits for w in old.widths} == {16}
        and {"LOGISTIC"} < set(old.operators)
        and "GELU" not in old.operators
    )
    assert all(proof.not_run is None for proof in old.proof if not proof.runtime.startswith("tflm"))


def test_what_an_old_runtime_of_a_cpu_lacks_is_refused():
    result = converted(*LOGARITHM, target="cpu")
    assert any("LOG of int8" in n and "tflite-runtime 2.14 has no such kernel" in n for n in result.prediction.notes)
    refused = [p.not_run for p in result.proof if p.runtime.startswith("tflite-runtime")]
    assert all("it refuses LOG 'log" in reason for reason in refused)
    with pytest.raises(ModelError, match=r"tflite-runtime 2\.14 has no such kernel"):
        get_target("cpu").at("2.14").refuse(parse(result.model))


def test_what_a_promised_runtime_lacks_of_one_element_is_looked_up():
    result = converted(*LOGARITHM, target="cpu", min_runtime_version="2.14")
    assert {"CAST", "GATHER"} < set(result.operators) and "LOG" not in result.operators
    assert all(proof.not_run is None for proof in result.proof)


@pytest.mark.parametrize("function", ["gelu", "exponential", "softplus", "elu"])
def test_microcontrollers_get_a_table_of_what_they_have_no_kernel_for(function):
    result = converted(conv(), layers.Activation(function), conv(), target="tflm")
    assert not result.prediction.unmapped
    assert ("GATHER" in result.operators) == (function != "elu")


def test_devices_without_tables_get_operators_that_they_have_or_a_sentence():
    erf = converted(conv(), layers.Lambda(keras.ops.erf), conv())
    assert not erf.prediction.unmapped and erf.operators["TANH"] == 1
    sine = converted(conv(), layers.Lambda(keras.ops.sin), conv())
    notes = [note for record in sine.passes for note in record.report.notes]
    assert any("is looked up in a table, which the target leaves to a processor beside it" in note for note in notes)


def test_a_version_that_an_old_runtime_does_not_read_is_said():
    file = File()
    x, y = file.tensor((1, 4)), file.tensor((1, 4))
    file.op("LOG", [x], [y], version=2)
    content = parse(file.finish([x], [y]))
    said = "LOG in version 2: tflite-runtime 2.14 reads versions up to 1"
    assert any(said in note for note in get_target("cpu").judge(content).notes)
    with pytest.raises(ModelError, match=said):
        get_target("cpu").at("2.14").refuse(content)
    get_target("cpu").refuse(content)


@pytest.mark.parametrize(
    ("target", "version", "said"),
    [("edgetpu", 9, "10, 11, 12, 13, 14"), ("cpu", 12, "2.14"), ("tflm", 12, "--target=tflm")],
)
def test_runtime_versions_that_there_are_not(target, version, said):
    with pytest.raises(OptionError, match=said):
        get_target(target).at(version)


def test_versions_are_capped_for_the_compiler():
    """EXP is left to the CPU; its newer version would make the compiler refuse the whole file."""
    made = [conv(), layers.Activation("exponential")]
    versions = [
        {op.code: op.version for op in parse(converted(*made, target=target, check=False).model).main.operators}
        for target in ("cpu", "edgetpu")
    ]
    assert [v["EXP"] for v in versions] == [2, 1]
    report = converted(*made, check=False).prediction
    assert report.figures["failure"] is None and [v.mapped for v in report.verdicts] == [True, False]


def test_the_cap_lowers_versions_of_types_only():
    """Operators that are written with a newer version than the compiler reads, for int8: it has none of them on the TPU."""
    x = TensorType((1, 4, 4, 8), DType.INT8)
    newer = set()
    for op in OPERATORS:
        if op.encoding is None or not op.quantization.integer or not _default(op):
            continue
        if op.encoding.version(op.attributes(), [x] * max(1, len(op.operands)), [x]) > LAST_VERSION[op]:
            newer.add(op.encoding.code)
    assert newer == {"EXP", "LOG", "SQRT", "TILE", "GELU"}


def _default(op: object) -> bool:
    """Whether its attributes have defaults, and its version does not ask for parameters."""
    fields = op.attributes.__dataclass_fields__.values()  # type: ignore[attr-defined]
    needs = any(f.default is f.default_factory for f in fields)
    return not needs and op.name != "dequantize"  # type: ignore[attr-defined]


def test_cpu_gets_a_mean_for_a_pool_of_the_whole_picture():
    result = converted(conv("relu"), layers.AveragePooling2D(10), layers.Flatten(), target="cpu")
    assert result.operators == {"CONV_2D": 1, "MEAN": 1, "RESHAPE": 1}
    assert [v.status for v in result.prediction.verdicts] == ["XNNPACK"] * 3


def test_what_widths_cost_on_a_cpu_is_predicted():
    """Two convolutions, the second strided, between layers at the ends that keep 8 bits."""
    made = [conv(), layers.Conv2D(4, 3, name="plain"), layers.Conv2D(4, 3, strides=2, name="strided"), conv()]
    assert converted(*made, target="cpu").prediction.costs == ()
    report = converted(*made, target="cpu", weight_bits=4).prediction
    assert [v.layer for v in report.unmapped] == ["plain", "strided"]
    share = (8 * 8 * 144 + 3 * 3 * 144) / (10 * 10 * 108 + 8 * 8 * 144 + 3 * 3 * 144 + 1 * 144)
    assert report.figures["left_by_width"] == {"layers": 2, "of_layers": 4, "share_of_multiplications": share}
    assert report.costs == (
        "2 of 4 layers with weights leave XNNPACK because of weights of fewer than 8 bits, with 49% of the "
        "multiplications: expect several times the latency; --weight_bits=8 takes it back",
    )
    large = [conv(), layers.Conv2D(32, 3, name="wide"), layers.Conv2D(8, 3, name="words"), conv()]
    report = converted(*large, target="cpu", weight_bits=2).prediction
    assert {"wide", "words"} < {v.layer for v in report.unmapped} and report.figures["left_by_width"]["layers"] == 2
    assert "weights of fewer than 8 bits and weights that are unpacked at every inference" in report.costs[0]
    (cost,) = converted(*made, target="cpu", activation_bits=16).prediction.costs
    assert cost.startswith("4 of 4 layers") and "int16 activations, with 100%" in cost
    assert cost.endswith("expect tens of times the latency; --activation_bits=8 takes it back")


@pytest.mark.parametrize("inputs", [6, 7])
def test_xnnpack_takes_fully_connected_weights_of_4_bits_that_fill_their_bytes(inputs):
    """Held against LiteRT itself: it says which operators its delegate took."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    made = [layers.Dense(6), layers.Dense(inputs), layers.Dense(6), layers.Dense(6)]
    result = converted(*made, shape=(6,), target="cpu", weight_bits=4, granularity="per_tensor")
    assert [layer.storage for layer in result.widths] == ["INT8", "INT4", "INT4", "INT8"]
    loaded = interpreter.Interpreter(model_content=result.model)
    loaded.allocate_tensors()
    details = loaded._get_ops_details()
    taken = {int(i) for d in details if d["op_name"] == "DELEGATE" for i in (*d["inputs"], *d["outputs"])}
    weights = [int(d["inputs"][1]) for d in details if d["op_name"] == "FULLY_CONNECTED"]
    assert [v.mapped for v in result.prediction.verdicts] == [w in taken for w in weights]
    assert len(result.prediction.costs) == (inputs == 7)


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("ethos-u65", "ethos-u85")])
def test_the_shipped_network_runs_whole_on_every_target(name):
    data = SHIPPED / "digits_calibration.npz"
    options = {"calibration_data": data, "calibration_samples": 2, "pipeline": "fast", "check": False}
    result = convert(SHIPPED / "digits_mobilenet_v2.keras", target=name, preprocess="tf", **options)
    left = Counter(v.name for v in result.prediction.unmapped)
    # XNNPACK has no int8 softmax, and its mean keeps the axes: both run on the same CPU, in TFLite's own kernels.
    assert left == Counter(["SOFTMAX", "MEAN"] if name in ("cpu", "litert") else [])
    if name == "ethos-u55":
        model = parse(result.model)
        assert not any(get_target(other).judge(model).unmapped for other in ("ethos-u65", "ethos-u85"))


@pytest.mark.skipif(not NETWORKS.exists(), reason="the networks are not in this checkout (../shared/models)")
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1_075_imagenet",
        "mobilenet_v2_100_imagenet",
        "mlperf_tiny/ic_resnet8",
        "mlperf_tiny/vww_mobilenet025",
        "mlperf_tiny/kws_dscnn",
        "mlperf_tiny/ad_autoencoder",
    ],
)
def test_networks_in_use_run_whole(name):
    """One file for all of them: the granularity that the Edge TPU requires, the others can take, too."""
    model = keras.models.load_model(NETWORKS / f"{name}.keras", compile=False)
    x = np.random.default_rng(0).uniform(-1, 1, (1, *model.inputs[0].shape[1:])).astype(np.float32)
    result = convert(model, target="edgetpu", calibration_data=[x], pipeline="fast", check=False)
    assert result.prediction.unmapped == ()
    file = parse(result.model)
    for other in ("ethos-u55", "ethos-u65", "ethos-u85", "tflm"):
        assert get_target(other).judge(file).unmapped == ()


def test_shapes_that_are_computed_are_gone(tmp_path):
    """A batch that is open makes TensorFlow compute shapes: with SHAPE, STRIDED_SLICE and PACK."""
    import tensorflow as tf

    kernel = tf.random.stateless_normal((3, 3, 3, 4), seed=(1, 2))

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])
    def network(x):
        y = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        size = tf.shape(y)
        return tf.reshape(y, tf.stack([size[0], size[1] * size[2], size[3]]))

    module = tf.Module()
    module.network = network
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=network)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    result = convert(tmp_path / "m", target="edgetpu", calibration_data=[x], pipeline="fast")
    assert result.operators == {"CONV_2D": 1, "RESHAPE": 1} and result.prediction.unmapped == ()
    assert parse(result.model).main.tensors[0].shape[0] == 1


def test_widths_are_those_that_compute_right_on_the_targets_runtimes() -> None:
    asked = Widths(weight_bits=4, activation_bits=8)
    per_channel = Granularity.PER_CHANNEL
    assert get_target("cpu").widths(CONV_2D, asked, per_channel) == asked
    wide = Widths(weight_bits=4, activation_bits=16)
    full = Widths(weight_bits=8, activation_bits=16)
    assert get_target("cpu").widths(CONV_2D, wide, per_channel) == full, "TFLite 2.14 reads packed weights as bytes"
    assert get_target("tflm").widths(FULLY_CONNECTED, asked, per_channel) == Widths()
    assert get_target("tflm").widths(FULLY_CONNECTED, asked, Granularity.PER_TENSOR) == asked
