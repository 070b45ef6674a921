"""What is recorded while passes run."""

import json

import numpy as np

from converter.recording import START, Recorder
from ir.graph import Graph
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.relu import RELU
from ir.types import DType, TensorType
from passes.contract.base import Context, Given
from passes.contract.samples import SamplesInMemory
from passes.graph_testing import Net
from passes.running.pipeline import parse
from passes.running.runner import run_passes


class _Samples:
    def __len__(self):
        return 4

    def batches(self, size):
        yield (np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32),)


def recorded(text):
    net = Net()
    y = net.conv(net.input(6, 6, 3), 4, name="a", spread=3.0)
    net.graph.outputs = [net.conv(y, 4, name="b")]
    recorder = Recorder(net.graph)
    run_passes(net.graph, parse(text), Context(Given(samples=_Samples())), recorder)
    return recorder


def test_a_pass_is_recorded_where_it_changed_something():
    history = recorded("remove_dead_code,equalize,calibrate,quantize,lower_to_integer").history
    assert history.passes == ("remove_dead_code", "equalize", "calibrate", "quantize", "lower_to_integer")
    assert list(history.weights["a"]) == [START, "equalize"]
    (low, high), (low2, high2) = history.weights["a"].values()
    before, after = np.maximum(-low, high), np.maximum(-low2, high2)
    assert before.max() / before.min() > 2 * after.max() / after.min()
    threshold = history.activations["a"]["quantize"]
    assert threshold.low < 0 < threshold.high and threshold.scale == np.float32(threshold.scale)
    json.dumps(history.as_json(), allow_nan=False)


def test_the_second_run_of_a_pass_has_a_name_of_its_own():
    assert recorded("remove_dead_code,remove_dead_code").history.passes == ("remove_dead_code", "remove_dead_code#2")


def test_the_graphs_of_before_rounding_and_before_lowering_are_kept():
    recorder = recorded("calibrate,quantize,correct_bias,fuse_activation,lower_to_integer")
    biases = [
        next(n for n in graph.nodes if n.name == "b").bias.data
        for graph in (recorder.unrounded.graph, recorder.annotated.graph)
    ]
    assert not np.array_equal(*biases) and biases[1].dtype == np.float32
    assert recorded("remove_dead_code").annotated is None


def test_types_are_floats_before_lowering():
    recorder = recorded("calibrate,quantize,lower_to_integer")
    assert recorder.annotated.graph.inputs[0].type.dtype == TensorType((1,)).dtype


def test_a_graph_of_integer_inputs_is_annotated_before_it_is_lowered():
    """Its casts become requantizations, and its inputs get a scale, when `quantize` runs."""
    graph = Graph()
    x = graph.input("x", TensorType((1, 4), DType.UINT8))
    attrs = CastAttributes(in_data_type=DType.UINT8, out_data_type=DType.FLOAT32)
    graph.outputs = [graph.add(RELU, [graph.add(CAST, [x], attrs, "real").output], name="y").output]
    recorder = Recorder(graph)
    samples = SamplesInMemory((np.arange(8, dtype=np.uint8).reshape(2, 4),))
    run_passes(graph, parse("calibrate,quantize,lower_to_integer"), Context(Given(samples=samples)), recorder)
    assert recorder.annotated is not None and recorder.annotated.graph.outputs[0].dtype is DType.FLOAT32
