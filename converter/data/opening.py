"""Opens whatever a user names as data: a folder of images, an image, a NumPy file or a TFRecord file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from converter.data.arrays import Archive, ArrayReader, as_array, check_fit, label_key, open_npy, pick_arrays
from converter.data.images import IMAGE_SUFFIXES, ImageReader, find_images, image_size
from converter.data.labels import FileLabels, check_labels, class_folders, labels_of_files
from converter.data.source import DataSource, InputSpec, Reader, choose
from converter.data.tfrecord import TFRECORD_SUFFIXES, TFRecordReader
from converter.preprocess import Preprocess, check_mode, preprocess_name
from converter.regular import other_than_file
from ir.errors import DataError

_LABELS = "labels (.csv, .npy or .npz)"
_KINDS = "a folder of images, an image, .npy, .npz or .tfrecord"


def open_data(
    path: str | Path,
    inputs: Sequence[InputSpec],
    *,
    preprocess: Preprocess = "none",
    samples: int | None = None,
    seed: int = 0,
    labels: str | Path | None = None,
    files: Sequence[str | int] | None = None,
    classes: int | None = None,
) -> DataSource:
    """Opens samples for a network; only what is needed to check them is read.

    Args:
      path: one of
        - a folder of images (jpg, jpeg, png, bmp, gif; searched below, in sorted order), or one image:
          scaled so that the shorter side is round(size / 0.875), then cut to the centre (see `images`); grey
          for a network of one channel;
        - `.npy`: [samples, ...] for a network of one input;
        - `.npz`: one array per input by the inputs' names, or a single one, or `arr_0`, `arr_1`, ...;
          `file.npz:name` chooses one array for a network of one input;
        - `.tfrecord`, `.tfrecords`: `tf.train.Example` with `image/encoded`, or features named like inputs.
        An array may lack a last axis of size 1.
      inputs: the network's inputs, in its order.
      preprocess: a mode of `converter.preprocess`. "none" feeds values as they are, as float32 (pixels as
        0..255). Any other mode is applied to whatever is read, integer or float, so give it only for data
        that holds 0..255. In networks of several inputs only those of rank 4 are preprocessed, and never an
        integer input.
      samples: how many to take; all where there are no more. See `choose` for which.
      seed: 0 for evenly spaced samples, another for a random choice.
      labels: for images a CSV table of file and label, with a header (`file,label`) or without; a label is the number of a
        class or its name (see `class_names`); for arrays and records `.npy`, `.npz` with
        `labels`, or `file.npz:name`. Without it, labels inside the data are used: in a `.npz` the array
        `labels`, or `x_labels` where the array `x` is fed; in records `image/class/label` or `label`.
      classes: how many a classifier has: images of a folder that holds as many folders are labelled by these, in the order of
        their names, where `labels` is None.
      files: only these, in this order: names relative to the folder of images, or numbers of samples in
        other kinds.

    Raises:
      DataError: the data is missing, damaged, or does not suit the inputs.
      OptionError: an unknown mode, or fewer than one sample asked for.
    """
    check_mode(preprocess)
    data, key = _split(path)
    if data.is_dir() or data.suffix.lower() in IMAGE_SUFFIXES:
        return _open_images(data, inputs, preprocess, samples, seed, labels, files, classes)
    reader, found_labels = _open_file(data, key, inputs, str(path))
    if labels is not None:
        found_labels = check_labels(_read_labels(labels), len(reader), str(labels))
    pool = np.arange(len(reader)) if files is None else _as_numbers(files, len(reader), str(path))
    chosen = pool[choose(len(pool), samples, seed)]
    return DataSource(
        reader=reader,
        inputs=inputs,
        description=_describe(len(chosen), len(reader), "samples", str(path), preprocess),
        preprocess=preprocess,
        indices=chosen,
        labels=None if found_labels is None else found_labels[chosen],
    )


def from_arrays(
    arrays: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray],
    inputs: Sequence[InputSpec],
    labels: np.ndarray | Sequence[int] | None = None,
    *,
    preprocess: Preprocess = "none",
) -> DataSource:
    """A source of arrays that the caller holds, [samples, ...] each, in the inputs' order or by their names.

    Raises:
      DataError: as `open_data`.
    """
    where = "arrays"
    if isinstance(arrays, Mapping):
        missing = [spec.name for spec in inputs if spec.name not in arrays]
        if missing:
            raise DataError(
                expected=f"an array for input '{missing[0]}'",
                found=", ".join(repr(name) for name in arrays),
                where=where,
                fix="name the arrays like the inputs",
            )
        arrays = [arrays[spec.name] for spec in inputs]
    listed = list(arrays) if isinstance(arrays, Sequence) else [arrays]
    reader = ArrayReader([as_array(a, where) for a in listed], inputs, where=where)
    checked = None if labels is None else check_labels(np.asarray(labels), len(reader), "labels")
    return DataSource(
        reader=reader,
        inputs=inputs,
        description=_describe(len(reader), len(reader), "samples", where, preprocess),
        preprocess=preprocess,
        labels=checked,
    )


def check_data(*paths: str | Path | None, labels: str | Path | None = None) -> None:
    """Raises DataError where a path, if it is given, names nothing: cheap, so that it can come before other work."""
    for path in paths:
        if path:
            _split(path)
    if labels:
        _split(labels, _LABELS)


def _split(path: str | Path, expected: str = _KINDS) -> tuple[Path, str | None]:
    """A path and the array that `file.npz:name` chooses; raises DataError where the path does not exist."""
    whole = Path(path).expanduser()
    found = other_than_file(whole)
    if found in ("", "a directory"):
        return whole, None
    match = re.fullmatch(r"(.+\.npz):([^/\\:]+)", str(whole))
    if match and not other_than_file(match[1]):
        return Path(match[1]), match[2]
    raise DataError(expected=expected, found=found, where=str(path), fix="check the path")


def _describe(chosen: int, available: int, what: str, where: str, preprocess: Preprocess) -> str:
    count = f"{chosen}" if chosen == available else f"{chosen} of {available}"
    return f"{count} {what} of {where}, preprocess '{preprocess_name(preprocess)}'"


def _open_images(
    path: Path,
    inputs: Sequence[InputSpec],
    preprocess: Preprocess,
    samples: int | None,
    seed: int,
    labels: str | Path | None,
    files: Sequence[str | int] | None,
    classes: int | None,
) -> DataSource:
    size = image_size(inputs, str(path))
    root, names = (path, find_images(path)) if path.is_dir() else (path.parent, [path.name])
    if not names:
        raise DataError(
            expected=f"images ({', '.join(IMAGE_SUFFIXES)})",
            found="none in this folder or below it",
            where=str(path),
            fix="check the path",
        )
    pool = names if files is None else _as_names(files, names, str(path))
    chosen = [pool[i] for i in choose(len(pool), samples, seed)]
    found = (
        _labels_by_folder(class_folders(names), chosen, classes)
        if labels is None
        else labels_of_files(_split(labels, _LABELS)[0], chosen, root, names, classes)
    )
    return DataSource(
        reader=ImageReader(root, chosen, size),
        inputs=inputs,
        description=_describe(len(chosen), len(names), "images", str(path), preprocess)
        + (found.summary if found else ""),
        preprocess=preprocess,
        labels=found.numbers if found else None,
        classes=found.classes if found else (),
    )


def _labels_by_folder(folders: Sequence[str], chosen: Sequence[str], classes: int | None) -> FileLabels | None:
    """The folder of each image, where there are as many as classes."""
    if len(folders) != classes:
        return None
    numbers = np.array([folders.index(Path(name).parts[0]) for name in chosen])
    summary = f", labels by its {len(folders)} folders ({', '.join(folders[:3])}, ...)"
    return FileLabels(numbers=numbers, classes=tuple(folders), summary=summary)


def _open_file(
    data: Path, key: str | None, inputs: Sequence[InputSpec], where: str
) -> tuple[Reader, np.ndarray | None]:
    """The samples of a file that holds many, and the labels beside them."""
    suffix = data.suffix.lower()
    if suffix == ".npy":
        return ArrayReader([open_npy(data)], inputs, where=where), None
    if suffix == ".npz":
        return _open_npz(data, key, inputs)
    if suffix in TFRECORD_SUFFIXES:
        return TFRecordReader(data, inputs), None
    raise DataError(expected=_KINDS, found=f"'{data.name}'", where=where, fix="convert the data to one of these")


def _as_names(files: Sequence[str | int], names: Sequence[str], where: str) -> list[str]:
    known = set(names)
    requested = [Path(str(file)).as_posix() for file in files]
    unknown = [name for name in requested if name not in known]
    if unknown or not requested:
        raise DataError(
            expected="names of images, relative to the folder",
            found=f"'{unknown[0]}', which is not there" if unknown else "none",
            where=where,
            fix="check the list of files",
        )
    return requested


def _as_numbers(files: Sequence[str | int], available: int, where: str) -> np.ndarray:
    try:
        numbers = np.asarray([int(file) for file in files], np.int64)
    except ValueError:
        numbers = np.asarray([-1])
    if not len(numbers) or numbers.min() < 0 or numbers.max() >= available:
        raise DataError(
            expected=f"numbers of samples from 0 to {available - 1}",
            found=", ".join(str(file) for file in list(files)[:5]) or "none",
            where=where,
            fix="check the list of files",
        )
    return numbers


def _open_npz(path: Path, key: str | None, inputs: Sequence[InputSpec]) -> tuple[ArrayReader, np.ndarray | None]:
    archive = Archive(path)
    keys = pick_arrays(archive, inputs) if key is None else [_known_key(archive, key)]
    for k, spec in zip(keys, inputs, strict=True):
        check_fit(archive.headers[k].shape, archive.headers[k].dtype, spec, str(path))
    reader = ArrayReader([archive.load(k) for k in keys], inputs, where=str(path))
    labels = label_key(archive, keys)
    if labels is None or labels in keys:
        return reader, None
    values = archive.load(labels)
    if key is not None and labels == "labels" and values.shape[:1] != (len(reader),):
        return reader, None
    return reader, check_labels(values, len(reader), f"{path}, array '{labels}'")


def _known_key(archive: Archive, key: str) -> str:
    if key not in archive.headers:
        raise DataError(
            expected=f"an array '{key}'",
            found=", ".join(f"'{name}'" for name in archive.headers),
            where=str(archive.path),
            fix="name one of these",
        )
    return key


def _read_labels(path: str | Path) -> np.ndarray:
    data, key = _split(path, _LABELS)
    if data.suffix.lower() == ".npy":
        return open_npy(data)
    if data.suffix.lower() != ".npz":
        raise DataError(
            expected="labels in .npy or .npz for this kind of data",
            found=f"'{data.name}'",
            where=str(path),
            fix="save the labels with numpy.save (a CSV table goes with image files)",
        )
    archive = Archive(data)
    if key is None:
        key = next(iter(archive.headers)) if len(archive.headers) == 1 else "labels"
    return archive.load(_known_key(archive, key))
