"""The breaker that forgives slowly, against a naive twin that looks at everything that ever happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapferry.transport.breaker import Breaker

FORGIVEN_BY = 3


class Naive:
    """All results in order; only those that count are told to it."""

    def __init__(self) -> None:
        self.results: list[tuple[float, bool]] = []

    def level(self) -> int:
        level = good = 0
        for _, succeeded in self.results:
            if not succeeded:
                level, good = level + 1, 0
            elif level:
                good += 1
                if good == FORGIVEN_BY:
                    level, good = level - 1, 0
        return level

    def allows(self, now: float) -> bool:
        if not self.results or self.results[-1][1]:
            return True
        return now >= self.results[-1][0] + min(60.0, 2.0 ** (self.level() - 1))


@given(st.lists(st.tuples(st.floats(0.01, 90), st.booleans()), max_size=60))
def test_it_lets_through_what_its_twin_does(calls: list[tuple[float, bool]]) -> None:
    breaker, naive, now = Breaker(1.0, 60.0, FORGIVEN_BY), Naive(), 0.0
    for pause, good in calls:
        now += pause
        assert breaker.allows(now) == naive.allows(now)
        if not breaker.allows(now):
            continue
        half_open = breaker.state(now) == "half-open"
        breaker.begin(now)
        assert breaker.allows(now) != half_open, "one probe, or any number of calls"
        if good:
            breaker.succeeded(now)
        else:
            breaker.failed(now, now)
        naive.results.append((now, good))


@given(st.floats(0.1, 50), st.floats(0, 5))
def test_calls_from_before_say_nothing_of_what_came_after(rest: float, until: float) -> None:
    breaker = Breaker(1.0, 60.0, FORGIVEN_BY)
    for begun in (1.0, 2.0, 3.0):
        breaker.begin(begun)
    breaker.failed(4.0, 1.0, at_least=rest)
    breaker.failed(4.5, 2.0)
    breaker.succeeded(3.0)
    assert breaker.failing_since == 4.0
    assert breaker.retry_at == 4.0 + max(rest, 1.0)
    breaker.begin(breaker.retry_at + until)
    assert not breaker.allows(breaker.retry_at + until)
    breaker.given_up()
    assert breaker.state(breaker.retry_at + until) == "half-open"


def test_what_fails_every_second_time_is_soon_left_alone_for_long() -> None:
    breaker, now, calls = Breaker(1.0, 60.0, 16), 0.0, 0
    while now < 300:
        if not breaker.allows(now):
            now = breaker.retry_at
        breaker.begin(now)
        now += 0.1
        calls += 1
        if calls % 2:
            breaker.failed(now, now - 0.1)
        else:
            breaker.succeeded(now - 0.1)
    assert calls < 25
