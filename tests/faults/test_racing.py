"""Whole restores from replicas that stall, die, lie, lack things or trickle: exact bytes, little read twice, nothing left behind."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from snapferry.destination import Destination
from snapferry.engine import Repository
from snapferry.testing.faults import Before, Hangs, Vanishes
from snapferry.testing.links import EndsEarlyEveryNth, FlipsBitInEveryNth, HangsDeaf, Lacks, SharesLine, StallsEveryNth
from snapferry.types import MiB, Progress, RestoreResult
from tests.support.gates import until
from tests.support.lab import BLOCK, Lab, MakeLab

DATA = random.Random(1).randbytes(24 * MiB)
EXTENT = 4 * MiB
"""Of a machine with the least memory."""


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    return await (await make_lab("near", "far", "away")).begin_with(DATA)


def budget_of(repository: Repository) -> Any:
    return repository._membership.tools.budget


async def restored(lab: Lab, tmp_path: Path, **how: Any) -> RestoreResult:
    """Restores, compares, and looks whether anything is left."""
    before = len(asyncio.all_tasks())
    async with lab.repository() as repository:
        result = await repository.restore("v", tmp_path / "out.img", **how)
        assert budget_of(repository).available == budget_of(repository).total
    assert len(asyncio.all_tasks()) == before
    assert (tmp_path / "out.img").read_bytes() == DATA
    assert result.exit_code == 0
    return result


def again(result: RestoreResult) -> int:
    """Bytes that were read more often than once; pages and headers are a little, too."""
    return sum(result.bytes_fetched.values()) - len(DATA)


def allowed(result: RestoreResult) -> int:
    """At most an extent for each that was asked of another. (On a busy machine anything may look late; the exact bounds are in virtual time.)"""
    return result.hedged_bytes + result.failovers * EXTENT + MiB


async def test_one_that_stalls_every_second_time(lab: Lab, tmp_path: Path) -> None:
    doubles: list[StallsEveryNth] = []

    def stalls(inner: Destination) -> Destination:
        doubles.append(StallsEveryNth(inner, 2, 3600.0))
        return doubles[-1]

    lab.wrappers["near"] = stalls
    result = await restored(lab, tmp_path)
    assert doubles[0].stalled
    assert result.hedged + result.failovers
    assert result.hedged_bytes <= max(0.05 * len(DATA), 4 * MiB)
    assert not result.damage


@pytest.mark.parametrize("broken", [("near",), ("far", "away")])
async def test_those_that_hang_from_the_first_byte_on(lab: Lab, tmp_path: Path, broken: tuple[str, ...]) -> None:
    for name in broken:
        lab.wrappers[name] = lambda inner: Hangs(inner, "read_into")
    result = await restored(lab, tmp_path)
    assert all(not result.bytes_fetched[name] for name in broken)
    assert not result.damage


async def test_one_whose_threads_hang_in_the_kernel(lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Everything is there and synced while its reads still hang; and what they write in the end is written to nobody's memory."""
    doubles: list[HangsDeaf] = []

    def deaf(inner: Destination) -> Destination:
        doubles.append(HangsDeaf(inner))
        return doubles[-1]

    lab.wrappers["near"] = deaf
    events: list[Progress] = []
    async with lab.repository() as repository:
        running = asyncio.create_task(repository.restore("v", tmp_path / "out.img", on_progress=events.append))
        await until(lambda: "waiting for reads that hang and cannot be stopped, at near" in caplog.text)
        assert (tmp_path / "out.img").read_bytes() == DATA
        assert events[-1].done == len(DATA)
        assert not running.done()
        doubles[0].released.set()
        result = await running
        assert budget_of(repository).available == budget_of(repository).total
    assert (tmp_path / "out.img").read_bytes() == DATA
    assert result.bytes_fetched["near"] == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_one_that_is_killed_in_the_middle(lab: Lab, tmp_path: Path, share: float) -> None:
    """It gets half of what there is, if it lives."""
    lines: dict[str, SharesLine] = {}

    def line(inner: Destination) -> Destination:
        return lines.setdefault(inner.name, SharesLine(inner, 100 * MiB))

    def dies(inner: Destination) -> Destination:
        return Vanishes(line(inner), int(share * len(DATA) / 2))

    lab.wrappers |= {"near": dies, "far": line}
    lab.missing = {"away"}
    result = await restored(lab, tmp_path)
    assert again(result) <= allowed(result)
    assert lines["near"].passed <= result.bytes_fetched["near"] + lines["near"].most * EXTENT
    assert result.failovers <= 4 * lines["near"].most + 8
    assert not result.damage


async def test_one_that_flips_a_bit_in_every_second_body(lab: Lab, tmp_path: Path) -> None:
    doubles: list[FlipsBitInEveryNth] = []

    def lies(inner: Destination) -> Destination:
        doubles.append(FlipsBitInEveryNth(inner, 2))
        return doubles[-1]

    lab.wrappers["near"] = lies
    lab.missing = {"away"}
    result = await restored(lab, tmp_path)
    assert doubles[0].flipped
    assert again(result) <= allowed(result)
    assert result.failovers
    assert {damage.destination for damage in result.damage} == {"near"}
    lab.wrappers.clear()
    lab.missing = set()
    async with lab.repository() as repository:
        shown = await repository.show("v")
    assert {damage for replica in shown.replicas for damage in replica.damage} == set(result.damage), "found, remembered and shown"


async def test_one_that_lacks_a_third_of_the_packs(lab: Lab, tmp_path: Path) -> None:
    lacking = set(lab.packs("near")[::3])
    doubles: list[Lacks] = []

    def lacks(inner: Destination) -> Destination:
        doubles.append(Lacks(inner, lacking.__contains__))
        return doubles[-1]

    lab.wrappers["near"] = lacks
    result = await restored(lab, tmp_path)
    assert {damage.object for damage in result.damage} <= lacking
    assert doubles[0].refused
    assert again(result) <= allowed(result)


async def test_one_whose_bodies_end_early_and_one_that_trickles(lab: Lab, tmp_path: Path) -> None:
    lab.wrappers |= {"near": lambda inner: EndsEarlyEveryNth(inner, 2), "far": lambda inner: SharesLine(inner, 1.0)}
    result = await restored(lab, tmp_path)
    assert result.bytes_fetched["far"] == 0
    assert {damage.destination for damage in result.damage} <= {"near"}


async def test_progress_tells_how_each_replica_stands(lab: Lab, tmp_path: Path) -> None:
    events: list[Progress] = []
    lab.wrappers |= {
        "near": lambda inner: SharesLine(inner, 100 * MiB),
        "far": lambda inner: SharesLine(inner, 50 * MiB),
        "away": lambda inner: Hangs(inner, "read_into"),
    }
    result = await restored(lab, tmp_path, on_progress=events.append)
    last = events[-1]
    assert {name: channel.bytes for name, channel in last.channels.items()} == result.bytes_fetched == last.sent
    assert all(channel.bytes == event.sent[name] for event in events for name, channel in event.channels.items())
    assert last.channels["near"].speed > 0
    assert {channel.queued for channel in last.channels.values()} == {0}
    assert any(channel.queued for event in events for channel in event.channels.values())
    assert any(event.channels["away"].state == "waiting" for event in events)
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[-1] == last.total == len(DATA)


class CancelsAt(Before):
    """The nth read of a range cancels a task, and then goes on, or waits for ever."""

    def __init__(self, inner: Destination, left: list[int], victim: list[asyncio.Task[Any]], *, hangs: bool) -> None:
        super().__init__(inner)
        self._left, self._victim, self._hangs = left, victim, hangs

    async def before(self, operation: str, key: str) -> None:
        if operation == "read_into":
            self._left[0] -= 1
            if self._left[0] == 0:
                self._victim[0].cancel()
                if self._hangs:
                    await asyncio.Event().wait()


@pytest.mark.parametrize("hangs", [False, True])
async def test_cancelled_at_any_read_nothing_is_left_and_it_goes_on(make_lab: MakeLab, tmp_path: Path, hangs: bool) -> None:
    data = random.Random(2).randbytes(40 * BLOCK)
    lab = await (await make_lab()).begin_with(data)
    left, victim = [0], list[asyncio.Task[Any]]()
    for name in lab.names:
        lab.wrappers[name] = lambda inner: CancelsAt(inner, left, victim, hangs=hangs)
    async with lab.repository() as repository:
        tasks = len(asyncio.all_tasks())
        cancelled = 0
        for nth in range(1, 100):
            left[0] = nth
            victim[:] = [asyncio.create_task(repository.restore("v", tmp_path / "out.img", force=True))]
            await asyncio.gather(*victim, return_exceptions=True)
            assert budget_of(repository).available == budget_of(repository).total
            assert len(asyncio.all_tasks()) == tasks
            if not victim[0].cancelled():
                break
            cancelled += 1
            (tmp_path / "out.img").write_bytes(b"")  # Else there would be nothing left to read.
        await victim[0]
    assert cancelled >= 2
    assert (tmp_path / "out.img").read_bytes() == data


async def test_a_reader_cancelled_again_and_again_never_runs_out_of_buffers(make_lab: MakeLab) -> None:
    data = random.Random(3).randbytes(64 * BLOCK)
    lab = await (await make_lab()).begin_with(data)
    async with lab.repository() as repository:
        async with repository.open_snapshot("v") as reader:
            for turns in range(60):
                reading = asyncio.create_task(reader.pread(len(data), 0))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            async with asyncio.timeout(60):
                assert await reader.pread(len(data), 0) == data
        assert budget_of(repository).available == budget_of(repository).total
