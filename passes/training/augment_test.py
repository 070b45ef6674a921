from __future__ import annotations

import numpy as np
import pytest

from ir.errors import OptionError
from passes.graph_testing import Net
from passes.training.augment import ViewedBatches, check_pictures, viewed
from passes.training.lsq import Lsq
from passes.training.tuning_data import TuningData

PICTURES = np.arange(6 * 16 * 8 * 2, dtype=np.int16).reshape(6, 16, 8, 2)


def test_flipped_pictures_are_themselves_or_mirrored_and_some_are_each():
    found = viewed(PICTURES, ("flip",), np.random.default_rng(0))
    same = [np.array_equal(a, b) for a, b in zip(found, PICTURES, strict=True)]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(found, PICTURES, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True)) and any(same) and any(mirrored)


def test_moved_pictures_are_cut_out_of_the_repeated_edges():
    found = viewed(PICTURES, ("shift",), np.random.default_rng(0))
    padded = np.pad(PICTURES, ((0, 0), (2, 2), (1, 1), (0, 0)), mode="edge")
    moves = [
        [(i, j) for i in range(5) for j in range(3) if np.array_equal(a, b[i : i + 16, j : j + 8])]
        for a, b in zip(found, padded, strict=True)
    ]
    assert all(len(m) == 1 for m in moves) and len({m[0] for m in moves}) > 2


def test_views_depend_on_seed_epoch_and_step_alone_and_the_teacher_answers_for_them():
    net = Net(1)
    graph = net.ends(net.input(16, 8, 2))
    data = TuningData((PICTURES.astype(np.float32),), (np.zeros((6, 1)),), np.zeros((6, 1)), np.arange(6))

    def batches(epoch: int) -> ViewedBatches:
        return ViewedBatches(
            data,
            np.arange(6),
            3,
            seed=5,
            epoch=epoch,
            views=("flip", "shift"),
            inputs=graph.inputs,
            teacher=lambda x: [x[0][:, :1, 0, 0], x[0].mean(axis=(1, 2))],
        )

    late = batches(1)
    first, (x, y), other = late[0], late[1], batches(0)[1]
    (pictures, means), (answers, labels) = x, y
    assert np.array_equal(pictures, batches(1)[1][0][0]) and not np.array_equal(pictures, other[0][0])
    assert np.array_equal(answers, pictures[:, :1, 0, 0]) and np.array_equal(means, pictures.mean(axis=(1, 2)))
    assert sorted([*labels, *first[1][1]]) == list(range(6))


def test_what_is_no_picture_is_refused():
    with pytest.raises(OptionError, match="expected pictures"):
        check_pictures([Net(1).input(6)])


def test_what_is_no_view_is_refused():
    with pytest.raises(OptionError, match=r"augment.*flip, shift or flip\+shift"):
        Lsq(augment="flip+turn")
