"""The training loop of a trainable quantized network: `keras.Model.fit`, and what happens at the end of an epoch.

After every epoch the averaged variables are put in, the biases corrected on a part of the training data (the network's
means follow the teacher's), and the loss measured on the held-out part; the best state is kept. Checkpoints hold
everything that the rest of a run depends on, so that a resumed run ends with the same bytes.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ir.errors import DataError
from ir.execute import compiled
from passes.contract.base import Progress
from passes.measuring.scores import Score, better
from passes.training.event_log import EventLog
from passes.training.trainable import TrainableModel
from passes.training.tuning_data import Batches, TuningData

State = list[np.ndarray]
# A RuntimeError is zipfile's for members that are encrypted or of other kinds, and json's for lists in lists.
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
_PARTS = 4  # at least: of the held-out samples, to tell a gain from chance


@dataclass(kw_only=True)
class Best:
    """The best state so far.

    Attributes:
      loss: on the held-out part; `start` is what it was before training.
      epoch: after which it was reached, 0 before training.
      history: held-out loss after each epoch; `accuracies`: the share of held-out answers that are right, where there
        are labels.
    """

    loss: float
    start: float
    state: State
    epoch: int = 0
    history: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def state_of(model: TrainableModel) -> State:
    """All variables, and the states of what is drawn at random; the bias shifts last."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in _variables(model)]


def restore(model: TrainableModel, state: State) -> None:
    """Puts variables back."""
    for variable, array in zip(_variables(model), state, strict=True):
        variable.assign(array)


def _variables(model: TrainableModel) -> list[Any]:
    others = [v for v in model.non_trainable_weights if v is not model.shifts]
    return [*model.trainable_variables, *others, *model.seeds(), model.shifts]


class Loop(keras.callbacks.Callback):
    """End of batches and epochs."""

    def __init__(
        self,
        data: TuningData,
        train: np.ndarray,
        held: np.ndarray,
        *,
        batch_size: int,
        patience: int,
        least_gain: float,
        reset_every: int,
        correct: int,
        progress: Progress,
        checkpoint: Checkpoint | None,
        log: EventLog | None = None,
    ) -> None:
        """`correct`: samples for the correction of biases after an epoch, 0 for none."""
        super().__init__()
        self._data, self._train, self._held, self._batch_size = data, train, held, batch_size
        self._least_gain = least_gain
        self._patience, self._reset_every, self._correct = patience, reset_every, correct
        self._progress, self._checkpoint, self._log = progress, checkpoint, log
        self._epoch = 0
        self._run_forward: Any = None
        self._start = Score(errors=np.full((1, 1), np.inf))
        self._accuracy: float | None = None
        self.best = Best(loss=float("inf"), start=float("inf"), state=[])

    def measure(self, model: TrainableModel) -> Score:
        """Loss on the held-out samples, by parts of them that together are the whole."""
        size = min(self._batch_size, -(-len(self._held) // _PARTS))
        parts = [self._held[i : i + size] for i in range(0, len(self._held), size)]
        found = [
            model.evaluate(Batches(self._data, part, size, seed=None), verbose=0, return_dict=True) for part in parts
        ]
        shares = np.array([len(part) for part in parts]) / len(self._held)
        if "accuracy" in found[0]:
            self._accuracy = float(shares @ np.array([f["accuracy"] for f in found]))
        return Score(errors=(shares * np.array([f["loss"] for f in found], np.float64))[:, None])

    def correct(self, model: TrainableModel, count: int) -> None:
        """Moves the biases so that the channel means of `count` training samples are the teacher's."""
        if not count or not model.layers_trained:
            return
        if self._run_forward is None:
            self._run_forward = compiled(
                lambda t: [keras.ops.expand_dims(m, 0) for m in model.forward(t[:-1], t[-1])[2].values()]
            )
        rows = self._train[np.arange(min(count, len(self._train))) * len(self._train) // min(count, len(self._train))]
        total, size = np.zeros(model.shifts.shape, np.float64), max(self._batch_size, 32)
        for start in range(0, len(rows), size):
            part = np.sort(rows[start : start + size])
            moved = self._run_forward(self._data.rows(part)[0])
            # Replicas of a distribution compute the same, one row each.
            total += np.concatenate([np.asarray(m).mean(axis=0) for m in moved]) * len(part)
        model.shifts.assign((keras.ops.convert_to_numpy(model.shifts) + total / len(rows)).astype(np.float32))

    def begin(self, model: TrainableModel, start: Score | None = None) -> None:
        """Measures the start, unless it is another and known."""
        self.correct(model, self._correct)
        self._start = self.measure(model) if start is None else start
        self.best = Best(loss=self._start.error, start=self._start.error, state=state_of(model))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps = self.params["steps"] or 1
        what = f"tuning, epoch {self._epoch + 1} of {self.params['epochs']}, loss {(logs or {}).get('loss', 0):.4f}"
        what += "" if self._accuracy is None else f", held-out accuracy {self._accuracy:.1%}"
        self._progress(what, self._epoch * steps + batch + 1, self.params["epochs"] * steps)
        if self._reset_every and (self._epoch * steps + batch + 1) % self._reset_every == 0:
            for variable in self.model.optimizer.variables:
                if variable.path.endswith(("_momentum", "_velocity")):
                    variable.assign(keras.ops.zeros_like(variable))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        model, best = self.model, self.best
        raw = state_of(model)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        model.constrain()
        model.settle(self._data, self._train, self._batch_size)
        self.correct(model, self._correct)
        found = self.measure(model)
        loss = found.error
        best.history.append(loss)
        best.accuracies += [] if self._accuracy is None else [self._accuracy]
        if loss < best.loss and better(self._start, found, self._least_gain):
            best.loss, best.epoch, best.state = loss, epoch + 1, state_of(model)
        raw[-1] = state_of(model)[-1]  # the corrected biases stay, the average does not
        restore(model, raw)
        if self._log is not None:
            rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
            curves = {"loss": float((logs or {})["loss"]), "held-out loss": loss, "learning rate": rate}
            curves |= {} if self._accuracy is None else {"held-out accuracy": self._accuracy}
            self._log.scalars(curves, epoch + 1)
        if self._checkpoint is not None:
            self._checkpoint.save(model, best, epoch + 1)
        model.stop_training = self.is_over(epoch + 1)

    def is_over(self, epochs: int) -> bool:
        """Whether so many epochs were enough: none of the last `patience` was the best."""
        return bool(self._patience) and epochs - self.best.epoch >= self._patience


class Checkpoint:
    """One file that a run is resumed from."""

    def __init__(self, folder: str | Path, name: str, identity: dict[str, Any], *, writes: bool) -> None:
        """`name`: of the pass. `identity`: what a resumed run must have in common with the one that wrote the file."""
        self.path = Path(folder) / f"{name}.npz"
        self._identity, self._writes = identity, writes

    def save(self, model: TrainableModel, best: Best, epoch: int) -> None:
        """Written to a temporary name and renamed."""
        if not self._writes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "identity": self._identity,
            "epoch": epoch,
            "history": best.history,
            "accuracies": best.accuracies,
            "best": [best.loss, best.start, best.epoch],
        }
        arrays = {f"model_{i:04}": a for i, a in enumerate(state_of(model))}
        arrays |= {f"best_{i:04}": a for i, a in enumerate(best.state)}
        arrays |= {
            f"optimizer_{i:04}": np.array(keras.ops.convert_to_numpy(v))
            for i, v in enumerate(model.optimizer.variables)
        }
        partial = self.path.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)
        os.replace(partial, self.path)

    def load(self, model: TrainableModel) -> tuple[Best, int] | None:
        """Puts all variables back; the best state, and the epochs done. None if there is no file.

        Raises:
          DataError: the file belongs to a run with other data or options, or cannot be read.
        """
        if not self.path.exists():
            return None
        about, parts = self._read()
        if about["identity"] != json.loads(json.dumps(self._identity)):
            differ = sorted(
                k for k in self._identity if about["identity"].get(k) != json.loads(json.dumps(self._identity[k]))
            )
            raise DataError(
                expected="the checkpoint of the same run",
                found=f"one with another {', '.join(differ)}",
                where=str(self.path),
                fix="use the same options and data, or start over without --resume",
            )
        try:
            restore(model, parts["model_"])
            for variable, array in zip(model.optimizer.variables, parts["optimizer_"], strict=True):
                variable.assign(array)
            loss, start, epoch = about["best"]
            known = {k: about[k] for k in ("history", "accuracies")}
            best = Best(loss=loss, start=start, epoch=int(epoch), state=parts["best_"], **known)
            return best, int(about["epoch"])
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def _read(self) -> tuple[dict[str, Any], dict[str, State]]:
        """What the file holds, its arrays by kind."""
        try:
            if not self.path.is_file():
                raise ValueError("no regular file")
            with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                names = {p: sorted(k for k in file.files if k.startswith(p)) for p in ("model_", "best_", "optimizer_")}
                if not isinstance(about["identity"], dict):
                    raise ValueError("no identity of a run")
                return about, {p: [file[k] for k in listed] for p, listed in names.items()}
        except _DAMAGED as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            expected="a checkpoint as a run writes it",
            found=f"a damaged one ({error})",
            where=str(self.path),
            fix="start over without --resume",
        )
