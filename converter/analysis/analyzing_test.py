"""Faults are put into the shipped network: the cause that is named first must be the one that was put there."""

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest

from converter import analyze
from converter.analysis.analysis_testing import (
    SHIPPED,
    analyzed,
    converted,
    edited,
    images,
    network,
    outlier,
    pixels,
)
from converter.compare import compare
from converter.conversion import convert
from converter.data import InputSpec, from_arrays
from ir.errors import DataError, ModelError
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.relu import RELU
from passes.compression.prune_weights import PruneWeights
from passes.contract.base import Context, Pass, PassReport, Range
from passes.rewrites.fold_batch_norm import FoldBatchNorm
from passes.running import pipeline as pipelines

ALARM = 0.3  # below this nothing is wrong
PREPROCESSING = "The input is not preprocessed as the network expects"
RARE = "A rare huge value sets the range"


@pytest.fixture(scope="module")
def healthy():
    """The network as it is, with the sensitivity of every layer."""
    result = converted()
    return result, analyze(result, samples=16, sensitivity=True)


def test_a_healthy_network_raises_no_alarm(healthy):
    _, analysis = healthy
    assert all(cause.severity < 0.1 for cause in analysis.causes), analysis.causes
    assert analysis.summary["agreement"]["value"] == 1.0 and analysis.summary["float_accuracy"]["value"] == 1.0
    assert analysis.summary["agreement"]["low"] < 0.9  # 16 samples are few


def test_renamed_scales_are_read_as_those_of_the_reals():
    result = converted(passes="quantize{activation_bits=7}")
    assert "a fused activation with renamed scales" in " ".join(result.passes[-1].report.notes)
    measured = [layer.sqnr_db for layer in analyze(result, samples=8).layers if layer.sqnr_db is not None]
    assert len(measured) > 50 and min(measured) > 12  # a scale read wrongly leaves 6 dB or less


def test_it_measures_what_the_comparison_measures(healthy):
    result, analysis = healthy
    source = result.trace.data
    chosen = [w.index for w in analysis.worst_inputs]
    assert chosen and max(chosen) < len(source)
    same = analyze(result, samples=len(source))
    assert same.summary["sqnr_db"] == pytest.approx(
        compare(result.reference, result.model, source).sqnr_db, abs=0.6
    )  # energies there, here also the median class: the larger noise of the two
    assert same.summary["sqnr_db"] <= compare(result.reference, result.model, source).sqnr_db + 1e-3
    last = [layer for layer in same.layers if layer.name == "predictions"][-1]
    assert last.sqnr_db == pytest.approx(compare(result.reference, result.model, source).sqnr_db, abs=0.01)


def test_every_operator_has_a_row_and_the_shares_sum_up(healthy):
    result, analysis = healthy
    assert [layer.name for layer in analysis.layers] == [node.name for node in result.graph.nodes]
    assert all(layer.sqnr_db is not None and layer.cosine > 0.99 for layer in analysis.layers)
    shares = [layer.contribution for layer in analysis.layers if layer.contribution is not None]
    assert 0.8 < sum(shares) <= 1.0 + 1e-9  # the input makes the rest
    assert 0.5 < sum(layer.share_of_size for layer in analysis.layers) < 1
    weighted = [layer for layer in analysis.layers if layer.weight_low is not None]
    assert len(weighted) == 53 and all(len(layer.weight_low) == layer.shape[-1] for layer in weighted)
    assert analysis.summary["sensitivity"]["measured"] == analysis.summary["sensitivity"]["places"]


def test_layers_quantized_alone_make_the_noise_of_the_whole(healthy):
    """Independent errors add: the sum of what each makes is what all make, within 2 dB."""
    _, analysis = healthy
    alone = sum(10 ** (-layer.logits_sqnr_db / 10) for layer in analysis.layers if layer.logits_sqnr_db is not None)
    assert -10 * np.log10(alone) == pytest.approx(analysis.summary["sqnr_db"], abs=2.0)


def test_the_table_is_json_and_columns(healthy):
    _, analysis = healthy
    content = json.loads(json.dumps(analysis.as_json(), allow_nan=False))
    assert len(content["layers"]) == len(analysis.layers) and content["passes"][0]["name"] == "remove_dead_code"
    columns = analysis.columns()
    assert {len(column) for column in columns.values()} == {len(analysis.layers)}
    assert [layer.contribution for layer in analysis.worst(3)] == sorted(
        (c for c in columns["contribution"] if c is not None), reverse=True
    )[:3]


def test_no_time_for_the_sensitivity(healthy):
    result, _ = healthy
    analysis = analyze(result, samples=4, sensitivity=True, seconds=0)
    assert analysis.summary["sensitivity"]["measured"] == 0 and analysis.summary["sensitivity"]["places"] > 60
    assert all(layer.contribution is None for layer in analysis.layers)


def test_without_data_there_is_nothing_to_measure_on():
    result = convert(SHIPPED / "digits_mobilenet_v2.keras", preprocess="tf", pipeline="data_free_fast", check=False)
    with pytest.raises(DataError, match="data="):
        analyze(result)
    assert analyze(result, data=images(), samples=8).summary["samples"] == 8


def test_a_conversion_that_does_not_quantize():
    result = convert(network(), calibration_data=images(), passes="fold_batch_norm", check=False)
    with pytest.raises(ModelError, match="does not quantize"):
        analyze(result)


@pytest.mark.parametrize(
    ("layer", "factor", "granularity"),
    [
        ("Conv1", 300, "per_tensor"),
        ("block_12_depthwise", 30, "per_tensor"),
        ("block_16_project", 300, "per_channel"),
        ("predictions", 300, "per_channel"),
    ],
)
def test_an_outlier_channel_in_the_weights_of_a_layer(layer, factor, granularity):
    analysis = analyzed(outlier(layer, factor), granularity=granularity)
    first = analysis.causes[0]
    assert first.where == layer and first.title == "Outlier channel in the weights", analysis.causes[:3]
    assert first.severity > ALARM and "channel 5 " in first.explanation


def test_a_single_huge_weight():
    def change(data, axis):
        data.flat[37] = 100 * np.abs(data).max()

    first = analyzed(edited("block_9_expand", change), granularity="per_tensor").causes[0]
    assert first.where == "block_9_expand" and first.severity > ALARM


def test_a_large_channel_that_its_batch_norm_expects():
    """Folding takes it back: the network is the same, and nothing is wrong with it."""
    graph = outlier("block_3_project", 300)
    node = next(n for n in graph.nodes if n.name == "block_3_project_BN")
    for index, factor in ((3, 300.0), (4, 300.0**2)):  # mean and variance
        data = node.inputs[index].data.copy()
        data[5] *= factor
        graph.set_input(node, index, graph.constant(data, node.inputs[index].name))
    assert all(cause.severity < 0.1 for cause in analyzed(graph, granularity="per_tensor").causes)


def test_an_outlier_that_the_pipeline_evens_out():
    """A depthwise channel 200 times as large, taken back by the layer that reads it: per tensor, equalize repairs it."""
    graph = outlier("block_1_depthwise", 200)
    norm = next(n for n in graph.nodes if n.name == "block_1_depthwise_BN")
    for index, factor in ((3, 200.0), (4, 200.0**2), (1, 200.0), (2, 200.0)):  # the layer as before, 200 times
        data = norm.inputs[index].data.copy()
        data[5] *= factor
        graph.set_input(norm, index, graph.constant(data, norm.inputs[index].name))
    clip = norm.output.consumers[0]  # ReLU6 would cut it
    relu = graph.add(RELU, [norm.output], name="plain")
    graph.replace_uses(clip.output, relu.output)
    reader = relu.output.consumers[0]
    data = reader.weight.data.copy()
    data[..., 5] /= 200
    graph.set_input(reader, 1, graph.constant(data, reader.weight.name))
    lost = analyzed(graph, granularity="per_tensor").causes[0]
    assert lost.where == "block_1_depthwise" and lost.severity > ALARM
    corrected = analyzed(graph, granularity="per_tensor", pipeline="default", passes="-round_weights,-balance")
    assert all(cause.severity < ALARM for cause in corrected.causes)
    told = [c for c in corrected.causes if c.title == "An outlier channel was evened out"]
    assert told[0].where == "block_1_depthwise" and "equalize" in told[0].explanation


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideRange(Pass):
    """Calibration that saw a value `factor` times as large as any other, once."""

    name: ClassVar[str] = "wide_range"
    value: str = ""
    factor: float = 100.0

    def run(self, graph, context):
        for value, range_ in context.tables.ranges.items():
            if value.name == self.value:
                context.tables.ranges[value] = Range(range_.low, range_.high * self.factor)
                return PassReport(changed=(value.name,))
        raise AssertionError(f"no {self.value} in {[v.name for v in context.tables.ranges]}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spoil(Pass):
    """A pass that loses the bias of a layer: the network is another one before it is quantized."""

    name: ClassVar[str] = "spoil"

    def run(self, graph, context):
        node = next(n for n in graph.nodes if n.name == "Conv1")
        graph.set_input(node, 2, graph.constant(-node.bias.data, "spoiled"))
        context.tables.statistics = {}
        return PassReport(changed=(node.name,))


def test_a_pass_that_changes_the_network():
    steps = pipelines.named("fast", granularity="per_channel", io="int8")
    at = [step.name for step in steps].index("calibrate")
    steps.insert(at, Spoil())
    first = analyzed(passes=steps, pipeline=None).causes[0]
    assert first.title == "Passes changed what the float network computes" and first.severity > ALARM
    assert first.suggestion.endswith("one by one: --passes=-spoil")


@pytest.mark.parametrize(
    ("value", "layer", "factor"),
    [("Conv1_relu", "Conv1", 100), ("block_7_add", "block_7_add", 20)],
)
def test_a_rare_huge_value_in_the_calibration_of_a_layer(value, layer, factor):
    steps = pipelines.named("fast", granularity="per_channel", io="int8")
    at = [step.name for step in steps].index("calibrate") + 1
    steps.insert(at, WideRange(value=value, factor=factor))
    first = analyzed(passes=steps, pipeline=None).causes[0]
    assert (first.where, first.title) == (layer, RARE) and value in first.explanation


def test_a_layer_that_makes_rare_huge_values():
    """`x + 1000 max(x - t, 0)` with `t` close to the largest `x`: what follows is huge, too, but it begins there."""
    twin = network().twin()
    graph = twin.graph
    value = next(twin.values[v] for v in network().values() if v.name == "block_9_depthwise_relu")
    users = value.consumers
    over = graph.add(SUB, [value, graph.constant(np.float32(5.99), "limit")], name="over").output
    over = graph.add(RELU, [over], name="cut").output
    over = graph.add(MUL, [over, graph.constant(np.float32(20000), "gain")], name="gained").output
    graph.replace_uses(value, graph.add(ADD, [value, over], name="fault").output, only=users)
    first = analyzed(graph).causes[0]
    assert first.where == "fault" and first.severity > ALARM, first


def test_one_huge_pixel():
    data = images().copy()
    data[17, 3, 4, 0] = 300.0
    first = analyzed(data=data).causes[0]
    assert (first.where, first.title) == ("input", RARE)


@pytest.mark.parametrize(("scale", "shift", "right"), [(127.5, 127.5, "tf"), (0.5, 0.5, "tf"), (-1, 0, None)])
def test_wrong_preprocessing(scale, shift, right):
    """Pixels of 0..255, of 0..1, and a negative, to a network that expects -1..1."""
    analysis = analyzed(data=(images() * scale + shift).astype(np.float32))
    first = analysis.causes[0]
    assert (first.where, first.title) == ("input", PREPROCESSING) and first.severity > 2 * ALARM
    assert right is None or f"--preprocess={right}" in first.suggestion


def test_wrong_preprocessing_without_batch_norms():
    """The network as a float .tflite file would hold it: batch norms folded."""
    folded = network().copy()
    FoldBatchNorm().run(folded, Context())
    assert analyzed(folded).causes == ()
    first = analyzed(folded, data=pixels()[0]).causes[0]
    assert (first.where, first.title) == ("input", PREPROCESSING)


def test_what_pruning_lost_is_advised_upon_in_its_own_option():
    steps = pipelines.named("fast", granularity="per_channel", io="int8")
    at = [step.name for step in steps].index("calibrate")
    steps.insert(at, PruneWeights(sparsity=0.8, score="magnitude", reconstruct=False))
    analysis = analyzed(passes=steps, pipeline=None)
    (cause,) = (c for c in analysis.causes if c.title == "Passes changed what the float network computes")
    assert cause.suggestion == "remove less of the network: --passes='prune_weights{sparsity=0.4}' beside --pipeline"


def test_the_same_sample_over_and_over():
    first = analyzed(data=np.repeat(images()[:1], 16, axis=0)).causes[0]
    assert first.title == "The samples are the same" and first.severity > ALARM


def test_few_samples_are_said_but_are_no_alarm():
    causes = analyzed(data=images()[:4]).causes
    assert "Few calibration samples" in [c.title for c in causes] and causes[0].severity < ALARM


def test_labels_of_another_order(healthy):
    result, _ = healthy
    specs = [InputSpec(name=v.name, shape=v.shape) for v in result.reference.inputs]
    data = from_arrays(images(), specs, labels=pixels()[1] + 1)
    first = analyze(result, data=data, samples=16).causes[0]
    assert first.title == "The labels do not go with the samples" and "-1" in first.suggestion
