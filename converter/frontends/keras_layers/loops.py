"""Loops of `keras.ops` over a known number of steps, written out: every step is part of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from ir.graph import Value

K = keras.ops
_MOST_STEPS = 512  # as of a recurrent layer


@operation("Map")
def map_over(b: Builder, op: Any, f: Callable[..., Any], xs: Any) -> Any:
    """A function of every row."""
    return b.apply(lambda xs: _stacked([f(_row(xs, i)) for i in range(_steps(b, xs))]), xs)


@operation("VectorizedMap")
def vectorized_map(b: Builder, op: Any, elements: Any) -> Any:
    return map_over(b, op, op.function, elements)


@operation("Scan")
def scan(b: Builder, op: Any, f: Callable[..., Any], init: Any, xs: Any = None) -> Any:
    """What is carried from row to row, and what every row gives."""

    def compute(carry: Any, xs: Any) -> Any:
        count = _steps(b, xs, op.length)
        results: list[Any] = [None] * count
        for i in reversed(range(count)) if op.reverse else range(count):
            carry, results[i] = f(carry, None if xs is None else _row(xs, i))
        return carry, _stacked(results)

    return b.apply(compute, init, xs)


@operation("AssociativeScan")
def associative_scan(b: Builder, op: Any, f: Callable[..., Any], elems: Any) -> Any:
    """What all rows up to each make together, one after another."""

    def compute(elems: Any) -> Any:
        axis = op.axis
        rows = [_row(elems, i, axis, keep=True) for i in range(_steps(b, elems, axis=axis))]
        rows = rows[::-1] if op.reverse else rows
        made = [rows[0]]
        for row in rows[1:]:
            made.append(f(made[-1], row))
        made = made[::-1] if op.reverse else made
        return keras.tree.map_structure(lambda *parts: K.concatenate(parts, axis=axis), *made)

    return b.apply(compute, elems)


@operation("ForiLoop")
def fori_loop(b: Builder, op: Any, init_val: Any) -> Any:
    if isinstance(op.lower, keras.KerasTensor) or isinstance(op.upper, keras.KerasTensor):
        raise b.fail("a loop between constant bounds", "bounds that the model computes", "fix the number of steps")
    lower, upper = int(op.lower), int(op.upper)
    _check(b, upper - lower)

    def compute(carry: Any) -> Any:
        for i in range(lower, upper):
            carry = op.body_fun(i, carry)
        return carry

    return b.apply(compute, init_val)


@operation("Switch")
def switch(b: Builder, op: Any, index: Any, branches: Any, *operands: Any) -> Any:
    """The branch that a constant chooses."""
    if isinstance(index, Value):
        raise b.fail("a constant that chooses the branch", "one that the model computes", "use keras.ops.where")
    chosen = min(max(int(index), 0), len(branches) - 1)
    return b.apply(branches[chosen], *operands)


def _steps(b: Builder, xs: Any, length: int | None = None, axis: int = 0) -> int:
    count = int(length) if length is not None else int(keras.tree.flatten(xs)[0].shape[axis])
    _check(b, count)
    return count


def _check(b: Builder, steps: int) -> None:
    if steps > _MOST_STEPS:
        raise b.fail(f"at most {_MOST_STEPS} steps, which are written out", f"{steps}", "feed shorter sequences")


def _row(xs: Any, i: int, axis: int = 0, keep: bool = False) -> Any:
    """One row of each tensor, as an axis of 1 with `keep`."""

    def of(x: Any) -> Any:
        before = (slice(None),) * (axis % len(x.shape))
        return x[(*before, slice(i, i + 1) if keep else i)]

    return keras.tree.map_structure(of, xs)


def _stacked(rows: list[Any]) -> Any:
    return keras.tree.map_structure(lambda *parts: K.stack(parts, axis=0), *rows)
