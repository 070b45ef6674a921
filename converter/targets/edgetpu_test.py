"""The Edge TPU prediction, against what the compiler made of public models, and rule by rule."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from converter.targets import edgetpu, edgetpu_log, get_target
from converter.targets.site import BY_CODE
from converter.targets.versions import EDGETPU as LAST_VERSION
from converter.tflite.model_file import load
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord, TensorRecord
from ir.errors import OptionError

PAIRS = Path(__file__).parents[3] / "shared" / "models" / "edgetpu" / "pairs.json"


class Options:
    """Stands for an options table of the schema."""

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def __getattr__(self, name: str):
        if name not in self._fields:
            raise AttributeError(name)
        return lambda: self._fields[name]


def tensor(*shape: int, type_name: str = "INT8", data: np.ndarray | None = None, scales: int = 1) -> TensorRecord:
    return TensorRecord(
        name=f"t{shape}",
        shape=shape,
        shape_signature=shape,
        type_name=type_name,
        data=None if data is None else np.frombuffer(data.tobytes(), np.uint8),
        scale=np.full(scales, 0.5, np.float32),
        zero_point=np.zeros(scales, np.int64),
        quantized_dimension=0,
        is_variable=False,
    )


def integers(*values: int) -> TensorRecord:
    return tensor(len(values), type_name="INT32", data=np.array(values, np.int32), scales=0)


def model(
    tensors: list[TensorRecord], *operators: tuple[str, list[int], list[int], dict], version: int = 1
) -> ModelFile:
    records = tuple(
        OperatorRecord(
            code=code, version=version, inputs=tuple(i), outputs=tuple(o), options_name="", options=Options(**options)
        )
        for code, i, o, options in operators
    )
    graph = SubgraphRecord(
        name="main", tensors=tuple(tensors), operators=records, inputs=(0,), outputs=(len(tensors) - 1,)
    )
    return ModelFile(path="test", size_bytes=0, description="", subgraphs=(graph,), signatures=())


def only(file: ModelFile, runtime: int | None = None):
    (verdict,) = edgetpu.check(file, runtime).verdicts
    return verdict


def expected_on_cpu(pair: dict) -> Counter:
    if pair["ops_left_on_cpu"] is not None:
        return Counter(pair["ops_left_on_cpu"])
    return Counter({name: count for name, count, status in pair["log_rows"] if status != edgetpu.MAPPED})


@pytest.mark.skipif(not PAIRS.exists(), reason="the compiled pairs are not in this checkout (../shared/models/edgetpu)")
def test_prediction_agrees_with_the_compiler_on_the_pairs():
    pairs = json.loads(PAIRS.read_text())
    promised, refused, staying = Counter(), Counter(), 0
    for pair in pairs:
        report = edgetpu.check(load(PAIRS.parent / pair["file"]))
        predicted, actual = Counter(v.name for v in report.unmapped), expected_on_cpu(pair)
        staying += (predicted | actual).total()
        promised.update({f"{pair['file']}: {name}": n for name, n in (actual - predicted).items()})
        refused.update({f"{pair['file']}: {name}": n for name, n in (predicted - actual).items()})
    assert (promised, refused) == (Counter(), Counter())
    assert staying > 80  # that everything maps would not do


def branching() -> ModelFile:
    """One operator, read by one that is not mapped, which a third reads, and by a fourth."""
    return model(
        [tensor(1, 4, 4, 8) for _ in range(5)],
        ("RELU", [0], [1], {}),
        ("ELU", [1], [2], {}),
        ("RELU", [2], [3], {}),
        ("RELU", [1], [4], {}),
    )


def test_one_partition_from_the_start_and_branch_by_branch():
    report = edgetpu.check(branching())
    assert [v.status for v in report.verdicts] == [
        edgetpu.MAPPED,
        edgetpu.NOT_SUPPORTED,
        edgetpu.ONE_SUBGRAPH,
        edgetpu.MAPPED,
    ]
    assert all(v.reason and v.fix for v in report.unmapped)


def test_several_subgraphs_take_what_comes_after_the_cpu():
    report = edgetpu.check(branching(), multiple_subgraphs=True)
    assert [v.status for v in report.unmapped] == [edgetpu.NOT_SUPPORTED]


def test_what_comes_before_the_partition_runs_on_the_cpu_first():
    file = model(
        [
            tensor(1, 4, 4, 8, type_name="FLOAT32"),
            tensor(1, 4, 4, 8),
            tensor(1, 4, 4, 8),
            tensor(1, 4, 4, 8, type_name="FLOAT32"),
        ],
        ("QUANTIZE", [0], [1], {}),
        ("RELU", [1], [2], {}),
        ("DEQUANTIZE", [2], [3], {}),
    )
    assert [v.status for v in edgetpu.check(file).verdicts] == [
        edgetpu.UNSPECIFIED,
        edgetpu.MAPPED,
        edgetpu.DATA_TYPE,
    ]


def test_rank_beyond_three_dimensions():
    assert only(model([tensor(2, 4, 4, 8), tensor(2, 4, 4, 8)], ("RELU", [0], [1], {}))).status == edgetpu.RANK
    assert only(model([tensor(1, 4, 4, 8), tensor(1, 4, 4, 8)], ("RELU", [0], [1], {}))).mapped


def test_computed_weights():
    file = model([tensor(1, 8), tensor(4, 8), tensor(1, 4)], ("FULLY_CONNECTED", [0, 1], [2], {}))
    assert only(file).status == edgetpu.NOT_CONSTANT


@pytest.mark.parametrize(
    ("shape", "axes", "mapped"),
    [((1, 7, 7, 8), (1, 2), True), ((1, 256, 128, 8), (1, 2), False), ((1, 7, 7, 6), (3,), False)],
)
def test_mean(shape, axes, mapped):
    file = model([tensor(*shape), integers(*axes), tensor(1, 8)], ("MEAN", [0, 1], [2], {}))
    assert only(file).mapped is mapped


@pytest.mark.parametrize(
    ("size", "result", "mapped"), [(6, 12, True), (1, 33, False), (33, 513, False), (512, 1024, False)]
)
def test_resize(size, result, mapped):
    file = model(
        [tensor(1, size, size, 19), integers(result, result), tensor(1, result, result, 19)],
        ("RESIZE_BILINEAR", [0, 1], [2], {}),
    )
    assert only(file).mapped is mapped


@pytest.mark.parametrize(
    ("shape", "result", "mapped"),
    [
        ((1, 400, 3, 85), (1, 1200, 85), True),
        ((1, 1600, 3, 85), (1, 4800, 85), False),
        ((1, 20, 20, 1280), (1, 512000), True),
    ],
)
def test_reshape(shape, result, mapped):
    file = model([tensor(*shape), integers(*result), tensor(*result)], ("RESHAPE", [0, 1], [2], {}))
    assert only(file).mapped is mapped


@pytest.mark.parametrize(
    ("kernel", "dilations", "mapped"),
    [((3, 1), (2, 1), True), ((3, 1), (4, 1), True), ((3, 3), (2, 1), False), ((3, 1), (2, 2), True)],
)
def test_dilation_along_one_axis(kernel, dilations, mapped):
    options = {"DilationHFactor": dilations[0], "DilationWFactor": dilations[1]}
    weights = tensor(8, *kernel, 8, data=np.zeros(64 * kernel[0] * kernel[1], np.int8))
    file = model([tensor(1, 40, 1, 8), weights, tensor(1, 40, 1, 8)], ("CONV_2D", [0, 1], [2], options))
    assert only(file).mapped is mapped


@pytest.mark.parametrize(
    ("shape", "result", "mapped"), [((1, 49, 512), (49, 128), True), ((49, 512), (49, 128), False)]
)
def test_fully_connected_of_rows(shape, result, mapped):
    weights = tensor(128, 512, data=np.zeros(128 * 512, np.int8))
    file = model([tensor(*shape), weights, tensor(*result)], ("FULLY_CONNECTED", [0, 1], [2], {"WeightsFormat": 0}))
    assert only(file).mapped is mapped


@pytest.mark.parametrize(("size", "mapped"), [(16384, True), (16385, False)])
def test_softmax(size, mapped):
    assert only(model([tensor(1, size), tensor(1, size)], ("SOFTMAX", [0], [1], {}))).mapped is mapped


@pytest.mark.parametrize(("parts", "mapped"), [(1, True), (2, False)])
def test_split_along_the_batch(parts, mapped):
    outputs = [tensor(1, 4, 4, 8) for _ in range(parts)]
    file = model([tensor(1, 4, 4, 8), integers(0), *outputs], ("SPLIT", [1, 0], list(range(2, 2 + parts)), {}))
    assert only(file).mapped is mapped


def test_concatenation_with_a_constant():
    def joined(value: int) -> ModelFile:
        constant = tensor(1, 2, 2, 4, data=np.full(16, value, np.int8))
        return model(
            [tensor(1, 2, 2, 4), constant, tensor(1, 2, 2, 8)],
            ("CONCATENATION", [0, 1], [2], {"FusedActivationFunction": 0, "Axis": 3}),
        )

    assert only(joined(0)).mapped and not only(joined(5)).mapped


def test_runtime_versions():
    options = {"DilationHFactor": 2, "DilationWFactor": 2}
    weights = tensor(1, 3, 3, 8, data=np.zeros(72, np.int8))
    file = model([tensor(1, 9, 9, 8), weights, tensor(1, 9, 9, 8)], ("DEPTHWISE_CONV_2D", [0, 1], [2], options))
    assert edgetpu.check(file).figures["min_runtime_version"] == 13
    assert not only(file, 12).mapped and only(file, 13).mapped
    with pytest.raises(OptionError, match="10, 11, 12, 13, 14"):
        edgetpu.check(file, 9)


def test_old_runtimes_want_unsigned_inputs():
    file = model([tensor(1, 4), tensor(1, 4)], ("RELU", [0], [1], {}))
    assert not any("--io=uint8" in note for note in edgetpu.check(file, 12).notes)
    assert any("--io=uint8" in note for note in edgetpu.check(file, 11).notes)


def test_versions_that_the_old_compiler_cannot_read():
    file = model([tensor(1, 8), tensor(1, 8)], ("QUANTIZE", [0], [1], {}), version=3)
    report = edgetpu.check(file)
    assert report.figures["failure"] == "Didn't find op for builtin opcode 'QUANTIZE' version '3'"
    assert report.mapped == 0
    assert LAST_VERSION[BY_CODE["TRANSPOSE_CONV"]] == 3


@pytest.mark.parametrize(("number", "name"), [(1, "RELU"), (4, "activation 4"), (-1, "activation -1")])
def test_a_fused_activation_is_named_or_numbered(number, name):
    file = model(
        [tensor(1, 4, 4, 2), tensor(1, 2, 2, 2)], ("MAX_POOL_2D", [0], [1], {"FusedActivationFunction": number})
    )
    verdict = only(file)
    assert not verdict.mapped and verdict.reason.endswith(f"found a fused {name}")


def test_a_float_model_is_refused_whole():
    file = model([tensor(1, 8, type_name="FLOAT32", scales=0)] * 2, ("RELU", [0], [1], {}))
    assert edgetpu.check(file).figures["failure"] == edgetpu.NOT_QUANTIZED


def test_parameters_that_do_not_fit_are_streamed():
    large = tensor(3000, 3000, data=np.zeros(9_000_000, np.int8))
    small = tensor(1500, 3000, data=np.zeros(4_500_000, np.int8))
    layers = [("FULLY_CONNECTED", [0, 1], [2], {}), ("FULLY_CONNECTED", [2, 3], [4], {})]
    file = model([tensor(1, 3000), large, tensor(1, 3000), small, tensor(1, 1500)], *layers)
    figures = edgetpu.check(file).figures
    assert figures["parameter_bytes"] == 13_500_000 > figures["on_chip_bytes"]
    assert figures["on_chip_used_bytes"] == 4_500_000 and figures["off_chip_bytes"] == 9_000_000


LOG = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 96 ms.

Input model: x.tflite
Input size: 7.02MiB
On-chip memory used for caching model parameters: 80.00KiB
On-chip memory remaining for caching model parameters: 6.04MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 4
Number of operations that will run on Edge TPU: 2
Number of operations that will run on CPU: 2

Operator                       Count      Status

RELU                           {mapped}          Mapped to Edge TPU
RELU                           {left}          More than one subgraph is not supported
ELU                            1          Operation not supported
"""


def log_and_report(mapped: int, left: int):
    return edgetpu.check(branching()), edgetpu_log.parse_log(LOG.format(mapped=mapped, left=left))


def test_log_is_read():
    _, log = log_and_report(2, 1)
    assert log.version == "16.0.384591198" and log.failure is None
    assert log.figures["on_chip_used_bytes"] == 80 * 1024 and log.figures["on_cpu"] == 2
    assert log.rows[2] == ("ELU", 1, "Operation not supported")


def test_log_is_held_against_the_prediction():
    agreed = edgetpu_log.compare(*log_and_report(2, 1))
    assert (agreed.agreeing, agreed.total, agreed.differences) == (4, 4, ())
    assert (agreed.promised, agreed.refused) == (0, 0)
    differing = edgetpu_log.compare(*log_and_report(1, 2))
    assert (differing.promised, differing.refused) == (1, 0)
    assert edgetpu_log.compare(*log_and_report(3, 0)).refused == 1
    assert differing.agreeing == 3 and "RELU: predicted 2 of 3 mapped, the compiler mapped 1" in differing.differences


def test_log_of_another_file_is_noticed():
    compared = edgetpu_log.compare(*log_and_report(2, 7))
    assert "is it this file's log?" in compared.differences[0]


def test_failures_are_read():
    assert (
        edgetpu_log.parse_log("ERROR: Internal compiler error. Aborting!\n").failure
        == "Internal compiler error. Aborting!"
    )
    with pytest.raises(OptionError, match="none of its lines"):
        edgetpu_log.parse_log("hello")


@pytest.mark.parametrize("name", ["cpu", "npu-per-tensor", "ethos-u55", "ethos-u65", "ethos-u85", "tflm"])
def test_other_targets_judge_every_operator(name):
    weights = tensor(1, 3, 3, 8, data=np.zeros(72, np.int8), scales=8)
    bias = tensor(8, type_name="INT32", data=np.zeros(8, np.int32), scales=8)
    file = model(
        [tensor(1, 9, 9, 8), weights, bias, tensor(1, 9, 9, 8), tensor(1, 9, 9, 8)],
        ("DEPTHWISE_CONV_2D", [0, 1, 2], [3], {"StrideH": 1, "StrideW": 1}),
        ("CUSTOM:other", [3], [4], {}),
    )
    report = get_target(name).check(file, None)
    assert [v.mapped for v in report.verdicts] == [name != "npu-per-tensor", False]
    assert report.unmapped[0].reason and report.unmapped[0].fix
    assert report.as_json()["operators"][1]["index"] == 1
