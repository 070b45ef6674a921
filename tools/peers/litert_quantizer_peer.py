"""Converts with litert-quantizer 0.11 (which ai-edge-quantizer became), in an environment of its own; imports nothing of
ours (tools/peers/setup.sh).

    python litert_quantizer_peer.py FOLDER GRANULARITY VARIANT

FOLDER holds `float.tflite` and `calibration.npz` (`x`: float32 [samples, ...], preprocessed); it gets `out.tflite` and
`report.json` (`clock`, `versions`). VARIANT names the package's own static recipes: `static_wi8_ai8`, and with its
bits in the same call `static_wi4_ai8` and `static_wi8_ai16`; weights are per channel or per tensor. Inputs and outputs
are integers too, as these recipes leave them.
"""

import json
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from litert_quantizer import qtyping, quantizer


def convert(folder, granularity, variant):
    """The quantized file's bytes."""
    model = (folder / "float.tflite").read_bytes()
    samples = np.load(folder / "calibration.npz")["x"]
    interpreter = Interpreter(model_content=model)
    key, signature = next(iter(interpreter.get_signature_list().items()))
    (name,) = signature["inputs"]
    start, cpu = time.perf_counter(), time.process_time()
    weight_bits, activation_bits = map(int, re.fullmatch(r"static_wi(\d+)_ai(\d+)", variant).groups())
    work = quantizer.Quantizer(model)
    kinds = {"per_channel": qtyping.QuantGranularity.CHANNELWISE, "per_tensor": qtyping.QuantGranularity.TENSORWISE}
    work.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=activation_bits,
        weight_num_bits=weight_bits,
        weight_granularity=kinds[granularity],
    )
    qsvs = work.calibrate({key: [{name: x[None]} for x in samples]}, num_threads=2)
    result = work.quantize(qsvs).quantized_model
    return bytes(result), {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


def main():
    folder, granularity, variant = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    content, clock = convert(folder, granularity, variant)
    (folder / "out.tflite").write_bytes(content)
    versions = {name: version(name) for name in ("litert-quantizer", "ai-edge-litert", "numpy")}
    (folder / "report.json").write_text(json.dumps({"clock": clock, "versions": versions}))


if __name__ == "__main__":
    main()
