from __future__ import annotations

import numpy as np
import pytest

from tools import kill_writes
from tools.kill_writes import Torn, kill_conversions, kill_reports
from tools.kill_writes import kill_writes as kills_of_writes


def test_what_is_killed_leaves_the_old_file_or_the_new_one() -> None:
    assert kills_of_writes(15, np.random.default_rng(0)).total() == 15


def test_a_conversion_that_is_killed() -> None:
    assert kill_conversions(2, np.random.default_rng(0)).total() == 2


def test_half_a_file_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    torn = kill_writes._WRITES.replace("write_atomically(", "(lambda p, d: open(p, 'wb').write(d[: len(d) // 2]))(")
    monkeypatch.setattr(kill_writes, "_WRITES", torn)
    with pytest.raises(Torn, match="the old output or the new one"):
        kills_of_writes(15, np.random.default_rng(0))


def test_a_report_that_is_killed_before_any_call_is_new_or_old() -> None:
    found = kill_reports()
    assert {"none", "old", "new"} < set(found) and found.total() > 40, found


def test_a_new_page_beside_old_numbers_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = """
def write_files(folder, files):
    os.makedirs(folder, exist_ok=True)
    for name, data in files.items():
        path = os.path.join(folder, name)
        with open(f"{path}.new", "wb") as file:
            file.write(data)
        os.rename(f"{path}.new", path)
"""
    monkeypatch.setattr(kill_writes, "_DIES", kill_writes._DIES.replace("\ndef die", f"{one_by_one}\ndef die"))
    with pytest.raises(Torn, match=r"'index\.html': 'new', 'report\.json': 'old'"):
        kill_reports()
