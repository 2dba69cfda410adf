"""Several exports side by side: all or some of them, one's trouble and the others, and what they share."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from snapferry.catalog import Catalog
from snapferry.destination import Destination
from snapferry.destination.contract import ObjectInfo
from snapferry.engine import ExportJob, JobOutcome
from snapferry.errors import ConfigurationError, SourceChanged, SourceError
from snapferry.testing.faults import Hangs
from snapferry.testing.sources import CallsAt, FailingReads, MemorySource, ShrinksAfter
from snapferry.transport import Wrapper
from snapferry.types import MiB, Progress
from tests.support.lab import BLOCK, Lab, MakeLab, volume


def jobs(count: int, *, first: int = 0) -> list[ExportJob]:
    return [ExportJob(MemorySource(volume(n)), f"v{n}", block_size=BLOCK) for n in range(first, first + count)]


async def assert_exact(lab: Lab, outcomes: tuple[JobOutcome, ...]) -> None:
    expected = {o.result.snapshot.id: bytes(o.job.source.data) for o in outcomes if o.result and isinstance(o.job.source, MemorySource)}
    for name in lab.names:
        async with lab.repository(name) as alone:
            listed = {item.snapshot.id for item in await alone.list()}
            for snapshot in listed & set(expected):
                assert await lab.contents(alone, snapshot) == expected[snapshot]


async def test_all_are_exported_and_each_is_told_as_it_comes(make_lab: MakeLab) -> None:
    lab = await make_lab()
    told: list[JobOutcome] = []
    events: list[Progress] = []
    async with lab.repository() as repository:
        found = await repository.export_many(jobs(7), parallel=3, on_result=told.append, on_progress=events.append)
        assert (found.exit_code, found.failed, found.partial) == (0, (), ())
        assert [result.snapshot.volume for result in found.results] == [f"v{n}" for n in range(7)]
        assert sorted(o.job.volume_name for o in told) == [f"v{n}" for n in range(7)]
        assert {event.subject for event in events} == {f"v{n}" for n in range(7)}
        budget = repository._membership.tools.budget
        assert budget.available == budget.total
        again = await repository.export_many(jobs(7))
        assert again.exit_code == 0
        assert all(result.bytes_new == 0 and result.snapshot.parent for result in again.results)
    await assert_exact(lab, found.outcomes)


async def test_what_becomes_of_one_leaves_the_others_alone(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = await make_lab()
    data = MemorySource(volume(50))
    bad = [
        ExportJob(tmp_path / "missing.img"),
        ExportJob(FailingReads(data, [(3 * BLOCK, 1)]), "unreadable"),
        ExportJob(ShrinksAfter(data, 0), "shrinks"),
        ExportJob(data, "no-such-parent", parent="0123456789"),
        ExportJob(FailingReads(data, [(3 * BLOCK, 1)]), "salvaged", skip_unreadable=True),
    ]
    async with lab.repository() as repository:
        found = await repository.export_many([*bad, *jobs(4)], parallel=3)
    assert found.exit_code == 3
    assert [outcome.job.volume_name for outcome in found.failed] == ["missing.img", "unreadable", "shrinks", "no-such-parent"]
    assert [type(outcome.error) for outcome in found.failed[:3:2]] == [SourceError, SourceChanged]
    assert [result.snapshot.volume for result in found.partial] == ["salvaged"]
    assert [outcome.exit_code for outcome in found.outcomes] == [1, 1, 1, 1, 3, 0, 0, 0, 0]
    await assert_exact(lab, found.outcomes[5:])


async def test_none_exported_is_1(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        assert (await repository.export_many([ExportJob(tmp_path / "a"), ExportJob(tmp_path / "b")])).exit_code == 1
        assert (await repository.export_many([])).exit_code == 0


async def test_a_lost_destination_is_told_of_each(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        lab.missing.add("far")
        found = await repository.export_many(jobs(3))
        assert found.exit_code == 3
        assert [result.behind for result in found.results] == [("far",)] * 3
        lab.missing.clear()
        assert (await repository.export_many(jobs(3))).exit_code == 0
    await assert_exact(lab, found.outcomes)


async def test_one_that_comes_back_takes_part_again(make_lab: MakeLab) -> None:
    lab = await make_lab()
    lab.missing.add("far")

    def appear(outcome: JobOutcome) -> None:
        del outcome
        lab.missing.clear()

    lab.missing.clear()
    async with lab.repository() as repository:
        lab.missing.add("far")
        found = await repository.export_many(jobs(3), parallel=1, on_result=appear)
    assert [result.acknowledged for result in found.results] == [("near",), ("near", "far"), ("near", "far")]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([ExportJob("/a/x.img"), ExportJob("/b/x.img")], "volume x.img is exported twice, from /a/x.img and from /b/x.img"),
        ([ExportJob("/a", "v"), ExportJob("/b", "v")], "twice"),
        ([ExportJob("/a b")], "cannot be a volume's name"),
        ([ExportJob("-")], "a volume must be named"),
        ([ExportJob("-", "a"), ExportJob("-", "b")], "standard input is named twice"),
        ([ExportJob("/a", to=["nera"])], "did you mean 'near'"),
        ([ExportJob("/a", to=["near"], min_copies=2)], "min_copies is 2"),
        ([ExportJob("/a", block_size=3)], "block size of 3"),
    ],
)
async def test_jobs_that_cannot_be_are_told_before_anything_starts(make_lab: MakeLab, bad: list[ExportJob], said: str) -> None:
    lab = await make_lab()
    before = {name: dict(store) for name, store in lab.stores.items()}
    async with lab.repository() as repository:
        with pytest.raises(ConfigurationError, match=said):
            await repository.export_many([*jobs(1), *bad])
        with pytest.raises(ConfigurationError):
            await repository.export_many(jobs(1), parallel=0)
    assert lab.stores == before


async def test_a_destination_that_hangs_keeps_nothing_from_the_others(make_lab: MakeLab) -> None:
    lab = await make_lab()
    hung: list[Hangs] = []

    def hang(inner: Destination) -> Destination:
        hung.append(Hangs(inner, "create", lambda key: key.startswith("packs/")))
        return hung[-1]

    lab.wrappers["far"] = hang
    big = [MemorySource(random.Random(n).randbytes(70 * MiB)) for n in range(2)]
    stuck = [ExportJob(source, f"stuck{n}", to=["far"]) for n, source in enumerate(big)]
    free = [ExportJob(MemorySource(random.Random(n).randbytes(30 * MiB)), f"free{n}", to=["near"]) for n in range(2, 5)]
    ended: list[str] = []
    async with lab.repository(*lab.names, memory=64 * MiB) as repository, asyncio.timeout(100):
        all_free = asyncio.Event()

        def end(outcome: JobOutcome) -> None:
            ended.append(outcome.job.volume_name)
            if len(ended) == len(free):
                all_free.set()

        work = asyncio.create_task(repository.export_many([*stuck, *free], parallel=3, on_result=end))
        await all_free.wait()
        assert sorted(ended) == ["free2", "free3", "free4"]
        budget = repository._membership.tools.budget
        assert budget.peak <= budget.total
        for destination in hung:
            destination.released.set()
        found = await work
    assert found.exit_code == 0
    await assert_exact(lab, found.outcomes)


async def test_sources_that_hang_keep_nothing_from_the_others(make_lab: MakeLab) -> None:
    lab = await make_lab()
    released = threading.Event()
    data = volume(1)
    stuck = [ExportJob(CallsAt(MemorySource(data), 0, released.wait), f"stuck{n}", block_size=BLOCK) for n in range(3)]
    ended: list[str] = []
    async with lab.repository() as repository, asyncio.timeout(60):
        all_free = asyncio.Event()

        def end(outcome: JobOutcome) -> None:
            ended.append(outcome.job.volume_name)
            if len(ended) == 5:
                all_free.set()

        work = asyncio.create_task(repository.export_many([*stuck, *jobs(5, first=10)], parallel=4, on_result=end))
        try:
            await all_free.wait()
        finally:
            released.set()
        assert (await work).exit_code == 0
    assert ended[:5] == [f"v{n}" for n in range(10, 15)]


@pytest.mark.parametrize("after", range(0, 30, 5))
async def test_cancelled_in_the_middle_the_next_run_finishes(make_lab: MakeLab, after: int) -> None:
    lab = await make_lab()
    seen = 0

    class Counts(Wrapper):
        async def create(self, key: str, data: object) -> bool:
            nonlocal seen
            seen += 1
            if seen > after:
                work.cancel()
            return await self.inner.create(key, data)  # type: ignore[arg-type]

    lab.wrappers["near"] = Counts
    async with lab.repository() as repository:
        budget = repository._membership.tools.budget
        work = asyncio.create_task(repository.export_many(jobs(5), parallel=3))
        with pytest.raises(asyncio.CancelledError):
            await work
        assert budget.available == budget.total
        lab.wrappers.clear()
        async with asyncio.timeout(30):
            found = await repository.export_many(jobs(5), parallel=3)
        assert found.exit_code == 0, [(o.error, o.result and o.result.failures) for o in found.outcomes if o.exit_code]
    await assert_exact(lab, found.outcomes)


async def test_an_error_of_who_listens_ends_all(make_lab: MakeLab) -> None:
    lab = await make_lab()

    def listen(outcome: JobOutcome) -> None:
        raise BrokenPipeError(outcome.job.volume_name)

    async with lab.repository() as repository:
        with pytest.raises(BrokenPipeError):
            await repository.export_many(jobs(6), parallel=2, on_result=listen)
        budget = repository._membership.tools.budget
        assert budget.available == budget.total


class _Logged(Wrapper):
    """Notes when a listing begins and when a session or pack is created."""

    def __init__(self, inner: Destination, log: list[tuple[str, str]]) -> None:
        super().__init__(inner)
        self.log = log

    async def create(self, key: str, data: object) -> bool:
        self.log.append(("create", key))
        await asyncio.sleep(0.001)
        return await self.inner.create(key, data)  # type: ignore[arg-type]

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        self.log.append(("list", prefix))
        await asyncio.sleep(0.05)
        async for item in self.inner.list(prefix):
            yield item


async def test_listings_are_shared_and_none_is_older_than_the_session_that_builds_on_it(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    log: list[tuple[str, str]] = []
    lab.wrappers["near"] = lambda inner: _Logged(inner, log)
    async with lab.repository() as repository:
        assert (await repository.export_many(jobs(24), parallel=8)).exit_code == 0
    assert log.count(("list", "snapshots/")) <= 2
    assert log.count(("list", "packs/")) < 24  # Those that begin together share one; later they drift apart.
    assert sum(entry == ("list", "sessions/") for entry in log) == 1
    for number, (what, key) in enumerate(log):
        if what == "create" and key.startswith("sessions/") and key.endswith("/0"):
            # Its data comes after a listing that begins after it: between the two there is one in the log.
            end = log.index(("create", key.removesuffix("0") + "end"))
            assert ("list", "packs/") in log[number:end]


async def test_limits(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    data = random.Random(3).randbytes(1 << 20)
    async with lab.repository() as repository:
        assert repository.limit_rate is None
        began = time.monotonic()
        await repository.export_many([ExportJob(MemorySource(data), "v", limit_rate=2e6)])
        assert time.monotonic() - began >= 0.4
        repository.limit_rate = 1000
        work = asyncio.create_task(repository.export_many([ExportJob(MemorySource(data[::-1]), "w")]))
        await asyncio.sleep(0.3)
        assert not work.done()
        repository.limit_rate = None
        async with asyncio.timeout(20):
            assert (await work).exit_code == 0
        with pytest.raises(ConfigurationError):
            repository.limit_rate = 0
    config = lab.config
    async with lab.repository() as repository:
        repository.limit_rate = 2e6
        began = time.monotonic()
        assert await lab.contents(repository, "v") == data
        assert time.monotonic() - began >= 0.4
    assert config.engine.limit_rate is None


async def test_limits_of_one_destination_and_what_they_keep_from_being_learned(make_lab: MakeLab) -> None:
    lab = await make_lab()
    data = random.Random(5).randbytes(1 << 20)
    async with lab.repository() as repository:
        assert repository.limit_rate_of("far") is None
        repository.set_limit_rate("far", 1e6)
        assert (repository.limit_rate_of("far"), repository.limit_rate_of("near"), repository.limit_rate) == (1e6, None, None)
        began = time.monotonic()
        await repository.export(MemorySource(data), volume="v")
        assert time.monotonic() - began >= 0.8
        for sources in (["near"], ["far"]):
            assert await lab.contents(repository, "v", sources=sources) == data
        repository.set_limit_rate("far", None)
        repository.set_limit_rate(None, 3e6)
        repository.take_limits(lab.config)
        assert repository.limit_rate is None
        for name, rate in (("far", 0), (None, -1), ("nowhere", 1)):
            with pytest.raises(ConfigurationError):
                repository.set_limit_rate(name, rate)
    # A total limit, of a moment even, says nothing of either; so nothing was learned.
    url = lab.config.catalog_url()
    with Catalog(url) as catalog:
        assert catalog.speeds(lab.config.repository.id or "") == {}
    async with lab.repository() as repository:
        repository.set_limit_rate("far", 1e9)
        for sources in (["near"], ["far"]):
            assert await lab.contents(repository, "v", sources=sources) == data
        near = repository._membership.members.ids["near"]
    with Catalog(url) as catalog:
        assert catalog.speeds(lab.config.repository.id or "").keys() == {near}
