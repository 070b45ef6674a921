"""Files against themselves, against other conversions of the same network, and damaged ones."""

import json

import numpy as np
import pytest

from converter.analysis.analysis_testing import converted
from converter.analysis.contents import contents_json, operators_json
from converter.analysis.differences import compare_files
from converter.tflite.model_file import parse
from ir.errors import ModelError


@pytest.fixture(scope="module")
def files():
    """The same network with scales per channel, and per tensor with uint8 ends."""
    return tuple(
        parse(converted(granularity=g, io=io).model) for g, io in (("per_channel", "int8"), ("per_tensor", "uint8"))
    )


def test_a_file_is_like_itself(files):
    same = compare_files(files[0], files[0])
    assert same.same == len(files[0].main.operators) and not same.changed + same.added + same.removed
    assert not same.interface


def test_other_scales_and_ends(files):
    found = compare_files(*files)
    assert [name for _, name, _ in found.added] == ["QUANTIZE", "QUANTIZE"] and not found.removed
    assert found.same + len(found.changed) == len(files[0].main.operators)
    first = found.changed[0]
    assert first.name == "CONV_2D" and any(text.endswith("-> 1 scales") for text in first.changes)
    assert 25 < first.weights_db < 50  # 8 bits of the same weights
    assert any("INT8 -> UINT8" in text for text in found.interface)
    json.dumps(found.as_json(), allow_nan=False)


def test_other_weights(files):
    content = bytearray(converted().model)
    weights = files[0].main.tensors[files[0].main.operators[0].inputs[1]]
    at = bytes(content).index(weights.data.tobytes())
    content[at] ^= 0x40
    found = compare_files(files[0], parse(bytes(content)))
    assert [(c.index, c.changes) for c in found.changed] == [((0, 0), found.changed[0].changes)]
    assert found.changed[0].changes[0].startswith("filter: values differ, ")
    assert np.isfinite(found.changed[0].weights_db)


def test_contents(files):
    found, operators = contents_json(files[1]), operators_json(files[1].main)
    assert found["computes_in"]["INT8"] >= len(operators) - 2
    assert sum(found["constants"].values()) == sum(o["constant_bytes"] for o in operators) < files[1].size_bytes
    assert found["arena"]["size_bytes"] >= found["arena"]["live_bytes"] > 0
    assert found["signatures"][0]["inputs"] and "intact" in found["metadata"]
    assert operators[0]["results"][0]["scale"] > 0 and operators[1]["operands"][1]["constant"]


def test_damaged_files_are_refused_or_described(files):
    base, rng = converted().model, np.random.default_rng(0)
    described = 0
    for _ in range(150):
        content = bytearray(base)
        for position in rng.integers(0, len(content), 6):
            content[position] = int(rng.integers(256))
        for position in rng.integers(0, 4000, 4):
            content[position] = int(rng.integers(256))
        try:
            model = parse(bytes(content))
        except ModelError:
            continue
        described += 1
        parts = contents_json(model), operators_json(model.main), compare_files(files[0], model).as_json()
        json.dumps(parts, allow_nan=False)
    assert described > 10
