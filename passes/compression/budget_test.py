import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ir.graph import Node
from ir.ops.relu import RELU
from passes.compression.budget import Option, Plan, choose

_OPTIONS = st.lists(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 100)), min_size=1, max_size=4), min_size=1, max_size=4
)


def options_of(pairs: list[list[tuple[int, int]]]) -> list[list[Option]]:
    return [[Option(length=1, entries=2, size_bytes=size, cost=float(cost)) for size, cost in each] for each in pairs]


def total(chosen: list[Option]) -> tuple[int, float]:
    return sum(o.size_bytes for o in chosen), sum(o.cost for o in chosen)


@given(_OPTIONS, st.integers(1, 200))
@settings(deadline=None, derandomize=True)
def test_the_choice_fits_and_no_smaller_one_costs_less(pairs, budget):
    options = options_of(pairs)
    size, cost = total(choose(options, budget))
    every = [total(list(each)) for each in itertools.product(*options)]
    if min(s for s, _ in every) > budget:
        assert size == min(s for s, _ in every)
        return
    assert size <= budget
    assert not any(s < size and c < cost for s, c in every)
    free = min(c for _, c in every)
    if min(s for s, c in every if c == free) <= budget:
        assert cost == free


def test_bytes_go_where_they_save_most():
    layers = [
        [Option(size_bytes=100), Option(length=4, entries=16, size_bytes=20, cost=1.0)],
        [Option(size_bytes=100), Option(length=4, entries=16, size_bytes=20, cost=50.0)],
    ]
    assert [o.size_bytes for o in choose(layers, 130)] == [20, 100]
    assert [o.size_bytes for o in choose(layers, 1)] == [20, 20]
    assert [o.size_bytes for o in choose(layers, 200)] == [100, 100]


def test_what_a_layer_leaves_goes_to_the_others():
    first, second = (Node(RELU, None, (), name) for name in ("first", "second"))
    small = Option(coarser=2.0, size_bytes=60, cost=1.0)
    plan = Plan({first: [Option(size_bytes=100), small], second: [Option(size_bytes=100), small]}, 150)
    assert [o.size_bytes for o in plan.chosen.values()] == [60, 60]
    plan.took(first, replace(small, size_bytes=50))
    assert [o.size_bytes for o in plan.chosen.values()] == [50, 100]
    plan.took(second, replace(small, size_bytes=70))
    assert [o.size_bytes for o in plan.chosen.values()] == [50, 70]


def test_what_a_layer_takes_beyond_its_size_the_others_do_not_have():
    first, second = (Node(RELU, None, (), name) for name in ("first", "second"))
    small = Option(coarser=2.0, size_bytes=60, cost=1.0)
    plan = Plan({first: [small], second: [Option(size_bytes=100), small]}, 160)
    assert [o.size_bytes for o in plan.chosen.values()] == [60, 100]
    plan.took(first, replace(small, size_bytes=61))
    assert [o.size_bytes for o in plan.chosen.values()] == [61, 60]


def test_room_that_no_price_fills_is_filled():
    """The middle option saves little for its bytes: at every price of a byte one of the others is better."""
    layer = [Option(size_bytes=100), Option(size_bytes=60, cost=0.9), Option(size_bytes=20, cost=1.0)]
    assert [o.size_bytes for o in choose([layer], 99)] == [60]
    assert [o.size_bytes for o in choose([layer], 59)] == [20]
