"""Destinations of an open repository: listed, added, tried out, removed."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import shutil
import time
from pathlib import Path

import pytest

from snapferry.config import Config, DestinationConfig, load_config, new_config
from snapferry.destination import Destination, open_destination
from snapferry.destination.memory import MemoryDestination
from snapferry.destination.proof import prove
from snapferry.engine import create_repository, membership, open_repository
from snapferry.errors import ConfigurationError, DestinationUnreachable, ObjectDamaged, SnapferryError
from snapferry.testing.faults import FlipsByte, FullAfter, RefusesDeletes, StopsAfter
from snapferry.testing.sources import MemorySource
from snapferry.transport import Wrapper
from tests.support.lab import BLOCK, volume
from tests.support.s3_servers import Server

DATA = volume(1)


@pytest.fixture
async def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A repository at one place with a snapshot, in real directories."""
    for name in ("CACHE", "STATE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    near = DestinationConfig("near", str(tmp_path / "near"))
    made = await create_repository(new_config(tmp_path / "snapferry.toml", [near]))
    made.path.write_text("# kept\n" + made.path.read_text())
    async with open_repository(made) as repository:
        await repository.export(MemorySource(DATA), volume="v", block_size=BLOCK)
    return load_config(made.path)


async def _restores_alone(config: Config, name: str) -> None:
    alone = dataclasses.replace(config, destinations=(config.destination(name),))
    async with open_repository(alone) as repository, repository.open_snapshot("v") as reader:
        assert b"".join([bytes(piece) async for piece in reader.stream()]) == DATA


async def test_a_new_place_is_made_listed_and_brought_up_to_date(config: Config, tmp_path: Path) -> None:
    far = DestinationConfig("far", str(tmp_path / "a/b/far"))
    async with open_repository(config) as repository:
        told = await repository.destinations.add(far, dry_run=True)
        assert not (tmp_path / "a").exists()
        assert told.config.destination("far") == far
        added = await repository.destinations.add(far)
        assert not added.attached
    assert config.path.read_text().startswith("# kept\n")
    assert load_config(config.path) == added.config
    async with open_repository(added.config) as repository:
        near, state = await repository.destinations.list()
        assert (near.snapshots, near.behind, near.error) == (1, 0, None)
        assert (state.snapshots, state.behind, state.bytes_stored) == (0, 1, 0)
        assert state.bytes_free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
        assert (await repository.sync(["far"])).exit_code == 0
        assert [(item.snapshots, item.behind) for item in await repository.destinations.list()] == [(1, 0), (1, 0)]
        assert (await repository.verify(read_data=100)).exit_code == 0
    await _restores_alone(added.config, "far")


async def test_a_place_that_holds_it_is_attached(config: Config, tmp_path: Path) -> None:
    far = DestinationConfig("far", str(tmp_path / "far"))
    async with open_repository(config) as repository:
        await repository.destinations.add(far)
    async with open_repository(load_config(config.path)) as repository:
        await repository.sync(["far"])
        await repository.destinations.remove("far")
    before = sorted(path.relative_to(tmp_path) for path in (tmp_path / "far").rglob("*"))
    async with open_repository(load_config(config.path)) as repository:
        assert (await repository.destinations.add(far)).attached
    assert sorted(path.relative_to(tmp_path) for path in (tmp_path / "far").rglob("*")) == before
    await _restores_alone(load_config(config.path), "far")


async def test_other_places_are_refused_and_left_as_they_are(config: Config, tmp_path: Path) -> None:
    other = DestinationConfig("other", str(tmp_path / "other"))
    await create_repository(new_config(tmp_path / "other.toml", [other], key_file=tmp_path / "other.key"))
    half = tmp_path / "half"
    (half / "packs/00").mkdir(parents=True)
    (half / "packs/00" / ("0" * 64)).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "near")
    os.makedirs(tmp_path / "copy")
    before = config.path.read_text()
    async with open_repository(config) as repository:
        with pytest.raises(SnapferryError, match="another repository"):
            await repository.destinations.add(other)
        with pytest.raises(SnapferryError, match="part of one"):
            await repository.destinations.add(DestinationConfig("half", str(half)))
        with pytest.raises(ConfigurationError, match="same place"):
            await repository.destinations.add(DestinationConfig("twin", str(tmp_path / "link")))
        with pytest.raises(ConfigurationError, match="two destinations"):
            await repository.destinations.add(DestinationConfig("near", str(tmp_path / "new")))
        shutil.copytree(tmp_path / "near", tmp_path / "copy", dirs_exist_ok=True)
        with pytest.raises(ConfigurationError, match="destination id"):
            await repository.destinations.add(DestinationConfig("copy", str(tmp_path / "copy")))
    assert config.path.read_text() == before
    assert {path.name for path in half.rglob("*")} == {"0" * 64, "00", "packs"}


async def test_an_add_that_dies_anywhere_is_finished_by_the_next(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = config.path.read_text()
    for after in itertools.count():
        config.path.write_text(text)
        shutil.rmtree(tmp_path / "far", ignore_errors=True)
        far, left = DestinationConfig("far", str(tmp_path / "far")), [after]

        async def dying(name: str, *where: object, left: list[int] = left, **how: bool) -> Destination:
            opened = await open_destination(name, *where, **how)  # type: ignore[arg-type]
            return StopsAfter(opened, left, asyncio.CancelledError) if name == "far" else opened

        async with open_repository(config) as repository:
            monkeypatch.setattr(membership, "open_destination", dying)
            try:
                await repository.destinations.add(far)
            except asyncio.CancelledError:
                assert config.path.read_text() == text
                monkeypatch.undo()
                for name in ("CACHE", "STATE", "DATA"):
                    monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
                await repository.destinations.add(far)
            monkeypatch.setattr(membership, "open_destination", open_destination)
        if left[0] > 0:
            break
    async with open_repository(load_config(config.path)) as repository:
        assert (await repository.sync()).exit_code == 0
        assert (await repository.verify(read_data=100)).exit_code == 0


async def test_a_full_place_is_not_added(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = config.path.read_text()

    async def full(name: str, *where: object, **how: bool) -> Destination:
        opened = await open_destination(name, *where, **how)  # type: ignore[arg-type]
        return FullAfter(opened, 300) if name == "far" else opened

    async with open_repository(config) as repository:
        with monkeypatch.context() as patched:
            patched.setattr(membership, "open_destination", full)
            with pytest.raises(SnapferryError) as caught:
                await repository.destinations.add(DestinationConfig("far", str(tmp_path / "far")))
        assert caught.value.exit_code == 14
        assert config.path.read_text() == before
        await repository.destinations.add(DestinationConfig("far", str(tmp_path / "far")))


async def test_removal_asks_who_else_holds_what_it_holds(config: Config, tmp_path: Path) -> None:
    far = DestinationConfig("far", str(tmp_path / "far"))
    async with open_repository(config) as repository:
        with pytest.raises(ConfigurationError, match="last destination"):
            await repository.destinations.remove("near", force=True)
        await repository.destinations.add(far)
    config = load_config(config.path)
    async with open_repository(config) as repository:
        with pytest.raises(SnapferryError, match="only destination that holds 1 snapshots, or parts that they need: v of"):
            await repository.destinations.remove("near")
        (only,) = (await repository.destinations.check_removal("near")).only_here
        assert only.volume == "v"
        await repository.sync()
    (tmp_path / "near").rename(tmp_path / "away")
    async with open_repository(config) as repository:
        near, _ = await repository.destinations.list()
        assert isinstance(near.error, DestinationUnreachable)
        with pytest.raises(SnapferryError, match="--force"):
            await repository.destinations.remove("near")
        with pytest.raises(DestinationUnreachable):
            await repository.destinations.remove("near", force=True, delete_objects=True)
        assert load_config(config.path) == config
        removed = await repository.destinations.remove("near", force=True)
    assert [destination.name for destination in removed.config.destinations] == ["far"]
    assert any((tmp_path / "away").rglob("packs/*/*"))
    await _restores_alone(removed.config, "far")


async def test_objects_are_deleted_on_demand_and_nothing_else(config: Config, tmp_path: Path) -> None:
    async with open_repository(config) as repository:
        await repository.destinations.add(DestinationConfig("far", str(tmp_path / "far")))
    config = load_config(config.path)
    async with open_repository(config) as repository:
        await repository.sync()
    (tmp_path / "far/notes.txt").write_text("mine")
    (tmp_path / "far/config").unlink()  # As a removal leaves it that was interrupted at once.
    async with open_repository(config) as repository:
        assert (await repository.destinations.remove("far", force=True, delete_objects=True)).deleted > 5
    assert [path.name for path in (tmp_path / "far").rglob("*") if path.is_file()] == ["notes.txt"]
    await _restores_alone(load_config(config.path), "near")


async def test_the_proof_of_a_good_store(config: Config, tmp_path: Path) -> None:
    stale = f"probe/{int(time.time()) - 7200:010d}-{'0' * 32}"
    young = f"probe/{int(time.time()):010d}-{'0' * 32}"
    near = await open_destination("near", str(tmp_path / "near"))
    for key in (stale, young):
        await near.create(key, b"left by others")
    await near.close()
    async with open_repository(config) as repository:
        proof = await repository.destinations.test("near", size=1 << 20)
        assert (proof.exit_code, all(check.holds for check in proof.checks)) == (0, True)
        assert min(proof.create_rate, proof.read_rate, proof.first_byte) > 0
        assert (await repository.verify(read_data=100)).exit_code == 0
    assert [path.name for path in (tmp_path / "near/probe").iterdir()] == [young.removeprefix("probe/")]
    shutil.rmtree(tmp_path / "near")
    os.mkdir(tmp_path / "near")
    with pytest.raises(SnapferryError) as caught:
        async with open_repository(config) as repository:
            await repository.destinations.test("near")
    assert caught.value.exit_code == 10
    assert list((tmp_path / "near").iterdir()) == []


class _ForgetsToRefuse(Wrapper):
    """Creates replace what is there, though the store declares that it refuses."""

    async def create(self, key: str, data: object) -> bool:
        await self.inner.delete(key)
        return await self.inner.create(key, data)  # type: ignore[arg-type]


async def test_the_proof_of_bad_stores() -> None:
    def place() -> MemoryDestination:
        return MemoryDestination("near", {})

    with pytest.raises(ObjectDamaged):
        await prove(FlipsByte(place(), 7), size=1 << 16)
    with pytest.raises(ObjectDamaged):
        await prove(_ForgetsToRefuse(place()), size=1 << 16)
    store = place()
    proof = await prove(RefusesDeletes(store), size=1 << 16)
    (delete,) = [check for check in proof.checks if check.what == "delete"]
    assert (proof.exit_code, delete.holds, delete.needed) == (0, False, False)


async def test_s3_places_are_proved_added_synced_and_repaired(
    config: Config, s3_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = DestinationConfig("cloud", s3_server.url(f"added/{tmp_path.name}"), options=s3_server.options())
    async with open_repository(config) as repository:
        added = await repository.destinations.add(cloud)
    # What was found out of the store is noted.
    assert added.config.destination("cloud").options["conditional_put"] is (s3_server.name == "moto")
    async with open_repository(added.config) as repository:
        proof = await repository.destinations.test("cloud", size=1 << 20)
        assert proof.exit_code == 0
        (refused,) = [check for check in proof.checks if check.what == "create-if-absent"]
        assert refused.holds is (s3_server.name == "moto")
        assert (await repository.sync(["cloud"])).exit_code == 0
        for path in (tmp_path / "near/packs").rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:-1] + b"?")
        repaired = await repository.repair(read_data=100)
        assert (repaired.left, len(repaired.healed) > 0) == ((), True)
        assert (await repository.verify(read_data=100)).exit_code == 0
    await _restores_alone(added.config, "cloud")
    async with open_repository(added.config) as repository:
        assert (await repository.destinations.remove("cloud", delete_objects=True)).deleted > 5
    place = await open_destination("cloud", cloud.url, cloud.options, writable=False)
    assert [info.key async for info in place.list("") if not info.key.startswith("tmp/")] == []
    await place.close()
