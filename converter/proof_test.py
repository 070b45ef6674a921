"""Files that a runtime computes otherwise, refuses, or ends at: named by operator, and not written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from converter import proof
from converter.conversion import convert
from converter.proof import RuntimeProof, prove, warnings
from converter.runtimes.by_operator import differences, expose
from converter.runtimes.local import LocalRuntime, WorkerSession, installed_packages
from converter.tflite.writer import to_bytes
from ir.errors import ProofError
from ir.execute import run_integer
from ir.graph import Graph
from ir.opdef import FusedActivation
from ir.ops.activation import LOGISTIC
from ir.ops.convolution import CONV_2D, FULLY_CONNECTED, Conv2DAttributes
from ir.ops.elementwise import ADD
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.profile import TFLM, Profile, Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType

pytestmark = pytest.mark.skipif(len(installed_packages()) < 2, reason="needs both runtimes")
X = np.random.default_rng(0).uniform(-1, 1, (12, 8, 8, 3)).astype(np.float32)
LITERT = LocalRuntime(package="ai_edge_litert", limit_s=60)
XNNPACK = LocalRuntime(package="ai_edge_litert", kernels="xnnpack", limit_s=60)
OLD = LocalRuntime(limit_s=60)


def network() -> Graph:
    """Two convolutions, a mean and a dense layer."""
    rng = np.random.default_rng(0)
    graph = Graph("small")

    def constant(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    x = graph.input("image", TensorType((1, 8, 8, 3)))
    for name, channels in (("first", 3), ("second", 6)):
        operands = [
            x,
            graph.constant(constant(6, 3, 3, channels), f"{name}/w"),
            graph.constant(constant(6), f"{name}/b"),
        ]
        x = graph.add(CONV_2D, operands, Conv2DAttributes(activation=FusedActivation.RELU6), name=name).output
    x = graph.add(MEAN, [x], ReduceAttributes(axes=(1, 2)), name="mean").output
    operands = [x, graph.constant(constant(4, 6), "dense/w"), graph.constant(constant(4), "dense/b")]
    graph.outputs = [graph.add(FULLY_CONNECTED, operands, name="dense").output]
    return graph


@pytest.fixture(scope="module")
def model() -> bytes:
    return convert(network(), calibration_data=X, pipeline="fast", check=False, prove=False).model


@dataclass(frozen=True, kw_only=True)
class Patched(LocalRuntime):
    """A runtime that reads some bytes of a file as others: what a wrong kernel, or a wrong file, looks like."""

    old: bytes = b""
    new: bytes = b""

    def load(self, model: bytes) -> WorkerSession:
        assert self.old in model
        return super().load(model.replace(self.old, self.new))


def patched(model: bytes, node: str, runtime: LocalRuntime = LITERT) -> Patched:
    """The last weight of an operator is another there."""
    weight = next(n.weight for n in expose(model).graph.nodes if n.name == node)
    assert weight is not None and weight.data is not None
    other = weight.data.copy()
    other.flat[-1] ^= 0x40
    return Patched(
        package=runtime.package, kernels=runtime.kernels, limit_s=60, old=weight.data.tobytes(), new=other.tobytes()
    )


def test_every_runtime_that_is_installed_is_asked(model: bytes) -> None:
    proved = prove(model, None)
    micro = ["tflm"] if LocalRuntime.of(TFLM).installed else []
    names = ["tflite-runtime/builtin", "ai-edge-litert/builtin", "ai-edge-litert/xnnpack", *micro]
    assert [p.runtime for p in proved] == names
    assert [p.samples for p in proved] == [2, 2, 2, *(1 for _ in micro)]
    assert all(p.elements == p.samples * (2 * 8 * 8 * 6 + 6 + 4) for p in proved)
    assert [p.differing for p in proved if p.runtime != XNNPACK.name] == [0, 0, *(0 for _ in micro)]
    assert proved[2].largest <= 1
    assert prove(model, None) == proved  # the same random inputs


@pytest.mark.parametrize("runtime", [OLD, LITERT, XNNPACK], ids=lambda r: r.name)
@pytest.mark.parametrize("node", ["first", "second", "dense"])
def test_the_operator_that_differs_is_named(model: bytes, node: str, runtime: LocalRuntime) -> None:
    kind = "fully_connected" if node == "dense" else "conv_2d"
    with pytest.raises(
        ProofError, match=rf"^{kind} '{node}': expected the emulator's results .*on {runtime.name}, found"
    ):
        prove(model, None, runtimes=[patched(model, node, runtime)])


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: bytes) -> None:
    path = tmp_path / "m.tflite"
    monkeypatch.setattr(proof, "proof_runtimes", lambda: [OLD, patched(model, "second")])
    given = {"calibration_data": X, "pipeline": "fast", "check": False, "output": path}
    with pytest.raises(ProofError, match=r"conv_2d 'second'.*nothing was written"):
        convert(network(), **given)
    assert not list(tmp_path.iterdir())
    result = convert(network(), **given, prove=False)
    assert path.read_bytes() == result.model == model
    assert result.proof == () and any("no runtime has run this file (--noprove)" in w for w in result.warnings)


def test_what_is_promised_for_a_target_must_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    required: list[set[Runtime]] = []
    monkeypatch.setattr(proof, "prove", lambda *_, **options: required.append(options["required"]) or ())
    for target in ("tflm", "cpu"):
        convert(network(), calibration_data=X, pipeline="fast", check=False, target=target)
    assert required == [{Runtime.LITERT, Runtime.TFLM}, {Runtime.LITERT}]


def test_what_the_delegate_rounds_otherwise_is_allowed_and_counted(
    monkeypatch: pytest.MonkeyPatch, model: bytes
) -> None:
    rng = np.random.default_rng(3)
    samples = [[rng.integers(-128, 128, (1, 8, 8, 3)).astype(np.int8)] for _ in range(40)]
    exposed = expose(model)
    session = XNNPACK.load(exposed.content)
    found = [d for x in samples for d in differences(exposed, x, session.invoke(x), XNNPACK.profile)]
    assert {d.largest for d in found} == {0, 1}


def test_files_that_end_a_runtime_are_survived() -> None:
    """The kernel's check of this ratio of scales ends the process."""
    graph = Graph("ends")
    quant = QuantParams(scale=np.float32(1.0), zero_point=np.int64(0))
    x = graph.input("x", TensorType((1, 4), DType.INT8, quant))
    fine = graph.add(ADD, [x, x], ADD.attributes(), "fine", [TensorType((1, 4), DType.INT8, quant)]).output
    tiny = QuantParams(scale=np.float32(1e-7), zero_point=np.int64(0))
    graph.outputs = list(
        graph.add(ADD, [fine, x], ADD.attributes(), "ends", [TensorType((1, 4), DType.INT8, tiny)]).outputs
    )
    content = to_bytes(graph)
    for runtime in (OLD, LITERT, XNNPACK):
        with pytest.raises(ProofError, match=rf"ADD 'ends': expected a file that {runtime.name} runs, found .*SIGABRT"):
            prove(content, None, runtimes=[runtime])


def test_what_an_older_runtime_lacks_is_told_and_no_fault(model: bytes) -> None:
    """tflite-runtime 2.14 has no kernel for int4 weights with a scale per channel."""
    graph = expose(model).graph
    dense = graph.nodes[-1]
    assert dense.weight is not None and dense.weight.data is not None and dense.weight.quant is not None
    dense.weight.type = TensorType(
        dense.weight.shape,
        DType.INT4,
        QuantParams(scale=np.atleast_1d(dense.weight.quant.scale), zero_point=np.zeros(4, np.int64), bits=4, axis=0),
    )
    dense.weight.data = np.clip(dense.weight.data, -7, 7)
    old, *new = prove(to_bytes(graph), None, runtimes=[OLD, LITERT, XNNPACK])
    assert old.samples == 0 and old.not_run is not None and "refuses FULLY_CONNECTED 'dense" in old.not_run
    assert str(old).startswith("not run on tflite-runtime/builtin: it refuses FULLY_CONNECTED")
    assert all(p.samples == 2 and p.not_run is None for p in new)


def test_what_an_older_runtime_is_known_to_compute_wrong_is_warned_of() -> None:
    """tflite-runtime 2.14 reads the packed weights of a convolution with int16 activations as bytes."""
    rng = np.random.default_rng(0)
    graph = Graph("wide")

    def quant(scale: float, bits: int, axis: int | None = None) -> QuantParams:
        scales = np.full(4 if axis is not None else (), scale, np.float32)
        return QuantParams(scale=scales, zero_point=np.zeros(scales.shape, np.int64), bits=bits, axis=axis)

    x = graph.input("x", TensorType((1, 8, 8, 3), DType.INT16, quant(0.001, 16)))
    w = graph.constant(rng.integers(-7, 8, (4, 3, 3, 3)).astype(np.int8), "w", quant(0.1, 4, 0), DType.INT4)
    b = graph.constant(np.arange(4), "b", quant(0.0001, 64, 0), DType.INT64)
    out = TensorType((1, 8, 8, 4), DType.INT16, quant(0.002, 16))
    graph.outputs = list(graph.add(CONV_2D, [x, w, b], Conv2DAttributes(), "conv", [out]).outputs)
    old, new = prove(to_bytes(graph), None, runtimes=[OLD, LITERT])
    assert old.wrong and str(old) == "not run on tflite-runtime/builtin: its kernel of conv_2d 'conv' is wrong"
    assert new.samples == 2 and not new.differing
    assert warnings([old, new], asked=True) == (
        "do not run this file on tflite-runtime/builtin: its kernel of conv_2d 'conv' is wrong, and it says nothing",
    )
    with pytest.raises(
        ProofError, match="layer 'conv' on tflite-runtime/builtin: expected operators that the runtime computes right"
    ):
        prove(to_bytes(graph), None, runtimes=[OLD], required=[Runtime.TFLITE_RUNTIME])


def test_what_the_newest_runtime_refuses_is_a_fault() -> None:
    """A softmax's kernel insists on its output parameters."""
    quant = QuantParams(scale=np.float32(0.1), zero_point=np.int64(0))
    graph = Graph("refused")
    x = graph.input("x", TensorType((1, 4), DType.INT8, quant))
    graph.outputs = list(
        graph.add(LOGISTIC, [x], LOGISTIC.attributes(), "y", [TensorType((1, 4), DType.INT8, quant)]).outputs
    )
    with pytest.raises(ProofError, match="LOGISTIC 'y': expected a file that ai-edge-litert/builtin runs, found"):
        prove(to_bytes(graph), None, runtimes=[LITERT])


def test_random_inputs_keep_to_the_range() -> None:
    graph = Graph("inputs")
    narrow = QuantParams(scale=np.float32(0.1), zero_point=np.int64(0), bits=4)
    types = [TensorType((1, 500), DType.INT8, narrow), TensorType((1, 500), DType.INT32)]
    for i, type_ in enumerate(types):
        graph.input(f"x{i}", type_)
    first, second = proof._inputs(graph, None, seed=0)
    assert first[0].min() == -8 and first[0].max() == 7 and set(first[1].ravel()) == {0, 1}
    assert not np.array_equal(first[0], second[0])
    again, _ = proof._inputs(graph, None, seed=0)
    assert np.array_equal(first[0], again[0])


def test_exposed_results_are_those_of_the_emulator(model: bytes) -> None:
    exposed = expose(model)
    assert [v.name for v in exposed.graph.outputs[: exposed.outputs]] == [exposed.graph.nodes[-1].output.name]
    x = np.random.default_rng(0).integers(-128, 128, (1, 8, 8, 3)).astype(np.int8)
    for profile in (Profile(), Profile(runtime=Runtime.LITERT)):
        given = run_integer(exposed.graph, [x], profile)
        assert not any(d.differing for d in differences(exposed, [x], given, profile))
        given[-1] = given[-1] ^ 1  # the mean's: the file's own output is first
        assert next(d.node.name for d in differences(exposed, [x], given, profile) if d.differing) == "mean"
    assert [n.name for n in expose(model, 2).graph.nodes] == ["first", "second"]


def test_files_that_no_runtime_ran_are_warned_of() -> None:
    assert warnings([RuntimeProof(runtime="a", samples=2)], asked=True) == ()
    (text,) = warnings([RuntimeProof(runtime="a", not_run="it is old")], asked=True)
    assert "no runtime that can run it is installed here" in text


def test_large_files_are_proved_on_one_sample(monkeypatch: pytest.MonkeyPatch, model: bytes) -> None:
    monkeypatch.setattr(proof, "_MANY", 100)
    found = prove(model, None, runtimes=[LITERT, LocalRuntime.of(TFLM)])
    assert [p.samples for p in found] == [1, 0] and found[1].not_run == "it is too large for a microcontroller"
