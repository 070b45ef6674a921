"""Labels: class numbers that go with samples, from a CSV table (for files) or an array (for the rest)."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ir.errors import DataError

_MOST_CLASSES = 2**31


def check_labels(values: np.ndarray, samples: int, where: str) -> np.ndarray:
    """Class numbers as int64 [samples], from [samples] or [samples, 1] of integers, bools or whole floats.

    Raises:
      DataError: another rank (one-hot rows, say), another length, or numbers that are no class numbers.
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != samples:
        raise DataError(
            expected=f"one class number per sample, an array of shape [{samples}]",
            found=f"shape {list(values.shape)}",
            where=where,
            fix="give integers, aligned with the samples (of one-hot rows take the argmax)",
        )
    if values.dtype.kind not in "iubf" or not np.all(np.mod(values.astype(np.float64), 1) == 0):
        raise DataError(
            expected="integer class numbers", found=f"{values.dtype} values", where=where, fix="give integers"
        )
    outside = values[(values < 0) | (values >= _MOST_CLASSES)]
    if outside.size:
        raise DataError(
            expected=f"class numbers from 0, below {_MOST_CLASSES}",
            found=str(outside[0]),
            where=where,
            fix="number classes from 0",
        )
    return values.astype(np.int64)


def check_classes(labels: np.ndarray | None, outputs: Sequence[tuple[int, ...]], where: str) -> None:
    """Raises DataError for class numbers that a classifier does not have.

    Args:
      outputs: shapes of the network's outputs; one of `[batch, classes]` is a classifier's, of others nothing is known.
    """
    if labels is None or not labels.size or len(outputs) != 1 or len(outputs[0]) != 2 or outputs[0][1] < 2:
        return
    classes, largest = outputs[0][1], int(labels.max())
    if largest >= classes:
        raise DataError(
            expected=f"class numbers below {classes}, which is how many answers the network has",
            found=f"{int((labels >= classes).sum())} of {labels.size} above that, up to {largest}",
            where=where,
            fix="number classes from 0, and see that the labels are this network's",
        )


_FILE_COLUMNS, _LABEL_COLUMNS = ("file", "filename", "image", "path"), ("label", "class", "class_name")


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """Labels of files, as a table has them.

    Attributes:
      labels: what stands in each row, by the text in the column of files, in the table's order.
      by_name: these are names of classes, else numbers.
      has_header: the first line names the columns.
    """

    labels: Mapping[str, str]
    by_name: bool
    has_header: bool

    @property
    def names(self) -> list[str]:
        """The classes that occur, in alphabetical order."""
        return sorted(set(self.labels.values())) if self.by_name else []


def read_label_table(path: Path) -> LabelTable:
    """Reads a CSV file: with a header, its columns of files and of labels (others are ignored), else `file,label` rows.

    Raises:
      DataError: the table cannot be read, a column is missing, a label is neither a whole number from 0 nor a name where
        all are names, or a file has two rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            rows = [(f"{path}, line {reader.line_num}", [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            expected="a CSV table of labels", found=str(error), where=str(path), fix="check the file"
        ) from error
    file, label, has_header = _columns(rows[0][1] if rows else [], str(path))
    labels: dict[str, str] = {}
    lines = {}
    for where, row in rows[has_header:]:
        cells = [*row, *[""] * (max(file, label) + 1 - len(row))]
        _check_row(labels, cells[file], cells[label], where)
        labels[cells[file]], lines[cells[file]] = cells[label], where
    by_name = bool(labels) and not any(_is_number(text) for text in labels.values())
    for name, text in labels.items():
        if not by_name and not _is_class(text):
            raise _no_class(text, lines[name])
    return LabelTable(labels=labels, by_name=by_name, has_header=has_header)


def _columns(first: Sequence[str], where: str) -> tuple[int, int, bool]:
    """Where files and labels stand, and whether the first line says so. Raises DataError where neither is to be seen."""
    named = [cell.lower() for cell in first]
    file = next((named.index(name) for name in _FILE_COLUMNS if name in named), None)
    label = next((named.index(name) for name in _LABEL_COLUMNS if name in named), None)
    if file is not None and label is not None:
        return file, label, True
    if len(first) != 2 or file is not None or label is not None:
        raise DataError(
            expected="a header with the columns 'file' and 'label', or two columns without one",
            found=", ".join(first) or "an empty file",
            where=where,
            fix="begin the table with the line 'file,label'",
        )
    return 0, 1, False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_class(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _no_class(found: str, where: str) -> DataError:
    return DataError(
        expected="a whole number from 0 as label, or names of classes in all rows",
        found=repr(found),
        where=where,
        fix="give the class number",
    )


def _check_row(table: Mapping[str, str], file: str, label: str, where: str) -> None:
    if not file:
        raise DataError(expected="a file name", found="none", where=where, fix="name the file of this row")
    if not label:
        raise _no_class(label, where)
    if file in table:
        raise DataError(
            expected="one row per file",
            found=f"a second row for '{file}'",
            where=where,
            fix="remove one of them",
        )


def class_names(table: LabelTable, folders: Sequence[str], classes: int | None, where: str) -> list[str]:
    """The classes of a table of names, in the order of their numbers: of the folders of images, else the alphabet's.

    Args:
      classes: how many the network has, None where it is no classifier.

    Raises:
      DataError: the names are not those of the folders, and not as many as the network has classes.
    """
    names = table.names
    if names and set(names) <= set(folders) and len(folders) == classes:
        return list(folders)
    if names and len(names) != classes:
        raise DataError(
            expected=f"names of all {classes} classes, to be numbered in alphabetical order"
            if classes
            else "class numbers",
            found=f"{len(names)} names ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})",
            where=where,
            fix="write the number of the class that the network means in place of each name",
        )
    return names


def class_folders(files: Sequence[str]) -> list[str]:
    """The folders in which all of these files lie, one deep or deeper, sorted; none where a file lies beside them."""
    parts = [Path(name).parts for name in files]
    return sorted({part[0] for part in parts}) if all(len(part) > 1 for part in parts) else []


@dataclass(frozen=True, kw_only=True)
class FileLabels:
    """Class numbers of files, int64 `[files]`; names of the classes where they are known; what was read, in words."""

    numbers: np.ndarray
    classes: tuple[str, ...] = ()
    summary: str = ""


def labels_of_files(
    path: Path, files: Sequence[str], root: Path, names: Sequence[str], classes: int | None
) -> FileLabels:
    """The labels of these files.

    Args:
      path: the CSV file; its names are relative to its own folder or else to `root`, or absolute.
      files: names relative to `root`.
      root: the folder of the images; `names`: all of these in it.
      classes: how many the network has.

    Raises:
      DataError: as `read_label_table` and `class_names`; or two rows mean the same file; or a file has no row.
    """
    by_path: dict[Path, str] = {}
    table = read_label_table(path)
    known = class_names(table, class_folders(names), classes, str(path))
    base, home = root.resolve(), path.parent.resolve()
    requested = {base / name for name in files}
    for name, label in table.labels.items():
        full = Path(os.path.normpath(home / name))
        if full not in requested:
            full = Path(os.path.normpath(base / name))
        if full in by_path:
            raise DataError(
                expected="one row per file",
                found=f"a second row for the same file, '{name}'",
                where=str(path),
                fix="remove one of them",
            )
        by_path[full] = label
    missing = [name for name in files if base / name not in by_path]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            expected="a row for every image",
            found=f"none for '{missing[0]}'{more}",
            where=str(path),
            fix="add the rows; names are relative to the table's folder or to the images' folder",
        )
    texts = [by_path[base / name] for name in files]
    numbers = [known.index(text) for text in texts] if known else [int(text) for text in texts]
    how = (
        f"names of classes ({', '.join(f'{name} {i}' for i, name in enumerate(known[:3]))}, ...)"
        if known
        else "numbers"
    )
    summary = f", labels of {path.name}: {how}{'' if table.has_header else ', without a header'}"
    return FileLabels(numbers=np.asarray(numbers, np.int64), classes=tuple(known), summary=summary)
