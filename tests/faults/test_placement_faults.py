"""A destination dies at any moment of an export, under each policy: what is acknowledged restores from those that acknowledged it, and nothing older is lost."""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from itertools import combinations

import pytest

from snapferry.config import PlacementConfig
from snapferry.engine import Repository, open_repository
from snapferry.errors import DestinationUnreachable, SnapferryError
from snapferry.placement import Rule, described
from snapferry.testing.faults import FullAfter, StopsAfter
from snapferry.testing.sources import MemorySource
from snapferry.types import ExportResult
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

NAMES = ("near", "far", "cold")
FIRST = volume(1)
SECOND = changed(FIRST, 2, [0, 5, 14])
THIRD = changed(SECOND, 3, [1, 20])
PLACEMENTS = {
    "mirror": PlacementConfig("mirror"),
    "alternate": PlacementConfig("alternate"),
    "spread-1": PlacementConfig("spread:copies=1"),
    "spread-2": PlacementConfig("spread:copies=2"),
    "spread-safe": PlacementConfig("spread:copies=2", min_copies=2),
    "full-here": PlacementConfig("route", rules=(Rule(("near",), first=True), Rule(("far", "cold"), copies=1))),
    "ranges": PlacementConfig("route", rules=(Rule(("near", "far"), range=(0, 8 * BLOCK)), Rule(("far", "cold"), copies=1))),
    "cheapest": PlacementConfig("cheapest:copies=2"),
}


def placed(lab: Lab, placement: PlacementConfig) -> Repository:
    return open_repository(dataclasses.replace(lab.machine(), placement=placement))


async def export(lab: Lab, placement: PlacementConfig, data: bytes) -> ExportResult:
    async with placed(lab, placement) as repository:
        return await repository.export(MemorySource(data), volume="v", block_size=BLOCK)


async def assert_restores(lab: Lab, data: bytes, result: ExportResult, *, without: int = 0) -> None:
    """From those that acknowledged it; if it lies in parts, also where any ``without`` of them are away; else from each."""
    names = result.acknowledged
    sets = combinations(names, len(names) - without) if described(result.snapshot.placement).in_parts else [(name,) for name in names]
    for some in sets:
        async with lab.repository(*some) as blank:
            assert await lab.contents(blank, result.id) == data, (result.snapshot.placement, some)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACEMENTS)
async def test_a_member_dies_after_so_many_operations(make_lab: MakeLab, name: str) -> None:
    lab, placement = await make_lab(*NAMES), PLACEMENTS[name]
    first = await export(lab, placement, FIRST)
    start = lab.saved()
    outcomes = set()
    for victim in NAMES:
        left, alive_for = [0], 0
        while left[0] <= 0:
            lab.go_back(start)
            left = [alive_for]
            lab.wrappers[victim] = partial(StopsAfter, left=left, error=partial(DestinationUnreachable, "it died", victim))
            try:
                second = await export(lab, placement, SECOND)
            except SnapferryError:
                second = None
            lab.wrappers.clear()
            outcomes.add(None if second is None else second.exit_code)
            await assert_restores(lab, FIRST, first)
            if second is not None:
                await assert_restores(lab, SECOND, second)
            # Everybody is back: the next one has all its copies, and so has what it was compared with, if it was acknowledged.
            third = await export(lab, placement, THIRD)
            assert third.exit_code == 0
            await assert_restores(lab, THIRD, third, without=1 if placement.policy == "spread:copies=2" else 0)
            if second is not None:
                await assert_restores(lab, SECOND, second)
            alive_for += 7
    # With one copy to spare nobody's death fails an export; where there is none, only that of who died before it began does not.
    assert outcomes == {0, 3, None} - ({3} if name == "alternate" else {None} if name in ("mirror", "spread-2", "cheapest") else set())


@pytest.mark.parametrize("victim", NAMES)
@pytest.mark.parametrize("name", PLACEMENTS)
async def test_a_member_is_away_and_comes_back(make_lab: MakeLab, name: str, victim: str) -> None:
    lab, placement = await make_lab(*NAMES), PLACEMENTS[name]
    made: list[tuple[bytes, ExportResult]] = [(FIRST, await export(lab, placement, FIRST))]
    lab.missing.add(victim)
    for data in (SECOND, THIRD):
        with contextlib.suppress(DestinationUnreachable):
            made.append((data, await export(lab, placement, data)))
    lab.missing.clear()
    for data in (FIRST, volume(7), SECOND):
        made.append((data, await export(lab, placement, data)))
        assert made[-1][1].exit_code == 0
    for data, result in made:
        await assert_restores(lab, data, result)
    two = placement.policy == "spread:copies=2"
    for data, result in made[-3:]:
        await assert_restores(lab, data, result, without=1 if two else 0)
    async with lab.repository(*NAMES) as repository:
        verified = await repository.verify([result.id for _, result in made[-3:]], read_data=100)
        assert (verified.damage, verified.short) == ((), ())


async def test_an_export_stops_where_parts_of_it_have_no_place_left(make_lab: MakeLab) -> None:
    """Long before it is read to its end; and says which part of the volume it is."""
    lab = await make_lab(*NAMES)
    rules = (Rule(("near",), range=(0, 40 * BLOCK)), Rule(("far", "cold"), copies=1))
    source = MemorySource(volume(1, blocks=4000))
    lab.wrappers["near"] = partial(FullAfter, capacity=1 << 20)
    async with placed(lab, PlacementConfig("route", rules=rules)) as repository:
        with pytest.raises(
            SnapferryError, match=r"1 copy of what goes by rule 1 .*bytes 0 to 2621440; nothing was committed.*no space"
        ) as caught:
            await repository.export(source, volume="v", block_size=BLOCK)
    assert caught.value.exit_code == 14
    assert sum(len(pack) for name in NAMES for pack in lab.stores[name].values()) < source.size // 8
    lab.wrappers.clear()
    lab.missing.add("near")
    async with placed(lab, PlacementConfig("route", rules=rules)) as repository:
        with pytest.raises(DestinationUnreachable, match=r"too few destinations can be used to make 1 copy of what goes by rule 1 "):
            await repository.export(source, volume="v", block_size=BLOCK)


@pytest.mark.parametrize("name", ["mirror", "spread-1", "spread-2", "full-here", "ranges"])
async def test_a_writer_dies_between_two_commits_and_the_next_one_finishes(make_lab: MakeLab, name: str) -> None:
    lab, placement = await make_lab(*NAMES), PLACEMENTS[name]
    await export(lab, placement, FIRST)
    second = await export(lab, placement, SECOND)
    for other in second.acknowledged[1:]:
        for key in (f"snapshots/{second.id}", f"sessions/{second.id}/end"):
            del lab.stores[other][key]
    third = await export(lab, placement, SECOND)
    # What lies at those that had everything but the commit is not stored again.
    assert (third.exit_code, third.blocks_new) == (0, 0)
    async with lab.repository(*NAMES) as repository:
        listed = {item.snapshot.id: item.destinations for item in await repository.list()}
        assert listed[second.id] == second.acknowledged
    await assert_restores(lab, SECOND, second)
    await assert_restores(lab, SECOND, third, without=1 if name == "spread-2" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spread-1", "spread-2", "ranges"])
async def test_the_writer_dies_after_so_many_operations(make_lab: MakeLab, name: str) -> None:
    """As seen from the destinations: nothing comes any more. What is listed after the next export restores from those that list it."""
    lab, placement = await make_lab(*NAMES), PLACEMENTS[name]
    first = await export(lab, placement, FIRST)
    start = lab.saved()
    left, alive_for, listed_at_all = [0], 0, 0
    while left[0] <= 0:
        lab.go_back(start)
        left = [alive_for]
        for place in NAMES:
            lab.wrappers[place] = partial(StopsAfter, left=left, error=partial(DestinationUnreachable, "the writer died", place))
        with contextlib.suppress(SnapferryError):
            await export(lab, placement, SECOND)
        lab.wrappers.clear()
        third = await export(lab, placement, THIRD)
        assert third.exit_code == 0
        expected = {first.id: FIRST, third.id: THIRD}
        async with lab.repository(*NAMES) as repository:
            listed = await repository.list()
            assert (await repository.verify()).exit_code == 0
        for item in listed:
            async with lab.repository(*item.destinations) as blank:
                assert await lab.contents(blank, item.snapshot.id) == expected.get(item.snapshot.id, SECOND), (alive_for, item)
        listed_at_all += len(listed) - 2
        alive_for += 9
    assert listed_at_all
