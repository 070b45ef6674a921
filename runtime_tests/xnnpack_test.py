"""How far XNNPACK's results are from the built-in kernels', operator by operator: at most what each declares.

The laws of `OpDef.xnnpack_steps` are for parameters as conversions make them. Beyond those (sums that int32 cannot
hold, scales many orders apart) XNNPACK saturates elsewhere, or refuses the file: the proof of a conversion finds that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from converter.conversion import convert
from converter.runtimes.by_operator import differences, expose
from converter.runtimes.local import LocalRuntime, installed_packages
from ir.graph import Graph, Value
from ir.opdef import OpDef
from ir.ops import OPERATORS
from ir.ops.activation import ELU
from ir.ops.conversion import QUANTIZE
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.matmul import BATCH_MATMUL
from ir.ops.reduction import MEAN, SUM
from ir.ops.relu import LEAKY_RELU
from ir.ops.resize import RESIZE_BILINEAR
from ir.ops.transposed import TRANSPOSE_CONV
from ir.types import TensorType

pytestmark = pytest.mark.skipif("ai_edge_litert" not in installed_packages(), reason="LiteRT is not installed")
XNNPACK = LocalRuntime(package="ai_edge_litert", kernels="xnnpack")
SHAPE = (1, 14, 14, 8)

Make = Callable[[Graph, list[Value], Callable[..., Value]], Value]


def _two(op: OpDef, **attrs: Any) -> Make:
    return lambda graph, x, weights: graph.add(op, x, op.attributes(**attrs)).output


def _weighted(op: OpDef, *shape: int, **attrs: Any) -> Make:
    def make(graph: Graph, x: list[Value], weights: Callable[..., Value]) -> Value:
        axis = op.weight_operand.channel_axis
        assert axis is not None
        return graph.add(op, [x[0], weights(*shape), weights(shape[axis])], op.attributes(**attrs)).output

    return make


def _alone(op: OpDef, **attrs: Any) -> Make:
    return lambda graph, x, weights: graph.add(op, x[:1], op.attributes(**attrs)).output


CASES: dict[str, tuple[OpDef, Make]] = {
    "conv_2d": (CONV_2D, _weighted(CONV_2D, 16, 3, 3, 8)),
    "depthwise_conv_2d": (DEPTHWISE_CONV_2D, _weighted(DEPTHWISE_CONV_2D, 1, 3, 3, 8)),
    "fully_connected": (FULLY_CONNECTED, _weighted(FULLY_CONNECTED, 40, 8, keep_num_dims=True)),
    "transpose_conv": (
        TRANSPOSE_CONV,
        _weighted(TRANSPOSE_CONV, 8, 3, 3, 8, output_shape=(1, 28, 28, 8), stride_h=2, stride_w=2),
    ),
    "add": (ADD, _two(ADD)),
    "sub": (SUB, _two(SUB)),
    "mul": (MUL, _two(MUL)),
    "leaky_relu": (LEAKY_RELU, _alone(LEAKY_RELU, alpha=0.3)),
    "elu": (ELU, _alone(ELU)),
    "mean": (MEAN, _alone(MEAN, axes=(1, 2), keep_dims=True)),
    "sum": (SUM, _alone(SUM, axes=(1, 2), keep_dims=True)),
    "resize by 2": (RESIZE_BILINEAR, _alone(RESIZE_BILINEAR, size=(28, 28), half_pixel_centers=True)),
    "resize by a third": (RESIZE_BILINEAR, _alone(RESIZE_BILINEAR, size=(19, 33))),
    "resize with corners": (RESIZE_BILINEAR, _alone(RESIZE_BILINEAR, size=(97, 120), align_corners=True)),
    "quantize": (QUANTIZE, _two(ADD)),
    "batch_matmul": (BATCH_MATMUL, _two(BATCH_MATMUL, adj_y=True)),
}


def _network(make: Make, seed: int) -> Graph:
    """The operator between two inputs and an output."""
    rng = np.random.default_rng(seed)
    graph = Graph("one")

    def weights(*shape: int) -> Value:
        return graph.constant(rng.normal(0, 1, shape).astype(np.float32), f"w{len(shape)}")

    inputs = [graph.input(name, TensorType(SHAPE)) for name in "ab"]
    graph.outputs = [make(graph, inputs, weights)]
    return graph


@pytest.mark.parametrize("case", CASES)
def test_results_are_within_the_steps_that_are_declared(case: str) -> None:
    op, make = CASES[case]
    io = "float" if op is QUANTIZE else "int8"
    largest = allowed = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        data = [rng.normal(0, scale, (16, *SHAPE[1:])).astype(np.float32) for scale in (1.0, 0.3 + seed)]
        model = convert(
            _network(make, seed), calibration_data=data, pipeline="fast", io=io, check=False, prove=False
        ).model
        exposed = expose(model)
        session = XNNPACK.load(exposed.content)
        for x in zip(*data, strict=True):
            inputs = [
                a[None] if io == "float" else v.quant.quantize(a[None]).astype(np.int8)
                for a, v in zip(x, exposed.graph.inputs, strict=True)
            ]
            for found in differences(exposed, inputs, session.invoke(inputs), XNNPACK.profile):
                if found.node.op is op:
                    largest = max(largest, found.largest)
                    allowed = max(
                        allowed, op.xnnpack_steps(found.node.attrs, found.node.in_types, found.node.out_types)
                    )
    assert largest <= allowed and allowed


def test_every_operator_that_declares_steps_is_here() -> None:
    none = type(ADD).__dataclass_fields__["xnnpack_steps"].default
    assert {op.name for op in OPERATORS if op.xnnpack_steps is not none} == {op.name for op, _ in CASES.values()}
