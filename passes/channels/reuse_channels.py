"""Dead channels carry second copies of live ones: finer activations in a file of the same size.

Trained networks hold channels that are constant whatever the input (their batch norm's gamma went to 0): of the 24
channels that MobileNetV1's first layers pass on, 9. Outlier channel splitting (arXiv:1901.09504, eq. 4) writes a
channel twice and halves the weights that read it; there it makes the network wider, here the copy takes a dead place.
The copy is shifted by half a quantization step `d`, so that both together are quantized half a step finer:

    y = (round(y) + round(y + d) - d) / 2,    d = range / 255 / 2

A place is a layer, the activations and depthwise layers after it, and the layers that read the last of them. Before
a copy moves in, the constant that was there is folded into the readers' biases (refused where a padded
kernel would not read it at the border). Live channels are copied in the order of the noise that they add,
`sum_v (step_v g_v[k])^2 * sum W[:, k]^2`, where `g_v` is what depthwise layers make of it. An activation that cuts at
0 cuts the shift, too: readers' biases correct its mean, on calibration data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.execute import batchable, eager, run_float
from ir.graph import Graph, Value
from ir.layer import Layer
from ir.ops._common import Padding
from ir.widths import Widths
from passes.channels.chains import Chain, chains, is_depthwise
from passes.channels.links import Link
from passes.contract.base import Context, Copies, Needs, Pass, PassReport, Skip, numeric

_NOTHING = 1e-5  # of the range of a tensor: what a channel may vary by and still counts as constant


@dataclass(frozen=True, kw_only=True)
class ReuseChannels(Pass):
    """Copies the channels that add most noise into the places of constant ones, half a step apart.

    `activation_bits` are those that the step of an activation follows from.
    """

    name: ClassVar[str] = "reuse_channels"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS})
    guarded: ClassVar[bool] = True

    samples: int = numeric(16, least=1)
    activation_bits: int = numeric(8, least=2, most=16)

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed: list[str] = []
        skipped: list[Skip] = []
        for chain in list(chains(graph, is_plain)):
            constants = constant_channels(chain, context)
            free = np.flatnonzero(np.isfinite(constants))
            if not len(free):
                continue
            if reason := _refusal(chain, constants):
                skipped.append(Skip(chain.first.name, f"{len(free)} constant channels, but {reason}"))
                continue
            chosen = chosen_channels(chain, context, constants)[: len(free)]
            self._copy(graph, context, chain, constants, chosen, free[: len(chosen)])
            changed.append(f"{chain.first.name}: {len(chosen)} channels twice, {len(free)} were constant")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))

    def _copy(
        self,
        graph: Graph,
        context: Context,
        chain: Chain,
        constants: np.ndarray,
        chosen: np.ndarray,
        free: np.ndarray,
    ) -> None:
        """Writes the copies from the first layer to the readers, each with what the layers before made of the shift."""
        for reader in chain.readers:
            _read_twice(graph, reader, constants, chosen, free)
        for layer, value in zip(chain.layers, chain.results, strict=True):
            came = np.zeros(len(chosen)) if layer is chain.first else self._shift(graph, context, layer, chosen, free)
            shift = _width(context, value) / Widths(activation_bits=self.activation_bits).activation_levels / 2
            _write_copies(graph, layer, chosen, free, came, shift)
            context.tables.copy_channels(layer.output, Copies(chosen, free, shift))
        for reader in chain.readers:
            came = self._shift(graph, context, reader, chosen, free)
            w, b = _by_input(reader)
            taps = w[..., free].sum(axis=tuple(range(1, w.ndim - 1)))
            _set_by_input(graph, reader, w, b - taps @ came)

    def _shift(self, graph: Graph, context: Context, layer: Layer, chosen: np.ndarray, free: np.ndarray) -> np.ndarray:
        """How much larger the copies are, on average, in what a layer reads: `[copies]`."""
        run = eager(lambda tensors: run_float(graph, tensors, requested=[layer.x]))
        count = min(self.samples, len(context.data)) if batchable(graph) else graph.inputs[0].shape[0]
        (y,) = run(next(iter(context.data.batches(count))))
        mean = y.reshape(-1, y.shape[-1]).mean(axis=0, dtype=np.float64)
        return np.asarray(mean[free] - mean[chosen])


def is_plain(link: Link) -> bool:
    """Whether only activations and zero pads lie on the way, one after the other: a shift passes them but for cuts."""
    between = [v.producer for v in link.path[1:]]
    single = all(len(v.uses) == 1 for v in link.path[:-1])
    multiplied = is_depthwise(link.first) and link.first.attrs.depth_multiplier != 1
    moves = all(n is not None and (n.op.fuses_as is not None or n.op.pads_zeros) for n in between)
    return single and moves and not multiplied


def constant_channels(chain: Chain, context: Context) -> np.ndarray:
    """The constant that each channel of the last result is, `[channels]`; NaN where it varies."""
    table = context.tables.statistics[chain.first.x]
    reach = np.maximum(np.abs(table.low), np.abs(table.high)).astype(np.float64)
    constants = np.full(len(reach), np.nan)
    for link in chain.links:
        constants = _through(link, constants, reach, context)
        table = context.tables.statistics[link.path[-1]]
        reach = np.maximum(np.abs(table.low), np.abs(table.high)).astype(np.float64)
    return constants


def _through(link: Link, constants: np.ndarray, reach: np.ndarray, context: Context) -> np.ndarray:
    w, b = link.first.weights()
    flat = np.moveaxis(w, link.first.channel_axis, -1)
    taps = flat.reshape(-1, flat.shape[-1])
    if is_depthwise(link.first):
        kept = np.isfinite(constants) & ((constants == 0) | (not _pads(link.first)))
        centre = b + np.where(kept, constants, 0.0) * taps.sum(axis=0)
        spread = np.where(kept, 0.0, np.abs(taps).sum(axis=0) * reach)
    else:
        centre = b
        spread = (np.abs(w) * link.first.along_inputs(reach)).sum(axis=link.first.within_output)
    first = context.tables.statistics[link.first.output]
    still = spread <= _NOTHING * max(abs(first.bounds[0]), abs(first.bounds[1]))
    result = np.where(still, centre, np.nan)
    for op in (v.producer.op for v in link.path[1:] if v.producer is not None):
        if op.fuses_as is not None:
            result = np.clip(result, *op.fuses_as.bounds)
        else:
            result = np.where(result == 0, 0.0, np.nan)
    return result


def _pads(layer: Layer) -> bool:
    return getattr(layer.attrs, "padding", Padding.VALID) is Padding.SAME and max(layer.data.shape[1:3]) > 1


def _refusal(chain: Chain, constants: np.ndarray) -> str:
    others = constants[np.isfinite(constants)]
    if np.any(others != 0) and any(_pads(n) for n in chain.readers):
        return "a padded kernel reads them, which meets zeros at the border"
    return ""


def chosen_channels(chain: Chain, context: Context, constants: np.ndarray) -> np.ndarray:
    """Live channels in the order of the noise that they add in what reads them, the noisiest first."""
    noise = np.zeros(len(constants))
    for layer, value in zip(chain.layers, chain.results, strict=True):
        if layer is not chain.first:
            noise *= np.square(layer.weights()[0]).reshape(-1, len(constants)).sum(axis=0)
        noise += _width(context, value) ** 2  # of equally many steps
    read = np.zeros(len(constants))
    for reader in chain.readers:
        read += np.square(_by_input(reader)[0]).reshape(-1, len(constants)).sum(axis=0)
    noise = np.where(np.isfinite(constants), 0.0, noise * read)
    order = np.argsort(-noise, kind="stable")
    return np.asarray(order[noise[order] > 0])


def _width(context: Context, value: Value) -> float:
    low, high = context.tables.statistics[value].bounds
    return max(high, 0.0) - min(low, 0.0)


def _by_input(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Weights with their input channels as the last axis, and biases."""
    w, b = layer.weights()
    return np.moveaxis(w, layer.input_axis, -1), b


def _set_by_input(graph: Graph, layer: Layer, w: np.ndarray, b: np.ndarray) -> None:
    layer.set_weights(graph, np.moveaxis(w, -1, layer.input_axis), b)


def _read_twice(graph: Graph, reader: Layer, constants: np.ndarray, chosen: np.ndarray, free: np.ndarray) -> None:
    """Folds the constants into the reader's bias, and halves what reads a channel and its copy."""
    w, b = _by_input(reader)
    dead = np.isfinite(constants)
    b = b + w[..., dead].sum(axis=tuple(range(1, w.ndim - 1))) @ constants[dead]
    w[..., dead] = 0.0
    w[..., chosen] /= 2
    w[..., free] = w[..., chosen]
    _set_by_input(graph, reader, w, b)


def _write_copies(
    graph: Graph, layer: Layer, chosen: np.ndarray, free: np.ndarray, came: np.ndarray, shift: float
) -> None:
    """Gives places `free` the weights of `chosen`, subtracts what their inputs are larger by, and adds `shift`."""
    w, b = layer.weights()
    w = np.moveaxis(w, layer.channel_axis, -1)
    w[..., free] = w[..., chosen]
    b[free] = b[chosen] + shift
    if is_depthwise(layer):
        b[free] -= came * w[..., chosen].reshape(-1, len(chosen)).sum(axis=0)
    layer.set_weights(graph, np.moveaxis(w, -1, layer.channel_axis), b)
