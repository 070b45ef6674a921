"""Inputs to measure a network on when there is no data set for it: photographs where it takes images, else noise.

- An input of shape `[1, height, width, 1 or 3]` gets photographs of a folder: for judging as the data package scales
  and crops them, for calibration random parts of them, mirrored half of the time.
- An input that has an output of its own shape, beside another input, is a state: zeros at first, then what the float
  network gave out for the sample before.
  (The states that a graph itself keeps are those of `converter.data.stateful`.)
- Any other gets smooth noise between -1 and 1.

What is counted are samples: of an input whose first axis is no batch a sample takes the whole of that axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converter.data import DataSource, InputSpec, from_arrays
from converter.data.images import decode, find_images, fit
from converter.data.source import choose
from converter.data.stateful import RunFloat, own_specs, specs, steps, with_states
from converter.preprocess import apply_mode
from ir.graph import Graph, Value
from ir.types import DType


def is_image(value: Value) -> bool:
    """Whether an input can be a picture."""
    sizes = value.shape[1:3]
    return value.type.rank == 4 and value.dtype is DType.FLOAT32 and value.shape[3] in (1, 3) and min(sizes) >= 8


def states(graph: Graph) -> dict[int, int]:
    """Inputs that are states: their position, and that of the output they are fed from."""
    found: dict[int, int] = {}
    if len(graph.inputs) < 2 or graph.states:
        return found
    for i, value in enumerate(graph.inputs):
        same = [j for j, out in enumerate(graph.outputs) if out.shape == value.shape and j not in found.values()]
        if i > 0 and same and not is_image(value):
            found[i] = same[-1]
    return found


def make_samples(
    graph: Graph,
    count: int,
    *,
    photographs: Path | None = None,
    preprocess: str = "unit",
    crops: bool = False,
    seed: int = 0,
    run: RunFloat | None = None,
) -> DataSource:
    """Samples for every input; `run` computes the float network and is needed where there are states.

    Args:
      photographs: a folder; noise takes the place of images without it.
      preprocess: of the photographs, a mode of `converter.preprocess`.
      crops: random parts of the photographs, rather than each as it is (then at most one sample per photograph).
    """
    rng = np.random.default_rng(seed)
    fed_back = states(graph) if run is not None else {}
    pictures = [v for v in graph.own_inputs if is_image(v)]
    files = find_images(photographs) if photographs is not None and pictures else []
    if files and not crops:
        count = min(count, len(files))
    given = [v for i, v in enumerate(graph.own_inputs) if i not in fed_back]
    arrays = [_array(v, count, files, photographs, preprocess, crops, rng) for v in given]
    if graph.states:
        return with_states(graph, from_arrays(arrays, own_specs(graph)))
    source = from_arrays(arrays, stateless(graph) if fed_back else specs(graph))
    return stream(graph, source, count, run) if fed_back and run is not None else source


def stateless(graph: Graph) -> list[InputSpec]:
    """What the data package needs to know of the inputs that are no states."""
    return [spec for i, spec in enumerate(specs(graph)) if i not in states(graph)]


def stream(graph: Graph, source: DataSource, count: int, run: RunFloat) -> DataSource:
    """Samples with their states, from consecutive samples of the other inputs.

    The float network computes all of `source`, each sample with the states that the one before left behind; kept are
    `count` of them, evenly spaced.
    """
    fed_back = states(graph)
    kept = set(choose(len(source), count).tolist())
    begin = {i: np.zeros(graph.inputs[i].shape, np.float32) for i in fed_back}
    computed = enumerate(steps(graph, source, fed_back, begin, run))
    rows = [arrays for position, (arrays, _) in computed if position in kept]
    return from_arrays([np.concatenate(parts) for parts in zip(*rows, strict=True)], specs(graph))


def _array(
    value: Value,
    count: int,
    files: Sequence[str],
    root: Path | None,
    preprocess: str,
    crops: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    samples, count = count, count * (value.shape[0] if value.shape else 1)
    if is_image(value) and files and root is not None:
        size = (value.shape[1], value.shape[2], value.shape[3])
        chosen = [files[(i * max(1, len(files) // count)) % len(files)] for i in range(count)]  # spread over the folder
        images = [_picture(root / name, size, crops, rng) for name in chosen]
        return apply_mode(np.stack(images), preprocess)
    shape = (count, *value.shape[1:])
    if not value.dtype.is_float:
        return rng.integers(0, 2, shape).astype(value.dtype.numpy)
    if is_image(value):
        return apply_mode(127.5 * (1 + smooth_noise(shape, rng)), preprocess)
    if len(shape) == 1:  # a signal of its own for every sample
        return smooth_noise((samples, count // samples), rng).reshape(-1)
    return smooth_noise(shape, rng)


def _picture(path: Path, size: tuple[int, int, int], crops: bool, rng: np.random.Generator) -> np.ndarray:
    if not crops:
        return decode(path.read_bytes(), size, str(path))
    height, width, channels = size
    whole = decode(path.read_bytes(), (2 * height, 2 * width, channels), str(path))
    part = rng.uniform(0.7, 1.0)
    h, w = round(2 * height * part), round(2 * width * part)
    top, left = rng.integers(0, 2 * height - h + 1), rng.integers(0, 2 * width - w + 1)
    cut = fit(np.ascontiguousarray(whole[top : top + h, left : left + w]), height, width)
    return cut[:, ::-1] if rng.uniform() < 0.5 else cut


def smooth_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Sums of waves along the longest axis with some white noise, each sample scaled to its own size up to 1."""
    axis = 1 + int(np.argmax(shape[1:]))
    x = np.zeros(shape)
    position = np.moveaxis(
        np.broadcast_to(np.arange(shape[axis]) / shape[axis], (*shape[:axis], *shape[axis + 1 :], shape[axis])),
        -1,
        axis,
    )
    each = tuple(n if i != axis else 1 for i, n in enumerate(shape))
    for _ in range(4):
        frequency, phase = rng.integers(1, 9, each), rng.uniform(0, 2 * np.pi, each)
        x = x + rng.normal(size=each) * np.sin(2 * np.pi * frequency * position + phase)
    x = x + 0.3 * rng.normal(size=shape)
    axes = tuple(range(1, len(shape)))
    loudness = rng.uniform(0.2, 1.0, (shape[0], *(1,) * (len(shape) - 1)))
    return (loudness * x / np.abs(x).max(axis=axes, keepdims=True)).astype(np.float32)
