from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.errors import OptionError
from passes.channels.balance import Balance
from passes.channels.level_activations import LevelActivations
from passes.channels.reuse_channels import ReuseChannels
from passes.contract.base import Needs, Pass, Preserves
from passes.ranges.calibrate import Calibrate
from passes.running.pipeline import PIPELINES, automatic, for_widths, named, parse, registry, to_text

PASSES = registry()

# Values that the passes' own checks let through, where any value of the type is not allowed.
CHOICES: dict[tuple[str, str], tuple[object, ...]] = {
    ("calibrate", "method"): ("minmax", "kl"),
    ("calibrate", "percentile"): (99.0, 99.999),
    ("quantize", "granularity"): ("per_channel", "per_tensor"),
    ("quantize", "weight_bits"): (4, 8),
    ("quantize", "activation_bits"): (8, 16),
    ("lower_to_integer", "io"): ("int8", "uint8", "float"),
    ("lower_to_integer", "allow_float"): (True, False),
    ("equalize", "relu6"): ("preserve", "replace"),
    ("equalize", "margin"): (0.1, 0.25),
    ("equalize", "sweeps"): (1, 50),
    ("rescale", "control"): ("mean", "median", "max"),
    ("rescale", "limit"): (6.0, 5.0),
    ("correct_bias", "method"): ("empirical", "analytic"),
    ("correct_bias", "block"): (10, 50),
    ("prune_weights", "sparsity"): (0.5, 0.75),
    ("prune_weights", "pattern"): ("", "2:4"),
    ("prune_weights", "score"): ("magnitude", "inputs", "feedback"),
    ("prune_channels", "score"): ("magnitude", "inputs"),
    ("prune_channels", "multiple"): (1, 8),
}


@st.composite
def some_passes(draw: st.DrawFn) -> list[Pass]:
    names = draw(
        st.lists(st.sampled_from(sorted({name for name, _ in CHOICES} | {"remove_dead_code"})), min_size=1, max_size=5)
    )
    result = []
    for name in names:
        options = {option: values for (n, option), values in CHOICES.items() if n == name and draw(st.booleans())}
        result.append(PASSES[name](**{option: draw(st.sampled_from(values)) for option, values in options.items()}))
    return result


@settings(max_examples=100, deadline=None, derandomize=True)
@given(some_passes())
def test_text_reads_back(passes):
    assert parse(to_text(passes)) == passes


def test_every_pass_has_a_name_a_summary_and_text_for_its_defaults():
    assert {"fold_batch_norm", "fuse_pad", "quantize", "lower_to_integer", "tune_thresholds"} <= PASSES.keys()
    for name, kind in PASSES.items():
        assert kind.name == name and (kind.__doc__ or "").strip()
        assert parse(name) == [kind()] and str(kind()) == name
        assert isinstance(kind.preserves, Preserves) and all(isinstance(n, Needs) for n in kind.needs | kind.makes)


@pytest.mark.parametrize("name", PASSES)
def test_every_option_can_be_written(name):
    for field in dataclasses.fields(PASSES[name]):
        value = CHOICES.get((name, field.name), (field.default,))[-1]
        text = f"{name}{{{field.name}={str(value).lower() if isinstance(value, bool) else value}}}"
        if value != "":
            (made,) = parse(text)
            assert getattr(made, field.name) == value and type(getattr(made, field.name)) is type(value)


def test_spaces_and_many_passes():
    assert to_text(parse(" fuse_pad , calibrate{ method=kl  percentile=99.5 },quantize ")) == (
        "fuse_pad,calibrate{method=kl percentile=99.5},quantize"
    )
    assert to_text(parse("lower_to_integer{allow_float=1 io=int8}")) == "lower_to_integer{allow_float=true}"
    assert parse("") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fold_batchnorm", r"--passes: expected a pass of .*calibrate, .*, found fold_batchnorm; see --list_passes"),
        (
            "calibrate{kind=kl}",
            "pass calibrate: expected an option of activation_bits, ends, method, percentile, rules, found kind",
        ),
        ("fuse_pad{x=1}", "pass fuse_pad: expected an option of none, found x"),
        ("calibrate{kl}", "pass calibrate: expected option=value, found kl; write"),
        ("calibrate{percentile=high}", "pass calibrate, option percentile: expected float, found high"),
        ("quantize{weight_bits=8.5}", "option weight_bits: expected int, found 8.5"),
        ("lower_to_integer{allow_float=yes}", "option allow_float: expected bool, found yes"),
        ("calibrate{method=kl", "expected passes like a,b{option=value}, found calibrate{method=kl"),
        ("calibrate quantize", "expected passes like a,b"),
        ("calibrate,,quantize", "expected passes like a,b{option=value}, found ,quantize"),
        ("quantize{granularity=none}", "expected per_channel or per_tensor, found none"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(OptionError, match=message):
        parse(text)


def test_named_pipelines():
    assert {automatic(True), automatic(False)} <= PIPELINES.keys()
    for name in PIPELINES:
        for granularity in ("per_channel", "per_tensor"):
            passes = named(name, granularity=granularity, io="uint8")
            assert parse(to_text(passes)) == passes
            by_name = {p.name: p for p in passes}
            assert name == "emit" or by_name["quantize"].granularity == granularity
            assert by_name["lower_to_integer"].io == "uint8"
    with pytest.raises(OptionError, match=r"--pipeline: expected a pipeline of fast.*, found best"):
        named("best", granularity="per_tensor", io="int8")
    with pytest.raises(OptionError, match="--granularity: expected per_channel or per_tensor, found both"):
        named("fast", granularity="both", io="int8")


def test_the_pipeline_for_a_user_who_names_none():
    asked: list[float] = []

    def seconds() -> float:
        asked.append(60.0)
        return asked[-1]

    assert automatic(False, 1e9, seconds) == "data_free"
    assert automatic(True, None, seconds) == "default"
    assert not asked
    assert automatic(True, 59.0, seconds) == "default"
    assert automatic(True, 60.0, seconds) == "fat"


def test_single_passes_of_a_pipeline_can_be_changed_or_left_out():
    def text(changes: str) -> str:
        return to_text(named("fast", granularity="per_channel", io="int8", changes=changes))

    plain = text("")
    assert plain == to_text(named("fast", granularity="per_channel", io="int8"))
    assert text("calibrate{method=kl percentile=99.5},-fuse_pad") == plain.replace(
        "calibrate", "calibrate{method=kl percentile=99.5}"
    ).replace("fuse_pad,", "")
    with pytest.raises(
        OptionError, match="expected passes of the pipeline fast, found equalize, rescale; change passes"
    ):
        text("-rescale,equalize")


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_passes_that_scale_channels_weigh_the_steps_of_the_widths(granularity: str):
    bits = "quantize{weight_bits=4 activation_bits=6}"
    steps = for_widths(named("default", granularity=granularity, io="int8", changes=bits))
    found = [s for s in steps if isinstance(s, LevelActivations | Balance)]
    assert found == [Balance(granularity=granularity, weight_bits=4, activation_bits=6)]
    finer = for_widths(named("default", granularity=granularity, io="int8", changes="quantize{activation_bits=6}"))
    kept = next(s for s in finer if isinstance(s, LevelActivations | Balance))
    assert isinstance(kept, LevelActivations) == (granularity == "per_channel") and kept.widths.activation_bits == 6
    chosen = for_widths(parse("balance{weight_bits=3},quantize{weight_bits=4}"))[0]
    assert isinstance(chosen, Balance) and chosen.weight_bits == 3


def test_ranges_are_chosen_for_the_widths():
    bits = "quantize{activation_bits=4 ends=6 rules=layer:a*=a8}"
    steps = for_widths(named("default", granularity="per_channel", io="int8", changes=bits))
    assert Calibrate(activation_bits=4, ends=6, rules="layer:a*=a8") in steps
    assert ReuseChannels(activation_bits=4) in steps


def test_wide_activations_are_not_made_finer():
    wide, narrow = (
        [
            s.name
            for s in for_widths(named("default", granularity="per_tensor", io="int8", changes=f"quantize{{{bits}}}"))
        ]
        for bits in ("activation_bits=16", "activation_bits=7")
    )
    assert set(narrow) - set(wide) == {"reuse_channels"} and "balance" in wide
    steps = named("default", granularity="per_channel", io="int8", changes="quantize{activation_bits=16}")
    assert {s.name for s in steps} - {s.name for s in for_widths(steps)} == {"level_activations", "reuse_channels"}


def test_names_and_options_need_no_backend():
    """A command parses its flags before it imports one, which takes seconds."""
    code = "import sys, passes.running.pipeline; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
