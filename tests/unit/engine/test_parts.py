"""Snapshots that lie in parts, looked at, restored, let go and pruned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from snapferry import RetentionPolicy, _core
from snapferry.config import PlacementConfig, Price
from snapferry.engine import Repository, open_repository
from snapferry.errors import ConfigurationError, DamageError, DestinationUnreachable, SnapferryError
from snapferry.repository import names
from snapferry.testing.sources import MemorySource
from snapferry.types import ExportResult
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

NAMES = ("near", "far", "cold")
FIRST = volume(1, blocks=150)
SERIES = [FIRST, changed(FIRST, 2, [5, 90]), changed(FIRST, 3, [6, 91])]
ONE, TWO = PlacementConfig("spread:copies=1"), PlacementConfig("spread:copies=2")


def placed(lab: Lab, placement: PlacementConfig) -> Repository:
    return open_repository(dataclasses.replace(lab.config, placement=placement))


async def spread(lab: Lab, placement: PlacementConfig) -> list[ExportResult]:
    """A snapshot of each of the series, which lies on more places than one."""
    async with placed(lab, placement) as repository:
        return [await repository.export(MemorySource(data), volume="v", block_size=BLOCK) for data in SERIES]


def data_packs(lab: Lab) -> dict[str, list[str]]:
    """By pack that not all hold, who does."""
    holders: dict[str, list[str]] = {}
    for name in NAMES:
        for pack in lab.packs(name):
            holders.setdefault(pack, []).append(name)
    return {pack: found for pack, found in holders.items() if len(found) < len(NAMES)}


async def test_what_a_destination_lacks_by_design_is_no_damage(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    await spread(lab, TWO)
    async with lab.repository(*NAMES) as repository:
        for destination in (None, *NAMES):
            result = await repository.verify(read_data=100, destination=destination)
            assert (result.exit_code, result.damage, result.short, result.snapshots) == (0, (), (), 3)


async def test_too_few_copies_are_told_and_none_is_damage(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    made = await spread(lab, TWO)
    pack, holders = min(data_packs(lab).items())
    del lab.stores[holders[0]][pack]
    async with lab.repository(*NAMES) as repository:
        result = await repository.verify()
        assert (result.exit_code, result.damage) == (3, ())
        assert {item.snapshot for item in result.short} <= {snapshot.id for snapshot in made}
        assert all((item.packs, item.copies, item.least, item.destinations) == (1, 2, 1, NAMES) for item in result.short)
        shown = await repository.show(result.short[0].snapshot)
        assert (shown.packs_short, shown.packs_lost) == (1, 0)
    del lab.stores[holders[1]][pack]
    async with lab.repository(*NAMES) as repository:
        result = await repository.verify()
        assert result.exit_code == 4
        assert {(item.destination, item.object, item.reason) for item in result.damage} == {("near", pack, "missing")}
        assert (await repository.show(result.damage[0].snapshot or "")).packs_lost == 1


async def test_a_damaged_pack_is_found_where_it_lies(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    await spread(lab, TWO)
    pack, holders = min(data_packs(lab).items())
    whole = lab.stores[holders[1]][pack]
    lab.stores[holders[1]][pack] = whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]
    async with lab.repository(*NAMES) as repository:
        result = await repository.verify(read_data=100)
        assert {(item.destination, item.object) for item in result.damage} == {(holders[1], pack)}
        assert await lab.contents(repository, "v") == SERIES[2]


async def test_who_cannot_be_asked_may_have_what_is_missing(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    made = await spread(lab, ONE)
    absent = min(holders[0] for holders in data_packs(lab).values())
    lab.missing.add(absent)
    async with lab.repository(*NAMES) as repository:
        result = await repository.verify()
        assert (result.exit_code, result.damage) == (3, ())
        assert list(result.unverified) == [absent]
        assert all(item.least == 0 for item in result.short)
        needs = {item.snapshot for item in result.short}
        assert needs
        with pytest.raises(DestinationUnreachable, match=rf"lies in parts .* are at none of .*{absent} cannot be reached"):
            await lab.contents(repository, min(needs))
        for snapshot, data in zip(made, SERIES, strict=True):
            if snapshot.id not in needs:
                assert await lab.contents(repository, snapshot.id) == data


async def test_a_restore_from_part_of_a_set_says_what_is_missing(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = await make_lab(*NAMES)
    await spread(lab, ONE)
    # The largest pack is of the first snapshot, which all others build on.
    _, (holder,) = max(data_packs(lab).items(), key=lambda item: len(lab.stores[item[1][0]][item[0]]))
    others = [name for name in NAMES if name != holder]
    async with lab.repository(*NAMES) as repository:
        with pytest.raises(SnapferryError, match=rf"of its \d+ packs are at none of .*; read from {holder} too") as caught:
            await repository.restore("v~2", tmp_path / "target", sources=others)
        assert caught.value.exit_code == 1
        assert not (tmp_path / "target").exists()
        partly = await repository.restore("v~2", tmp_path / "target", sources=others, best_effort=True)
        assert partly.exit_code == 4
        assert partly.damage == ()
    async with lab.repository(*NAMES) as repository:
        result = await repository.restore("v", tmp_path / "other")
        assert (result.failovers, result.damage) == (0, ())
        assert (tmp_path / "other").read_bytes() == SERIES[2]
        # The other way round: two copies do without any one place.
        await repository.export(MemorySource(volume(8)), volume="w", block_size=BLOCK, placement="spread:copies=2")
        for name in NAMES:
            some = [other for other in NAMES if other != name]
            assert await lab.contents(repository, "w", sources=some) == volume(8)


async def test_show_says_where_everything_is_and_what_it_costs(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    await spread(lab, TWO)
    prices = {"near": Price(0.0, 0.0, 0.0), "far": Price(0.02, 0.09, 0.01), "cold": Price(0.004, 0.03, 0.05)}
    places = tuple(dataclasses.replace(place, price=prices[place.name]) for place in lab.config.destinations)
    async with open_repository(dataclasses.replace(lab.config, destinations=places)) as repository:
        shown = await repository.show("v")
    by_name = {replica.destination: replica for replica in shown.replicas}
    assert [by_name[name].manifest_packs for name in NAMES] == [1, 1, 1]
    assert sum(by_name[name].data_packs for name in NAMES) % 2 == 0
    held = data_packs(lab)
    for name in NAMES:
        here = [pack for pack in held if name in held[pack]]
        assert by_name[name].data_packs <= len(here)
        assert by_name[name].packs_present == by_name[name].data_packs + 1
        assert by_name[name].packs_missing == 0
        assert shown.monthly_costs[name] == pytest.approx(by_name[name].bytes / 1e9 * prices[name].store_gb_month)
    # What near has is read there for nothing; the rest is at both of the others, and cold is the cheaper one.
    not_near = [pack for pack in held if "near" not in held[pack]]
    most = sum(len(lab.stores["cold"][pack]) / 1e9 * 0.03 + 0.05 / 1000 for pack in not_near)
    assert shown.restore_cost is not None
    assert 0 <= shown.restore_cost <= most * 1.001
    async with lab.repository(*NAMES) as repository:
        free = await repository.show("v")
        assert (free.monthly_costs, free.restore_cost) == ({}, None)


async def test_forgetting_is_for_the_whole_set(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    made = await spread(lab, ONE)
    async with lab.repository(*NAMES) as repository:
        with pytest.raises(ConfigurationError, match="lies in parts at near, far, cold"):
            await repository.forget([made[0].id], destinations=["near"])
        kept = await repository.forget([], policy=RetentionPolicy(keep_last=1), destinations=["near", "far"])
        assert kept.forgotten == ()
        assert all("set keep" in kept.kept[item.id]["near"][0] for item in made[:2])
        gone = await repository.forget([], policy=RetentionPolicy(keep_last=1))
        assert {(item.id, item.destinations) for item in gone.forgotten} == {(item.id, NAMES) for item in made[:2]}


@pytest.mark.parametrize(
    "placement", [ONE, TWO, PlacementConfig("mirror"), PlacementConfig("alternate")], ids=["one", "two", "mirror", "alternate"]
)
async def test_a_prune_keeps_what_the_set_needs_at_each_destination(make_lab: MakeLab, placement: PlacementConfig) -> None:
    lab = await make_lab(*NAMES)
    made = await spread(lab, placement)
    async with placed(lab, placement) as repository:
        await repository.export(MemorySource(volume(5, blocks=100)), volume="w", block_size=BLOCK)
        for name in NAMES:
            before = lab.packs(name)
            pruned = await repository.prune(destinations=[name])
            assert (pruned.failures, lab.packs(name)) == ({}, before)
        await repository.forget([made[0].id])
        await repository.prune()
    async with placed(lab, placement) as repository:
        assert (await repository.verify(read_data=100)).exit_code == 0
        again = await repository.export(MemorySource(SERIES[2]), volume="v", block_size=BLOCK)
        assert again.blocks_new == 0 or placement.policy == "alternate"
        await repository.forget([item.snapshot.id for item in await repository.list("v")])
        freed = await repository.prune()
        assert sum(item.packs_deleted for item in freed.destinations) > 0
        assert (await repository.verify(read_data=100)).exit_code == 0
        assert await lab.contents(repository, "w") == volume(5, blocks=100)


async def test_whole_snapshots_beside_those_in_parts_are_still_to_be_whole(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    await spread(lab, ONE)
    async with lab.repository(*NAMES) as repository:
        before = {name: set(lab.packs(name)) for name in NAMES}
        await repository.export(MemorySource(volume(6)), volume="w", block_size=BLOCK)
        assert (await repository.prune()).failures == {}
        page_or_data = max(set(lab.packs("far")) - before["far"], key=lambda pack: len(lab.stores["far"][pack]))
        del lab.stores["far"][page_or_data]
    async with lab.repository(*NAMES) as repository:
        pruned = await repository.prune()
        assert isinstance(pruned.failures["far"], DamageError)
        assert pruned.failures.keys() == {"far"}


async def test_segments_go_on_naming_what_lies_elsewhere(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    made = await spread(lab, ONE)
    async with lab.repository(*NAMES) as repository:
        await repository.forget([made[1].id])
        pruned = await repository.prune()
        assert all(item.packs_deleted for item in pruned.destinations)
    everywhere = {names.parse_pack(pack) for name in NAMES for pack in lab.packs(name)}
    keyring = await lab.keyring()
    for name in NAMES:
        index = _core.Index()
        for key, data in lab.stores[name].items():
            if segment := names.parse_segment(key):
                index.add_segment(bytes.fromhex(segment), keyring.open("segment", "index", data))
        assert {pack for pack, _ in index.packs()} == everywhere
    async with lab.repository(*NAMES) as repository:
        assert (await repository.verify()).exit_code == 0


async def test_a_sync_brings_one_that_was_away_its_share(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    await spread(lab, TWO)
    data = volume(7, blocks=150)
    lab.missing.add("far")
    async with placed(lab, TWO) as repository:
        away = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        # Not for far, nor known there.
        await repository.export(MemorySource(volume(8)), volume="other", block_size=BLOCK, to=["near", "cold"])
        assert away.behind == ("far",)
    lab.missing.clear()
    async with placed(lab, TWO) as repository:
        synced = await repository.sync(["far"])
        assert [item.snapshots for item in synced.destinations] == [(away.id,)]
        assert (await repository.verify(read_data=100)).exit_code == 0
        listed = {
            item.snapshot.volume: item.destinations
            for item in await repository.list()
            if item.snapshot.id == away.id or item.snapshot.volume == "other"
        }
        assert listed == {"v": NAMES, "other": ("near", "cold")}
        # Two copies there were, so that far needs no data to hold its share.
        assert (await repository.show(away.id)).packs_short == 0
        assert sum(item.bytes_copied for item in synced.destinations) < 200_000
    async with lab.repository("near", "far") as blank:
        assert await lab.contents(blank, away.id) == data


async def test_a_sync_does_not_count_copies_outside_of_the_set(make_lab: MakeLab) -> None:
    """Nobody keeps them there: a prune may delete them at any time."""
    lab = await make_lab(*NAMES, "other")
    lab.missing.add("cold")
    async with placed(lab, TWO) as repository:
        made = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK, to=NAMES)
        assert made.acknowledged == ("near", "far")
        needed = set(lab.packs("near")) & set(lab.packs("far"))
    lab.missing.clear()
    for pack in needed:
        lab.stores["other"][pack] = lab.stores["near"][pack]
    manifest = {pack for pack in needed if len(lab.stores["near"][pack]) < 2 * BLOCK}
    lost = sorted(needed - manifest)
    assert lost
    for pack in lost:
        del lab.stores["far"][pack]
    async with placed(lab, TWO) as repository:
        synced = await repository.sync(["cold"])
        assert [item.snapshots for item in synced.destinations] == [(made.id,)]
        assert set(lost) <= set(lab.packs("cold"))
        assert (await repository.show(made.id)).packs_short == 0
