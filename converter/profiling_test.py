"""Every operator of a file runs alone, and gives there what it gives in the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from converter.benchmarking import random_inputs
from converter.profiling import operator_times, tensor_values
from converter.runtimes.by_operator import alone
from converter.runtimes.local import LocalRuntime
from converter.tflite.fuzz_test import _float_file, _integer_file
from converter.tflite.model_file import parse
from ir.errors import RuntimeFailure

LITERT = LocalRuntime(package="ai_edge_litert", kernels="builtin")
pytestmark = pytest.mark.skipif(not LITERT.installed, reason="ai-edge-litert is not installed")


@pytest.mark.parametrize("make", [_float_file, _integer_file])
def test_an_operator_alone_gives_what_it_gives_in_the_network(make: Callable[[], bytes]) -> None:
    model = make()
    values = tensor_values(model, LITERT, random_inputs(model))
    for index, operator in enumerate(parse(model).main.operators):
        file, reads = alone(model, index)
        assert [op.code for op in parse(file).main.operators] == [operator.code]
        found = LITERT.load(file).invoke([values[i] for i in reads])
        for tensor, result in zip(operator.outputs, found, strict=True):
            np.testing.assert_array_equal(result, values[tensor])


def test_an_operator_that_does_not_run_alone_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeFailure(expected="a run", found="none", where="here", fix="wait")

    model = _float_file()
    monkeypatch.setattr("converter.profiling.benchmark", refused)
    times = operator_times(model, LITERT)
    assert len(times) == len(parse(model).main.operators)
    assert all(t.median_ms is None and "expected a run, found none" in str(t.problem) for t in times)
