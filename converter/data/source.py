"""A data source: samples for calibration and evaluation, read again for each pass and a batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from converter.preprocess import Preprocess, apply_mode, check_mode
from ir.errors import DataError, ModelError, OptionError


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of a network. `shape` has the batch axis first, e.g. (1, 224, 224, 3)."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        try:
            kind = np.dtype(self.dtype).kind
        except TypeError:
            kind = "?"
        if kind not in "fiub":
            raise ModelError(
                expected="inputs of floats, integers or truth values",
                found=f"{self.dtype}",
                where=f"input '{self.name}'",
                fix="give the network an input of one of these types",
            )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[1:])

    def __str__(self) -> str:
        return f"'{self.name}' {list(self.shape)} {self.dtype}"


class Reader(Protocol):
    """Gives samples by their number, before type conversion and preprocessing."""

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """One array per input, leading axis as long as `indices`. Raises DataError naming a bad sample."""

    def name(self, index: int) -> str: ...

    def labels(self, indices: np.ndarray) -> np.ndarray | None: ...


def choose(available: int, samples: int | None, seed: int = 0) -> np.ndarray:
    """Which samples to take, as ascending numbers.

    All where `samples` is None or not fewer than `available`. Else with seed 0 evenly spaced ones,
    floor(i * available / samples), and with another seed a random choice without repetition.
    """
    if samples is not None and samples < 1:
        raise OptionError(expected="at least 1", found=str(samples), where="samples", fix="ask for one or more")
    if samples is None or samples >= available:
        return np.arange(available)
    if seed == 0:
        return np.arange(samples) * available // samples
    return np.sort(np.random.default_rng(seed).choice(available, samples, replace=False))


class DataSource:
    """Samples in a fixed order, which can be read any number of times.

    Holds no samples itself: `batches` reads as it goes, so memory is bounded by a batch (and by what the
    caller already holds, for arrays from Python).
    """

    def __init__(
        self,
        *,
        reader: Reader,
        inputs: Sequence[InputSpec],
        description: str,
        preprocess: Preprocess = "none",
        indices: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        """`indices`: numbers of the reader's samples, all by default; `labels` [samples] go with them.

        `classes` are the names of the labels' numbers, where they have names.
        """
        self.reader = reader
        self.inputs = tuple(inputs)
        self.description = description
        self.preprocess = check_mode(preprocess)
        self._indices = np.arange(len(reader)) if indices is None else np.asarray(indices, np.int64)
        self.classes = tuple(classes)
        self._labels = labels
        self._asked_reader = labels is not None
        assert labels is None or len(labels) == len(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __repr__(self) -> str:
        return f"DataSource({self.description})"

    @property
    def labels(self) -> np.ndarray | None:
        """int64 [samples] in the order of iteration, or None. Those of a TFRecord are read on first use."""
        if not self._asked_reader:
            self._labels = self.reader.labels(self._indices)
            self._asked_reader = True
        return self._labels

    def names(self) -> list[str]:
        """A name per sample: the file's, relative to its folder, or the number in its array or file."""
        return [self.reader.name(int(i)) for i in self._indices]

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields one array per input, of the input's type, leading axis `batch_size` (fewer in the last one).

        Raises:
          DataError: a sample that cannot be read, or that holds NaN or infinity; named.
        """
        if batch_size < 1:
            raise OptionError(
                expected="at least 1", found=str(batch_size), where="batch size", fix="ask for one or more"
            )
        return self._batches(batch_size)

    def _batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
        for start in range(0, len(self._indices), batch_size):
            chosen = self._indices[start : start + batch_size]
            arrays = self.reader.read(chosen)
            yield tuple(self._finish(values, spec, chosen) for values, spec in zip(arrays, self.inputs, strict=True))

    def subset(self, indices: Sequence[int] | np.ndarray) -> DataSource:
        """A view of the samples with these numbers (0 is this source's first), in that order."""
        index = np.asarray(indices, np.int64).reshape(-1)
        labels = None if self._labels is None else self._labels[index]
        return DataSource(
            reader=self.reader,
            inputs=self.inputs,
            description=f"{len(index)} of {self.description}",
            preprocess=self.preprocess,
            indices=self._indices[index],
            labels=labels,
            classes=self.classes,
        )

    def preprocessed(self, mode: Preprocess) -> DataSource:
        """The same samples, preprocessed in another way."""
        other = copy.copy(self)
        other.preprocess = check_mode(mode)
        return other

    def _finish(self, values: np.ndarray, spec: InputSpec, chosen: np.ndarray) -> np.ndarray:
        """To the input's type, preprocessed, checked."""
        requested = np.dtype(spec.dtype)
        if not np.issubdtype(requested, np.floating):
            return self._to_integers(values, requested, spec, chosen)
        with np.errstate(over="ignore"):
            mode = self.preprocess if self._is_preprocessed(spec) else "none"
            result = apply_mode(values, mode).astype(requested, copy=False)
        finite = np.isfinite(result)
        if not finite.all():
            bad = int(np.flatnonzero(~finite.reshape(len(result), -1).all(axis=1))[0])
            raise DataError(
                expected="finite numbers",
                found=f"{int((~finite[bad]).sum())} NaN or infinite values",
                where=f"sample '{self.reader.name(int(chosen[bad]))}' of input '{spec.name}'",
                fix="remove the sample or correct its values",
            )
        return result

    def _is_preprocessed(self, spec: InputSpec) -> bool:
        return len(self.inputs) == 1 or len(spec.shape) == 4

    def _to_integers(self, values: np.ndarray, requested: np.dtype, spec: InputSpec, chosen: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            result = values.astype(requested)
        same = result == values
        if not same.all():
            bad = int(np.flatnonzero(~same.reshape(len(result), -1).all(axis=1))[0])
            raise DataError(
                expected=f"whole numbers in the range of {requested.name}",
                found=f"{values[bad][~same[bad]].reshape(-1)[0]}",
                where=f"sample '{self.reader.name(int(chosen[bad]))}' of input '{spec.name}'",
                fix="give integer values for this input",
            )
        return result
