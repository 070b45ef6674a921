"""Estimates from products with known matrices, against what those matrices have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from passes.measuring.curvature import top_eigenvalue, traces

SHAPES = ((3, 5), (20,), (4, 4, 2))
SIZES = [int(np.prod(s)) for s in SHAPES]
STARTS = np.cumsum([0, *SIZES])


class Known:
    """Two batches of unequal size, each with a random positive matrix; blocks differ in size by powers of ten."""

    shapes = SHAPES
    shares = (0.75, 0.25)

    def __init__(self, sign: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        scale = np.repeat([1.0, 0.1, 3.0], SIZES)
        self.matrices = [sign * scale[:, None] * (a @ a.T) * scale for a in rng.normal(size=(2, STARTS[-1], 8))]

    @property
    def whole(self) -> np.ndarray:
        return sum(share * m for share, m in zip(self.shares, self.matrices, strict=True))

    def block(self, i: int) -> np.ndarray:
        place = slice(STARTS[i], STARTS[i + 1])
        return self.whole[place, place]

    def __call__(self, blocks: Sequence[int], vectors: Sequence[np.ndarray], batch: int) -> list[np.ndarray]:
        whole = np.zeros(STARTS[-1])
        for i, v in zip(blocks, vectors, strict=True):
            whole[STARTS[i] : STARTS[i + 1]] = np.ravel(v)
        made = self.matrices[batch] @ whole
        return [made[STARTS[i] : STARTS[i + 1]].reshape(SHAPES[i]) for i in blocks]


def test_traces_are_those_of_the_blocks_within_their_errors():
    known = Known()
    found = traces(known, tolerance=0.02, rounds=5000)
    exact = np.array([np.trace(known.block(i)) for i in range(3)])
    assert (found.errors <= 0.02 * found.values).all() and (found.rounds < 5000).all()
    assert (np.abs(found.values - exact) < 4 * found.errors).all()  # four standard errors: 1 in 16 000


def test_flat_blocks_are_not_lost_in_the_noise_of_others():
    found = traces(Known(), tolerance=0.1, rounds=5000)
    assert found.rounds[1] > found.rounds[2] and found.errors[1] <= 0.1 * found.values[1]


def test_traces_stop_at_the_rounds_that_they_are_given_and_say_how_sure_they_are():
    found = traces(Known(), tolerance=0.0, rounds=6)
    again = traces(Known(), tolerance=0.0, rounds=6)
    assert (found.rounds == 6).all() and (found.errors > 0).all()
    np.testing.assert_array_equal(found.values, again.values)
    assert (traces(Known(), tolerance=0.0, rounds=6, seed=1).values != found.values).all()


def test_of_a_few_draws_no_error_is_claimed():
    assert np.isinf(traces(Known(), tolerance=1e9, rounds=3).errors).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_top_eigenvalues_are_those_of_the_blocks(sign: float):
    known = Known(sign)
    for i in range(3):
        exact = np.linalg.eigvalsh(known.block(i))
        found = top_eigenvalue(known, i, tolerance=1e-4)
        assert found.change <= 1e-4 and found.iterations < 100
        assert found.value == pytest.approx(exact[np.abs(exact).argmax()], rel=0.01)  # stopped at a change of 1e-4


def test_a_block_without_curvature_has_none():
    known = Known(0.0)
    assert top_eigenvalue(known, 0).value == 0.0
    assert not traces(known, rounds=5).values.any()
