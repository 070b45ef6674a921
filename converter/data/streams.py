"""Samples that come one after another from Python: a generator function, a `tf.data.Dataset`, a `keras.utils.PyDataset`.

A generator function yields what TFLiteConverter's `representative_dataset` does: the inputs of a call, as a list, by name, or the
one array. The elements of data sets are inputs, or `(inputs, labels)`, as Keras's `fit` takes them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from converter.data.arrays import as_array, kind_of
from converter.data.source import InputSpec
from ir.errors import DataError

_MOST = 1000  # samples, where no number is asked for: data sets may repeat for ever


def is_stream(given: Any) -> bool:
    """Whether samples come one after another."""
    return callable(given) or (
        isinstance(given, Iterable) and not isinstance(given, (str, np.ndarray, Sequence, Mapping))
    )


def is_list_of_samples(given: Any, inputs: Sequence[InputSpec]) -> bool:
    """Whether a list holds samples of the only input, or batches of it, and not an array per input."""
    if not isinstance(given, (list, tuple)) or len(inputs) != 1 or len(given) < 2:
        return False
    rank = len(inputs[0].shape) - 1
    return len({np.shape(array)[max(0, np.ndim(array) - rank) :] for array in given}) == 1


def collect(given: Any, inputs: Sequence[InputSpec], samples: int | None) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The first samples, as one array per input, and their labels if there are any.

    Raises:
      DataError: there are none, or they do not suit the inputs.
    """
    most = samples or _MOST
    rows: list[list[np.ndarray]] = []
    labels: list[np.ndarray] = []
    count = 0
    for arrays, label in _elements(given, inputs):
        rows.append(arrays)
        if label is not None and len(label) == len(arrays[0]):
            labels.append(label)
        count += len(arrays[0])
        if count >= most:
            break
    if not rows:
        raise DataError(expected="samples", found="none", where="calibration_data", fix="see that it yields some")
    joined = [_joined(parts)[:most] for parts in zip(*rows, strict=True)]
    known = np.concatenate(labels)[:most] if len(labels) == len(rows) else None
    return joined, known


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    shapes = dict.fromkeys(part.shape[1:] for part in parts)
    if len(shapes) > 1:
        found = " and ".join(str(list(shape)) for shape in shapes)
        raise _unfit("samples of one shape", found, "resize or cut them to the shape of the input")
    return np.concatenate(parts)


def _called(given: Callable[[], Any]) -> Iterable[Any]:
    """What a generator function yields; errors that it raises itself are left as they are, for they name its lines."""
    try:
        inspect.signature(given).bind()
    except TypeError as error:
        raise _wrong_function(f"one with arguments ({error})") from error
    except ValueError:  # a builtin, of which Python knows no arguments
        pass
    found = given()
    if not isinstance(found, Iterable):
        raise _wrong_function(f"one that returns {kind_of(found)}")
    return found


def _wrong_function(found: str) -> DataError:
    return DataError(
        expected="a function without arguments that yields samples",
        found=found,
        where="calibration_data",
        fix="let it yield one sample or batch at a time, as in: def samples(): yield from images",
    )


def _elements(given: Any, inputs: Sequence[InputSpec]) -> Iterator[tuple[list[np.ndarray], np.ndarray | None]]:
    """Batches of every input, and of the labels."""
    if callable(given) and not isinstance(given, Iterable):
        yield from ((_arrays(element, inputs), None) for element in _called(given))
        return
    for element in _batches(given):
        parts = element if isinstance(element, tuple) else (element,)
        labelled = len(parts) > 1 and not (len(parts) == len(inputs) > 1)
        yield (
            _arrays(parts[0] if labelled or len(parts) == 1 else parts, inputs),
            _classes(parts[1]) if labelled else None,
        )


def _batches(given: Any) -> Iterable[Any]:
    """The elements in order; a PyDataset has numbers and a length, and no end when it is iterated."""
    if hasattr(given, "num_batches") and hasattr(given, "__getitem__"):
        return (given[i] for i in range(given.num_batches))
    return given


def _arrays(element: Any, inputs: Sequence[InputSpec]) -> list[np.ndarray]:
    if isinstance(element, Mapping):
        missing = [spec.name for spec in inputs if spec.name not in element]
        if missing:
            names = ", ".join(map(repr, element))
            raise _unfit(f"an array for input '{missing[0]}'", names, "name the arrays like the inputs")
        element = [element[spec.name] for spec in inputs]
    listed = list(element) if isinstance(element, (list, tuple)) else [element]
    if len(listed) != len(inputs):
        raise _unfit(f"{len(inputs)} arrays", f"{len(listed)}", "yield one per input, as a list")
    arrays = [as_array(a, "an element of calibration_data") for a in listed]
    batches = [a[None] if a.ndim == len(spec.shape) - 1 else a for a, spec in zip(arrays, inputs, strict=True)]
    for given, batch, spec in zip(listed, batches, inputs, strict=True):
        if not batch.ndim:
            raise _unfit(f"numbers of shape {list(spec.shape)}", kind_of(given), "yield arrays")
    return batches


def _classes(labels: Any) -> np.ndarray | None:
    """Class numbers, from numbers or from one-hot rows; None for what is neither."""
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] > 1:
        return array.argmax(axis=1)
    return array.reshape(-1).astype(np.int64) if np.issubdtype(array.dtype, np.integer) else None


def _unfit(expected: str, found: str, fix: str) -> DataError:
    return DataError(expected=expected, found=found, where="an element of calibration_data", fix=fix)


Stream = Callable[[], Iterable[Any]] | Iterable[Any]
