"""Limits of time: files whose operators take what their weights say, on real files, and who is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from converter.conversion import convert
from converter.mixed import choice as choice_module
from converter.mixed import latency
from converter.mixed.budget import Budget
from converter.mixed.choice import Choice
from converter.mixed.mixed_testing import network, samples
from converter.profiling import OperatorTime
from converter.runtimes.local import LocalRuntime
from converter.targets import get_target
from converter.tflite.model_file import parse
from ir.errors import OptionError, RuntimeFailure

WHOLE_MS = 10.0  # of the file of 8 bits; an operator of it takes 1 ms


def chosen(monkeypatch: pytest.MonkeyPatch, four_bits_ms: float, **budget: float | str) -> Choice:
    """A choice where an operator with weights of 4 bits takes so long."""

    def times(file: bytes, *_: object, **__: object) -> list[OperatorTime]:
        graph = parse(file).main
        narrow = [any(graph.tensors[i].type_name == "INT4" for i in op.inputs if i >= 0) for op in graph.operators]
        return [
            OperatorTime(
                index=i,
                name=op.code,
                layer=graph.tensors[op.outputs[0]].name,
                median_ms=four_bits_ms if narrow[i] else 1.0,
            )
            for i, op in enumerate(graph.operators)
        ]

    monkeypatch.setattr(latency, "operator_times", times)
    monkeypatch.setattr(latency, "benchmark", lambda *_: SimpleNamespace(percentile=lambda _: WHOLE_MS))
    asked = Budget(**budget)
    result = convert(network(), calibration_data=samples(), pipeline="fast", prove=False, check=False, budget=asked)
    late = any(w.startswith("the file takes 10 ms in the median") for w in result.warnings)
    assert late == (asked.latency_ms is not None and asked.latency_ms < WHOLE_MS)
    assert result.choice is not None
    return result.choice


def test_as_many_layers_are_narrow_as_the_time_wants(monkeypatch):
    choice = chosen(monkeypatch, 0.4, max_latency="8.8ms")
    assert sorted(choice.chosen.bits) == [4, 4, 8, 8, 8]  # 0.6 ms are gained by each
    assert choice.chosen.latency_ms == pytest.approx(8.8)
    assert "for --max_latency by logits" in choice.sentence and "8.8 ms by the times" in choice.sentence
    assert choice.command(choice.chosen) == "--max_latency=8800us"


def test_a_time_that_no_widths_reach_is_refused_with_what_they_do(monkeypatch):
    with pytest.raises(
        OptionError, match=r"--max_latency: expected at least 7.6 ms, which the fastest .*, found 7.5 ms"
    ):
        chosen(monkeypatch, 0.4, max_latency=7.5)  # `last` has 8 bits only
    with pytest.raises(OptionError, match=r"expected at least 10 ms"):
        chosen(monkeypatch, 3.0, max_latency=9.9)


def test_beside_a_size_both_limits_hold(monkeypatch):
    """Weights of 4 bits take 2 ms more, and 6 bits in the mean want two of the five layers to have them, the right ones."""
    free = chosen(monkeypatch, 3.0, mean_bits=6.0, max_latency=20).chosen
    assert free.mean_bits <= 6.0
    tight = chosen(monkeypatch, 3.0, mean_bits=6.0, max_latency=14).chosen
    assert tight.mean_bits <= 6.0 and tight.latency_ms == pytest.approx(14.0) and tight.bits.count(4) == 2
    message = (
        r"--max_latency: expected at least 14 ms, which the fastest widths within 6 bits in the mean take, found 13"
    )
    with pytest.raises(OptionError, match=message):
        chosen(monkeypatch, 3.0, mean_bits=6.0, max_latency=13)


def test_what_is_better_but_too_slow_is_not_chosen(monkeypatch):
    monkeypatch.setattr(choice_module, "better", lambda *_: True)  # whichever simple choice is within the limits
    found = chosen(monkeypatch, 3.0, max_size="1MB", max_latency=10).chosen
    assert found.latency_ms == pytest.approx(10.0)
    found = chosen(monkeypatch, 0.4, mean_bits=8.0, max_latency=8.8).chosen
    assert found.latency_ms is not None and found.latency_ms <= 8.8 + 1e-9


def test_a_layer_that_cannot_be_timed_is_named(monkeypatch):
    monkeypatch.setattr(latency, "operator_times", lambda *_, **__: [])
    monkeypatch.setattr(latency, "benchmark", lambda *_: SimpleNamespace(percentile=lambda _: WHOLE_MS))
    with pytest.raises(RuntimeFailure, match="expected the time of layer first, found no operator of its name"):
        convert(network(), calibration_data=samples(), prove=False, check=False, budget=Budget(max_latency=5))


@pytest.mark.parametrize("name", ["ethos-u55", "edgetpu", "tflm"])
def test_targets_that_run_elsewhere_are_refused(name: str):
    with pytest.raises(OptionError, match=rf"found {name}, whose times are not known here; give --max_bops"):
        latency.runtime_for(get_target(name))


@pytest.mark.skipif(not LocalRuntime(package="ai_edge_litert").installed, reason="ai-edge-litert is not installed")
def test_real_times_are_those_of_layers():
    budget = Budget(mean_bits=6.0, max_latency="10s")
    result = convert(network(), calibration_data=samples(), pipeline="fast", prove=False, check=False, budget=budget)
    choice = result.choice
    assert choice is not None and choice.chosen.latency_ms is not None
    assert 0 < choice.chosen.latency_ms < 1000
    assert not [w for w in result.warnings if "--max_latency" in w]


def test_a_file_that_takes_longer_than_its_layers_said_is_warned_of(monkeypatch):
    runtime = LocalRuntime(package="ai_edge_litert", kernels="xnnpack", threads=1)
    monkeypatch.setattr(latency, "benchmark", lambda *_: SimpleNamespace(percentile=lambda _: 9.0))
    assert latency.warnings(b"", 9.0, runtime) == ()
    [warning] = latency.warnings(b"", 8.9, runtime)
    assert warning.startswith("the file takes 9 ms in the median on ai-edge-litert/xnnpack, 8.9 ms were asked for")
