"""Whether a float network was trained on such numbers: what its first batch norms kept, and what it answers on labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from converter import batch_norms
from converter.data import DataSource
from converter.data.source import choose
from converter.preprocess import MODES, Preprocess, preprocess_name
from ir.execute import batchable, compiled, run_float
from ir.graph import Graph

RunFloat = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
_TRIED = 40  # samples
_BETTER = 0.2  # of them
_LOOKED_AT = 32  # samples, as reports do


def unusual_input(reference: Graph, data: DataSource | None, preprocess: Preprocess) -> str | None:
    """A sentence where the first batch norms see other numbers than in training; None without them, or without data.

    Args:
      preprocess: how `data` is preprocessed, "" where that was not said.
    """
    if data is None or not len(data) or reference.states:
        return None
    head = batch_norms.until_first(reference)
    if not head.outputs:
        return None
    few = data.subset(choose(len(data), _LOOKED_AT))
    arrays = [np.concatenate(parts) for parts in zip(*few.batches(8), strict=True)]
    worst = max(batch_norms.mismatches(head, arrays), key=lambda m: m.broad, default=None)
    if worst is None or worst.broad <= batch_norms.BROAD:
        return None
    used = preprocess if isinstance(preprocess, str) else ""
    better = None if callable(preprocess) else batch_norms.better_mode(reference, arrays, used, worst.broad)
    fix = f"--preprocess={better} would suit it" if better else "give samples as in training (--preprocess)"
    return (
        f"the network was trained on other numbers: what reaches its first batch norm, '{worst.name}', deviates "
        f"{2.0 ** float(np.median(worst.ratio)):.3g} times as much as in training, and the mean is "
        f"{float(np.median(worst.distance)):.1f} standard deviations away: {fix}"
    )


def better_preprocess(reference: Graph, data: DataSource | None, accuracy: float | None) -> str | None:
    """A sentence where another mode is clearly better; None where all is well, or that cannot be known.

    Args:
      data: what the network was judged on, with labels; `accuracy` its top-1 accuracy on them, None without labels.
    """
    if data is None or data.labels is None or accuracy is None or accuracy > 1 - _BETTER:
        return None
    (value,) = reference.inputs if len(reference.inputs) == 1 else (None,)
    if value is None or value.type.rank != 4 or value.shape[-1] != 3 or not batchable(reference):
        return None
    few = data.subset(np.arange(min(_TRIED, len(data))))
    run = compiled(lambda tensors: run_float(reference, tensors))
    found = {mode: _accuracy(run, few.preprocessed(mode)) for mode in dict.fromkeys((*MODES, data.preprocess))}
    best = max(MODES, key=lambda mode: found[mode])
    if found[best] < found[data.preprocess] + _BETTER:
        return None
    return (
        f"with --preprocess={best} the float network is right on {found[best]:.1%} of the first {len(few)} labelled samples, with "
        f"{preprocess_name(data.preprocess)} on {found[data.preprocess]:.1%}: --preprocess={best} is probably what it was trained with"
    )


def _accuracy(run: RunFloat, data: DataSource) -> float:
    right, labels = 0, data.labels
    assert labels is not None
    for i, batch in enumerate(data.batches(8)):
        right += int((run(batch)[0].argmax(axis=1) == labels[8 * i : 8 * i + 8]).sum())
    return right / len(data)
