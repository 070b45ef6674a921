import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from passes.measuring import small_matrices
from passes.measuring.small_matrices import inverse, inverse_factor, solve


def positive_definite(size: int) -> np.ndarray:
    square = np.random.default_rng(size).normal(size=(3, size, size))
    return np.asarray(square @ square.transpose(0, 2, 1) + np.eye(size))


@pytest.mark.parametrize("size", [1, 9, 200])
def test_each_solves_what_it_says(size):
    a = positive_definite(size)
    b = np.random.default_rng(0).normal(size=(3, size, 2))
    np.testing.assert_allclose(a @ solve(a, b), b, atol=1e-9)
    np.testing.assert_allclose(a @ inverse(a), np.broadcast_to(np.eye(size), a.shape), atol=1e-9)
    upper = inverse_factor(a)
    np.testing.assert_array_equal(upper, np.triu(upper))
    np.testing.assert_allclose(a @ upper.transpose(0, 2, 1) @ upper, np.broadcast_to(np.eye(size), a.shape), atol=1e-9)


@pytest.mark.parametrize(("size", "one"), [(9, True), (600, False)])
def test_small_matrices_take_one_thread_and_the_others_come_back(size, one):
    with threadpool_limits(2, user_api="blas"):  # whatever the environment allows
        before = blas_threads()
        with small_matrices._threads(np.empty((4, size, size))):
            assert blas_threads() == ([1] * len(before) if one else before)
        assert blas_threads() == before and max(before) == 2


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
