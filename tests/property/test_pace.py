"""The number of operations at once that is found, on simulated links; who is relieved of what; and the breaker against a naive twin."""

from __future__ import annotations

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.transport.breaker import Breaker
from snapferry.transport.pace import Pace
from snapferry.transport.relief import ALLOWED, GRACE, Look, relieve

PACK = 32.0


def rate_of(limit: int, link: float, each: float) -> float:
    """What ``limit`` transfers side by side deliver on a link of ``link`` that gives one of them ``each`` at most."""
    return min(link, limit * each)


def run(pace: Pace, link: float, each: float, packs: int) -> float:
    """Sends packs with an endless queue behind them; returns the seconds it took. Each shares the link evenly with the others under way."""
    now, ends, sent = 0.0, list[float](), 0
    while sent < packs:
        while len(ends) < pace.limit:
            heapq.heappush(ends, now + PACK / (rate_of(pace.limit, link, each) / pace.limit))
        now = max(now, heapq.heappop(ends))
        sent += 1
        pace.completed(int(PACK), now, busy=True)
    return now


@given(st.floats(10, 2000), st.floats(5, 500), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_the_rate_comes_near_what_the_link_gives(link: float, each: float, begin: int) -> None:
    pace = Pace(begin, 32)
    best = rate_of(32, link, each)
    seconds = run(pace, link, each, 3000)
    assert 1 <= pace.limit <= 32
    assert 3000 * PACK / seconds >= 0.65 * best
    # No more connections than bring something, but for those that are being tried, and those whose gain is below what counts.
    enough = -(-best // each)
    assert pace.limit <= 2 * enough + 2


def test_trouble_halves_it_and_it_recovers() -> None:
    pace = Pace(8, 32)
    pace.troubled()
    assert pace.limit == 4
    for _ in range(5):
        pace.troubled()
    assert pace.limit == 1
    run(pace, 1000, 100, 3000)
    assert pace.limit >= 7


def test_what_was_not_busy_is_not_measured() -> None:
    pace = Pace(4, 32)
    for second in range(1000):
        pace.completed(1 << 20, float(second), busy=False)
    assert pace.limit == 4


class NaiveBreaker:
    """All calls since the last success, looked at from the beginning each time."""

    def __init__(self) -> None:
        self.failures: list[float] = []

    def allows(self, now: float) -> bool:
        return not self.failures or now >= self.failures[-1] + min(15.0, 0.5 * 2 ** (len(self.failures) - 1))


@given(st.lists(st.tuples(st.floats(0.01, 20), st.booleans()), max_size=40))
def test_the_breaker_lets_through_what_its_twin_does(calls: list[tuple[float, bool]]) -> None:
    breaker, naive, now = Breaker(), NaiveBreaker(), 0.0
    for pause, good in calls:
        now += pause
        assert breaker.allows(now) == naive.allows(now)
        assert (breaker.state(now) == "closed") == (not naive.failures)
        if not breaker.allows(now):
            continue
        breaker.begin(now)
        if naive.failures:
            assert not breaker.allows(now), "two probes at once"
        if good:
            breaker.succeeded()
            naive.failures.clear()
        else:
            breaker.failed(now, now)
            naive.failures.append(now)
        assert (breaker.failing_since is None) == (not naive.failures)


def test_those_under_way_when_it_opened_count_once() -> None:
    breaker = Breaker()
    for begun in (1.0, 1.1, 1.2):
        breaker.failed(2.0 + begun, begun)
    assert breaker.retry_at == 3.0 + 0.5
    assert breaker.failing_since == 3.0


looks = st.builds(
    Look,
    st.sampled_from("abcdef"),
    st.sampled_from(["block", "spool", "detach"]),
    waiting=st.integers(0, 5),
    lag=st.integers(0, 100),
    idle=st.booleans(),
    stalled=st.booleans(),
    blame=st.floats(0, 3),
)


@given(st.lists(looks, max_size=6, unique_by=lambda look: look.name), st.floats(0, 2))
def test_relief_touches_only_whom_it_may(channels: list[Look], seconds: float) -> None:
    by_name = {look.name: look for look in channels}
    relief = relieve(channels, seconds)
    assert all(by_name[name].slow == "spool" and by_name[name].waiting for name in relief.spool)
    assert all(by_name[name].slow == "spool" and by_name[name].stalled for name in relief.interrupt)
    assert relief.blame.keys() == {look.name for look in channels if look.slow == "detach"}
    if relief.detach is not None:
        gone = by_name[relief.detach]
        assert gone.slow == "detach"
        assert relief.blame[gone.name] > GRACE
        assert all(gone.lag >= by_name[name].lag for name, blame in relief.blame.items() if blame > GRACE)


@given(st.floats(0.0, 1.0))
def test_who_makes_others_wait_longer_than_allowed_is_detached_and_no_other(share: float) -> None:
    """``share`` of the time the other one has nothing to do."""
    blame, detached = 0.0, False
    for step in range(1000):
        idle = (step * share) % 1.0 + share >= 1.0 - 1e-9
        relief = relieve([Look("fast", "block", 0, 0, idle, False, 0.0), Look("slow", "detach", 3, 100, False, False, blame)], 0.1)
        blame = relief.blame["slow"]
        detached = detached or relief.detach == "slow"
    if share > ALLOWED + 0.02:
        assert detached
    if share < ALLOWED - 0.01:
        assert not detached
