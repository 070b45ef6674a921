"""The order in which layers get few bits, and what is wide until its turn comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ir.errors import OptionError
from ir.graph import Graph, Value
from ir.layer import layers
from passes.contract.base import Applied, Context, PassReport, Services
from passes.training.hawq import Hawq
from passes.training.lsq import Lsq
from passes.training.lsq_test import off
from passes.training.tuning_testing import annotated, samples

pytestmark = pytest.mark.trains

QUICK: dict[str, Any] = dict(epochs=1, batch_size=16, learning_rate=0.001)


class Steep:
    """A Hessian that is a number times the unit matrix in each block; the later ones are the sharper."""

    def __init__(self, graph: Graph, weights: Sequence[Value], data: Any) -> None:
        self.shapes, self.shares = [w.shape for w in weights], [1.0]

    def __call__(self, blocks: Sequence[int], vectors: Sequence[np.ndarray], batch: int) -> list[np.ndarray]:
        return [100.0**block * v for block, v in zip(blocks, vectors, strict=True)]


def narrow(weight_bits: int = 3, products: Any = Steep) -> tuple[Graph, Context]:
    graph, context = annotated("per_channel", weight_bits=weight_bits)
    context.given = dataclasses.replace(context.given, tuning=samples(128, 1))
    context.services = Services(products=products)
    return graph, context


def test_layers_get_their_bits_in_descending_order_of_what_the_loss_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    train = Lsq.run

    def spied(self: Lsq, graph: Graph, context: Context) -> PassReport:
        seen.append([layer.params.bits for layer in layers(graph)])
        return train(self, graph, context)

    monkeypatch.setattr(Lsq, "run", spied)
    graph, context = narrow()
    count = sum(1 for _ in layers(graph))
    report = Hawq(**QUICK, stages=count).run(graph, context)
    assert len(seen) > 1 and seen[-1] == [3] * count
    for bits in seen[:-1]:
        assert bits == sorted(bits, reverse=True) and {*bits} == {3, 8}  # the last layers are the sharpest
    assert report.notes[0].startswith("layers, the sharpest first")
    seen.clear()
    Hawq(**QUICK, stages=count, order="network").run(*narrow())
    assert all(bits == sorted(bits) for bits in seen)


def test_stages_come_closer_to_the_float_network() -> None:
    graph, context = narrow(2)
    before = off(graph, context)
    report = Hawq(**{**QUICK, "epochs": 3}, stages=2, teacher=1.0).run(graph, context)
    assert isinstance(report.outcome, Applied)
    assert off(graph, context) < 0.8 * before


def test_wide_weights_need_no_stages() -> None:
    graph, context = narrow(8)
    report = Hawq().run(graph, context)
    assert report.skipped[0].reason == "no weights have fewer than 8 bits"


def test_what_cannot_be_differentiated_twice_is_said() -> None:
    with pytest.raises(OptionError, match=r"hawq order=sharpest.*order=network"):
        Hawq(**QUICK).run(*narrow(products=None))


@pytest.mark.parametrize("options", [{"order": "largest"}, {"stages": 0}, {"checkpoint_dir": "here"}])
def test_options_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"hawq {next(iter(options))}"):
        Hawq(**options)
