"""The table of `compare_converters` and `compare_tuning`: a row per file, scores and other figures beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich import box
from rich.table import Table

from tools._command import console

Row = dict[str, Any]
Columns = Mapping[str, Callable[[Row], str]]  # the cell of a row, by the column's heading
_WIDTH = 200  # where the output is no terminal


def show_scores(rows: Iterable[Row], words: Columns, figures: Columns, last_words: Columns | None = None) -> None:
    """Prints the table; a model and the granularity of its weights are named where they change.

    Args:
      rows: with `model`, `metric`, `granularity`, `float_score`, `score`, `agreement` and `sqnr_db`.
      words: columns that say what a row is; `figures` stand behind the score, `last_words` at the end.
    """
    if not console.is_terminal:
        console.width = _WIDTH
    places: Columns = {"model, float": _model, "weights": lambda row: row["granularity"].removeprefix("per_")}
    columns = {**places, **words, **_SCORES, **figures, **(last_words or {})}
    table = Table(box=box.SIMPLE_HEAD)
    for heading in columns:
        right = heading in _SCORES or heading in figures
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    before = None
    for row in rows:
        place = (row["model"], row["granularity"])
        if before not in (None, place):
            table.add_section()
        cells = [cell(row) for cell in columns.values()]
        table.add_row(*(cells if place != before else ["" for _ in places] + cells[len(places) :]))
        before = place
    console.print(table)


def _model(row: Row) -> str:
    return f"{row['model']} {_score(row, 'float_score')}"


def _score(row: Row, key: str = "score") -> str:
    if row[key] is None:
        return "-"
    return f"{row[key]:.1%}" if row["metric"] == "top-1" else f"{row[key]:.3f}"


def _loss(row: Row) -> str:
    if row["score"] is None:
        return "-"
    loss = row["float_score"] - row["score"]
    return f"{100 * loss:.1f}" if row["metric"] == "top-1" else f"{loss:.3f}"


_SCORES: Columns = {
    "score": _score,
    "loss": _loss,
    "agree": lambda row: "-" if row["agreement"] is None else f"{row['agreement']:.1%}",
    "SQNR dB": lambda row: "-" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
}
