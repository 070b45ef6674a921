"""Threshold fine-tuning (FAT, arXiv:1812.07872; docs/methods/fat.md): trains the quantizers against the float network's logits.

Runs on an annotated graph (after `quantize`, before activations are fused), as `FineTune` says; no labels. Adam with cosine annealing trains, each at its own
multiple of the learning rate (0 switches it off): factors of the activation thresholds (`activations`), scales of
weights whose integers stay (`scales`), biases (`biases`); factors of the weight thresholds (`weights`), pointwise factors
of the weights in [0.75, 1.25] (`factors`), shifts of single weights by at most one step (`steps`).

The last three redraw the rounding of a tensor at every step and with it the mean of every channel after it, which undoes
what rounding with feedback (`round_weights`) has gained: they are off, and are meant for pipelines without it. They want
`centre`: the mean of every layer's output over the batch is moved to the teacher's inside the forward pass, so that
training sees what bias correction leaves; and `correct`: after each epoch the biases are corrected on so many samples,
and those are emitted.

Start from the best state without training (`round_weights`, `correct_bias`): weights that these passes
moved start inside the cell of their integer, as near to their float values (`SideTables.unrounded`) as that allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from passes.contract.base import numeric
from passes.training.fine_tune import FineTune, Run, float_weights
from passes.training.losses import LOSSES
from passes.training.trainable import Rates, TrainableModel


@dataclass(frozen=True, kw_only=True)
class TuneThresholds(FineTune):
    """Trains thresholds (and, if asked, weights and biases) of an annotated graph."""

    name: ClassVar[str] = "tune_thresholds"

    activations: float = numeric(0.3, least=0)
    weights: float = numeric(0.0, least=0)
    scales: float = numeric(1.0, least=0)
    factors: float = numeric(0.0, least=0)
    steps: float = numeric(0.0, least=0)
    biases: float = numeric(10.0, least=0)
    lsq: bool = False
    centre: bool = False
    correct: int = numeric(0, least=0)
    features: float = numeric(0.0, least=0)
    reset_every: int = numeric(0, least=0)

    @property
    def _correct(self) -> int:
        return self.correct

    @property
    def _reset_every(self) -> int:
        return self.reset_every

    def _model(self, run: Run) -> TrainableModel:
        rates = Rates(
            activations=self.activations,
            weights=self.weights,
            scales=self.scales,
            factors=self.factors,
            steps=self.steps,
            biases=self.biases,
            lsq=self.lsq,
        )
        return TrainableModel(
            run.graph,
            run.outputs,
            rates,
            LOSSES[self.loss],
            centre=self.centre,
            features=self.features,
            unrounded=float_weights(run.graph, run.context),
        )

    def _optimizer(self, rate: Any) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(rate, epsilon=1e-12, **self._averaging)
