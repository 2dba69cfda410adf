from __future__ import annotations

import asyncio

import pytest

from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable, ObjectDamaged, ObjectNotFound
from snapferry.testing.faults import FailsNth, Hangs, Trickles
from snapferry.transport import Measured, Meter, ReplicaBoard

MiB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_goodput_and_choice_follow_what_is_delivered() -> None:
    clock = Clock()
    board = ReplicaBoard(("slow", "fast"), clock)
    stores = {
        name: board.metered(Trickles(MemoryDestination(name, {"packs/ab/x": bytes(8 * MiB)}), rate * MiB, clock.sleep))
        for name, rate in (("slow", 10.0), ("fast", 100.0))
    }
    buffer = memoryview(bytearray(8 * MiB))
    for store in stores.values():
        await store.read_into("packs/ab/x", 0, buffer)
    assert board.meters["slow"].goodput == pytest.approx(10 * MiB)
    assert board.meters["fast"].goodput == pytest.approx(100 * MiB)
    assert board.choose(("slow", "fast"), MiB) == "fast"
    assert board.meters["fast"].delivered == 8 * MiB
    assert board.meters["fast"].queued == 0


async def test_small_reads_measure_the_first_byte() -> None:
    clock = Clock()
    board = ReplicaBoard(("near",), clock)
    inner = MemoryDestination("near", {"config": bytes(1000)})
    near = board.metered(Trickles(inner, 10_000, clock.sleep))
    await near.read("config", 1 << 20)
    assert board.meters["near"].first_byte == pytest.approx(0.1)
    assert board.meters["near"].goodput is None
    await near.read_tail("config", 500)
    assert 0.05 < (board.meters["near"].first_byte or 0) < 0.1
    assert board.meters["near"].delivered == 1500


async def test_reads_side_by_side_do_not_each_look_slow() -> None:
    clock = Clock()
    board = ReplicaBoard(("near",), clock)
    hanging = Hangs(MemoryDestination("near", {"packs/ab/x": bytes(8 * MiB)}))
    near = board.metered(hanging)
    readers = [asyncio.create_task(near.read_into("packs/ab/x", 0, memoryview(bytearray(MiB)))) for _ in range(8)]
    await hanging.hanging.wait()
    while board.meters["near"].queued < 8 * MiB:
        await asyncio.sleep(0)
    clock.sleep(1.0)
    hanging.released.set()
    await asyncio.gather(*readers)
    # Eight MiB came in a second; each alone would say one.
    assert (board.meters["near"].goodput or 0) > 3 * MiB


async def test_errors_rest_a_destination_for_a_while() -> None:
    clock = Clock()
    board = ReplicaBoard(("near",), clock)
    inner = MemoryDestination("near", {"config": b"x"})
    near = board.metered(FailsNth(inner, "any", 1, lambda: DestinationUnreachable("gone"), times=2))
    for seconds in (1.0, 2.0):
        with pytest.raises(DestinationUnreachable):
            await near.read("config", 1)
        assert board.meters["near"].state().failed
        clock.sleep(seconds * 0.99)
        assert board.meters["near"].state().failed
        clock.sleep(seconds * 0.02)
        assert not board.meters["near"].state().failed
    assert 0.2 < board.meters["near"].errors < 0.25
    await near.read("config", 1)
    assert not board.meters["near"].state().failed
    assert 0 < board.meters["near"].errors < 0.22
    assert board.meters["near"].queued == 0


async def test_who_asks_to_be_left_alone_is_left_alone() -> None:
    clock = Clock()
    board = ReplicaBoard(("near",), clock)
    near = board.metered(
        FailsNth(MemoryDestination("near", {"config": b"x"}), "any", 1, lambda: DestinationUnreachable("busy", retry_after=20))
    )
    with pytest.raises(DestinationUnreachable):
        await near.read("config", 1)
    clock.sleep(19.0)
    assert board.meters["near"].state().failed
    clock.sleep(1.1)
    assert not board.meters["near"].state().failed


@pytest.mark.parametrize("error", [ObjectNotFound, ObjectDamaged])
async def test_a_bad_object_says_nothing_of_its_destination(error: type[ObjectNotFound | ObjectDamaged]) -> None:
    board = ReplicaBoard(("near",))
    near = board.metered(FailsNth(MemoryDestination("near", {"config": b"x"}), "read", 1, lambda: error("bad")))
    with pytest.raises(error):
        await near.read("config", 1)
    assert not board.meters["near"].state().failed
    assert board.meters["near"].first_byte is None


async def test_a_cancelled_read_is_not_measured_nor_left_queued() -> None:
    board = ReplicaBoard(("near",))
    hanging = Hangs(MemoryDestination("near", {"packs/ab/x": bytes(MiB)}))
    near = board.metered(hanging)
    reading = asyncio.create_task(near.read_into("packs/ab/x", 0, memoryview(bytearray(MiB))))
    await hanging.hanging.wait()
    assert board.meters["near"].queued == MiB
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    state = board.meters["near"].state()
    assert (state.queued, state.measured, state.failed) == (0, False, False)


def test_what_is_due_counts_and_not_what_nobody_asked_for() -> None:
    """Two reads of 8 MiB side by side over a line of 16 MiB/s with half a second of latency, with a pause before and between."""
    clock = Clock()
    meter = Meter("near", clock, first_byte=0.5)
    for _ in range(3):
        clock.sleep(100)
        with meter.reading(8 * MiB, ("packs/a", 0)), meter.reading(8 * MiB, ("packs/a", 8)):
            clock.sleep(1.5)
    assert meter.goodput == pytest.approx(16 * MiB)
    assert meter.first_byte == 0.5
    assert meter.delivered == 48 * MiB


def test_a_read_that_came_with_others_is_not_late_by_their_bytes() -> None:
    clock = Clock()
    meter = Meter("near", clock)
    meter.remember(Measured(0.0, 8.0 * MiB), age=0)
    with meter.reading(8 * MiB, ("packs/a", 0)):
        alone = meter.lateness(("packs/a", 0))
        with meter.reading(8 * MiB, ("packs/b", 0)):
            clock.sleep(1.0)
            beside = meter.lateness(("packs/a", 0))
            assert meter.since(("packs/a", 0)) == 1.0
            assert meter.left(("packs/a", 0)) == pytest.approx(1.0)
        after = meter.lateness(("packs/a", 0))
    assert alone is not None
    assert beside is not None
    assert after is not None
    assert beside.late > 1.9 * alone.late - 0.1
    assert meter.since(("packs/a", 0)) is None
    assert meter.lateness(("packs/a", 0)) is None


def test_a_replica_is_remembered_the_less_the_longer_ago_it_was() -> None:
    clock = Clock()
    fresh, old = Meter("fresh", clock), Meter("old", clock)
    fresh.remember(Measured(0.1, 10.0 * MiB, tail=1.4, errors=0.4), age=60)
    old.remember(Measured(0.1, 10.0 * MiB, tail=1.4, errors=0.4), age=10 * 86400)
    for meter in (fresh, old):
        assert meter.goodput == pytest.approx(10 * MiB)
        assert meter.summary() is None, "nothing was measured in this run"
    assert not fresh.state().stale
    assert old.state().untried
    assert old.errors < 0.01 < fresh.errors
    for meter in (fresh, old):
        with meter.reading(8 * MiB):
            clock.sleep(0.1)
    assert (fresh.goodput or 0) < 15 * MiB
    assert (old.goodput or 0) > 70 * MiB
    summary = old.summary()
    assert summary is not None
    assert summary.goodput == old.goodput
    clock.sleep(61)
    assert old.state().untried


def test_a_stalled_read_that_comes_after_all_does_not_speak_for_its_place() -> None:
    clock = Clock()
    meter = Meter("near", clock)
    with meter.reading(8 * MiB, ("packs/a", 0)):
        clock.sleep(5.0)
        meter.stalled(("packs/a", 0))
        assert meter.state().failed
    assert meter.state().failed
    clock.sleep(1.0)
    with meter.reading(8 * MiB, ("packs/a", 0)):
        assert meter.state().failed, "one at a time, until it has shown itself"
        clock.sleep(1.0)
    assert not meter.state().failed
