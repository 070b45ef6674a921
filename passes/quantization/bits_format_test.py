from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.errors import DataError, OptionError
from ir.ops import TABLE
from passes.quantization.bits import ACTIVATION_BITS, POSITIONS, WEIGHT_BITS, BitsPlan, BitsRule
from passes.quantization.bits_format import plan_of, rules_of, rules_to_text, to_json

NAMES = st.text('a_/:;&=%+*?[]{}(),. "\\\né', min_size=1).filter(lambda t: not (t[0] == t[-1] == "/"))
WEIGHTS, ACTIVATIONS = st.sampled_from(WEIGHT_BITS), st.sampled_from(ACTIVATION_BITS)


@st.composite
def rules(draw: st.DrawFn) -> BitsRule:
    fields = {
        "layer": draw(st.none() | NAMES),
        "op": draw(st.none() | st.sampled_from(sorted(TABLE))),
        "position": draw(st.sampled_from(POSITIONS)),
        "weight_bits": draw(WEIGHTS),
        "activation_bits": draw(st.none() | ACTIVATIONS),
    }
    return BitsRule(**fields)


PLANS = st.builds(
    BitsPlan,
    weight_bits=WEIGHTS,
    activation_bits=ACTIVATIONS,
    end_bits=WEIGHTS,
    rules=st.lists(rules(), max_size=3).map(tuple),
)


@given(PLANS)
def test_a_plan_is_read_back_from_its_json(plan: BitsPlan):
    assert plan_of(json.loads(to_json(plan))) == plan


@given(st.lists(rules(), max_size=3).map(tuple))
def test_rules_are_read_back_from_the_text_of_a_pipeline(rules: tuple[BitsRule, ...]):
    text = rules_to_text(rules)
    assert rules_of(text) == rules
    assert not set(text) & set(" \t\n,{}"), "these end an option of a pass"


def test_rules_are_legible_in_a_pipeline():
    rule = BitsRule(layer="/block_[12]/dw$/", op="CONV_2D", weight_bits=4, activation_bits=16)
    assert str(rule) == "layer=/block_[12]/dw$/&op=CONV_2D&weight_bits=4&activation_bits=16"


def test_a_file_is_edited_and_given_back(tmp_path: Path):
    plan = BitsPlan(weight_bits=4, rules=(BitsRule(layer="conv_1", weight_bits=6),))
    path = tmp_path / "bits.json"
    path.write_text(to_json(plan).replace('"weight_bits": 6', '"weight_bits": 5'))
    edited = BitsPlan(weight_bits=4, rules=(BitsRule(layer="conv_1", weight_bits=5),))
    assert plan_of(path) == plan_of(str(path)) == edited


def test_a_list_is_the_rules_alone():
    rule = {"position": "last", "activation_bits": 16}
    assert plan_of([rule]) == BitsPlan(rules=(BitsRule(position="last", activation_bits=16),))
    assert plan_of(None) == plan_of([]) == plan_of({}) == BitsPlan()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"expected JSON, found Expecting property name .* in line 1"),
        ('{"weights": 4}', "expected one of weight_bits, .*found weights; did you mean weight_bits"),
        ('{"rules": [{"layers": "a"}]}', "rule 1 of .*: expected one of layer, .*did you mean layer"),
        ('{"rules": {"layer": "a"}}', "expected a list of rules"),
        ('["conv"]', "rule 1 of .*: expected some of layer, "),
        ("4", "expected some of weight_bits"),
        ('[{"layer": 4, "weight_bits": 4}]', "layer of rule 1 of .*: expected a text, found 4"),
        ('{"weight_bits": "4"}', "expected 2 to 8 bits, found 4"),
        ('[{"layer": "a", "weight_bits": 1}]', "weight_bits of the rule layer=a&weight_bits=1: expected 2 to 8 bits"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "bits.json"
    path.write_text(text)
    with pytest.raises((DataError, OptionError), match=message):
        plan_of(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="expected a file of rules, found No such file"):
        plan_of(tmp_path / "bits.json")


def test_rules_in_a_pipeline_that_make_no_sense_are_refused():
    for text in ("conv", "layer=a&weight_bits=x", "layer=a&bits=4"):
        with pytest.raises(OptionError):
            rules_of(text)
