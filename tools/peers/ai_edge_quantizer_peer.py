"""Converts with ai-edge-quantizer 0.10, in an environment of its own (tools/peers/setup.sh); imports nothing of ours.

    python ai_edge_quantizer_peer.py FOLDER GRANULARITY VARIANT

FOLDER holds `float.tflite` and `calibration.npz` (`x`: float32 [samples, ...], preprocessed); it gets `out.tflite` and
`report.json` (`clock`, `versions`). The recipe is the package's own `static_wi8_ai8` (VARIANT `static`), with its
weights per channel or per tensor; inputs and outputs are integers too, as that recipe leaves them.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer


def convert(folder, granularity):
    """The quantized file's bytes."""
    model = (folder / "float.tflite").read_bytes()
    samples = np.load(folder / "calibration.npz")["x"]
    interpreter = Interpreter(model_content=model)
    key, signature = next(iter(interpreter.get_signature_list().items()))
    (name,) = signature["inputs"]
    start, cpu = time.perf_counter(), time.process_time()
    work = quantizer.Quantizer(model)
    kinds = {"per_channel": qtyping.QuantGranularity.CHANNELWISE, "per_tensor": qtyping.QuantGranularity.TENSORWISE}
    work.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=kinds[granularity],
    )
    qsvs = work.calibrate({key: [{name: x[None]} for x in samples]}, num_threads=2)
    result = work.quantize(qsvs).quantized_model
    return bytes(result), {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


def main():
    folder, granularity = Path(sys.argv[1]), sys.argv[2]
    content, clock = convert(folder, granularity)
    (folder / "out.tflite").write_bytes(content)
    versions = {name: version(name) for name in ("ai-edge-quantizer", "ai-edge-litert", "numpy")}
    (folder / "report.json").write_text(json.dumps({"clock": clock, "versions": versions}))


if __name__ == "__main__":
    main()
