from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.transport.hedging import HedgeBudget, lateness
from snapferry.transport.tail import Tail

MiB = 1 << 20


@given(st.lists(st.tuples(st.integers(1, 8 * MiB), st.booleans()), max_size=200))
def test_copies_never_cost_more_than_their_share_and_a_little(reads: list[tuple[int, bool]]) -> None:
    budget, coming = HedgeBudget(0.05), sum(size for size, _ in reads)
    for size, late in reads:
        budget.asked += size
        coming -= size
        if late:
            before = budget.hedged
            assert budget.take(size, coming) == (budget.hedged == before + size)
    assert budget.hedged <= max(0.05 * budget.asked, 4 * MiB)


def test_large_copies_wait_for_their_share() -> None:
    budget = HedgeBudget(0.05)
    budget.asked = 100 * MiB
    assert not budget.take(8 * MiB, 0)
    assert budget.take(8 * MiB, 100 * MiB)
    assert not budget.take(8 * MiB, 100 * MiB)
    assert (budget.count, budget.hedged) == (1, 8 * MiB)


SECONDS = st.none() | st.floats(0.0001, 10)


@given(st.integers(1, 8 * MiB), SECONDS, st.none() | st.floats(0.1, 100), SECONDS, SECONDS)
def test_late_comes_after_what_was_expected_and_before_stalled(
    size: int, expected: float | None, tail: float | None, first_byte: float | None, elsewhere: float | None
) -> None:
    limits = lateness(size, expected, tail, first_byte=first_byte, elsewhere=elsewhere)
    assert (expected or 0) < limits.late <= limits.stalled
    if expected is not None:
        assert limits.late <= 3 * expected + 0.05


@given(st.lists(st.floats(0.1, 50), min_size=20, max_size=200), st.floats(0.05, 0.99))
def test_a_quantile_is_right_to_within_its_bucket_while_little_was_forgotten(ratios: list[float], share: float) -> None:
    tail = Tail()
    for ratio in ratios:
        tail.add(ratio)
    # The weights are known: each is 0.98 of the next.
    weighted = sorted((ratio, 0.98 ** (len(ratios) - number)) for number, ratio in enumerate(ratios))
    total, sum_, exact = sum(weight for _, weight in weighted), 0.0, weighted[-1][0]
    for ratio, weight in weighted:
        sum_ += weight
        if sum_ >= share * total * (1 - 1e-9):
            exact = ratio
            break
    found = tail.quantile(share)
    assert found is not None
    step = 2**0.25 * (1 + 1e-6)
    neighbours = [ratio for ratio, _ in weighted]
    at = neighbours.index(exact)
    near = neighbours[max(0, at - 1) : at + 2]
    assert min(near) / step <= found <= max(near) * step


def test_a_change_is_followed() -> None:
    tail, make = Tail(), random.Random(1)
    assert tail.quantile(0.95) is None
    for _ in range(500):
        tail.add(make.uniform(0.8, 1.2))
    assert 1.0 < (tail.quantile(0.95) or 0) < 1.5
    for _ in range(50):
        tail.add(make.uniform(8, 12))
    assert 7 < (tail.quantile(0.95) or 0) < 15


def test_it_is_remembered_until_something_else_is_seen() -> None:
    tail = Tail(3.0)
    assert tail.quantile(0.95) == pytest.approx(3.0, rel=0.2)
    assert tail.quantile(0.5) == 1.0
    for _ in range(100):
        tail.add(1.0)
    assert tail.quantile(0.95) == 1.0


def test_nothing_overflows() -> None:
    tail = Tail()
    for _ in range(50_000):
        tail.add(float("inf"))
        tail.add(0.0)
    assert tail.quantile(0.99) == 64.0
