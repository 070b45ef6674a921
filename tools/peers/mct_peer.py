"""Converts with Sony's Model Compression Toolkit 2.3, in an environment of its own (tools/peers/setup.sh).

    python mct_peer.py FOLDER GRANULARITY VARIANT

FOLDER holds `model.json` and `weights.npz` (a functional Keras 3 model and its layers' weights), `calibration.npz`
(`x`: float32 [samples, ...], preprocessed) and `expected.npy` (the float model's outputs for the first samples); it
gets `out.tflite` and `report.json` (`clock`, `versions`, `float_difference`). VARIANT names the toolkit's target
platform capabilities: `default` (weights per channel, scales that are powers of two), `tflite` (per channel) or
`qnnpack` (per tensor); GRANULARITY follows from it. TensorFlow 2.15 cannot read the Keras 3 file, so the model is made
anew here and its outputs compared. Imports nothing of ours.
"""

import inspect
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import model_compression_toolkit as mct
import numpy as np
import tensorflow as tf


def rebuild(text, weights):
    """A Keras 2 model from the JSON of a functional Keras 3 one."""
    config = json.loads(text)["config"]
    tensors, inputs = {}, []
    for entry in config["layers"]:
        name = entry["name"]
        if entry["class_name"] == "InputLayer":
            tensors[name] = tf.keras.Input(entry["config"]["batch_shape"][1:], batch_size=None, name=name)
            inputs.append(tensors[name])
            continue
        layer = make_layer(entry)
        (call,) = entry["inbound_nodes"]
        tensors[name] = layer(*[_values(a, tensors) for a in call["args"]])
        count = len(layer.weights)
        layer.set_weights([weights[f"{name}/{i}"] for i in range(count)])
    return tf.keras.Model(inputs, [tensors[o[0]] for o in _endings(config["output_layers"])])


def make_layer(entry):
    """A layer of the same class, with those of its options that Keras 2 knows."""
    kind = getattr(tf.keras.layers, entry["class_name"])
    known = set(inspect.signature(kind.__init__).parameters) | {"name"}
    return kind(**{k: _plain(v) for k, v in entry["config"].items() if k in known and not k.endswith(_UNUSED)})


_INTEGERS = {
    "serialization_format": mct.exporter.KerasExportSerializationFormat.TFLITE,
    "quantization_format": mct.exporter.QuantizationFormat.INT8,
}
_UNUSED = ("_initializer", "_regularizer", "_constraint", "dtype")


def _plain(value):
    return tuple(value) if isinstance(value, list) else value


def _values(argument, tensors):
    if isinstance(argument, list):
        return [_values(a, tensors) for a in argument]
    if isinstance(argument, dict) and argument.get("class_name") == "__keras_tensor__":
        return tensors[argument["config"]["keras_history"][0]]
    return argument


def _endings(listed):
    return listed if isinstance(listed[0], list) else [listed]


def convert(folder, variant):
    """Writes the file; seconds, and how far the rebuilt float model is from the given one."""
    model = rebuild((folder / "model.json").read_text(), np.load(folder / "weights.npz"))
    samples = np.load(folder / "calibration.npz")["x"]
    expected = np.load(folder / "expected.npy")
    found = model(samples[: len(expected)], training=False).numpy()
    difference = float(np.abs(found - expected).max())
    if difference > 1e-3 * max(1.0, float(np.abs(expected).max())):
        raise SystemExit(f"the rebuilt model differs from the given one by {difference}")
    start, cpu = time.perf_counter(), time.process_time()
    batch = 10

    def batches():
        for begin in range(0, len(samples), batch):
            yield [samples[begin : begin + batch]]

    capabilities = mct.get_target_platform_capabilities("tensorflow", variant)
    quantized, _ = mct.ptq.keras_post_training_quantization(model, batches, target_platform_capabilities=capabilities)
    mct.exporter.keras_export_model(quantized, str(folder / "out.tflite"), **_INTEGERS)
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}, difference


def main():
    folder, variant = Path(sys.argv[1]), sys.argv[3]
    clock, difference = convert(folder, variant)
    versions = {name: version(name) for name in ("model-compression-toolkit", "tensorflow-cpu", "numpy")}
    report = {"clock": clock, "versions": versions, "float_difference": difference}
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
