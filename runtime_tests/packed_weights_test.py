"""Weights that a file unpacks at every inference: every carrier on the kernels of every runtime, exactly.

Codebooks are random, of 1 to 16 elements, strided or not; weights have odd sizes, one scale or one per channel.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.proof import prove
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime
from converter.tflite.decoding import Carrier
from converter.tflite.model_file import parse
from converter.tflite.packing import packings
from converter.tflite.reader import to_graph
from converter.tflite.writer import CODEBOOKS
from ir.codebook import Codebook
from ir.errors import ModelError
from ir.opdef import OpDef
from ir.ops.convolution import (
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    Conv2DAttributes,
    DepthwiseAttributes,
    FullyConnectedAttributes,
)
from ir.ops.slicing import GATHER, GatherAttributes
from ir.profile import TFLM, Profile, Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests import cases
from runtime_tests.one_op import assert_exact, one_op

Shape = tuple[int, ...]
_NOT_ON_MICRO = range(129, 257)  # entries whose indices are uint8, which TensorFlow Lite Micro does not cast
ATTRIBUTES = {
    CONV_2D: Conv2DAttributes(),
    DEPTHWISE_CONV_2D: DepthwiseAttributes(),
    FULLY_CONNECTED: FullyConnectedAttributes(),
}


@st.composite
def shapes(draw: st.DrawFn, op: OpDef) -> tuple[Shape, Shape]:
    """Of data and weights."""
    kh, kw, depth, out = (draw(st.integers(1, most)) for most in (3, 3, 9, 13))
    if op is FULLY_CONNECTED:
        return (1, depth), (out, depth)
    if op is DEPTHWISE_CONV_2D:
        return (1, 4, 5, out), (1, kh, kw, out)
    return (1, 4, 5, depth), (out, kh, kw, depth)


def _divisors(size: int) -> list[int]:
    return [n for n in range(1, 17) if size % n == 0]


def _case(
    op: OpDef, x_shape: Shape, q: np.ndarray, book: Codebook | None, per_channel: bool, carriers: Collection[Carrier]
) -> tuple[bytes, QuantParams]:
    """A file of one layer with these weights, and their parameters."""
    axis = op.weight_operand.channel_axis
    assert axis is not None
    per_channel &= q.shape[axis] > 1  # a file cannot say of one scale that it is a channel's
    rng = np.random.default_rng(int(q.astype(np.int64).sum()) % 1000)
    scale = np.exp2(rng.uniform(-9, -7, q.shape[axis] if per_channel else ())).astype(np.float32)
    params = QuantParams(scale=scale, axis=axis if per_channel else None, codebook=book)
    activation = QuantParams(scale=np.float32(0.05), zero_point=np.int64(3))
    bias = rng.integers(-999, 1000, q.shape[axis]).astype(np.int32)
    bias_params = QuantParams(scale=np.float32(0.05) * scale, axis=0 if per_channel else None, bits=32)
    operands = [
        TensorType(x_shape, DType.INT8, activation),
        (q, TensorType(q.shape, DType.INT8, params)),
        (bias, TensorType(bias.shape, DType.INT32, bias_params)),
    ]
    out = QuantParams(scale=np.float32(0.3), zero_point=np.int64(-5))
    return one_op(op, operands, ATTRIBUTES[op], out, carriers=carriers), params


@st.composite
def codebooks(draw: st.DrawFn) -> tuple[OpDef, Shape, np.ndarray, Codebook, bool]:
    op = draw(st.sampled_from(list(ATTRIBUTES)))
    x_shape, w_shape = draw(shapes(op))
    length = draw(st.sampled_from(_divisors(math.prod(w_shape))))
    entries = draw(st.sampled_from([1, 7, 128, 129, 256, 257, 400]))
    rng = np.random.default_rng(draw(cases.seeds))
    table = np.unique(rng.integers(-128, 128, (entries, length)), axis=0)
    book = Codebook(entries=table, strided=draw(st.booleans()))
    q = book.decode(rng.integers(0, len(book.entries), math.prod(w_shape) // length), w_shape)
    return op, x_shape, q, book, draw(st.booleans())


@given(codebooks(), cases.seeds)
@cases.examples(60)
def test_codebooks_are_exact_on_every_runtime_and_read_back(case, seed):
    op, x_shape, q, book, per_channel = case
    model, params = _case(op, x_shape, q, book, per_channel, CODEBOOKS)
    node = to_graph(parse(model)).nodes[-1]
    np.testing.assert_array_equal(node.weight.data, q)
    assert node.weight.quant.same_as(params)
    micro = len(book.entries) not in _NOT_ON_MICRO
    profiles = [p for p in cases.ALL_PROFILES if micro or p.runtime is not Runtime.TFLM]
    assert_exact(model, [cases.integers(seed, x_shape)], profiles)


@pytest.mark.parametrize("entries", [128, 129, 256, 257])
def test_the_last_entry_is_read_where_indices_get_another_type(entries):
    table = np.stack([np.arange(entries) % 255 - 127, np.arange(entries) // 255 + 1], axis=1)  # no two alike
    book = Codebook(entries=table)
    q = book.decode(np.arange(entries), (entries, 2))
    model, _ = _case(FULLY_CONNECTED, (1, 2), q, book, True, CODEBOOKS)
    np.testing.assert_array_equal(to_graph(parse(model)).nodes[-1].weight.data, q)
    profiles = [p for p in cases.ALL_PROFILES if entries not in _NOT_ON_MICRO or p.runtime is not Runtime.TFLM]
    assert_exact(model, [np.array([[100, -90]], np.int8)], profiles)


@given(codebooks(), cases.seeds)
@cases.examples(20)
def test_weights_that_are_unpacked_leave_xnnpack_no_other_rounding(case, seed):
    op, x_shape, q, book, per_channel = case
    runtime = LocalRuntime(package="ai_edge_litert", kernels="xnnpack")
    if not runtime.installed:
        pytest.skip("LiteRT is not installed")
    model, _ = _case(op, x_shape, q, book, per_channel, CODEBOOKS)
    x = cases.integers(seed, x_shape)
    expected = runtime.load(model).invoke([x])
    found = EmulatorRuntime(Profile(runtime=Runtime.LITERT)).load(model).invoke([x])
    np.testing.assert_array_equal(found[0], expected[0])


@st.composite
def coded_tables(draw: st.DrawFn) -> tuple[np.ndarray, QuantParams]:
    """The numbers of a table of odd size, and its parameters with a codebook and any zero point."""
    rows, parts, length = draw(st.integers(1, 9)), draw(st.integers(1, 3)), draw(st.integers(1, 9))
    entries = draw(st.sampled_from([1, 5, 128, 129, 256, 257, 300]))
    rng = np.random.default_rng(draw(cases.seeds))
    table = np.unique(rng.integers(-128, 128, (entries, length)), axis=0)
    book = Codebook(entries=table)
    q = book.decode(rng.integers(0, len(table), rows * parts), (rows, parts * length))
    params = QuantParams(scale=np.float32(0.02), zero_point=np.int64(draw(st.integers(-128, 127))), codebook=book)
    return q, params


@given(coded_tables(), st.integers(1, 5), cases.seeds)
@cases.examples(40)
def test_rows_of_coded_tables_are_exact_on_every_runtime(case, count, seed):
    q, params = case
    operands = [TensorType((1, count), DType.INT32), (q, TensorType(q.shape, DType.INT8, params))]
    model = one_op(GATHER, operands[::-1], GatherAttributes(), params.plain)
    assert params.codebook is not None
    micro = len(params.codebook.entries) < _NOT_ON_MICRO.start  # nor gathers it rows of int16
    profiles = [p for p in cases.ALL_PROFILES if micro or p.runtime is not Runtime.TFLM]
    ids = np.random.default_rng(seed).integers(0, len(q), (3, count)).astype(np.int32)
    assert_exact(model, [ids], profiles)
    for profile in profiles:
        found = LocalRuntime.of(profile).load(model).invoke([ids[:1]])[0]
        np.testing.assert_array_equal(found, q[ids[:1]])


def test_a_coded_table_is_not_unpacked_whole():
    q = np.arange(-128, 128).astype(np.int8).reshape(64, 4)
    book = Codebook(entries=np.unique(q.reshape(-1, 2), axis=0))
    params = QuantParams(scale=np.float32(0.02), zero_point=np.int64(7), codebook=book)
    table = (q, TensorType(q.shape, DType.INT8, params))
    graph = parse(one_op(GATHER, [table, TensorType((1, 3), DType.INT32)], GatherAttributes(), params.plain)).main
    assert [op.code for op in graph.operators] == ["GATHER", "CAST", "GATHER", "RESHAPE"]
    assert max(np.prod(graph.tensors[i].shape) for op in graph.operators for i in op.outputs) == 3 * 4


@st.composite
def encodable(draw: st.DrawFn, carrier: Carrier) -> tuple[OpDef, Shape, np.ndarray, bool]:
    """Layers large enough that an operator that unpacks them pays, with weights that a carrier takes."""
    op = draw(st.sampled_from([CONV_2D, FULLY_CONNECTED]))
    depth, out = draw(st.integers(9, 13)), draw(st.integers(21, 33))
    w_shape: Shape = (out, 3, 3, depth) if op is CONV_2D else (out, 9 * depth)
    x_shape: Shape = (1, 4, 5, depth) if op is CONV_2D else (1, 9 * depth)
    rng = np.random.default_rng(draw(cases.seeds))
    if carrier is Carrier.LOOKUP:
        table = rng.integers(-127, 128, draw(st.integers(1, 40)))
        return op, x_shape, rng.choice(table, w_shape).astype(np.int8), draw(st.booleans())
    if carrier is Carrier.PRUNED:
        kept = rng.random(w_shape) < draw(st.sampled_from([0.0, 0.2, 0.4]))
        return op, x_shape, (rng.integers(-127, 128, w_shape) * kept).astype(np.int8), draw(st.booleans())
    spread = draw(st.sampled_from([1.0, 5.0, 15.0]))
    return op, x_shape, np.clip(np.rint(rng.normal(0, spread, w_shape)), -127, 127).astype(np.int8), draw(st.booleans())


@pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed")
@pytest.mark.parametrize("carrier", [Carrier.LOOKUP, Carrier.PRUNED, Carrier.HUFFMAN])
def test_decoded_weights_are_exact_on_tensorflow_lite_micro(carrier):
    @given(encodable(carrier), cases.seeds)
    @cases.examples(25)
    def check(case, seed):
        op, x_shape, q, per_channel = case
        model, params = _case(op, x_shape, q, None, per_channel, {carrier})
        file = parse(model)
        if packed := packings(file):  # many small tables may take more than the weights
            assert [p.carrier for p in packed.values()] == [carrier]
            assert sum(p.size_bytes for p in packed.values()) < q.size
        weight = to_graph(file).nodes[-1].weight
        np.testing.assert_array_equal(weight.data, q)
        np.testing.assert_array_equal(weight.quant.scale, params.scale)
        assert_exact(model, [cases.integers(seed, x_shape)], [TFLM])

    check()


def test_of_several_carriers_the_smallest_is_written():
    rng = np.random.default_rng(3)
    q = (rng.integers(-127, 128, (32, 200)) * (rng.random((32, 200)) < 0.05)).astype(np.int8)
    every = {Carrier.GATHER, Carrier.LOOKUP, Carrier.PRUNED, Carrier.HUFFMAN}
    sizes = {}
    for chosen in ({Carrier.LOOKUP}, {Carrier.PRUNED}, {Carrier.HUFFMAN}, every):
        model, _ = _case(FULLY_CONNECTED, (1, 200), q, None, False, chosen)
        (packed,) = packings(parse(model)).values() or (None,)
        sizes[frozenset(chosen)] = q.size if packed is None else packed.size_bytes
    assert sizes[frozenset(every)] == min(sizes.values()) < q.size / 4


def test_the_proof_says_which_runtimes_cannot_unpack():
    q = np.random.default_rng(0).choice(np.array([-9, 0, 4, 100], np.int8), (40, 60))
    model, _ = _case(FULLY_CONNECTED, (1, 60), q, None, False, {Carrier.LOOKUP})
    found = {p.runtime: p for p in prove(model, None, required=())}
    assert all("TFLM_DECODE" in (p.not_run or "") for name, p in found.items() if name != "tflm")
    if "tflm" in found:
        assert found["tflm"].samples and not found["tflm"].differing


def test_encoded_weights_of_an_unknown_format_are_refused_with_their_operator():
    q = np.random.default_rng(0).choice(np.array([-9, 0, 4, 100], np.int8), (40, 60))
    model, _ = _case(FULLY_CONNECTED, (1, 60), q, None, False, {Carrier.LOOKUP})
    (packed,) = packings(parse(model)).values()
    ancillary = parse(model).main.tensors[packed.stored[1]].data.tobytes()
    damaged = model.replace(ancillary, b"\x07" + ancillary[1:])
    with pytest.raises(ModelError, match=r"operator 0: expected operands of TFLM_DECODE, found ancillary data"):
        to_graph(parse(damaged))
