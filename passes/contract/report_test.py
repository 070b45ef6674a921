from __future__ import annotations

import pytest

from passes.contract.base import Applied, LeftOut, NothingToDo, PassReport, Skip, Trial, Undone

TRIAL = Trial(0.01, 0.25)
SKIP = Skip("conv", "it is shared")


@pytest.mark.parametrize(
    ("report", "outcome"),
    [
        (PassReport(), NothingToDo()),
        (PassReport(skipped=(SKIP,), notes=("look at it",)), NothingToDo()),
        (PassReport(changed=("conv",)), Applied()),
        (PassReport(recorded=("3 ranges",)), Applied()),
        (PassReport(changed=("conv",)).kept(TRIAL), Applied(TRIAL)),
        (PassReport(changed=("conv",)).left_out("tried", TRIAL), LeftOut(TRIAL)),
        (PassReport(verdict=Undone("no gain")), Undone("no gain")),
    ],
)
def test_what_came_of_a_pass(report, outcome):
    assert report.outcome == outcome


def test_what_was_left_out_changed_nothing_and_says_so():
    report = PassReport(changed=("conv",), skipped=(SKIP,), notes=("a note",)).left_out("tried", TRIAL)
    assert report.changed == () == report.done
    assert report.notes == ("tried left out: error of the logits 1.000% before, 25.000% after",)
    assert report.skipped[0].where == "tried" and report.skipped[1] == SKIP


def test_what_was_kept_is_what_it_was_with_the_figures():
    report = PassReport(changed=("conv",), skipped=(SKIP,), notes=("a note",)).kept(TRIAL)
    assert report.changed == ("conv",) and report.skipped == (SKIP,)
    assert report.notes == ("a note", "error of the logits 1.000% before, 25.000% after")


def test_everything_done_is_what_was_changed_and_recorded():
    assert PassReport(changed=("a",), recorded=("b",)).done == ("a", "b")


@pytest.mark.parametrize("verdict", [LeftOut(TRIAL), Undone("no gain")])
def test_what_was_taken_back_cannot_have_changed_anything(verdict):
    with pytest.raises(AssertionError, match="changed nothing"):
        PassReport(changed=("conv",), verdict=verdict)
