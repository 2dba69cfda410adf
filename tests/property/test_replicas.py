from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.transport import ReplicaState, Wanted, assign, choose

STATES = st.builds(
    ReplicaState,
    name=st.text("abcdef", min_size=1, max_size=3),
    first_byte=st.none() | st.floats(0, 10),
    goodput=st.none() | st.floats(1, 1e10),
    queued=st.integers(0, 1 << 30),
    failed=st.booleans(),
    errors=st.floats(0, 1),
    running=st.integers(0, 5),
    slots=st.integers(1, 5),
    stale=st.booleans(),
)
CANDIDATES = st.lists(STATES, min_size=1, max_size=6, unique_by=lambda state: state.name)
SIZES = st.integers(0, 1 << 26)


def by_name(candidates: list[ReplicaState], name: str) -> ReplicaState:
    return next(state for state in candidates if state.name == name)


@given(CANDIDATES, SIZES)
def test_the_choice_is_a_candidate_and_a_failed_one_only_if_all_are(candidates: list[ReplicaState], size: int) -> None:
    chosen = by_name(candidates, choose(candidates, size))
    assert not chosen.failed or all(state.failed for state in candidates)


@given(CANDIDATES, SIZES)
def test_no_other_finishes_earlier(candidates: list[ReplicaState], size: int) -> None:
    chosen = by_name(candidates, choose(candidates, size))
    if chosen.measured and not chosen.failed:
        for other in candidates:
            if other.failed:
                continue
            assert not other.untried or chosen.untried, "an idle one that was never tried comes first"
            if other.untried != chosen.untried or not other.measured:
                continue
            assert chosen.predicted(size) <= other.predicted(size)


@given(CANDIDATES, SIZES)
def test_being_faster_never_loses_the_choice(candidates: list[ReplicaState], size: int) -> None:
    name = choose(candidates, size)
    chosen = by_name(candidates, name)
    if chosen.goodput is not None and chosen.first_byte is not None:
        faster = replace(chosen, goodput=chosen.goodput * 2, first_byte=chosen.first_byte / 2, queued=chosen.queued // 2)
        assert choose([faster if state is chosen else state for state in candidates], size) == name


WANTED = st.builds(Wanted, size=st.integers(1, 1 << 26), ranks=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2), max_size=4))
NAMED = st.lists(STATES, min_size=1, max_size=4).map(
    lambda states: [replace(state, name="abcd"[number]) for number, state in enumerate(states)]
)


def naive_starts(states: list[ReplicaState], waiting: list[Wanted]) -> Counter[str]:
    """How many extents each replica begins: each is laid, one after the other, where it would be finished first."""
    queues = {state.name: [state.queued] for state in states}
    for item in waiting:
        allowed = [state for state in states if state.name in item.ranks]
        working = [state for state in allowed if not state.failed] or allowed
        if not working:
            continue
        lowest = min(item.ranks[state.name] for state in working)
        best: list[tuple[int, float, int, int, str]] = []
        for number, state in enumerate(states):
            if state in working and item.ranks[state.name] == lowest:
                queued = sum(queues[state.name])
                fresh = state.untried and len(queues[state.name]) == 1
                unknown = state.goodput is None
                seconds = float("inf")
                if state.goodput is not None:
                    seconds = ((state.first_byte or 0) + (queued + item.size) / state.goodput) / (1 - min(0.9, state.errors))
                best.append((0 if fresh else 2 if unknown else 1, seconds, queued, number, state.name))
        queues[min(best)[-1]].append(item.size)
    return Counter({state.name: max(0, min(len(queues[state.name]) - 1, state.slots - state.running)) for state in states})


@given(NAMED, st.lists(WANTED, max_size=12))
@settings(max_examples=300)
def test_what_is_begun_is_what_a_naive_list_scheduler_begins(states: list[ReplicaState], waiting: list[Wanted]) -> None:
    begun = assign(states, waiting)
    assert len({number for number, _ in begun}) == len(begun)
    free = {state.name: state.slots - state.running for state in states}
    starts = Counter(name for _, name in begun)
    assert all(count <= free[name] for name, count in starts.items())
    assert all(name in waiting[number].ranks for number, name in begun)
    wishes = naive_starts(states, waiting)
    # Never more than it; and fewer only where those that wait may not be read there.
    assert all(count <= wishes[name] for name, count in starts.items())
    if len({tuple(sorted(item.ranks.items())) for item in waiting}) == 1:
        assert starts == +wishes


@given(NAMED, st.lists(WANTED, min_size=1, max_size=12))
def test_something_is_begun_if_nothing_runs(states: list[ReplicaState], waiting: list[Wanted]) -> None:
    idle = [replace(state, running=0, queued=0) for state in states]
    if any(item.ranks.keys() & {state.name for state in idle} for item in waiting):
        assert assign(idle, waiting)


@dataclass
class Simulated:
    """A line that its reads share fairly; the next one to end is known from how much each has to get yet."""

    name: str
    rate: float
    latency: float
    slots: int
    left: dict[int, float] = field(default_factory=dict)

    def state(self, size: int) -> ReplicaState:
        running = len(self.left)
        return ReplicaState(self.name, self.latency, self.rate, running * size, running=running, slots=self.slots)

    def next_end(self) -> float:
        return min(self.left.values()) * len(self.left) / self.rate if self.left else float("inf")

    def advance(self, seconds: float) -> list[int]:
        share = seconds * self.rate / max(1, len(self.left))
        self.left = {number: left - share for number, left in self.left.items()}
        ended = [number for number, left in self.left.items() if left < 1e-6]
        for number in ended:
            del self.left[number]
        return ended


def simulate(lines: list[Simulated], extents: int, size: int, buffers: int) -> float:
    """Seconds until all extents have come; ``buffers`` of them may wait or run, and the rest is known to come."""
    now, waiting, coming, numbers = 0.0, 0, extents, itertools.count()
    ranks = {line.name: 0 for line in lines}
    while waiting or coming or any(line.left for line in lines):
        running = sum(len(line.left) for line in lines)
        taken = min(coming, buffers - waiting - running)
        waiting, coming = waiting + taken, coming - taken
        for _, name in assign([line.state(size) for line in lines], [Wanted(size, ranks)] * waiting, coming * size):
            line = next(line for line in lines if line.name == name)
            line.left[next(numbers)] = size
            waiting -= 1
        step = min(line.next_end() for line in lines)
        now += step
        for line in lines:
            line.advance(step)
    return now


@given(st.lists(st.floats(1, 500), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 300))
@settings(max_examples=300, deadline=None)
def test_all_bandwidth_adds_up(rates: list[float], slots: int, extents: int) -> None:
    """Against the sum of the rates; what is over is less than two extents on the fastest, however slow the others are."""
    lines = [Simulated("abcde"[number], rate, 0.0, slots) for number, rate in enumerate(rates)]
    size, buffers = 8, max(16, 1 + slots * len(rates))
    seconds = simulate(lines, extents, size, buffers)
    ideal = extents * size / sum(rates)
    alone = extents * size / max(rates)
    assert seconds >= ideal * 0.999
    assert seconds <= 1.02 * ideal + 2 * slots * size / max(rates)
    assert seconds <= alone + 2 * slots * size / max(rates)
