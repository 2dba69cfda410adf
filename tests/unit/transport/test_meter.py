from __future__ import annotations

import asyncio

import pytest

from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable, ObjectDamaged, ObjectNotFound
from snapferry.testing.faults import FailsNth, Hangs, Trickles
from snapferry.transport import ReplicaBoard

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
    await near.read("config", 1)
    assert board.meters["near"].errors == 0
    assert board.meters["near"].queued == 0


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
