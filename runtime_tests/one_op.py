"""One-operator files: what the tests of single kernels write, run on the real runtimes and on the emulator."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pytest

from converter.runtimes.base import ModelRuntime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime
from converter.tflite.decoding import Carrier
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from converter.tflite.writer import CODEBOOKS, to_bytes
from ir.graph import Graph, Value
from ir.opdef import Attributes, OpDef
from ir.profile import TFLM, Profile
from ir.quantization import QuantParams
from ir.supported import computation
from ir.types import DType, TensorType
from runtime_tests import proved

Operand = TensorType | tuple[np.ndarray, TensorType] | None  # an input, a constant with its type, or absent


def one_op(
    op: OpDef,
    operands: Sequence[Operand],
    attrs: Attributes,
    out: QuantParams | Sequence[QuantParams | None] | None,
    out_dtype: DType | None = None,
    carriers: Collection[Carrier] = CODEBOOKS,
) -> bytes:
    """The file of a single operator; output shapes are inferred, output quantization is `out` (one per output).

    `carriers`: how its weights may be stored.
    """
    graph = Graph("one_op")
    values: list[Value | None] = []
    for i, operand in enumerate(operands):
        if operand is None:
            values.append(None)
        elif isinstance(operand, TensorType):
            values.append(graph.input(f"x{i}", operand))
        else:
            data, type_ = operand
            values.append(graph.constant(data, f"c{i}", type_.quant, type_.dtype))
    types = op.infer(attrs, [v.type for v in values if v is not None])
    quants = list(out) if isinstance(out, (list, tuple)) else [out] * len(types)
    single = len(types) == 1  # of several results those without parameters are indices, which keep their type
    types = [
        TensorType(t.shape, (out_dtype if single or q is not None else None) or t.dtype, q)
        for t, q in zip(types, quants, strict=True)
    ]
    graph.outputs = list(graph.add(op, values, attrs, "y", types).outputs)
    return to_bytes(graph, carriers=carriers)


# Of the kernels that this machine's processor does not have; a test that reaches a device puts it here.
DEVICES: dict[Profile, ModelRuntime] = {}


def runtime_of(profile: Profile) -> ModelRuntime:
    """The real kernels that a profile stands for."""
    if profile in DEVICES:
        return DEVICES[profile]
    runtime = LocalRuntime.of(profile)
    if not runtime.installed:
        pytest.skip(f"{runtime.name} is not installed")
    return runtime


# What data and results never are in TensorFlow Lite Micro.
_NOT_ON_MICRO = {DType.UINT8, DType.INT64, DType.FLOAT16}


def _on_micro(graph: Graph) -> bool:
    """Whether TensorFlow Lite Micro has the kernels of a file; `widths_test.py` holds the table to what happens."""
    values = [v for node in graph.nodes for v in (*node.inputs, *node.outputs) if v is not None and not v.is_constant]
    return not (any(v.dtype in _NOT_ON_MICRO for v in values) or any(computation(n).problem(TFLM) for n in graph.nodes))


def assert_exact(model: bytes, inputs: Sequence[np.ndarray], profiles: Sequence[Profile]) -> None:
    """Emulator and real kernels give the same integers on every element, for every profile.

    TensorFlow Lite Micro has fewer operators: files of others are left out there.
    """
    graph = to_graph(parse(model))
    for profile in profiles:
        if profile == TFLM and not _on_micro(graph):
            continue
        expected = runtime_of(profile).load(model).invoke(inputs)
        found = EmulatorRuntime(profile).load(model).invoke(inputs)
        for a, b in zip(expected, found, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape, (str(profile), a.dtype, b.dtype, a.shape, b.shape)
            np.testing.assert_array_equal(b, a, err_msg=f"profile {profile}")
    proved.record(graph)
