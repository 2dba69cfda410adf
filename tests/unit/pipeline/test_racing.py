"""Restores' reads in virtual time: all lines add up, and what stalls, dies, lies or lacks things costs little and loses nothing."""

from __future__ import annotations

import asyncio

import pytest

from snapferry.destination import Destination
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable
from snapferry.pipeline.fetching import Fetcher, NoReplica
from snapferry.pipeline.leavings import Leavings
from snapferry.repository import names
from snapferry.testing.faults import Hangs, Vanishes
from snapferry.testing.links import ComesAndGoes, EndsEarlyEveryNth, FlipsBitInEveryNth, HangsDeaf, Lacks, SharesLine, StallsEveryNth
from snapferry.transport import ReplicaBoard
from tests.support import virtual_time
from tests.support.racing import EXTENT, IN_A_PACK, UNIT, Race, Volume, line, race

MiB = 1 << 20
VOLUME = Volume(300)
TOTAL = VOLUME.extents * EXTENT


@pytest.mark.parametrize("latency", [0.0, 0.001, 0.05])
def test_the_rates_of_all_replicas_add_up(latency: float) -> None:
    found = race(VOLUME, {"fast": line(50, latency), "middle": line(25, latency), "slow": line(5, latency)})
    assert found.rate >= 0.9 * 80
    assert found.share_hedged <= 0.05


@pytest.mark.parametrize("extents", [4, 12, 40])
@pytest.mark.parametrize("slow", [20, 2, 0.01])
def test_a_slow_one_takes_nothing_from_the_fastest(extents: int, slow: float) -> None:
    volume = Volume(extents)
    alone = race(volume, {"fast": line(50)}).seconds
    both = race(volume, {"fast": line(50), "slow": line(slow)})
    # Nobody knows at first how slow it is: the first extent asked of it may have to be asked of the other again.
    assert both.seconds <= alone / 0.95 + 1.35
    known = race_again(volume, both, {"fast": line(50), "slow": line(slow)})
    assert known.seconds <= alone / 0.95


def race_again(volume: Volume, before: Race, replicas: dict[str, object]) -> Race:
    """With what an earlier run measured."""

    async def work() -> Race:
        found = Race(volume, replicas)  # type: ignore[arg-type]
        for name, meter in before.board.meters.items():
            measured = meter.summary()
            if measured is not None:
                found.board.meter(name).remember(measured, age=60)
            else:
                found.board.meter(name).breaker.failed(virtual_time.now(), virtual_time.now())
        return await found.run()

    return virtual_time.run(work())


@pytest.mark.parametrize("slow", [50, 10])
def test_one_that_stalls_every_second_time_is_hardly_noticed(slow: int) -> None:
    def stalls(inner: Destination) -> Destination:
        return StallsEveryNth(inner, 2, 5.0)

    without = race(VOLUME, {"a": line(50), "b": line(slow)})
    found = race(VOLUME, {"a": line(50), "b": line(slow), "c": line(50, before=stalls)})
    assert found.seconds <= 1.15 * without.seconds
    assert found.share_hedged <= 0.05
    if slow == 50:
        assert found.quantile(0.99) <= 2 * found.quantile(0.5)
    double = found.ends["c"]
    assert isinstance(double, StallsEveryNth)
    assert 0 < double.stalled <= 8


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_one_that_is_killed_costs_what_was_under_way_there(share: float) -> None:
    def dies(inner: Destination) -> Destination:
        return Vanishes(inner, int(share * TOTAL / 2))

    without = race(VOLUME, {"a": line(50), "b": line(50)})
    found = race(VOLUME, {"a": line(50), "b": line(50, before=dies)})
    double = found.ends["b"]
    assert isinstance(double, Vanishes)
    assert double.gone
    end = double.inner
    assert isinstance(end, SharesLine)
    # Nothing came twice but what was under way in all connections, and copies within their budget.
    assert found.again <= found.fetcher.hedges.hedged
    assert found.share_hedged <= 0.05
    assert end.passed <= (share / 2) * TOTAL + end.most * EXTENT
    ideal = (share / 2 + 2 * (1 - share / 2 - share / 2) + share / 2) * without.seconds if share else 2 * without.seconds
    assert found.seconds <= 1.1 * ideal + 0.5


def test_one_that_lies_in_every_tenth_body_costs_those_bodies_again() -> None:
    def lies(inner: Destination) -> Destination:
        return FlipsBitInEveryNth(inner, 10)

    found = race(VOLUME, {"a": line(50), "b": line(50, before=lies)})
    double = found.ends["b"]
    assert isinstance(double, FlipsBitInEveryNth)
    assert double.flipped > 5
    assert found.again <= double.flipped * EXTENT + found.fetcher.hedges.hedged
    assert found.rate >= 0.9 * 100
    assert {damage.destination for damage in found.fetcher.damage} == {"b"}
    assert found.fetcher.failovers == double.flipped


def test_one_that_lacks_a_third_of_the_packs_is_asked_for_each_of_them_hardly_more_than_once() -> None:
    lacking = {names.pack(pack) for pack in VOLUME.packs[::3]}

    def lacks(inner: Destination) -> Destination:
        return Lacks(inner, lacking.__contains__)

    found = race(VOLUME, {"a": line(50), "b": line(50, before=lacks)})
    double = found.ends["b"]
    assert isinstance(double, Lacks)
    assert 0 < double.refused <= 2 * len(lacking)
    assert found.again <= found.fetcher.hedges.hedged
    assert found.rate >= 0.9 * 100
    assert {damage.object for damage in found.fetcher.damage} <= lacking


def test_bodies_that_end_early_are_had_from_the_other() -> None:
    def cuts(inner: Destination) -> Destination:
        return EndsEarlyEveryNth(inner, 3)

    found = race(VOLUME, {"a": line(50), "b": line(50, before=cuts)})
    assert found.fetcher.failovers > 5
    assert found.rate >= 0.7 * 100


@pytest.mark.parametrize("names_", ["ab", "abc"])
def test_one_that_hangs_for_ever_is_left(names_: str) -> None:
    """From the start: what it would have brought is not known, so its first read is waited for a little longer."""
    replicas = {name: line(50) for name in names_[1:]}
    without = race(VOLUME, replicas)
    found = race(VOLUME, {names_[0]: lambda inner: Hangs(inner, "read_into"), **replicas})
    assert found.seconds <= without.seconds * 1.05 + 3.0
    assert found.share_hedged <= 0.05
    assert found.board.meters["a"].breaker.failing_since is not None


def test_what_cannot_be_cancelled_is_not_waited_for_and_its_memory_not_used_again() -> None:
    doubles: list[HangsDeaf] = []

    def deaf(inner: Destination) -> Destination:
        doubles.append(HangsDeaf(inner, 20))
        return doubles[-1]

    async def work() -> tuple[Race, float]:
        found = Race(VOLUME, {"a": line(50, before=deaf), "b": line(50)})
        found.tasks = 2
        running = asyncio.create_task(found.run())
        await asyncio.sleep(3600)
        assert not running.done()
        assert 1 <= doubles[0].deaf <= 3, "what was under way there, and no probe before that has ended"
        assert found.done == set(range(VOLUME.extents))
        assert found.budget.available < found.budget.total
        doubles[0].released.set()
        return await running, max(found.times)

    found, longest = virtual_time.run(work())
    assert longest < 3
    assert found.fetcher.fetched["a"] == 20 * EXTENT


def test_all_that_hang_are_asked_at_once_and_the_first_that_wakes_serves() -> None:
    """Without a replica that works nothing is given up, and nothing is asked for again and again."""
    doubles: list[Hangs] = []

    def hangs(inner: Destination) -> Destination:
        doubles.append(Hangs(inner, "read_into"))
        return doubles[-1]

    async def work() -> Race:
        found = Race(Volume(4), {"a": hangs, "b": hangs})
        found.tasks = 2
        running = asyncio.create_task(found.run())
        await asyncio.sleep(3600)
        assert not running.done()
        assert found.fetcher.hedges.count + found.fetcher.failovers <= 8
        doubles[1].released.set()
        return await running

    found = virtual_time.run(work())
    assert found.done == set(range(4))
    assert found.fetcher.fetched["a"] == 0


def test_one_that_trickles_holds_nothing_up() -> None:
    found = race(VOLUME, {"a": line(50), "b": line(50), "c": line(1e-6)})
    assert found.rate >= 0.85 * 100
    assert found.share_hedged <= 0.05


class Away:
    """Wraps replicas so that they are away until it is said of their ``doubles`` that they are not."""

    def __init__(self) -> None:
        self.doubles: list[ComesAndGoes] = []

    def __call__(self, inner: Destination) -> Destination:
        self.doubles.append(ComesAndGoes(inner, away=True))
        return self.doubles[-1]


def test_one_that_is_away_from_the_start_and_comes_back_is_used() -> None:
    away = Away()

    async def work() -> Race:
        found = Race(VOLUME, {"a": line(50), "b": line(50, before=away)})
        found.tasks = 2
        running = asyncio.create_task(found.run())
        await asyncio.sleep(4)
        assert found.fetcher.channels()["b"].state == "waiting"
        assert away.doubles[0].refused <= 4
        away.doubles[0].away = False
        return await running

    found = virtual_time.run(work())
    # 4 s of 50 MiB/s, a rest of 4 s more at most, and both from then on.
    assert away.doubles[0].served > 20
    assert found.seconds <= 8 + (TOTAL / UNIT - 8 * 50) / 100 + 1


def test_a_lone_replica_is_asked_again_with_patience() -> None:
    away = Away()

    async def work() -> Race:
        found = Race(Volume(8), {"a": line(50, before=away)})
        found.tasks = 2
        running = asyncio.create_task(found.run())
        await asyncio.sleep(0.6)
        away.doubles[0].away = False
        return await running

    assert virtual_time.run(work()).done == set(range(8))


def test_two_that_fail_in_passing_are_both_asked_again() -> None:
    away = Away()

    async def work() -> Race:
        found = Race(Volume(8), {"a": line(50, before=away), "b": line(50, before=away)})
        found.tasks = 2
        running = asyncio.create_task(found.run())
        await asyncio.sleep(0.6)
        away.doubles[1].away = False
        return await running

    found = virtual_time.run(work())
    assert found.done == set(range(8))
    assert found.fetcher.fetched["a"] == 0


def test_when_none_answers_all_are_named() -> None:
    away = Away()
    with pytest.raises(NoReplica) as caught:
        race(Volume(4), {"a": away, "b": away})
    assert caught.value.failures.keys() == {"a", "b"}
    assert not caught.value.answered


def test_the_dearer_is_asked_only_for_what_the_cheaper_cannot_serve() -> None:
    costs = {"cheap": 1.0, "dear": 9.0}
    found = race(VOLUME, {"cheap": line(5), "dear": line(50)}, costs=costs)
    assert found.fetcher.fetched == {"cheap": TOTAL, "dear": 0}
    lacking = {names.pack(pack) for pack in VOLUME.packs[::5]}
    found = race(VOLUME, {"cheap": line(5, before=lambda inner: Lacks(inner, lacking.__contains__)), "dear": line(50)}, costs=costs)
    assert found.fetcher.fetched["dear"] == len(lacking) * IN_A_PACK * EXTENT
    found = race(VOLUME, {"cheap": lambda inner: Hangs(inner, "read_into"), "dear": line(50)}, costs=costs)
    assert found.fetcher.fetched["dear"] == TOTAL


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_cancelled_at_any_moment_it_leaves_nothing_behind(replicas: int) -> None:
    """In the middle of reads that stall, lie and fail; what is left is checked by ``Race.run``."""
    wraps = {
        "a": line(50, before=lambda inner: StallsEveryNth(inner, 3, 5.0)),
        "b": line(50, before=lambda inner: FlipsBitInEveryNth(inner, 3)),
        "c": line(50, before=lambda inner: Vanishes(inner, 5 * EXTENT)),
    }
    volume = Volume(16)

    async def cancelled_at(moment: float) -> bool:
        found = Race(volume, dict(list(wraps.items())[:replicas]), buffers=5, spares=2)
        found.tasks = 2
        running = asyncio.create_task(found.run())
        await asyncio.sleep(moment)
        ended = running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert found.budget.available == found.budget.total
        if not ended and not running.cancelled():
            raise AssertionError(running.exception())
        return ended

    ends = [virtual_time.run(cancelled_at(0.004 * 1.08**number)) for number in range(110)]
    assert ends[-1]
    assert not ends[0]


@pytest.mark.parametrize("stalls", [False, True])
def test_small_reads_stay_near_their_median_when_one_replica_stalls(stalls: bool) -> None:
    """One after the other, as somebody reads who has mounted a volume."""

    async def work() -> tuple[list[float], int]:
        board = ReplicaBoard((), virtual_time.now)
        pack = bytes(32)
        store = {names.pack(pack): bytes(64 << 10)}
        near: Destination = SharesLine(MemoryDestination("near", store), 200 * MiB, 0.002)
        if stalls:
            near = StallsEveryNth(near, 2, 5.0)
        far = SharesLine(MemoryDestination("far", store), 200 * MiB, 0.003)
        fetcher = Fetcher({"near": board.metered(near), "far": board.metered(far)}, board)
        times = []

        async def passes(data: memoryview) -> None:
            del data

        for _ in range(2000):
            begun = virtual_time.now()
            await fetcher.read(pack, 0, 64 << 10, passes)
            times.append(virtual_time.now() - begun)
        return sorted(times), fetcher.hedges.hedged

    times, hedged = virtual_time.run(work())
    assert times[1000] < 0.01
    assert times[1980] <= 2 * times[1000]
    assert times[-1] < 3.0
    assert hedged <= max(0.05 * 2000 * (64 << 10), 4 * MiB)


def test_small_reads_leave_alone_what_cannot_be_cancelled() -> None:
    async def work() -> int:
        board = ReplicaBoard((), virtual_time.now)
        store = {names.pack(bytes(32)): bytes(100 << 10)}
        deaf = HangsDeaf(SharesLine(MemoryDestination("near", store), 200 * MiB, 0.002), 5)
        far = SharesLine(MemoryDestination("far", store), 200 * MiB, 0.02)
        fetcher = Fetcher({"near": board.metered(deaf), "far": board.metered(far)}, board)

        async def passes(data: memoryview) -> None:
            del data

        async with Leavings() as leavings:
            fetcher.leave_to(leavings)
            for _ in range(300):
                await fetcher.read(bytes(32), 0, 100 << 10, passes)
                await asyncio.sleep(1.0)
            deaf.released.set()
        return deaf.deaf

    assert virtual_time.run(work()) == 1


async def test_what_a_store_raises_that_no_store_should_ends_the_race() -> None:
    class Breaks(MemoryDestination):
        async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
            raise ZeroDivisionError

    async def passes(data: memoryview) -> None:
        del data

    fetcher = Fetcher({"a": Breaks("a")}, ReplicaBoard(["a"]))
    with pytest.raises(ZeroDivisionError):
        await fetcher.read(bytes(32), 0, 4, passes)


async def test_what_the_check_raises_ends_the_race_and_its_reads() -> None:
    async def fails(data: memoryview) -> None:
        raise DestinationUnreachable("the target is full")

    store = {names.pack(bytes(32)): b"0123"}
    board = ReplicaBoard(["a", "b"])
    fetcher = Fetcher({name: board.metered(MemoryDestination(name, store)) for name in "ab"}, board)
    with pytest.raises(DestinationUnreachable, match="full"):
        await fetcher.read(bytes(32), 0, 4, fails)
    assert all(meter.queued == 0 for meter in board.meters.values())
