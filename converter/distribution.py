"""Training over several devices or processes, by TensorFlow's strategies (the only place that needs them).

`mirrored`: all devices of this machine. `multi_worker`: one process per entry of `TF_CONFIG`, a JSON text in the
environment such as `{"cluster": {"worker": ["host1:4000", "host2:4000"]}, "task": {"type": "worker", "index": 0}}`;
every process runs the same command, worker 0 writes the files. Ask for it before anything else computes: TensorFlow
sets up its collectives once, at the start.
"""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from converter.backend import tensorflow_for
from ir.errors import OptionError

KINDS = ("none", "mirrored", "multi_worker")


@dataclass(frozen=True)
class Strategy:
    """A strategy as passes see it (`passes.contract.base.Distribution`)."""

    strategy: Any
    chief: bool
    several_processes: bool

    def scope(self) -> AbstractContextManager[Any]:
        """Within it, models and optimizers are made and fitted."""
        return self.strategy.scope()

    @property
    def replicas(self) -> int:
        return int(self.strategy.num_replicas_in_sync)


def open_distribution(kind: str) -> Strategy | None:
    """The strategy of a name of `KINDS`, None for "none". Raises OptionError for an unknown name or a bad TF_CONFIG."""
    if kind not in KINDS:
        raise OptionError(
            expected=f"one of {', '.join(KINDS)}", found=kind, where="--distribute", fix="choose one of them"
        )
    if kind == "none":
        return None
    index = _task_index() if kind == "multi_worker" else 0
    tf = tensorflow_for("--distribute", "train without it")

    if kind == "mirrored":
        return Strategy(tf.distribute.MirroredStrategy(), True, False)
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.RING
    )
    return Strategy(tf.distribute.MultiWorkerMirroredStrategy(communication_options=options), index == 0, True)


def _task_index() -> int:
    text = os.environ.get("TF_CONFIG", "")
    try:
        return int(json.loads(text)["task"]["index"])
    except (ValueError, KeyError, TypeError):
        raise OptionError(
            expected="a cluster and a task in TF_CONFIG",
            found=f"'{text[:60]}'" if text else "nothing",
            where="--distribute multi_worker",
            fix='set it to {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}',
        ) from None
