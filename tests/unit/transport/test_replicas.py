from __future__ import annotations

import pytest

from snapferry.transport import ReplicaState, choose

MiB = 1 << 20


def test_the_earliest_finish_wins() -> None:
    near = ReplicaState("near", first_byte=0.001, goodput=100 * MiB)
    cloud = ReplicaState("cloud", first_byte=0.1, goodput=1000 * MiB)
    assert choose([near, cloud], 1 * MiB) == "near"
    assert choose([near, cloud], 64 * MiB) == "cloud"
    assert near.predicted(50 * MiB) == pytest.approx(0.501)


def test_what_is_queued_counts() -> None:
    fast = ReplicaState("fast", first_byte=0.0, goodput=200 * MiB, queued=64 * MiB)
    slow = ReplicaState("slow", first_byte=0.0, goodput=100 * MiB)
    assert choose([fast, slow], 8 * MiB) == "slow"
    assert choose([fast, slow], 80 * MiB) == "fast"


def test_each_is_tried_once_and_not_waited_for() -> None:
    known = ReplicaState("known", first_byte=0.001, goodput=100 * MiB)
    new = ReplicaState("new")
    assert choose([known, new], MiB) == "new"
    assert choose([known, ReplicaState("new", queued=MiB)], MiB) == "known"
    assert choose([ReplicaState("a", queued=2 * MiB), ReplicaState("b", queued=MiB)], MiB) == "b"


def test_a_failed_one_is_the_last_resort() -> None:
    failed = ReplicaState("failed", first_byte=0.0, goodput=1e12, failed=True)
    assert choose([failed, ReplicaState("slow", first_byte=9.0, goodput=1.0)], MiB) == "slow"
    assert choose([failed], MiB) == "failed"


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match="no replica"):
        choose([], 1)
