"""Two hosts of which one knows things that are no longer so: segments and packs that are gone, snapshots it has never heard of, another catalog."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from functools import partial

import pytest

from snapferry import _core
from snapferry.config import Config
from snapferry.destination import Destination, ObjectInfo
from snapferry.engine import open_repository
from snapferry.repository import names
from snapferry.repository.index_cache import join
from snapferry.testing.sources import MemorySource
from snapferry.transport.wrapper import Wrapper
from snapferry.types import ExportResult
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

DATA = volume(1, blocks=12)
OTHER = volume(2, blocks=12)


async def export(machine: Config, data: bytes, name: str = "v", **how: object) -> ExportResult:
    async with open_repository(machine) as repository:
        return await repository.export(MemorySource(data), volume=name, block_size=BLOCK, **how)  # type: ignore[arg-type]


async def listed(machine: Config) -> list[str]:
    async with open_repository(machine) as repository:
        return [item.snapshot.id for item in await repository.list()]


async def check(lab: Lab, expected: dict[str, bytes]) -> None:
    await lab.assert_restores_alone(expected)
    async with lab.repository(*lab.names) as blank:
        assert {item.snapshot.id for item in await blank.list()} == expected.keys()
        result = await blank.verify(read_data=100)
        assert (result.damage, result.unverified) == ((), {})


async def let_go(lab: Lab, snapshot_id: str, gone: set[str]) -> None:
    """As a forget and collections leave every place: nothing of the snapshot is there, and new segments name the packs that stay."""
    keyring = await lab.keyring()
    for store in lab.stores.values():
        session = f"{names.SESSIONS}{snapshot_id}/"
        for key in [key for key in store if key in gone or key == names.snapshot(snapshot_id) or key.startswith((names.INDEX, session))]:
            del store[key]
        index = _core.Index()
        for key in [key for key in store if key.startswith(names.PACKS)]:
            index.add_pack(keyring, names.parse_pack(key) or b"", len(store[key]), store[key])
        for segment in index.take_added(keyring):
            store[names.segment(segment.id)] = segment.data


@pytest.mark.parametrize("left", [False, True], ids=["segments-replaced", "segments-left"])
@pytest.mark.parametrize("places", [("near",), ("near", "far")])
async def test_cached_segments_of_packs_that_are_gone_make_nothing_known(make_lab: MakeLab, places: tuple[str, ...], left: bool) -> None:
    """The host has the segments that name them, and was the one that wrote them. They may even be back, by whoever copied them late."""
    lab = await make_lab(*places)
    stale, fresh = lab.machine(), lab.machine()
    own = await export(stale, OTHER, "w")
    gone = {key for key in lab.stores["near"] if key.startswith(names.PACKS)}
    cache = stale.repository.cache_dir / str(stale.repository.id) / "index"
    cached = join(key.removeprefix(names.INDEX) for key in lab.stores["near"] if key.startswith(names.INDEX))
    kept = await export(fresh, DATA)
    segments = {key: data for key, data in lab.stores["near"].items() if key.startswith(names.INDEX)}
    await let_go(lab, own.id, gone)
    for store in lab.stores.values() if left else ():
        store.update(segments)
    assert cached
    assert _core.Index().open(str(cache), cached, whole=True) == b""  # The cache has them all: they are what must not be believed.
    again = await export(stale, OTHER, "w")
    assert again.blocks_new == own.blocks_new
    await check(lab, {kept.id: DATA, again.id: OTHER})


async def test_what_one_place_has_let_go_is_not_known_and_copied_there_when_it_is_needed(make_lab: MakeLab) -> None:
    """Collections go by place: far has let a snapshot go that near keeps, and the host saw both there."""
    lab = await make_lab()
    stale = lab.machine()
    first = await export(stale, DATA)
    gone = {key for key in lab.stores["near"] if key.startswith(names.PACKS)}
    second = await export(stale, OTHER, "w")
    near = dict(lab.stores["near"])
    await let_go(lab, first.id, gone)
    lab.stores["near"].clear()
    lab.stores["near"].update(near)
    # Far has neither the parent's commit nor its packs: it is behind, and gets copies before the commit.
    third = changed(DATA, 5, [1])
    result = await export(stale, third)
    assert result.acknowledged == ("near", "far")
    assert result.blocks_new == 1
    # What only near holds is not known to a snapshot of another volume that both are to have.
    fourth = await export(stale, changed(OTHER, 6, [2]), "w")
    assert fourth.acknowledged == ("near", "far")
    await lab.assert_restores_alone({first.id: DATA, second.id: OTHER, result.id: third, fourth.id: changed(OTHER, 6, [2])})


async def test_a_host_goes_on_after_others_have(make_lab: MakeLab) -> None:
    """It missed two dozen exports; what it sends is what is new in its volume."""
    lab = await make_lab()
    here, there = lab.machine(), lab.machine()
    expected = {(await export(here, DATA)).id: DATA}
    data, other, last = DATA, OTHER, ""
    for number in range(12):
        data = changed(data, number, [number % 12])
        last = (await export(there, data)).id
        other = changed(OTHER, number, [1])
        expected |= {last: data, (await export(there, other, "w")).id: other}
    data = changed(data, 99, [0, 11])
    back = await export(here, data)
    assert (back.snapshot.generation, back.blocks_new, back.snapshot.parent) == (14, 2, last)
    unchanged = await export(here, other, "w")
    assert unchanged.blocks_new == 0
    await check(lab, expected | {back.id: data, unchanged.id: other})


async def test_places_that_only_one_host_sees_all_get_whole_snapshots(make_lab: MakeLab) -> None:
    """Both write to the common place; each has one of its own, which is behind whenever the other one was last."""
    lab = await make_lab("common", "left", "right")
    hosts = [lab.machine("common", "left"), lab.machine("common", "right")]
    expected: dict[str, bytes] = {}
    data = DATA
    for turn in range(6):
        data = changed(data, turn, [turn, 11 - turn])
        result = await export(hosts[turn % 2], data)
        assert result.exit_code == 0
        assert result.snapshot.generation == turn + 1
        expected[result.id] = data
    await lab.assert_restores_alone(expected)
    for name in lab.names:
        async with lab.repository(name) as alone:
            held = [item.snapshot.generation for item in await alone.list()]
        # Its own host's exports, and those before them that they were built on.
        assert held == list(range(1, 7)) if name != "left" else held == list(range(1, 6)), name
    async with lab.repository(*lab.names) as blank:
        assert (await blank.verify(read_data=100)).exit_code == 0


async def test_hosts_that_see_no_common_place_tie_and_are_told_apart(make_lab: MakeLab) -> None:
    lab = await make_lab("left", "right")
    one = await export(lab.machine("left"), DATA)
    other = await export(lab.machine("right"), OTHER)
    assert one.snapshot.generation == other.snapshot.generation == 1
    both = lab.machine()
    async with open_repository(both) as repository:
        series = await repository.list("v")
        assert [item.snapshot.id for item in series] == sorted([one.id, other.id])
        assert [item.destinations for item in series] == ([("left",), ("right",)] if one.id < other.id else [("right",), ("left",)])
        third = changed(OTHER, 1, [4])
        result = await repository.export(MemorySource(third), volume="v", block_size=BLOCK)
    assert result.acknowledged == ("left", "right")
    assert result.snapshot.generation == 2
    await lab.assert_restores_alone({one.id: DATA, other.id: OTHER, result.id: third})


async def test_a_catalog_of_a_newer_version_is_left_alone_and_stops_nothing(make_lab: MakeLab, caplog: pytest.LogCaptureFixture) -> None:
    lab = await make_lab()
    host, other = lab.machine(), lab.machine()
    first = await export(host, DATA)
    path = host.catalog_url().removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    second = await export(other, OTHER)
    with caplog.at_level(logging.WARNING, "snapferry"):
        third = await export(host, changed(OTHER, 1, [3]))
    assert "version 99" in caplog.text
    assert third.blocks_new == 1
    assert third.snapshot.generation == 3
    assert await listed(host) == [first.id, second.id, third.id]
    await check(lab, {first.id: DATA, second.id: OTHER, third.id: changed(OTHER, 1, [3])})
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchone() == (99,)
    connection.close()


async def test_an_older_catalog_put_back_changes_nothing_but_what_is_read(make_lab: MakeLab) -> None:
    """As after a host was itself restored from a backup: its memory is of last week, the destinations are of today."""
    lab = await make_lab()
    host, other = lab.machine(), lab.machine()
    expected = {(await export(host, DATA)).id: DATA}
    path = host.catalog_url().removeprefix("sqlite:///")
    with open(path, "rb") as file:
        before = file.read()
    for number in range(3):
        data = changed(DATA, number, [number])
        expected[(await export(host if number % 2 else other, data)).id] = data
    with open(path, "wb") as file:
        file.write(before)
    assert sorted(await listed(host)) == sorted(expected)
    result = await export(host, OTHER)
    assert result.snapshot.generation == 5
    await check(lab, expected | {result.id: OTHER})


class HeldUp(Wrapper):
    """The first listing of snapshots is told only when ``told`` is set; ``made`` says that it was made."""

    def __init__(self, made: asyncio.Event, told: asyncio.Event, inner: Destination) -> None:
        super().__init__(inner)
        self._made, self._told = made, told

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        found = [item async for item in self.inner.list(prefix)]
        if prefix == names.SNAPSHOTS:
            self._made.set()
            await self._told.wait()
        for item in found:
            yield item


@pytest.mark.parametrize("look", ["list", "verify"])
async def test_a_snapshot_made_while_another_process_lists_was_not_lost(
    make_lab: MakeLab, look: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both have one catalog: what the one notes as seen is not in the listing that the other made before."""
    lab = await make_lab("near")
    host = lab.machine()
    await export(host, DATA)
    made, told = asyncio.Event(), asyncio.Event()

    async def looking() -> int:
        async with open_repository(host) as repository:
            return len(await repository.list()) if look == "list" else (await repository.verify()).exit_code

    lab.wrappers["near"] = partial(HeldUp, made, told)
    held_up = asyncio.create_task(looking())
    await made.wait()
    lab.wrappers.clear()
    await export(host, changed(DATA, 1, [2]))
    told.set()
    assert await held_up == (1 if look == "list" else 0)
    assert "seen here before" not in caplog.text


@pytest.mark.parametrize("prunes", [1, 2, 4])
async def test_a_host_that_was_away_while_another_forgot_and_pruned(
    make_lab: MakeLab, prunes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It built on nothing that is gone, and what was let go on purpose was not lost."""
    lab = await make_lab()
    away, here = lab.machine(), lab.machine()
    own = await export(away, OTHER, "w")
    kept = await export(here, DATA)
    async with open_repository(here) as repository:
        await repository.forget([own.id])
        for _ in range(prunes):
            await repository.prune()
    assert await listed(away) == [kept.id]
    again = await export(away, OTHER, "w")
    assert again.blocks_new == own.blocks_new
    assert again.snapshot.generation == 2
    await check(lab, {kept.id: DATA, again.id: OTHER})
    assert "seen here before" not in caplog.text
