"""Rounding weights so that the errors cancel in the layer's output.

After GPTQ (arXiv:2210.17323); the objective is AdaRound's (arXiv:2004.10568, eq. 13).

With `e = q - W / S` the rounding errors of one output channel in steps, and `H` the covariance of the inputs that its
weights multiply, the variance of the output's error is `S^2 e' H e` (the mean is left to the bias). Weights are rounded
one after the other, the largest `H_jj` first; what a weight's rounding does to the output is taken back, as well as can
be, by those that are not rounded yet: with `U' U = H^-1` (Cholesky), `w_i -= e_j U_ji / U_jj` (GPTQ, section 3.2). Then
single weights are moved by a step as long as this lowers `e' H e`. Before, the threshold is lowered as far as the
expected error, clipping included, falls: a tensor whose scale a few weights have set wins more in all others. One pass over a few dozen samples gives all `H`.

Arrays are `[groups, rows, n]` with `H` as `[groups, n, n]`: a convolution is one group of all its output channels, a
depthwise convolution a group per channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops as K

from ir.execute import run_float
from ir.graph import Graph, Node, Value
from ir.ops._common import Padding, window_size
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.quantization import QuantParams

LARGEST = 2400  # inputs per output channel: H has the square of it
FACTORS = tuple(np.round(np.arange(1.0, 0.24, -0.05), 2))  # of the threshold, tried in this order
_DAMPING = 1e-3


@dataclass(frozen=True)
class Rounded:
    """How a weight tensor starts: its parameters and integers."""

    params: QuantParams
    integers: np.ndarray


def compensate(v: np.ndarray, h: np.ndarray, qmax: int) -> np.ndarray:
    """Integers for weights in steps `v`, each error taken back by the weights after it; `h` is positive definite."""
    order = np.argsort(-np.diagonal(h, axis1=1, axis2=2), axis=1, kind="stable")
    groups = np.arange(len(h))[:, None]
    h = h[groups[:, :, None], order[:, :, None], order[:, None, :]]
    left = np.take_along_axis(v, order[:, None, :], axis=2)
    upper = np.swapaxes(np.linalg.cholesky(np.linalg.inv(h)), 1, 2)
    q = np.empty_like(left)
    for j in range(v.shape[2]):
        q[..., j] = np.clip(np.rint(left[..., j]), -qmax, qmax)
        error = (left[..., j] - q[..., j]) / upper[:, None, j, j]
        left[..., j:] -= error[..., None] * upper[:, None, j, j:]
    return np.take_along_axis(q, np.argsort(order, axis=1)[:, None, :], axis=2)


def descend(q: np.ndarray, v: np.ndarray, h: np.ndarray, qmax: int, sweeps: int = 8) -> np.ndarray:
    """Moves single weights by one step while that lowers `e' H e`."""
    q, error = q.copy(), q - v
    slope = error @ h
    for _ in range(sweeps):
        moved = False
        for j in range(v.shape[2]):
            step = -np.sign(slope[..., j])
            gain = 2 * step * slope[..., j] + h[:, None, j, j]
            step = np.where((gain < 0) & (np.abs(q[..., j] + step) <= qmax), step, 0.0)
            if step.any():
                moved = True
                q[..., j] += step
                slope += step[..., None] * h[:, None, j]
        if not moved:
            break
    return q


def round_to_cancel(v: np.ndarray, h: np.ndarray, qmax: int) -> np.ndarray:
    """Integers for weights in steps `v` that make `e' H e` small; never worse than the nearest ones."""
    v, h = np.asarray(v, np.float64), np.asarray(h, np.float64)
    h = (h + np.swapaxes(h, 1, 2)) / 2
    eigenvalues, vectors = np.linalg.eigh(h)
    least = np.maximum(_DAMPING * eigenvalues.mean(axis=1, keepdims=True), 1e-12)  # inputs that the data do not show
    h = (vectors * (np.maximum(eigenvalues, 0.0) + least)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    nearest = np.clip(np.rint(v), -qmax, qmax)
    found = descend(compensate(v, h, qmax), v, h, qmax)
    better = expected_error(found, v, h) < expected_error(nearest, v, h)
    return np.where(better[..., None], found, nearest)


def expected_error(q: np.ndarray, v: np.ndarray, h: np.ndarray) -> np.ndarray:
    """`e' H e` per group and row."""
    error = q - v
    return ((error @ h) * error).sum(axis=-1)


def roundable(node: Node) -> bool:
    """Whether the inputs that its weights multiply are known here, and few enough."""
    weight = node.weight
    if weight is None or weight.data is None or weight.quant is None:
        return False
    if node.op is DEPTHWISE_CONV_2D:
        return bool(node.attrs.depth_multiplier == 1)
    if node.op is CONV_2D and node.inputs[0] is not None:
        return weight.shape[3] == node.inputs[0].shape[3] and int(np.prod(weight.shape[1:])) <= LARGEST
    return node.op is FULLY_CONNECTED and weight.shape[1] <= LARGEST


def moments(node: Node, x: Any) -> tuple[Any, Any]:
    """Means over samples and places of products of inputs, `[n, n]` or depthwise `[channels, n, n]`, and of inputs."""
    weight = node.weight
    assert weight is not None
    if node.op is FULLY_CONNECTED:
        rows = K.reshape(x, (-1, weight.shape[1]))
    elif node.op is DEPTHWISE_CONV_2D:
        taps = K.stack(_taps(node, x), axis=-1)  # [samples, h, w, channels, n]
        rows = K.transpose(K.reshape(taps, (-1, weight.shape[3], weight.shape[1] * weight.shape[2])), (1, 0, 2))
        products = K.matmul(K.transpose(rows, (0, 2, 1)), rows) / K.cast(K.shape(rows)[1], "float32")
        return products, K.mean(rows, axis=1)
    else:
        rows = K.reshape(K.concatenate(_taps(node, x), axis=-1), (-1, int(np.prod(weight.shape[1:]))))
    return K.matmul(K.transpose(rows), rows) / K.cast(K.shape(rows)[0], "float32"), K.mean(rows, axis=0)


def _taps(node: Node, x: Any) -> list[Any]:
    """The input under every kernel position, zeros around it as the attributes say."""
    attrs, weight = node.attrs, node.weight
    assert weight is not None
    _, kh, kw, _ = weight.shape
    out_h, top, bottom = window_size(x.shape[1], kh, attrs.stride_h, attrs.dilation_h_factor, attrs.padding)
    out_w, left, right = window_size(x.shape[2], kw, attrs.stride_w, attrs.dilation_w_factor, attrs.padding)
    if attrs.padding is not Padding.VALID:
        x = K.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    found = []
    for i in range(kh):
        for j in range(kw):
            y, z = i * attrs.dilation_h_factor, j * attrs.dilation_w_factor
            rows = x[:, y : y + (out_h - 1) * attrs.stride_h + 1 : attrs.stride_h]
            found.append(rows[:, :, z : z + (out_w - 1) * attrs.stride_w + 1 : attrs.stride_w])
    return found


class Covariances:
    """The covariances `H` of all layers that can be rounded, summed batch by batch."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.nodes = [n for n in graph.nodes if roundable(n) and n.weight is not None and len(n.weight.uses) == 1]
        self._products: list[Any] = [0.0] * len(self.nodes)
        self._means: list[Any] = [0.0] * len(self.nodes)
        self._count = 0

    def of_batch(self, reals: Sequence[Any]) -> list[Any]:
        """Means of products and of inputs, layer by layer, of one batch; traceable."""
        inputs = [n.inputs[0] for n in self.nodes]
        wanted = list(dict.fromkeys(v for v in inputs if v is not None))
        values = dict(zip(wanted, run_float(self._graph, list(reals), wanted=wanted), strict=True))
        found: list[Any] = []
        for node, value in zip(self.nodes, inputs, strict=True):
            assert value is not None
            found += moments(node, values[value])
        return found

    def add(self, found: Sequence[np.ndarray], count: int) -> None:
        """What `of_batch` returned for `count` samples."""
        for i in range(len(self.nodes)):
            self._products[i] = self._products[i] + count * np.asarray(found[2 * i], np.float64)
            self._means[i] = self._means[i] + count * np.asarray(found[2 * i + 1], np.float64)
        self._count += count

    def rounded(self) -> dict[Value, Rounded]:
        """Per weight tensor its parameters and integers."""
        found = {}
        for node, products, means in zip(self.nodes, self._products, self._means, strict=True):
            mean = means / self._count
            h = products / self._count - mean[..., :, None] * mean[..., None, :]
            value = node.weight
            assert value is not None
            found[value] = _round_layer(node, value, h)
        return found


def best_factors(v: np.ndarray, h: np.ndarray, qmax: int, per_row: bool) -> np.ndarray:
    """Factors of the threshold `[groups, rows]` with the least expected error of rounding and clipping.

    One for all rows, or the best of each (`per_row`).
    """
    costs = np.stack([f * f * expected_error(np.clip(np.rint(v / f), -qmax, qmax), v / f, h) for f in FACTORS])
    if per_row:
        return np.asarray(FACTORS)[np.argmin(costs, axis=0)]
    return np.full(v.shape[:2], FACTORS[int(np.argmin(costs.sum(axis=(1, 2))))])


def _round_layer(node: Node, value: Value, h: np.ndarray) -> Rounded:
    assert value.data is not None and value.quant is not None
    params, qmax = value.quant, value.quant.qmax
    depthwise = node.op is DEPTHWISE_CONV_2D
    scale, _ = params.shaped(value.data.ndim)
    v = value.data.astype(np.float64) / scale.astype(np.float64)
    rows = v.reshape(-1, 1, v.shape[3]).transpose(2, 1, 0) if depthwise else v.reshape(1, v.shape[0], -1)
    h = h if depthwise else h[None]
    factors = best_factors(rows, h, qmax, params.per_channel)
    q = round_to_cancel(rows / factors[..., None], h, qmax)
    new = params.scale * (factors.ravel() if params.per_channel else factors.ravel()[0])
    return Rounded(
        params=QuantParams(scale=new, axis=params.axis, bits=params.bits, narrow=params.narrow),
        integers=(q.transpose(2, 1, 0) if depthwise else q).reshape(v.shape),
    )
