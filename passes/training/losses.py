"""Losses between the teacher's outputs and the quantized network's, which need no labels; and one for labels.

- `rmse` (docs/methods/fat.md (5)): `sqrt(mean over batch and classes of (z_T - z_A)^2)`, before softmax. With several outputs the sum
  over outputs, each divided by the root mean square of the teacher's output.
- `kl`: mean Kullback-Leibler divergence `KL(softmax(z_T) || softmax(z_A))` (distillation at temperature 1).
- `cosine`: mean of `1 - cos(z_T, z_A)` per sample.
- `mixed`: `rmse` divided by the teacher's root mean square, plus `kl`.

`cross_entropy` is that of labels. `means` is a loss on features: how far the per-sample channel means of layers are off, in units of the teacher's spread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ir.keras_ops import K

_EPSILON = 1e-12

Loss = Callable[[Sequence[Any], Sequence[Any]], Any]


def _rows(x: Any) -> Any:
    """`[samples, everything else]`."""
    return K.reshape(x, (K.shape(x)[0], -1))


def root_mean_square(x: Any) -> Any:
    """Of all elements; its gradient at 0 is 0."""
    return K.sqrt(K.mean(K.square(x)) + _EPSILON)


def rmse(teacher: Sequence[Any], student: Sequence[Any]) -> Any:
    """Root mean square error; normalized and summed where there are several outputs."""
    if len(teacher) == 1:
        return root_mean_square(teacher[0] - student[0])
    return relative_rmse(teacher, student)


def relative_rmse(teacher: Sequence[Any], student: Sequence[Any]) -> Any:
    """Root mean square errors over the teacher's root mean squares, summed over outputs."""
    return sum(root_mean_square(t - s) / root_mean_square(t) for t, s in zip(teacher, student, strict=True))


def kl(teacher: Sequence[Any], student: Sequence[Any]) -> Any:
    """Kullback-Leibler divergence of the classes (the last axis), summed over outputs."""
    total: Any = 0.0
    for t, s in zip(teacher, student, strict=True):
        p, q = K.log_softmax(t, axis=-1), K.log_softmax(s, axis=-1)
        total = total + K.mean(K.sum(K.exp(p) * (p - q), axis=-1))
    return total


def cosine(teacher: Sequence[Any], student: Sequence[Any]) -> Any:
    """One minus the cosine between the outputs of a sample, averaged; summed over outputs."""
    total: Any = 0.0
    for t, s in zip(map(_rows, teacher), map(_rows, student), strict=True):
        norms = K.sqrt(K.sum(K.square(t), axis=1) * K.sum(K.square(s), axis=1) + _EPSILON)
        total = total + K.mean(1.0 - K.sum(t * s, axis=1) / norms)
    return total


def mixed(teacher: Sequence[Any], student: Sequence[Any]) -> Any:
    """Relative root mean square error plus divergence."""
    return relative_rmse(teacher, student) + kl(teacher, student)


def means(teacher: Sequence[Any], student: Sequence[Any], spread: Sequence[Any]) -> Any:
    """Mean over layers of the root mean square error of channel means `[samples, channels]`, in units of `spread`."""
    errors = [root_mean_square((t - s) / w) for t, s, w in zip(teacher, student, spread, strict=True)]
    return sum(errors) / float(len(errors)) if errors else 0.0


def cross_entropy(labels: Any, logits: Any) -> Any:
    """Mean of `-log softmax(z)[label]` over samples; labels `[samples]` are classes, logits `[samples, classes]`."""
    classes = K.cast(K.reshape(labels, (-1,)), "int32")
    chosen = K.one_hot(classes, logits.shape[-1], dtype="float32")
    return -K.mean(K.sum(chosen * K.log_softmax(logits, axis=-1), axis=-1))


LOSSES: dict[str, Loss] = {"rmse": rmse, "kl": kl, "cosine": cosine, "mixed": mixed}
