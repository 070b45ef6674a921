"""AdaRound: every weight is rounded up or down, whichever keeps the output of its layer (arXiv:2004.10568).

Per unit, the layers in order: `W~ = S clip(floor(W / S) + h(V), n, p)` (`passes.training.soft_rounding`) is trained by
Adam to make `|f(W x) - f(W~ x~)|^2 + lambda sum(1 - |2 h(V) - 1|^beta)` small (eq. 21, 25), `x` the float input, `x~`
the one from the already quantized part, `f` the activation. Scales stay. `V` starts where `h(V)` is the fraction of
`W / S`; the weights of layers that an earlier pass has rounded start at its integers, as near to their float values as
that allows, so that each may still turn to the other side. Of other layers the steps are made smaller first, to those
whose nearest rounding leaves the least squared error in the weights (`clip`: down to which factor).

`unit=block` fits residual and inverted residual blocks whole (BRECQ, arXiv:2102.05426), each channel of the output
weighted by the squared gradient of the logits; `drop` leaves activations in float at random (QDrop, arXiv:2203.05740).

What is trained is kept where the unit's error on samples that nothing was fitted to became smaller. Biases, and scales
of weights, may be trained along (`biases`, `scales`: multiples of the learning rate), which the paper does not do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.execute import batchable, release
from ir.graph import Graph, Node, Twin
from ir.layer import Layer, editable_layer, layers
from ir.quantization import QuantParams
from passes.contract.base import Context, Needs, Pass, PassReport, SamplesInMemory, Skip, choice, numeric
from passes.measuring.drawn_samples import DrawnSamples, draw_samples
from passes.measuring.logits import real_logits
from passes.measuring.sensitivity import sensitivities
from passes.quantization.quantize import least_weight_scale
from passes.rounding.correct_bias import is_rounded
from passes.training.fitting import Fit, UnitModel, fit_unit
from passes.training.reconstruction import Place, put, visit_units
from passes.training.soft_rounding import GAMMA, ZETA, Annealing
from passes.training.trainable import Rates
from passes.training.units import Unit, block_units, layer_units
from passes.training.write_back import write_back

_UNITS = {"layer": layer_units, "block": block_units}
_PROJECTIONS = 4
_FACTORS = 25
_NOTHING = Rates(activations=0.0)


@dataclass(frozen=True, kw_only=True)
class AdaRound(Pass):
    """Learns for every weight whether it is rounded up or down, layer by layer or block by block."""

    name: ClassVar[str] = "adaround"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.DATA})
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    unit: str = choice("layer", _UNITS)
    steps: int = numeric(500, least=1)
    batch_size: int = numeric(0, least=1, zero="for what memory allows")
    learning_rate: float = numeric(0.02, above=0)
    warmup: float = numeric(0.2, least=0, below=1)
    strength: float = numeric(0.01, least=0)
    beta_first: float = numeric(20.0, least=1)
    beta_last: float = numeric(2.0, least=1)
    zeta: float = numeric(ZETA, above=1)
    gamma: float = numeric(GAMMA, below=0)
    biases: float = numeric(0.0, least=0)
    scales: float = numeric(0.0, least=0)
    drop: float = numeric(0.0, least=0, below=1)
    clip: float = numeric(0.4, above=0, most=1)
    samples: int = numeric(100, least=1)
    tuning_samples: int = numeric(400, least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fit()  # which has checks of its own

    def _fit(self) -> Fit:
        annealing = Annealing(
            steps=self.steps,
            warmup=self.warmup,
            strength=self.strength,
            first=self.beta_first,
            last=self.beta_last,
        )
        return Fit(
            rates=Rates(activations=0.0, rounding=1.0, biases=self.biases, scales=self.scales),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            annealing=annealing,
            stretch=(self.zeta, self.gamma),
            drop=self.drop,
        )

    def run(self, graph: Graph, context: Context) -> PassReport:
        if not batchable(graph):
            return PassReport(skipped=(Skip(graph.name, "it takes one sample at a time: too few to fit to"),))
        floats = graph.twin() if context.tables.unrounded is None else context.tables.unrounded
        units, skipped = _fitted(_UNITS[self.unit](graph))
        drawn = draw_samples(graph, context, self.samples, self.tuning_samples)
        importance = self._importance(floats, units, drawn, context)
        changed: list[str] = []

        def visit(place: Place) -> None:
            name, index = place.unit.name, units.index(place.unit)
            before, after = self._round(graph, place, importance.get(name), context, index / len(units), len(units))
            if after < before:
                changed.append(f"{name}: {after / max(before, 1e-30):.2f} of the error before")
            else:
                skipped.append(Skip(name, f"no rounding was found that is better than the one it had ({before:.3g})"))

        visit_units(graph, floats, units, drawn, visit, with_floats=self.drop > 0)
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))

    def _importance(
        self, floats: Twin, units: list[Unit], drawn: DrawnSamples, context: Context
    ) -> dict[str, np.ndarray]:
        """`F^2` of the units' outputs `[channels]`, by the names of units; of layers none, as in the paper."""
        if self.unit == "layer":
            return {}
        outputs = {u.name: floats.values[u.output] for u in units}
        fitting, _ = drawn.parted(len(drawn.held_out))
        found = sensitivities(
            floats.graph,
            real_logits(floats.graph),
            list(outputs.values()),
            SamplesInMemory(tuple(a[fitting] for a in drawn.arrays)),
            count=len(fitting),
            batch_size=context.given.batch_size,
            projections=_PROJECTIONS,
            seed=context.given.seed,
            progress=context.services.progress,
        )
        return {name: found[value] for name, value in outputs.items()}

    def _round(
        self, graph: Graph, place: Place, importance: np.ndarray | None, context: Context, done: float, units: int
    ) -> tuple[float, float]:
        """Fits a unit; the errors before and after."""
        total = units * self.steps

        def progress(share: float) -> None:
            context.services.progress("learned rounding", round((done + share / units) * total), total)

        before = self._measured(place, importance)
        rounded = {layer.weight for layer in layers(place.part) if is_rounded(layer.node)}
        for layer in layers(place.part):
            if layer.weight not in rounded:
                layer.weight.quant = finer(layer, self.clip)
        unrounded = {v: w for v, w in place.float_weights().items() if v in rounded}
        fit = self._fit()
        model = UnitModel(place.part, place.data, fit, unrounded, importance, context.given.seed)
        fit_unit(model, fit, place.fitting, context.given.seed, progress)
        after = model.measure(place.judging)
        if after < before:
            model.decided = True
            write_back(model, place.part)
            put(graph, place)
        release(model)
        return before, after

    def _measured(self, place: Place, importance: np.ndarray | None) -> float:
        """The error of a unit as it is."""
        model = UnitModel(place.part, place.data, dataclasses.replace(self._fit(), rates=_NOTHING), {}, importance)
        found = model.measure(place.judging)
        release(model)
        return found


def finer(layer: Layer, smallest: float) -> QuantParams:
    """Parameters of a layer's weights with the scales, at least `smallest` of what they are, that leave the least error.

    Per channel where the scales are; the error is the squared one of the weights rounded to nearest. No scale becomes so
    small that a channel loses its bias.
    """
    old, axes = layer.params, layer.within_output if layer.params.per_channel else None
    tried = [
        dataclasses.replace(old, scale=(old.scale * factor).astype(np.float32))
        for factor in np.linspace(smallest, 1.0, _FACTORS)
    ]
    errors = [
        np.square(p.dequantize(p.quantize(layer.data)) - layer.data, dtype=np.float64).sum(axis=axes) for p in tried
    ]
    best = np.argmin(errors, axis=0)
    least, _ = least_weight_scale(layer.node, old.per_channel)
    scale = np.maximum(np.choose(best, [p.scale for p in tried]), np.minimum(least, old.scale))
    return dataclasses.replace(old, scale=scale.astype(np.float32))


def _fitted(units: list[Unit]) -> tuple[list[Unit], list[Skip]]:
    """Those of which every layer's weights can be rounded here, and why the others cannot."""
    reasons = {unit: [Skip(n.name, why) for n in unit.layers if (why := _refusal(n))] for unit in units}
    return [unit for unit in units if not reasons[unit]], [skip for found in reasons.values() for skip in found]


def _refusal(node: Node) -> str:
    """Why the weights of a layer are not rounded here, "" if they are."""
    layer = editable_layer(node)
    if isinstance(layer, str):
        return layer
    return "" if layer.weight.quant is not None and layer.bias is not None else "its weights are not quantized"
