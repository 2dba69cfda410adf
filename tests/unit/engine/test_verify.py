"""Verification, and what is remembered between runs."""

from __future__ import annotations

import logging

import pytest

from snapferry.errors import ConfigurationError
from snapferry.testing.sources import MemorySource
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

DATA = volume(1, blocks=60)


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    return await (await make_lab()).begin_with(DATA)


async def test_all_well(lab: Lab) -> None:
    async with lab.repository() as repository:
        for percent in (0, 30, 100):
            result = await repository.verify(read_data=percent)
            assert (result.damage, result.exit_code, result.snapshots) == ((), 0, 1)
        result = await repository.verify(read_data=100)
        assert result.bytes_read == sum(len(lab.stores[name][key]) for name in lab.names for key in lab.packs(name))
        with pytest.raises(ConfigurationError):
            await repository.verify(read_data=101)


async def test_every_object_that_is_missing_is_reported_for_its_place_only(lab: Lab) -> None:
    for key in sorted(lab.stores["near"]):
        data = lab.stores["near"].pop(key)
        async with lab.repository() as repository:
            result = await repository.verify()
            assert result.exit_code == 4, key
            assert {damage.destination for damage in result.damage} == {"near"}, key
            assert (await repository.verify(destination="far")).exit_code == 0
        lab.stores["near"][key] = data


async def test_a_bad_byte_in_a_pack_is_found_by_reading_and_its_extents_named(lab: Lab) -> None:
    key = max(lab.packs("near"), key=lambda key: len(lab.stores["near"][key]))
    data = bytearray(lab.stores["near"][key])
    data[len(data) // 2] ^= 1
    lab.stores["near"][key] = bytes(data)
    async with lab.repository() as repository:
        assert (await repository.verify()).exit_code == 0
        result = await repository.verify(read_data=100)
        (damage,) = result.damage
        assert (damage.destination, damage.object, damage.snapshot) == ("near", key, lab.id)
        assert sum(length for _, length in damage.extents) == 57 * BLOCK + 1000
        shown = await repository.show("v")
        assert [item.object for item in shown.replicas[0].damage] == [key]
        # Mended, and read again in full: no longer known as damaged.
        lab.stores["near"][key] = lab.stores["far"][key]
        assert (await repository.verify(read_data=100)).exit_code == 0
        assert (await repository.show("v")).replicas[0].damage == ()


async def test_a_destination_that_cannot_be_reached_is_not_verified_and_no_damage(lab: Lab) -> None:
    lab.missing.add("far")
    async with lab.repository() as repository:
        result = await repository.verify()
        assert result.damage == ()
        assert list(result.unverified) == ["far"]
        assert result.exit_code == 3


async def test_a_destination_without_the_repository_is_damage(lab: Lab) -> None:
    del lab.stores["far"]["config"]
    async with lab.repository() as repository:
        result = await repository.verify()
        assert [(damage.destination, damage.object) for damage in result.damage] == [("far", "config")]
        assert result.exit_code == 4


async def test_a_destination_rolled_back_is_reported(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    before = dict(lab.stores["far"])
    async with lab.repository() as repository:
        two = await repository.export(MemorySource(changed(DATA, 1, [3])), volume="v")
    lab.stores["far"].clear()
    lab.stores["far"].update(before)
    async with lab.repository() as repository:
        with caplog.at_level(logging.WARNING, "snapferry"):
            await repository.list()
        assert "rolled back" in caplog.text
        result = await repository.verify()
        assert [(damage.destination, damage.snapshot) for damage in result.damage] == [("far", two.id)]


async def test_rebuild_makes_missing_segments_anew(lab: Lab) -> None:
    for store in lab.stores.values():
        for key in [key for key in store if key.startswith("index/")]:
            del store[key]
    async with lab.repository() as repository:
        assert (await repository.verify()).exit_code == 4
        await repository.rebuild()
        assert (await repository.verify(read_data=100)).exit_code == 0
        result = await repository.export(MemorySource(DATA), volume="v")
        assert result.blocks_new == 0


async def test_a_broken_catalog_stops_nothing(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    path = lab.config.catalog_url().removeprefix("sqlite:///")
    with open(path, "wb") as file:
        file.write(b"not a database" * 1000)
    async with lab.repository() as repository:
        with caplog.at_level(logging.WARNING, "snapferry"):
            assert len(await repository.list()) == 1
        assert "rebuild" in caplog.text
        assert await lab.contents(repository, "v") == DATA
        await repository.rebuild()
    caplog.clear()
    async with lab.repository() as repository:
        assert len(await repository.list()) == 1
    assert not caplog.records


async def test_a_broken_cache_is_made_anew(lab: Lab) -> None:
    index = lab.config.repository.cache_dir / str(lab.config.repository.id) / "index"
    for file in index.iterdir():
        file.write_bytes(b"x" + file.read_bytes()[1:])
    async with lab.repository() as repository:
        assert (await repository.export(MemorySource(DATA), volume="v")).blocks_new == 0
