from __future__ import annotations

from snapferry.transport.headway import STALLED, Headway


def test_what_does_not_move_is_taken_back_and_has_twice_as_long_the_next_time() -> None:
    headway, now, waits = Headway(0.0), 0.0, []
    for _ in range(4):
        headway.begun(now)
        began = now
        while not headway.is_stalled(now):
            now += 0.5
        waits.append(now - began)
        headway.interrupted(now)
    assert waits == [STALLED * times + 0.5 for times in (1, 2, 4, 8)]
    headway.delivered(now, 5.0)
    headway.begun(now)
    assert not headway.is_stalled(now + STALLED)
    assert headway.is_stalled(now + STALLED + 0.5)


def test_being_taken_back_is_no_headway() -> None:
    headway = Headway(0.0)
    for second in range(11):
        assert not headway.is_stuck(float(second))
        headway.interrupted(float(second))
        headway.begun(float(second))
    assert headway.is_stuck(STALLED + 1)
    headway.wanted(STALLED + 1)
    assert not headway.is_stuck(STALLED + 2)


def test_who_takes_long_for_each_may_take_so_long() -> None:
    headway = Headway(0.0)
    headway.delivered(40.0, 40.0)
    headway.delivered(40.5, 0.5)
    headway.begun(41.0)
    assert not headway.is_stalled(41.0 + 60)
    assert not headway.is_stuck(40.5 + 60)
    assert headway.is_stalled(41.0 + 80)
    assert headway.is_stuck(40.5 + 80)
