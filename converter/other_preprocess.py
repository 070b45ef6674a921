"""Whether a float network is right more often on the same labelled pictures when these are preprocessed in another way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from converter.data import DataSource
from converter.preprocess import MODES, preprocess_name
from ir.execute import batchable, compiled, run_float
from ir.graph import Graph

RunFloat = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
_TRIED = 40  # samples
_BETTER = 0.2  # of them


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
