"""Matrix products: by constants fully connected layers with weights `[out, in]`, of tensors batched products.

A product written with Einstein's sum is brought to one of these: `A[batch, M, K] B[batch, K, N] -> [batch, M,
N]`, where the letters of both operands and the result are the batch, those of both operands only K, and the
rest M and N.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer, operation
from converter.frontends.keras_layers._shapes import reshape, transpose
from ir.graph import Value
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import ADD, MUL
from ir.ops.matmul import BATCH_MATMUL
from ir.ops.softmax import SOFTMAX

HIDDEN = -1e9  # as a score: its exponential is 0 beside any other


@layer(keras.layers.Dense)
def dense(b: Builder, layer: Any, x: Value) -> Value:
    weights = b.weight(layer.kernel, "kernel", np.transpose)
    operands = (x, weights) if layer.bias is None else (x, weights, b.weight(layer.bias, "bias"))
    return b.activation(layer.activation, b.node(FULLY_CONNECTED, *operands, keep_num_dims=len(x.shape) > 2))


@operation("Matmul")
def matmul(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    if min(len(x1.shape), len(x2.shape)) < 2:
        raise b.fail(
            "matrices",
            f"a product of shapes {tuple(x1.shape)} and {tuple(x2.shape)}",
            "expand the vector first",
        )
    if isinstance(x1, Value) and not isinstance(x2, Value) and len(x2.shape) == 2:
        return b.node(FULLY_CONNECTED, x1, b.weight(x2, "weights", np.transpose), keep_num_dims=len(x1.shape) > 2)
    return b.node(BATCH_MATMUL, b.operand(x1), b.operand(x2))


@operation("Dot")
def dot(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    first = string.ascii_letters[: len(x1.shape)]
    second = string.ascii_letters[len(x1.shape) : len(x1.shape) + len(x2.shape)]
    at = -2 if len(second) > 1 else -1
    second = second.replace(second[at], first[-1])
    return _einsum(b, first, second, "".join(c for c in first + second if c != first[-1]), x1, x2)


@operation("Tensordot")
def tensordot(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    rank1, rank2 = len(x1.shape), len(x2.shape)
    axes = op.axes
    if isinstance(axes, int):
        axes = (list(range(rank1 - axes, rank1)), list(range(axes)))
    ours, theirs = ([a] if isinstance(a, int) else list(a) for a in axes)
    first = list(string.ascii_letters[:rank1])
    second = list(string.ascii_letters[rank1 : rank1 + rank2])
    for i, j in zip(ours, theirs, strict=True):
        second[j] = first[i]
    shared = set(first) & set(second)
    return _einsum(b, "".join(first), "".join(second), "".join(c for c in first + second if c not in shared), x1, x2)


@operation("Einsum")
def einsum(b: Builder, op: Any, *operands: Any) -> Value:
    return _einsum(b, *_letters(b, op.subscripts, operands), *operands)


@layer(keras.layers.EinsumDense)
def einsum_dense(b: Builder, layer: Any, x: Value) -> Value:
    y = _einsum(b, *_letters(b, layer.equation, (x, layer.kernel)), x, layer.kernel, layer.bias)
    return b.activation(layer.activation, y)


def _letters(b: Builder, equation: str, operands: Sequence[Any]) -> tuple[str, str, str]:
    """The letters of two operands and the result, with letters for the axes that "..." stands for."""
    sources, arrow, result = equation.replace(" ", "").partition("->")
    terms = sources.split(",")
    if len(terms) != 2 or not arrow:
        raise b.fail("einsum of two operands, with a result", f"'{equation}'", "write it as several products")
    unused = [c for c in string.ascii_letters if c not in equation]
    spread = max(len(x.shape) - len(term.replace("...", "")) for x, term in zip(operands, terms, strict=True))
    full = []
    for x, term in zip(operands, terms, strict=True):
        count = len(x.shape) - len(term.replace("...", ""))
        full.append(term.replace("...", "".join(unused[spread - count : spread])))
    return full[0], full[1], result.replace("...", "".join(unused[:spread]))


def _einsum(b: Builder, first: str, second: str, result: str, x1: Any, x2: Any, bias: Any = None) -> Value:
    """The product plus a bias that broadcasts with it; by a constant it is a fully connected layer."""
    if not isinstance(x1, Value):
        first, second, x1, x2 = second, first, x2, x1
    inner = [c for c in first if c in second and c not in result]
    batch = [c for c in result if c in first and c in second]
    rows = [c for c in result if c in first and c not in second]
    columns = [c for c in result if c in second and c not in first]
    complete = set(inner + batch + rows + columns) == set(first + second)
    if not complete or any(len(set(term)) != len(term) for term in (first, second, result)):
        raise b.fail(
            "a sum of products over letters that both operands have",
            f"einsum '{first},{second}->{result}'",
            "take sums and diagonals apart from the product",
        )
    size = dict(zip(first + second, (*x1.shape, *(int(d) for d in x2.shape)), strict=True))

    def sizes(letters: Sequence[str]) -> tuple[int, ...]:
        return tuple(size[c] for c in letters)

    made = batch + rows + columns
    left = transpose(b, x1, [first.index(c) for c in batch + rows + inner], "left")
    depth = math.prod(sizes(inner))
    if not isinstance(x2, Value) and not batch:
        inside = bias is not None and "".join(made) == result and _is_vector_over(bias, sizes(columns))
        flat = reshape(b, left, (*sizes(rows), depth), "left_shaped")
        perm = [second.index(c) for c in columns + inner]
        matrix = b.weight(x2, "kernel", lambda w: w.transpose(perm).reshape(-1, depth))
        operands = (flat, matrix, b.weight(bias, "bias", np.ravel)) if inside else (flat, matrix)
        y = b.node(FULLY_CONNECTED, *operands, keep_num_dims=len(flat.shape) > 2)
        bias = None if inside else bias
    else:
        right = transpose(b, b.operand(x2), [second.index(c) for c in batch + inner + columns], "right")
        left = reshape(b, left, (*sizes(batch), math.prod(sizes(rows)), depth), "left_shaped")
        right = reshape(b, right, (*sizes(batch), depth, math.prod(sizes(columns))), "right_shaped")
        y = b.node(BATCH_MATMUL, left, right)
    y = transpose(b, reshape(b, y, sizes(made), "shaped"), [made.index(c) for c in result], "ordered")
    return y if bias is None else b.node(ADD, y, b.weight(bias, "bias"), name="biased")


def _is_vector_over(bias: Any, columns: tuple[int, ...]) -> bool:
    """Whether a bias has an element for every column, and no other."""
    shape = tuple(bias.shape)
    return shape[len(shape) - len(columns) :] == columns and math.prod(shape) == math.prod(columns)


@operation("DotProductAttention")
def attention(
    b: Builder,
    op: Any,
    query: Value,
    key: Value,
    value: Value,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
) -> Value:
    """softmax(q k^T scale + bias) v by head; operands and result are `[batch, time, head, size]`.

    Where the mask, `[batch, head or 1, time, time]`, does not hold, and after the own step of a causal one, the weight
    is 0. Heads of keys may be shared by groups of heads of queries.
    """
    if op.attn_logits_soft_cap is not None:
        raise b.fail("attention by softmax alone", "a cap on its scores", "train without attn_logits_soft_cap")
    groups = query.shape[2] // key.shape[2]
    if groups > 1:
        key, value = (b.apply(lambda x: keras.ops.repeat(x, groups, axis=2), x) for x in (key, value))
    q, k, v = (transpose(b, x, (0, 2, 1, 3), n) for x, n in ((query, "query"), (key, "key"), (value, "value")))
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    q = b.node(MUL, q, b.constant(factor, "scale"), name="scaled")
    scores = b.node(BATCH_MATMUL, q, k, name="scores", adj_y=True)
    if bias is not None:
        scores = b.node(ADD, scores, b.operand(bias, "bias"), name="biased")
    if op.is_causal:
        scores = masked(b, scores, np.tril(np.ones(scores.shape[-2:], bool)))
    if mask is not None:
        scores = masked(b, scores, mask)
    weights = b.node(SOFTMAX, scores, name="weights")
    return transpose(b, b.node(BATCH_MATMUL, weights, v, name="heads"), (0, 2, 1, 3), "")


@layer(keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
def attention_layer(
    b: Builder, layer: Any, query: Value, value: Value, key: Any = None, *, use_causal_mask: bool = False, **given: Any
) -> Any:
    """A causal mask alone becomes a constant: inside of the layer Keras knows no lengths to make it of."""
    if use_causal_mask and not any(isinstance(mask, Value) for mask in given.values()):
        given["attention_mask"] = np.tri(query.shape[1], value.shape[1], dtype=bool)[None]
        use_causal_mask = False
    return b.apply(layer.call, query, value, key, use_causal_mask=use_causal_mask, training=False, **given)


def masked(b: Builder, scores: Value, mask: Any) -> Value:
    """Scores with next to minus infinity where a mask does not hold."""
    return b.apply(lambda x, m: keras.ops.where(m, x, HIDDEN), scores, mask)


@layer(keras.layers.Softmax)
def softmax_layer(b: Builder, layer: Any, x: Value, mask: Any = None) -> Value:
    """A row that is masked as a whole has no weights at all."""
    axis = tuple(layer.axis) if isinstance(layer.axis, (tuple, list)) else layer.axis
    shown = x if mask is None else masked(b, x, mask)
    weights = b.apply(lambda s: keras.ops.softmax(s, axis=axis), shown)
    return weights if mask is None else b.apply(lambda w, m: keras.ops.where(m, w, 0.0), weights, mask)
