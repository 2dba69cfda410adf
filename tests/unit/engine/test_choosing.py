"""Which replicas a restore reads from: by price, by what was asked for, and by what earlier runs measured."""

from __future__ import annotations

import dataclasses
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from snapferry.catalog import Catalog, ReplicaSpeed
from snapferry.config import Config, Price
from snapferry.destination import Destination
from snapferry.engine import open_repository
from snapferry.errors import DamageError
from snapferry.testing.links import ComesAndGoes, SharesLine
from snapferry.types import MiB
from tests.support.lab import Lab, MakeLab

DATA = random.Random(1).randbytes(12 * MiB)


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    return await (await make_lab()).begin_with(DATA)


def priced(config: Config, **prices: Price) -> Config:
    entries = tuple(dataclasses.replace(entry, price=prices[entry.name]) for entry in config.destinations)
    return dataclasses.replace(config, destinations=entries)


async def test_cheap_reads_from_the_cheapest_and_fast_from_all(lab: Lab, tmp_path: Path) -> None:
    lab.wrappers |= {"near": lambda inner: SharesLine(inner, 20 * MiB), "far": lambda inner: SharesLine(inner, 500 * MiB)}
    for dear, prices in (
        ("far", {"near": Price(), "far": Price(egress_gb=0.09)}),
        ("near", {"near": Price(request_1k=0.4), "far": Price()}),
    ):
        async with open_repository(priced(lab.machine(), **prices)) as repository:
            result = await repository.restore("v", tmp_path / f"{dear}.img", prefer="cheap")
            assert result.bytes_fetched[dear] == 0
            async with repository.open_snapshot("v", prefer="cheap") as reader:
                assert await reader.pread(len(DATA), 0) == DATA
            assert reader.bytes_fetched[dear] == 0
            await repository.restore("v", tmp_path / f"not-{dear}.img")
            async with repository.open_snapshot("v") as reader:
                assert await reader.pread(len(DATA), 0) == DATA
            assert reader.bytes_fetched["far"] > 0
        assert (tmp_path / f"{dear}.img").read_bytes() == DATA


async def test_the_dearer_serves_when_the_cheapest_is_gone(lab: Lab, tmp_path: Path) -> None:
    doubles: list[ComesAndGoes] = []

    def goes(inner: Destination) -> ComesAndGoes:
        doubles.append(ComesAndGoes(inner))
        return doubles[-1]

    lab.wrappers["near"] = goes
    async with open_repository(priced(lab.machine(), near=Price(), far=Price(egress_gb=0.09))) as repository:
        doubles[0].away = True
        result = await repository.restore("v", tmp_path / "out.img", prefer="cheap")
    assert (tmp_path / "out.img").read_bytes() == DATA
    assert result.bytes_fetched["near"] == 0
    assert not result.damage


async def test_what_is_lost_where_not_all_were_asked_names_the_others(lab: Lab, tmp_path: Path) -> None:
    for key in lab.packs("near"):
        lab.stores["near"][key] = lab.stores["near"][key][:-1000] + bytes(1000)
        data = bytearray(lab.stores["near"][key])
        data[1000:-1000:500] = bytes(len(data[1000:-1000:500]))
        lab.stores["near"][key] = bytes(data)
    async with lab.repository() as repository:
        with pytest.raises(DamageError, match=r"other destinations were not asked: far$") as caught:
            await repository.restore("v", tmp_path / "out.img", sources=["near"])
        assert caught.value.extents
        with pytest.raises(DamageError, match="not asked: far"):
            async with repository.open_snapshot("v", sources=["near"]) as reader:
                await reader.pread(len(DATA), 0)
        assert (await repository.restore("v", tmp_path / "out.img")).exit_code == 0
    for key, data_ in lab.stores["near"].items():
        if key in lab.packs("far"):
            lab.stores["far"][key] = data_
    async with lab.repository() as repository:
        with pytest.raises(DamageError) as caught:
            await repository.restore("v", tmp_path / "again.img")
    assert "not asked" not in str(caught.value)


async def test_what_was_measured_is_remembered_and_used(lab: Lab, tmp_path: Path) -> None:
    lab.wrappers |= {"near": lambda inner: SharesLine(inner, 20 * MiB), "far": lambda inner: SharesLine(inner, 80 * MiB)}
    machine = lab.machine()
    async with open_repository(machine) as repository:
        await repository.restore("v", tmp_path / "out.img")
        ids = dict(repository._membership.members.ids)
        repository_id = repository.id
    with Catalog(machine.catalog_url()) as catalog:
        speeds = catalog.speeds(repository_id)
    assert speeds.keys() == set(ids.values())
    found = speeds[ids["far"]]
    assert 30 * MiB < found.goodput < 200 * MiB
    assert datetime.now(UTC) - found.measured < timedelta(minutes=10)
    async with open_repository(machine) as repository:
        board = repository._membership.tools.board
        assert board.meters["far"].goodput is None
        async with repository.open_snapshot("v"):
            assert board.meters["far"].goodput == pytest.approx(found.goodput)
            assert not board.meters["far"].state().stale
    with Catalog(machine.catalog_url()) as catalog:
        assert catalog.speeds(repository_id) == speeds, "nothing was measured, so nothing is said"
        old = dataclasses.replace(found, measured=datetime.now(UTC) - timedelta(days=30))
        catalog.remember_speeds(repository_id, {ids["far"]: old, "ab" * 16: ReplicaSpeed(0.1, 1e6, 0.0, 0.0, datetime.now(UTC))})
    async with open_repository(machine) as repository, repository.open_snapshot("v"):
        assert repository._membership.tools.board.meters["far"].state().untried
