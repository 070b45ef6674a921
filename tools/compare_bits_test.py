"""The table of choices on a small network."""

from __future__ import annotations

import json

from converter.mixed.budget import SENSITIVITIES
from tools import _subjects, compare_bits
from tools._flags_testing import run_with_flags
from tools.compare_tuning_test import small_subject


def test_one_row_per_choice_at_the_mean_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(_subjects, "load_subject", lambda *_: small_subject(tmp_path))
    text = run_with_flags(compare_bits, models=["small"], mean_bits=6.0, randoms=1, json=str(tmp_path / "rows.json"))
    rows = json.loads((tmp_path / "rows.json").read_text())
    names = ["8 bits", "4 bits", *(f"chosen by {kind}" for kind in SENSITIVITIES), "largest first", "random 1"]
    assert [row["choice"] for row in rows] == names
    means = {row["choice"]: row["mean_bits"] for row in rows}
    assert means["8 bits"] == 8 and all(mean <= 6 for name, mean in means.items() if name in names[2:])
    assert rows[0]["kilobytes"] > max(row["kilobytes"] for row in rows[1:])
    for row in rows:
        assert row["choice"] in text and row["samples"] == 32 and row["float_score"] == 1
        assert set(row["bits"]) <= {4, 8} and set(row["rank_correlation"]) == set(SENSITIVITIES)
    found = rows[0]["rank_correlation"]["quadratic"]
    assert found >= 0.8 and f"quadratic {found:.2f}" in text
