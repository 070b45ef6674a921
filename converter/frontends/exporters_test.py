"""ONNX and PyTorch: by stand-ins of the tools everywhere, and by the tools themselves where they are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converter.frontends import ModelOptions, load_model
from converter.tflite.writer import to_bytes
from ir.errors import ModelError, OptionError
from ir.execute import run_float
from ir.graph import Graph
from ir.ops.convolution import CONV_2D
from ir.types import TensorType

_TOOL = """#!{python}
import pathlib, shutil, sys
given = sys.argv[1:]
pathlib.Path({log!r}).write_text("\\n".join(given))
model = pathlib.Path(given[given.index("-i") + 1])
assert model.with_name(model.name + ".data").read_bytes() == b"weights"
model.write_bytes(b"simplified")
made = pathlib.Path(given[given.index("-o") + 1])
made.mkdir()
(made / "net_float16.tflite").write_bytes(b"half")
shutil.copyfile({file!r}, made / "net_float32.tflite")
"""
_ONNX = """
import sys, numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
rng = np.random.default_rng(0)
weights = {"a": (8, 3, 3, 3), "b": (8, 1, 3, 3), "c": (5, 8)}
initial = [numpy_helper.from_array(rng.normal(0, 0.4, s).astype(np.float32), n) for n, s in weights.items()]
nodes = [
    helper.make_node("Conv", ["x", "a"], ["1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    helper.make_node("Relu", ["1"], ["2"]),
    helper.make_node("MaxPool", ["2"], ["3"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    helper.make_node("Conv", ["3", "b"], ["4"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=8),
    helper.make_node("Add", ["3", "4"], ["5"]),
    helper.make_node("GlobalAveragePool", ["5"], ["6"]),
    helper.make_node("Flatten", ["6"], ["7"]),
    helper.make_node("Gemm", ["7", "c"], ["y"], transB=1),
]
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
graph = helper.make_graph(nodes, "net", [x], [y], initial)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
onnx.save(model, sys.argv[1])
from onnx.reference import ReferenceEvaluator
np.save(sys.argv[3], ReferenceEvaluator(model).run(None, {"x": np.load(sys.argv[2])})[0])
"""
_PT2 = """
import sys, numpy, torch
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8),
    nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
)
net.eval()
torch.export.save(torch.export.export(net, (torch.randn(1, 3, 32, 32),)), sys.argv[1])
numpy.save(sys.argv[3], net(torch.tensor(numpy.load(sys.argv[2]))).detach().numpy())
"""


def _float_file() -> bytes:
    graph = Graph("net")
    x = graph.input("x", TensorType((1, 8, 8, 3)))
    weights = graph.constant(np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
    graph.outputs = [graph.add(CONV_2D, [x, weights, None]).output]
    return to_bytes(graph)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python3"))
    return folder


def _install(tools: Path, name: str, text: str) -> None:
    (tools / name).write_text(text)
    (tools / name).chmod(0o755)


def test_an_onnx_model_is_what_onnx2tf_makes_of_a_copy(tools: Path, tmp_path: Path) -> None:
    model, log, file = tmp_path / "net.onnx", tmp_path / "log", tmp_path / "float.tflite"
    model.write_bytes(b"onnx")
    (tmp_path / "net.onnx.data").write_bytes(b"weights")
    file.write_bytes(_float_file())
    _install(
        tools, "onnx2tf", _TOOL.format(python=Path(sys.base_prefix) / "bin" / "python3", log=str(log), file=str(file))
    )
    source = load_model(model, options=ModelOptions(batch_size=2, input_shapes={"x": (2, 3, 8, 8)}))
    assert [v.shape for v in source.graph.inputs] == [(1, 8, 8, 3)]
    given = log.read_text().split("\n")
    assert given[given.index("-b") + 1] == "2" and given[given.index("-ois") + 1] == "x:2,3,8,8" and "-coion" in given
    assert model.read_bytes() == b"onnx"
    with pytest.raises(OptionError, match=r"--input_shape: expected shapes by the inputs' names"):
        load_model(model, options=ModelOptions(input_shapes={"": (2, 3, 8, 8)}))


@pytest.mark.parametrize(("suffix", "program"), [(".onnx", "onnx2tf"), (".pt2", "litert-torch")])
def test_a_tool_that_is_not_there_or_fails(tools: Path, tmp_path: Path, suffix: str, program: str) -> None:
    model = tmp_path / f"net{suffix}"
    model.write_bytes(b"model")
    with pytest.raises(ModelError, match=rf"net\{suffix}: expected the program {program}, .* found none; install it"):
        load_model(model)
    for name in (program, "python3"):
        _install(tools, name, "#!/bin/sh\necho one thing; echo and another >&2; exit 3\n")
    with pytest.raises(ModelError, match=rf"that {program} converts, found and another; see what {program} says"):
        load_model(model)
    for name in (program, "python3"):
        _install(tools, name, "#!/bin/sh\n")
    with pytest.raises(ModelError, match=rf"that {program} converts, found no file"):
        load_model(model)


def test_a_program_of_pytorch_has_its_sizes(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"program")
    _install(tools, "litert-torch", "")
    with pytest.raises(OptionError, match="expected sizes as the program was exported with"):
        load_model(tmp_path / "net.pt2", options=ModelOptions(batch_size=2))


@pytest.mark.parametrize(
    ("name", "program", "make"), [("net.onnx", "onnx2tf", _ONNX), ("net.pt2", "litert-torch", _PT2)]
)
def test_the_tools_themselves(tmp_path: Path, name: str, program: str, make: str) -> None:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not on the path")
    pictures = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", pictures)
    given = (tmp_path / name, tmp_path / "x.npy", tmp_path / "y.npy")
    subprocess.run([Path(found).resolve().with_name("python3"), "-c", make, *given], check=True)
    graph = load_model(tmp_path / name).graph
    (answer,) = run_float(graph, [pictures.transpose(0, 2, 3, 1)])
    np.testing.assert_allclose(answer, np.load(tmp_path / "y.npy"), atol=1e-4)  # float kernels sum in other orders
