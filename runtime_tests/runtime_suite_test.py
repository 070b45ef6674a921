"""One suite for any runtime: is it equal to the emulator, does it repeat itself, how fast is it?

    pytest runtime_tests/runtime_suite_test.py --runtime=ssh://pi@board --model=FILE.tflite

`--runtime` is named as for the commands and may be given several times; `raspberry-pi` is the emulated board of
`tools/raspberry_pi.py`. Without it, the runtimes of this machine and that board are tested. Without `--model` it is the
shipped network with its test images. `--data` and `--preprocess` give real samples for a model, else they are random
over the whole range of its inputs; `--samples` says how many.

What is asserted:
- `builtin` and `ref` kernels, and `tflm`: every output, and every result of every operator, equals the emulator's with the profile
  of that runtime (`profile_of`), on every element;
- `xnnpack`: it rounds otherwise, so each operator, given the same inputs, is within as many steps of its output's scale
  as it declares (`OpDef.xnnpack_steps`). The operators that differ are named, and how far the answers of the whole agree;
- a model that is loaded again and inputs that are given again give the same bytes.
Latency is shown, not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.benchmarking import random_inputs
from converter.compare import to_integers
from converter.data import InputSpec, open_data
from converter.runtimes.base import ModelRuntime
from converter.runtimes.by_operator import differences, expose
from converter.runtimes.choose import TFLM as TFLITE_MICRO
from converter.runtimes.choose import choose_runtime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import installed_packages, profile_of
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.profile import Profile
from runtime_tests.conftest import FIGURES

SHIPPED = Path(converter.__file__).parent / "shipped"
RASPBERRY_PI = "raspberry-pi"
_OPERATOR_SAMPLES = 4  # of all tensors: many bytes
_REPEATED_SAMPLES = 8
_REPEATS = 20


def default_runtimes() -> list[str]:
    """What is tested where nothing else is named."""
    packages = [name.replace("_", "-") for name in installed_packages()]
    local = [f"{name}/{kernels}" for name in packages for kernels in ("builtin", "ref")]
    xnnpack = ["ai-edge-litert/xnnpack"] if "ai-edge-litert" in packages else []
    return ["emulator", *local, *xnnpack, TFLITE_MICRO, f"{RASPBERRY_PI}/builtin", f"{RASPBERRY_PI}/ref"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runtime_name" in metafunc.fixturenames:
        names = metafunc.config.getoption("--runtime") or default_runtimes()
        metafunc.parametrize("runtime_name", names, scope="module")


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> bytes:
    """The file that is run."""
    path = request.config.getoption("--model")
    if path:
        return Path(path).read_bytes()
    from converter.conversion import convert

    with np.load(SHIPPED / "digits_calibration.npz") as data:
        images = data["images"]
    source = SHIPPED / "digits_mobilenet_v2.keras"
    return convert(source, calibration_data=images, preprocess="tf", pipeline="fast", check=False).model


@pytest.fixture(scope="module")
def samples(request: pytest.FixtureRequest, model: bytes) -> list[list[np.ndarray]]:
    """Inputs of the file, a list for each sample."""
    option = request.config.getoption
    path, preprocess, expected = option("--data"), option("--preprocess"), option("--samples")
    if not option("--model"):
        path, preprocess = SHIPPED / "digits_test.npz", "tf"
    if path is None:
        return [random_inputs(model, seed) for seed in range(expected)]
    inputs = to_graph(parse(model)).inputs
    specs = [InputSpec(name=v.name, shape=v.shape, dtype="float32") for v in inputs]
    data = open_data(path, specs, preprocess=preprocess, samples=expected)
    batch = inputs[0].shape[0] if inputs[0].shape else 1
    return [[to_integers(x, v.dtype, v.quant) for x, v in zip(b, inputs, strict=True)] for b in data.batches(batch)]


@pytest.fixture(scope="module")
def runtime(runtime_name: str, request: pytest.FixtureRequest) -> ModelRuntime:
    kind, _, kernels = runtime_name.partition("/")
    if kind == RASPBERRY_PI:
        board = request.getfixturevalue("raspberry_pi_board")
        runtime_name = board.runtime.replace("?", f"/{kernels or 'builtin'}?")
    chosen = choose_runtime(runtime_name, own_process=True)  # so that two models can be loaded at once
    if runtime_name == TFLITE_MICRO and not chosen.installed:
        pytest.skip("tflite-micro is not installed (the extra tflm: Python 3.11 on Linux, x86-64)")
    return chosen


@pytest.fixture(scope="module")
def session(runtime: ModelRuntime, model: bytes) -> Iterator[Any]:
    loaded = runtime.load(model)
    yield loaded
    loaded.close()


@pytest.fixture
def show(runtime: ModelRuntime, record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Keeps a line for the summary."""
    return lambda text: record_property(FIGURES, f"{runtime.name}: {text}")


@pytest.fixture(scope="module")
def answers(session: Any, samples: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    return [session.invoke(sample) for sample in samples]


@pytest.fixture(scope="module")
def profile(session: Any, runtime: ModelRuntime) -> Profile:
    if isinstance(runtime, EmulatorRuntime):
        return runtime.profile
    return profile_of(session.runtime, runtime.kernels)


@pytest.fixture(scope="module")
def delegated(runtime: ModelRuntime) -> bool:
    """Whether XNNPACK computes, which rounds otherwise."""
    return getattr(runtime, "kernels", "") == "xnnpack"


@pytest.fixture(scope="module")
def emulated(model: bytes, profile: Profile, samples: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    emulator = EmulatorRuntime(profile).load(model)
    return [emulator.invoke(sample) for sample in samples]


def test_outputs_equal_the_emulators(delegated, session, profile, answers, emulated, show) -> None:
    pairs = [
        (a, b) for found, expected in zip(answers, emulated, strict=True) for a, b in zip(found, expected, strict=True)
    ]
    assert all(a.dtype == b.dtype and a.shape == b.shape for a, b in pairs)
    steps = np.concatenate([np.abs(a.astype(np.float64) - b).ravel() for a, b in pairs])
    agree = np.mean([a.argmax() == b.argmax() for a, b in pairs])
    show(
        f"{getattr(session, 'runtime', 'here')}, outputs against emulator/{profile} on {len(answers)} samples: "
        f"{np.count_nonzero(steps)} of {steps.size} elements differ, at most {steps.max():g}, "
        f"the largest output is the same on {agree:.1%}"
    )
    assert delegated or not steps.any()


def test_every_operator_equals_the_emulators(runtime, delegated, profile, model, samples, show) -> None:
    exposed = expose(model)
    session = runtime.load(exposed.content)
    try:
        found = [
            difference
            for inputs in samples[:_OPERATOR_SAMPLES]
            for difference in differences(exposed, inputs, session.invoke(inputs), profile)
        ]
    finally:
        session.close()
    differing = [f"{d} {d.differing} of {d.elements} elements, at most {d.largest}" for d in found if d.differing]
    show(f"operators that differ from emulator/{profile}: {'; '.join(differing) or 'none'}")
    assert sum(d.elements for d in found) > 0
    for d in found:
        steps = d.node.op.xnnpack_steps(d.node.attrs, d.node.in_types, d.node.out_types)
        assert d.largest <= (steps if delegated else 0), differing


def test_the_same_again(runtime, session, model, samples, answers) -> None:
    count = min(len(samples), _REPEATED_SAMPLES)

    def same(other: Any) -> bool:
        again = [other.invoke(sample) for sample in reversed(samples[:count])]
        return all(
            a.tobytes() == b.tobytes()
            for found, expected in zip(reversed(again), answers[:count], strict=True)
            for a, b in zip(found, expected, strict=True)
        )

    assert same(session)
    loaded_again = runtime.load(model)
    try:
        assert same(loaded_again)
    finally:
        loaded_again.close()


def test_latency(session, samples, show) -> None:
    session.invoke(samples[0])
    session.invoke(samples[0], repeats=_REPEATS)
    times = np.array(session.timing.times_ns) / 1e6
    show(f"latency: median {np.median(times):.2f} ms, least {times.min():.2f} ms, of {len(times)} runs")
    assert len(times) == _REPEATS and (times > 0).all()
