"""The converters that the benchmarks compare: ours, TensorFlow's, and peers in environments of their own."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter.conversion import convert
from converter.data import DataSource
from converter.frontends.keras_model import load_keras
from ir.errors import ConversionError, OptionError
from tools._subjects import Subject

PEERS = Path(__file__).resolve().parent / "peers"
GRANULARITIES = ("per_channel", "per_tensor")
# Of each peer, by granularity, what it is asked for. MCT's granularity follows from the capabilities it is given, but
# the TFLite files that MCT 2.3 exports have weights per channel even with those of `qnnpack`, which are per tensor.
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "litert_quantizer": {
        "per_channel": ("static_wi8_ai8", "static_wi4_ai8", "static_wi8_ai16"),
        "per_tensor": ("static_wi8_ai8",),
    },
    "mct": {"per_channel": ("default", "tflite"), "per_tensor": ("qnnpack",)},
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a converter made of a subject: a file, or the reason why there is none.

    Attributes:
      images: how many calibration samples it had; 0 for a conversion without data.
      seconds: of the conversion, without imports; `cpu_seconds` are those of all processor cores together, which a
        busy machine changes less.
    """

    converter: str
    granularity: str
    images: int
    content: bytes | None = field(default=None, repr=False)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    refusal: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def ours(subject: Subject, pipeline: str, granularity: str) -> Made:
    """One of our pipelines; those that begin with `data_free` get no data."""
    data = None if pipeline.startswith("data_free") else subject.calibration
    label = {"converter": f"intact {pipeline}", "granularity": granularity, "images": 0 if data is None else len(data)}
    clock = Clock()
    try:
        result = convert(
            str(subject.path),
            calibration_data=data,
            pipeline=pipeline,
            granularity=granularity,
            preprocess=subject.preprocess,
            check=False,
            prove=False,
        )
    except ConversionError as error:
        return Made(**label, refusal=str(error))
    return Made(**label, content=result.model, **clock.read())


def tflite_converter(subject: Subject, granularity: str) -> Made:
    """TensorFlow's own converter, integers only."""
    import tensorflow as tf

    clock = Clock()
    label = {"converter": "TFLiteConverter", "granularity": granularity, "images": len(subject.calibration)}
    try:
        content = convert_with_tensorflow(subject.path, subject.calibration, granularity)
    except Exception as error:  # it raises whatever it meets, and the other rows are still needed
        return Made(**label, refusal=_first_line(error))
    return Made(**label, content=content, **clock.read(), versions={"tensorflow": tf.__version__})


def convert_with_tensorflow(path: Path, data: DataSource, granularity: str) -> bytes:
    """TFLiteConverter on a batch of one: int8 in and out (ids stay as they are), builtin integer operators only."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = load_keras(path)
    for layer in model._flatten_layers():
        if hasattr(layer, "unroll"):
            layer.unroll = True  # its quantizer crashes on loops of Keras 3's recurrent layers, or does not end
    spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.as_dtype(model.inputs[0].dtype))
    call = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(call)], model)

    def samples() -> Iterator[list[np.ndarray]]:
        for batch in data.batches(8):
            for sample in batch[0]:
                yield [sample[None]]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel = granularity == "per_tensor"
    return bytes(converter.convert())


def parse_peers(entries: list[str]) -> dict[str, Path]:
    """`name=python` of `--peer_python`. Raises OptionError for an unknown peer or a Python that is not there."""
    found = {}
    for entry in entries:
        name, _, python = entry.partition("=")
        if name not in VARIANTS or not Path(python).is_file():
            raise OptionError(
                expected=f"NAME=PYTHON with one of {', '.join(VARIANTS)}",
                found=entry,
                where="--peer_python",
                fix="make the environments with tools/peers/setup.sh, which prints these flags",
            )
        found[name] = Path(python)
    return found


class PeerFolder:
    """A subject as files, which is how the peers get it."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._temporary = tempfile.TemporaryDirectory(prefix="intact_peers_")
        self.path = Path(self._temporary.name)
        model = load_keras(subject.path)
        samples = np.concatenate([batch[0] for batch in subject.calibration.batches(16)])
        np.savez(self.path / "calibration.npz", x=samples)
        np.save(self.path / "expected.npy", np.asarray(model(samples[:4], training=False)))
        (self.path / "model.json").write_text(model.to_json())
        weights = {f"{layer.name}/{i}": w for layer in model.layers for i, w in enumerate(layer.get_weights())}
        np.savez(self.path / "weights.npz", **weights)
        (self.path / "float.tflite").write_bytes(self._float_file(model))

    def _float_file(self, model: Any) -> bytes:
        """With a signature, for a batch of one."""
        import keras
        import tensorflow as tf

        archive = keras.export.ExportArchive()
        archive.track(model)
        spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32)
        archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=[spec])
        archive.write_out(str(self.path / "saved_model"), verbose=False)
        return bytes(tf.lite.TFLiteConverter.from_saved_model(str(self.path / "saved_model")).convert())

    def run(self, peer: str, python: Path, granularity: str, variant: str, timeout_seconds: float) -> Made:
        """Has a peer convert."""
        for name in ("out.tflite", "report.json"):
            (self.path / name).unlink(missing_ok=True)
        label = {
            "converter": f"{peer} {variant}",
            "granularity": granularity,
            "images": len(self._subject.calibration),
        }
        command = [str(python), str(PEERS / f"{peer}_peer.py"), str(self.path), granularity, variant]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=timeout_seconds, cwd=self.path
            )
        except subprocess.TimeoutExpired:
            return Made(**label, refusal=f"no file after {timeout_seconds:.0f} s")
        if done.returncode:
            return Made(**label, refusal=(done.stderr.strip().splitlines() or ["no message"])[-1])
        report = json.loads((self.path / "report.json").read_text())
        content = (self.path / "out.tflite").read_bytes()
        return Made(**label, content=content, **report["clock"], versions=report["versions"])

    def close(self) -> None:
        """Removes the files."""
        self._temporary.cleanup()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
