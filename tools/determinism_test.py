"""The same command gives the same bytes, whatever the threads, the hash seed, the working directory and the report.

Across processors only `fast` is held to it: the other pipelines choose by sums of floats, which oneDNN adds up in an order
that depends on the instructions that there are, and which TensorFlow leaves to oneDNN on Intel's processors, not on AMD's
(`TF_ENABLE_ONEDNN_OPTS` says otherwise: the digits by `default` have 35.4 dB with it, 35.1 without).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
_WITHOUT_AVX512 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
}


def converted(pipeline: str, folder: Path, environment: Mapping[str, str], *more: str) -> bytes:
    """The file that the command writes, run in a folder beside `m.keras` and `x.npy`."""
    folder.mkdir()
    arguments = [
        str(folder.parent / "m.keras"),
        f"--calibration_data={folder.parent / 'x.npy'}",
        f"--pipeline={pipeline}",
        "--noprove",
        "--output=out.tflite",
        *more,
    ]
    settings = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tools.convert", *arguments]
    subprocess.run(command, cwd=folder, env={**os.environ, **settings, **environment}, check=True, capture_output=True)
    return (folder / "out.tflite").read_bytes()


@pytest.fixture(autouse=True)
def network(tmp_path: Path) -> None:
    """Layers whose sums are long enough to be shared out among threads."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((48, 48, 3)), layers.Conv2D(32, 5, strides=2), layers.BatchNormalization()])
    for _ in range(2):
        model.add(layers.ReLU(6.0))
        model.add(layers.DepthwiseConv2D(3, padding="same"))
        model.add(layers.Conv2D(64, 1))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10))
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(24, 48, 48, 3)).astype(np.float32))


def threads(count: int) -> dict[str, str]:
    return dict.fromkeys(_THREADS, str(count))


@pytest.mark.parametrize("pipeline", ["fast", "default"])
def test_the_same_bytes(tmp_path: Path, pipeline: str) -> None:
    """Over threads, hash seeds and folders; those of `fast` also beside a report, without AVX-512 and without oneDNN."""
    first = converted(pipeline, tmp_path / "one", {**threads(1), "PYTHONHASHSEED": "0"})
    other, more = (_WITHOUT_AVX512, ["--report=page"]) if pipeline == "fast" else ({}, [])
    eight = {**threads(8), "PYTHONHASHSEED": "2", **other}
    assert converted(pipeline, tmp_path / "eight", eight, *more) == first
    if pipeline == "fast":
        two = {**threads(2), "PYTHONHASHSEED": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
        assert converted(pipeline, tmp_path / "two", two) == first
