"""Tuning with two processes on this machine gives both the same result, and close to that of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converter.distribution import open_distribution
from ir.errors import OptionError

_SCRIPT = """
import dataclasses
import sys
import numpy as np
from converter.distribution import open_distribution
distribution = open_distribution(sys.argv[1])
from passes.contract.base import Services
from passes.contract.base import ChannelNormal
from passes.training.lsq import Lsq
from passes.training.tune_thresholds import TuneThresholds
from passes.training.tuning_testing import annotated, samples
graph, context = annotated("per_channel", weight_bits=2) if sys.argv[4] == "lsq" else annotated()
first = graph.nodes[0].output
context.tables.normals = {first: ChannelNormal(np.zeros(first.shape[-1]), np.ones(first.shape[-1]))}
context.services = Services(distribution=distribution)
context.given = dataclasses.replace(context.given, tuning=samples(64, 1))
common = dict(epochs=2, batch_size=16, least_gain=0.0, checkpoint_dir=sys.argv[3])
if sys.argv[4] == "lsq":
    step = Lsq(learning_rate=5e-4, loss="rmse", start="range", noise=0.9, batch_norm="batch", **common)
else:
    step = TuneThresholds(learning_rate=0.005, **common)
report = step.run(graph, context)
parts = [v.quant.scale.ravel() for v in graph.values() if v.quant is not None]
parts += [v.quant.dequantize(v.quant.quantize(v.data)).ravel() for v in graph.constants() if v.quant is not None]
np.savez(sys.argv[2], all=np.concatenate(parts), replicas=0 if distribution is None else distribution.replicas,
         epoch=int((report.changed or report.notes[-1:])[0].split()[1].rstrip(":")))
"""


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _start(
    kind: str, folder: Path, name: str, config: dict | None = None, step: str = "tune_thresholds"
) -> subprocess.Popen:
    root = Path(__file__).resolve().parent.parent
    environment = dict(os.environ, PYTHONPATH=str(root), TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    if config is not None:
        environment["TF_CONFIG"] = json.dumps(config)
    files = [str(folder / f"{name}.npz"), str(folder / f"{name}_checkpoints")]
    command = [sys.executable, "-c", _SCRIPT, kind, *files, step]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-3000:]


def _two_workers(folder: Path, step: str) -> list[subprocess.Popen]:
    cluster = {"worker": [f"127.0.0.1:{p}" for p in _ports(2)]}
    tasks = [{"cluster": cluster, "task": {"type": "worker", "index": i}} for i in range(2)]
    return [_start("multi_worker", folder, f"w{i}", task, step) for i, task in enumerate(tasks)]


def test_two_workers_train_the_same_weights_and_statistics(tmp_path: Path) -> None:
    _finish(_two_workers(tmp_path, "lsq"))
    first, second = (np.load(tmp_path / f"w{i}.npz") for i in range(2))
    assert int(first["replicas"]) == 2 and int(first["epoch"]) > 0
    assert np.array_equal(first["all"], second["all"])


def test_two_workers_agree(tmp_path: Path) -> None:
    _finish(
        [
            *_two_workers(tmp_path, "tune_thresholds"),
            _start("mirrored", tmp_path, "mirrored"),
            _start("none", tmp_path, "alone"),
        ]
    )
    found = {path.stem: np.load(path) for path in tmp_path.glob("*.npz")}
    assert [int(found[name]["replicas"]) for name in ("w0", "w1", "mirrored", "alone")] == [2, 2, 1, 0]
    assert all(int(f["epoch"]) > 0 for f in found.values())
    assert np.array_equal(found["w0"]["all"], found["w1"]["all"])
    # Each worker's loss is the root mean square of its own half: close to the whole batch's, not equal.
    assert np.abs(found["w0"]["all"] - found["alone"]["all"]).mean() < 0.02 * np.abs(found["alone"]["all"]).mean()
    assert (tmp_path / "w0_checkpoints").exists() and not (tmp_path / "w1_checkpoints").exists()


def test_kinds_and_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_distribution("none") is None
    with pytest.raises(OptionError, match="--distribute: expected one of none, mirrored, multi_worker, found both"):
        open_distribution("both")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    with pytest.raises(OptionError, match="expected a cluster and a task in TF_CONFIG"):
        open_distribution("multi_worker")
