"""The event file against TensorFlow's own reader."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from passes.training.event_log import EventLog


def test_tensorflow_reads_the_scalars(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "logs")
    log.scalars({"loss": 0.5, "held-out loss": 0.25}, 3)
    log.scalars({"loss": 0.125}, 300)
    pytest.importorskip("tensorflow")
    reader = importlib.import_module("tensorflow.python.summary.summary_iterator")
    events = list(reader.summary_iterator(str(log.path)))
    assert events[0].file_version == "brain.Event:2"
    found = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert found == [(3, "loss", 0.5), (3, "held-out loss", 0.25), (300, "loss", 0.125)]
