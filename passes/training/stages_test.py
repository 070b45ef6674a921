from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from passes.training.stages import parts_of


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 6))
@settings(deadline=None, derandomize=True)
def test_parts_keep_the_order_and_no_more_is_in_one_than_its_share_and_an_item(sizes: list[int], count: int) -> None:
    parts = parts_of(range(len(sizes)), sizes, count)
    assert [i for part in parts for i in part] == list(range(len(sizes)))
    assert len(parts) <= count and all(parts)
    assert all(sum(sizes[i] for i in part) <= sum(sizes) / count + max(sizes) for part in parts)


def test_one_that_is_most_of_all_stands_alone() -> None:
    assert parts_of("abcd", [1, 1, 100, 1], 4) == [["a", "b"], ["c"], ["d"]]
