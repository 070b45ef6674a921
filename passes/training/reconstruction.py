"""Units of a network one after the other, each with what was done to those before it in place.

What a unit reads in both networks comes from a lockstep run, what it is to make from its float form: only tensors that
connect the two sides of a unit are in memory, and of them as many samples as fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ir.execute import run_float
from ir.graph import Graph, Node, Twin, Value
from ir.keras_ops import K
from passes.measuring.drawn_samples import TENSOR_BYTES, DrawnSamples
from passes.measuring.lockstep import Slices, Tensors, run_both
from passes.quantization.quantize import annotate_bias
from passes.training.fitting import UnitData
from passes.training.tuning_data import integers_of, stored_type
from passes.training.units import Unit, extracted


@dataclass(frozen=True, kw_only=True)
class Place:
    """A unit as it is reached.

    Attributes:
      part: the unit as a graph of its own; `floats` the same with the float network's constants.
      data: of all samples; `fitting` and `judging` are numbers of samples.
    """

    unit: Unit
    part: Graph
    floats: Graph
    data: UnitData
    fitting: np.ndarray
    judging: np.ndarray

    def float_weights(self) -> dict[Value, np.ndarray]:
        """By the weights of `part`."""
        pairs = zip(self.part.nodes, self.floats.nodes, strict=True)
        return {
            n.weight: f.weight.data
            for n, f in pairs
            if n.weight is not None and f.weight is not None and f.weight.data is not None
        }


def visit_units(
    graph: Graph,
    floats: Twin,
    units: Sequence[Unit],
    drawn: DrawnSamples,
    visit: Callable[[Place], None],
    *,
    with_floats: bool = False,
) -> None:
    """Calls `visit` with every unit in order; what it puts on the unit's layers (`put`) is in place for those after it.

    Args:
      floats: the graph from before weights and biases moved.
      with_floats: whether the units' data hold the float network's inputs, too.
    """
    by_first = {unit.nodes[0]: unit for unit in units}

    def reached(node: Node, tensors: Tensors) -> None:
        unit = by_first.get(node)
        if unit is None:
            return
        float_part = extracted(floats.graph, unit.in_twin(floats))
        read = [tensors[v] for v in unit.inputs]
        data = UnitData(
            inputs=tuple(_integers(quants, v) for (_, quants), v in zip(read, unit.inputs, strict=True)),
            floats=tuple(_joined(exact, lambda x: x, np.dtype(np.float32)) for exact, _ in read) if with_floats else (),
            targets=_targets(float_part, [exact for exact, _ in read]),
        )
        fitting, judging = (np.flatnonzero(mask) for mask in drawn.parted(len(data)))
        part = extracted(graph, unit)
        visit(Place(unit=unit, part=part, floats=float_part, data=data, fitting=fitting, judging=judging))

    run_both(graph, drawn.arrays, floats=floats, reached=reached, room=TENSOR_BYTES)


def _joined(slices: Slices, change: Callable[[np.ndarray], np.ndarray], dtype: np.dtype) -> np.ndarray:
    """One array of all slices."""
    count, done = sum(len(x) for x in slices), 0
    found = np.empty((count, *slices[0].shape[1:]), dtype)
    for x in slices:
        found[done : done + len(x)] = change(K.convert_to_numpy(x))
        done += len(x)
    return found


def _integers(slices: Slices, value: Value) -> np.ndarray:
    return _joined(slices, lambda x: integers_of(x, value), stored_type(value))


def _targets(part: Graph, inputs: Sequence[Slices]) -> np.ndarray:
    outputs = [run_float(part, tensors)[0] for tensors in zip(*inputs, strict=True)]
    return _joined(outputs, lambda x: x, np.dtype(np.float32))


def put(graph: Graph, place: Place) -> None:
    """Puts the weights and biases of a unit's own graph on the layers of the graph."""
    for node, done in zip(place.unit.nodes, place.part.nodes, strict=True):
        weight, bias = done.weight, done.bias
        if weight is None or weight.data is None or weight.quant is None:
            continue
        assert node.op.weight_index is not None
        on_grid = weight.quant.dequantize(weight.quant.quantize(weight.data))
        graph.set_input(node, node.op.weight_index, graph.constant(on_grid, weight.name, weight.quant))
        if bias is not None and bias.data is not None and node.op.bias_index is not None:
            graph.set_input(node, node.op.bias_index, graph.constant(bias.data, bias.name, bias.quant))
            annotate_bias(graph, node)
