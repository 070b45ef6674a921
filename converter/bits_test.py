"""Widths as arguments: the forms of a plan, what they change of the passes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.bits import RequestedBits, plan_of, to_text
from ir.errors import DataError, OptionError
from passes.quantization.bits import BitsPlan, BitsRule
from passes.running import pipeline

RULE = {"layer": "block {1}, é*", "operator": "CONV_2D", "weight_bits": 6, "activation_bits": 16}
PLAN = BitsPlan(weight_bits=4, ends=6, rules=(BitsRule(**RULE), BitsRule(position="last", weight_bits=5)))


def applied(text: str, **requested: object) -> str:
    return pipeline.to_text(RequestedBits(**requested).apply(pipeline.parse(text)))  # type: ignore[arg-type]


def test_a_plan_is_written_edited_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "bits.json"
    path.write_text(to_text(PLAN).replace('"weight_bits": 6', '"weight_bits": 3'), encoding="utf-8")
    edited = BitsPlan(weight_bits=4, ends=6, rules=(BitsRule(**{**RULE, "weight_bits": 3}), PLAN.rules[1]))
    assert plan_of(path) == plan_of(str(path)) == edited
    assert len(path.read_text().splitlines()) == 9, "a rule a line"


def test_all_forms_are_one_plan(tmp_path: Path) -> None:
    (tmp_path / "bits.json").write_text(to_text(PLAN), encoding="utf-8")
    for form in (PLAN, PLAN.to_json(), tmp_path / "bits.json"):
        assert plan_of(form) == PLAN
    assert plan_of([RULE]) == BitsPlan(rules=(BitsRule(**RULE),))
    assert plan_of(to_text_path(tmp_path, BitsPlan())) == BitsPlan()


def to_text_path(folder: Path, plan: BitsPlan) -> Path:
    path = folder / "empty.json"
    path.write_text(to_text(plan))
    return path


def test_the_text_of_the_pipeline_carries_the_whole_plan() -> None:
    text = applied("calibrate,quantize{granularity=per_tensor},fuse_activation", bits=PLAN)
    step = pipeline.parse(text)[1]
    assert step.plan == PLAN and step.granularity == "per_tensor"  # type: ignore[attr-defined]


def test_a_number_is_that_of_all_layers_and_leaves_the_rest() -> None:
    assert applied("quantize{activation_bits=16}", weight_bits=4) == "quantize{weight_bits=4 activation_bits=16}"
    assert applied("quantize{weight_bits=4}", activation_bits=7) == "quantize{weight_bits=4 activation_bits=7}"
    assert applied("quantize", bits={"weight_bits": 4}, weight_bits=6) == "quantize{weight_bits=6}"
    assert applied("calibrate") == "calibrate"


def test_widths_without_a_pass_that_quantizes_are_refused() -> None:
    with pytest.raises(OptionError, match="expected a pipeline that quantizes, found calibrate; add quantize"):
        applied("calibrate", weight_bits=4)


@pytest.mark.parametrize("requested", [{"weight_bits": 9}, {"weight_bits": 16}, {"activation_bits": 12}])
def test_a_width_that_there_is_not_is_refused(requested: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="expected 2 to 8"):
        applied("quantize", **requested)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected JSON, found Expecting property name .* in line 1, column 2"),
        (b"\xff", "found bytes that are no text"),
        (b'{"weights": 4}', r"bits.json: expected one of weight_bits, .*, found weights"),
        (b'"all"', "expected an object"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bits.json"
    path.write_bytes(content)
    with pytest.raises((DataError, OptionError), match=message):
        plan_of(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a JSON file of widths, found No such file"):
        plan_of(tmp_path / "none.json")
