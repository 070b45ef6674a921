"""Labels: class numbers that go with samples, from a CSV table (for files) or an array (for the rest)."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ir.errors import DataError


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
    if samples and values.min() < 0:
        raise DataError(
            expected="class numbers from 0", found=str(values.min()), where=where, fix="number classes from 0"
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


def read_label_table(path: Path) -> dict[str, int]:
    """Reads a CSV file with a header that has the columns `file` and `label` (others are ignored).

    Returns:
      The label of each file, by the text in the column `file`, in the table's order.

    Raises:
      DataError: the table cannot be read, a column is missing, a label is no whole number from 0, or a file
        has two rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            header = rows.fieldnames or []
            if "file" not in header or "label" not in header:
                raise DataError(
                    expected="a header with the columns 'file' and 'label'",
                    found=", ".join(header) or "an empty file",
                    where=str(path),
                    fix="begin the table with the line 'file,label'",
                )
            table: dict[str, int] = {}
            for row in rows:
                _add_row(table, row, f"{path}, line {rows.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            expected="a CSV table of labels", found=str(error), where=str(path), fix="check the file"
        ) from error
    return table


def _add_row(table: dict[str, int], row: dict[str, str | None], where: str) -> None:
    file, label = (row["file"] or "").strip(), (row["label"] or "").strip()
    if not file:
        raise DataError(expected="a file name", found="none", where=where, fix="name the file of this row")
    if not (label.isascii() and label.isdigit() and len(label) < 10):
        raise DataError(
            expected="a whole number from 0 as label",
            found=repr(label),
            where=where,
            fix="give the class number",
        )
    if file in table:
        raise DataError(
            expected="one row per file",
            found=f"a second row for '{file}'",
            where=where,
            fix="remove one of them",
        )
    table[file] = int(label)


def class_folders(files: Sequence[str]) -> list[str]:
    """The folders in which all of these files lie, one deep or deeper, sorted; none where a file lies beside them."""
    parts = [Path(name).parts for name in files]
    return sorted({part[0] for part in parts}) if all(len(part) > 1 for part in parts) else []


def labels_of_files(path: Path, files: Sequence[str], root: Path) -> np.ndarray:
    """The labels of these files, int64 [files].

    Args:
      path: the CSV file; its names are relative to its own folder or else to `root`, or absolute.
      files: names relative to `root`.
      root: the folder of the images.

    Raises:
      DataError: as `read_label_table`; or two rows mean the same file; or a file has no row.
    """
    by_path: dict[Path, int] = {}
    base, home = root.resolve(), path.parent.resolve()
    requested = {base / name for name in files}
    for name, label in read_label_table(path).items():
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
    return np.asarray([by_path[base / name] for name in files], np.int64)
