"""Where exports go under each policy, and that a snapshot restores from its own destination set and the key alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from snapferry.config import PlacementConfig, VolumePlacement, write_config
from snapferry.engine import ExportJob, Repository, open_repository
from snapferry.errors import ConfigurationError, DestinationUnreachable, SnapferryError
from snapferry.placement import Rule, described
from snapferry.source import ChangeMap
from snapferry.testing.sources import MemorySource, MemoryStream
from snapferry.types import ExportResult, MapUse
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

NAMES = ("near", "far", "cold")
FIRST = volume(1, blocks=150)
SERIES = [FIRST, changed(FIRST, 2, [5, 90]), changed(FIRST, 3, [5, 40, 91]) + volume(9, blocks=4), volume(4, blocks=120)]
HALF = 64 * BLOCK

PLACEMENTS: dict[str, PlacementConfig] = {
    "mirror": PlacementConfig("mirror"),
    "alternate": PlacementConfig("alternate"),
    "spread-1": PlacementConfig("spread:copies=1"),
    "spread-2": PlacementConfig("spread:copies=2", min_copies=2),
    "full-here": PlacementConfig("route", rules=(Rule(("near",), first=True), Rule(("far",)))),
    "kinds": PlacementConfig("route", rules=(Rule(("cold",), kind="full"), Rule(("near", "far"), copies=1))),
    "every-other": PlacementConfig("route", rules=(Rule(("cold",), every=2), Rule(("near", "far")))),
    "ranges": PlacementConfig("route", rules=(Rule(("near",), range=(0, HALF)), Rule(("far", "cold"), copies=1))),
    "ranges-whole": PlacementConfig("route", rules=(Rule(NAMES, range=(100, HALF + 7)), Rule(NAMES))),
    "cheapest": PlacementConfig("cheapest:copies=2"),
}
ALONE = ("mirror", "alternate", "cheapest", "ranges-whole")


def placed(lab: Lab, placement: PlacementConfig, **how: Any) -> Repository:
    """The repository as a machine sees it whose configuration places so."""
    return open_repository(dataclasses.replace(lab.config, placement=placement, **how))


async def export_all(lab: Lab, placement: PlacementConfig) -> dict[str, tuple[bytes, ExportResult]]:
    made = {}
    async with placed(lab, placement) as repository:
        for data in SERIES:
            result = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
            assert result.exit_code == 0
            made[result.id] = data, result
    return made


def in_parts(result: ExportResult) -> bool:
    return described(result.snapshot.placement).in_parts


async def assert_sets_restore(lab: Lab, made: Mapping[str, tuple[bytes, ExportResult]]) -> None:
    """On a blank machine that knows only the set of each; and only one of it, where each is to hold it whole."""
    for snapshot, (data, result) in made.items():
        for names in [result.acknowledged] if in_parts(result) else [(name,) for name in result.acknowledged]:
            async with lab.repository(*names) as blank:
                assert await lab.contents(blank, snapshot) == data, (snapshot, names)


@pytest.mark.parametrize("name", PLACEMENTS)
async def test_a_snapshot_restores_from_its_own_set_and_the_key_alone(make_lab: MakeLab, name: str) -> None:
    lab = await make_lab(*NAMES)
    made = await export_all(lab, PLACEMENTS[name])
    await assert_sets_restore(lab, made)
    assert any(in_parts(result) for _, result in made.values()) == (name not in ALONE)
    async with lab.repository(*NAMES) as repository:
        listed = {item.snapshot.id: item.destinations for item in await repository.list()}
        assert listed == {snapshot: result.acknowledged for snapshot, (_, result) in made.items()}


@pytest.mark.parametrize("name", PLACEMENTS)
async def test_what_is_unchanged_is_not_stored_again(make_lab: MakeLab, name: str) -> None:
    lab = await make_lab(*NAMES)
    rounds = 3 if name == "alternate" else 1
    async with placed(lab, PLACEMENTS[name]) as repository:
        for data, new in ((FIRST, 148), (FIRST, 0), (changed(FIRST, 5, [1, 70, 149]), 3)):
            for _ in range(rounds):
                result = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
                assert result.blocks_new == new


async def test_alternate_goes_round_and_a_failed_run_takes_no_turn(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    config = dataclasses.replace(lab.config, placement=PLACEMENTS["alternate"])
    went: list[str] = []
    for number in range(6):
        if number in (2, 4):
            lab.missing.add(NAMES[number % 3])
            async with open_repository(config) as repository:
                with pytest.raises(DestinationUnreachable, match=NAMES[number % 3]):
                    await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
            lab.missing.clear()
        async with open_repository(config) as repository:
            result = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
            went += result.acknowledged
            # Compared with the latest that this one holds.
            assert (result.blocks_new == 0) == (number >= 3) == (result.snapshot.parent is not None)
    assert went == [*NAMES, *NAMES]


async def test_spread_puts_each_data_pack_on_so_many_and_all_else_everywhere(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    made = await export_all(lab, PLACEMENTS["spread-2"])
    holders: dict[str, set[str]] = {}
    for name in NAMES:
        for pack in lab.packs(name):
            holders.setdefault(pack, set()).add(name)
    counts = [len(names) for names in holders.values()]
    assert set(counts) == {2, 3}
    assert counts.count(3) == len(made)  # Each wrote one manifest pack.
    segments = [{key for key in lab.stores[name] if key.startswith("index/")} for name in NAMES]
    assert segments[0] == segments[1] == segments[2]


async def test_rules_send_ranges_to_where_they_say(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    made = await export_all(lab, PLACEMENTS["ranges"])
    # Without near the first half cannot be had, and all of the second can.
    snapshot, (data, _) = next(iter(made.items()))
    async with lab.repository("far", "cold") as blank, blank.open_snapshot(snapshot, allow_lost=True) as reader:
        assert bytes(await reader.pread(len(data) - HALF, HALF)) == data[HALF:]
        await reader.pread(HALF, 0)
        assert list(reader.lost) == [(0, 3 * BLOCK), (5 * BLOCK, 4 * BLOCK), (10 * BLOCK, HALF - 10 * BLOCK)]


async def test_a_policy_that_cannot_be_kept_to_is_a_usage_error(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    for placement, min_copies, message in (
        ("spread:copies=4", None, "4 copies"),
        ("spread:copies=2", 3, "min_copies is 3.*2 copies of each"),
        ("alternate", 2, "min_copies is 2.*one destination"),
        ("route", None, "no rules"),
        ("cheapest:operators=2", None, "2 different operators"),
        ("spred", None, "did you mean 'spread'"),
        ("spread:copis=1", None, "did you mean 'copies'"),
        ("mirror:copies=1", None, "takes none"),
        ("spread:copies=0", None, "whole number from 1"),
    ):
        async with lab.repository(*NAMES) as repository:
            with pytest.raises(ConfigurationError, match=message):
                await repository.export(MemorySource(FIRST), volume="v", placement=placement, min_copies=min_copies)


async def test_a_change_of_policy_leaves_old_snapshots_as_they_are(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    made: dict[str, tuple[bytes, ExportResult]] = {}
    for number, name in enumerate(["mirror", "spread-1", "full-here", "spread-2", "alternate", "mirror"]):
        data = SERIES[number % len(SERIES)]
        before = {place: set(lab.packs(place)) for place in NAMES}
        async with placed(lab, PLACEMENTS[name]) as repository:
            result = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        assert result.exit_code == 0
        made[result.id] = data, result
        assert all(before[place] <= set(lab.packs(place)) for place in NAMES)
        await assert_sets_restore(lab, made)


@pytest.mark.parametrize("name", ["alternate", "spread-1", "full-here", "ranges", "ranges-whole"])
async def test_a_map_of_changes_is_used_where_its_parent_is(make_lab: MakeLab, name: str) -> None:
    lab = await make_lab(*NAMES)
    before, data = SERIES[:2]
    async with placed(lab, PLACEMENTS[name]) as repository:
        rounds = 3 if name == "alternate" else 1
        first, *_ = [await repository.export(MemorySource(before), volume="v", block_size=BLOCK) for _ in range(rounds)]
        extents = tuple((block * BLOCK, 5000) for block in (5, 90))
        result = await repository.export(MemorySource(data), volume="v", changed=ChangeMap("map", first.id, extents, ()))
        assert (result.map, result.blocks_new) == (MapUse(True, result.map.audited if result.map else 0), 2)
        made = {result.id: (data, result)}
    await assert_sets_restore(lab, made)


@pytest.mark.parametrize("name", ["ranges", "spread-2"])
async def test_a_stream_goes_where_its_blocks_belong(make_lab: MakeLab, name: str) -> None:
    lab = await make_lab(*NAMES)
    made = {}
    async with placed(lab, PLACEMENTS[name]) as repository:
        for data in (SERIES[0], SERIES[2], SERIES[1][: HALF // 2], b"", SERIES[1]):
            result = await repository.export(MemoryStream(data), volume="v", block_size=BLOCK)
            assert result.exit_code == 0
            made[result.id] = data, result
    await assert_sets_restore(lab, made)


@pytest.mark.parametrize("name", PLACEMENTS)
async def test_a_dry_run_writes_nothing(make_lab: MakeLab, name: str) -> None:
    lab = await make_lab(*NAMES)
    async with placed(lab, PLACEMENTS[name]) as repository:
        await repository.export(MemorySource(SERIES[0]), volume="v", block_size=BLOCK)
        before = lab.saved()
        result = await repository.export(MemorySource(SERIES[1]), volume="v", dry_run=True)
        assert lab.saved() == before
        assert (result.blocks_new, result.exit_code) == (148 if name == "alternate" else 2, 0)


async def test_volumes_and_jobs_may_be_placed_differently(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    placement = PlacementConfig("mirror", volumes=(VolumePlacement("db-*", "spread:copies=1"), VolumePlacement("db-x", "alternate")))
    jobs = [
        ExportJob(MemorySource(volume(number)), name, block_size=BLOCK, placement=asked, to=to)
        for number, (name, asked, to) in enumerate(
            [("vm", None, None), ("db-x", None, None), ("db-y", "cheapest:copies=2", None), ("db-z", "spread:copies=1", ["near", "cold"])]
        )
    ]
    async with placed(lab, placement) as repository:
        result = await repository.export_many(jobs)
        said = {item.snapshot.volume: (item.snapshot.placement, item.acknowledged) for item in result.results}
        assert said == {
            "vm": ("mirror", NAMES),
            "db-x": ("spread copies=1 over near,far,cold", NAMES),
            "db-y": ("cheapest over near,far", ("near", "far")),
            "db-z": ("spread copies=1 over near,cold", ("near", "cold")),
        }
        for number, job in enumerate(jobs):
            assert await lab.contents(repository, job.volume_name) == volume(number)
        with pytest.raises(ConfigurationError, match="min_copies is 2"):
            await repository.export_many([dataclasses.replace(jobs[0], placement="alternate", min_copies=2)])


async def test_a_rule_goes_by_tags_and_volumes(make_lab: MakeLab) -> None:
    lab = await make_lab(*NAMES)
    rules = (Rule(("cold",), tags={"keep": "long"}), Rule(("far",), volume="db-*"), Rule(("near",)))
    async with placed(lab, PlacementConfig("route", rules=rules)) as repository:
        for name, tags, where in (("db-1", {}, ("far",)), ("vm", {}, ("near",)), ("vm-2", {"keep": "long", "by": "me"}, ("cold",))):
            result = await repository.export(MemorySource(FIRST), volume=name, tags=tags, block_size=BLOCK)
            assert (result.acknowledged, result.snapshot.placement) == (where, f"route over {where[0]}")
            assert result.blocks_new == 148  # What lies elsewhere does not count as known here.


@pytest.mark.parametrize(("policy", "needed"), [("spread-1", True), ("full-here", True), ("spread-2", False)])
async def test_removal_is_refused_where_what_lies_in_parts_needs_the_destination(make_lab: MakeLab, policy: str, needed: bool) -> None:
    lab = await make_lab(*NAMES)
    made = await export_all(lab, PLACEMENTS[policy])
    config = lab.machine(*NAMES)
    write_config(config)
    async with open_repository(config) as repository:
        only = {item.id for item in (await repository.destinations.check_removal("near")).only_here}
        if needed:
            with pytest.raises(SnapferryError, match="near is the only destination that holds .* or parts that they need"):
                await repository.destinations.remove("near")
    without = [name for name in NAMES if name != "near"]
    async with lab.repository(*without) as rest:
        for snapshot, (data, _) in made.items():
            if snapshot in only:
                with pytest.raises(SnapferryError):
                    await lab.contents(rest, snapshot)
            else:
                assert await lab.contents(rest, snapshot) == data
    assert bool(only) == needed
