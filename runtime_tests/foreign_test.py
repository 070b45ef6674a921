"""Files that other tools wrote: the emulator equals the runtimes on every element, or refuses; it never guesses.

Single operators get scales and zero points as no conversion of ours gives them: far apart, several where the kernels take
one, weights with a zero point. Files of uint8 and with floats in between are refused by what they are made of.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime
from converter.tflite.model_file import parse
from converter.tflite.mutating import packed, unpacked
from converter.tflite.reader import to_graph
from ir.errors import ModelError, RuntimeFailure
from ir.opdef import OpDef
from ir.profile import PROFILES, Profile
from ir.types import DType
from runtime_tests.samples import WITH_INTEGERS, Case, case
from runtime_tests.widths_test import combinations

SOURCES = Path(__file__).parents[2] / "shared" / "models" / "edgetpu"
_SEEDS = range(2)  # ten have been run
_INT8 = 9  # in the schema


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
@pytest.mark.parametrize("op", WITH_INTEGERS, ids=lambda op: op.name)
def test_parameters_of_others(op: OpDef, profile: Profile) -> None:
    runtime = LocalRuntime.of(profile)
    if not runtime.installed:
        pytest.skip(f"{runtime.name} is not installed")
    for types, granularity in combinations(op):
        for seed in _SEEDS:
            made = case(op, types, granularity, seed % 3)
            name = f"{op.name} {types} {granularity.value} {seed}"
            content = estranged(made.model, np.random.default_rng([zlib.crc32(name.encode()), seed]))
            assert_equal_or_refused(content, made, profile, name)


def estranged(model: bytes, rng: np.random.Generator) -> bytes:
    """A file with other scales and zero points."""
    content = unpacked(model)
    for tensor in content.subgraphs[0].tensors:
        params = tensor.quantization
        if params is None or params.scale is None or not len(params.scale):
            continue
        count, kind = len(params.scale), rng.integers(5)
        if kind in (1, 2):
            params.scale = np.float32(2.0 ** rng.uniform(*((-3, 3), (-20, 20))[kind - 1])) * params.scale
        elif kind == 3 and tensor.type == _INT8:
            params.zeroPoint = rng.integers(-128, 128, count)
        elif kind == 4:
            params.scale = np.full(count, 2.0 ** rng.integers(-3, 4), np.float32)
    return packed(content)


def assert_equal_or_refused(content: bytes, made: Case, profile: Profile, name: str) -> None:
    try:
        expected = EmulatorRuntime(profile).load(content).invoke(made.inputs)
    except (RuntimeFailure, ModelError):
        return
    found = LocalRuntime.of(profile).load(content).invoke(made.inputs)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b, name)


@pytest.mark.skipif(
    not SOURCES.exists(), reason="the compiled pairs are not in this checkout (../shared/models/edgetpu)"
)
@pytest.mark.parametrize("profile", [Profile()], ids=str)
@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.tflite")), ids=lambda p: p.stem)
def test_sources_of_compiled_networks(path: Path, profile: Profile) -> None:
    content = path.read_bytes()
    try:
        session = EmulatorRuntime(profile).load(content)
    except (RuntimeFailure, ModelError):
        return
    runtime = LocalRuntime.of(profile)
    if not runtime.installed:
        pytest.skip(f"{runtime.name} is not installed")
    rng = np.random.default_rng(0)
    inputs = [_random(v.shape, v.dtype, rng) for v in to_graph(parse(content)).inputs]
    for a, b in zip(session.invoke(inputs), runtime.load(content).invoke(inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def _random(shape: tuple[int, ...], dtype: DType, rng: np.random.Generator) -> np.ndarray:
    if dtype.is_float:
        return rng.normal(size=shape).astype(dtype.numpy)
    ends = np.iinfo(dtype.numpy)
    return rng.integers(ends.min, ends.max + 1, shape).astype(dtype.numpy)
