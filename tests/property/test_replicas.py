from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from snapferry.transport import ReplicaState, choose

STATES = st.builds(
    ReplicaState,
    name=st.text("abcdef", min_size=1, max_size=3),
    first_byte=st.none() | st.floats(0, 10),
    goodput=st.none() | st.floats(1, 1e10),
    queued=st.integers(0, 1 << 30),
    failed=st.booleans(),
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
            assert other.measured or other.queued, "an idle one that was never tried comes first"
            assert chosen.predicted(size) <= other.predicted(size)


@given(CANDIDATES, SIZES)
def test_being_faster_never_loses_the_choice(candidates: list[ReplicaState], size: int) -> None:
    name = choose(candidates, size)
    chosen = by_name(candidates, name)
    if chosen.goodput is not None and chosen.first_byte is not None:
        faster = replace(chosen, goodput=chosen.goodput * 2, first_byte=chosen.first_byte / 2, queued=chosen.queued // 2)
        assert choose([faster if state is chosen else state for state in candidates], size) == name
