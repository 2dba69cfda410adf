"""Exports through the facade, on destinations in memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from snapferry.destination import Destination
from snapferry.errors import (
    ConfigurationError,
    DestinationDenied,
    DestinationFull,
    DestinationNotARepository,
    NotARepository,
    ObjectDamaged,
    SnapferryError,
    SnapshotNotFound,
    SourceChanged,
    SourceError,
    SourceReadError,
)
from snapferry.testing.faults import FailsNth, FullAfter
from snapferry.testing.sources import FailingReads, GrowsMeanwhile, MemorySource, ShrinksAfter
from snapferry.transport.wrapper import Wrapper
from snapferry.types import Progress
from tests.support.lab import BLOCK, MakeLab, changed, volume


async def test_a_volume_comes_back_from_each_destination_alone(make_lab: MakeLab) -> None:
    lab = await make_lab()
    data = volume(1)
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
    assert result.exit_code == 0
    assert result.acknowledged == ("near", "far")
    assert result.bytes_read == len(data)
    assert result.blocks_total == 25
    assert result.blocks_zero == 3
    await lab.assert_restores_alone({result.id: data})


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 256 * BLOCK, 257 * BLOCK + 5])
async def test_every_size(make_lab: MakeLab, size: Any) -> None:
    lab = await make_lab("only")
    data = (volume(2, blocks=20) * 14)[:size]
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        assert result.snapshot.size == size
        assert await lab.contents(repository, "v") == data


@pytest.mark.parametrize("block_size", [64 << 10, 256 << 10, 1 << 20, 4 << 20])
async def test_every_block_size(make_lab: MakeLab, block_size: Any) -> None:
    lab = await make_lab("only")
    data = volume(3, blocks=200)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="v", block_size=block_size)
        assert await lab.contents(repository, "v") == data


async def test_an_unchanged_volume_sends_no_packs_and_a_changed_block_only_itself(make_lab: MakeLab) -> None:
    lab = await make_lab()
    first, second = volume(4), changed(volume(4), 5, [6])
    async with lab.repository() as repository:
        one = await repository.export(MemorySource(first), volume="v", block_size=BLOCK)
        packs = lab.packs("near")
        same = await repository.export(MemorySource(first), volume="v")
        assert lab.packs("near") == packs
        assert (same.blocks_new, same.bytes_new, same.snapshot.parent) == (0, 0, one.id)
        other = await repository.export(MemorySource(second), volume="v")
        assert (other.blocks_new, other.bytes_new) == (1, BLOCK)
        assert other.snapshot.generation == 3
    await lab.assert_restores_alone({one.id: first, same.id: first, other.id: second})


async def test_equal_blocks_are_stored_once_in_a_repository(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    data = volume(6)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="a", block_size=BLOCK)
        result = await repository.export(MemorySource(data + data), volume="b", block_size=BLOCK)
    assert result.blocks_new <= 25  # Shifted by the cut tail, the second half is new; the first is known.
    async with lab.repository("only") as repository:
        assert await lab.contents(repository, "b") == data + data


async def test_holes_are_never_read(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    data = bytearray(volume(7, blocks=100, zeros=[]))
    holes = [(10 * BLOCK, 20 * BLOCK), (50 * BLOCK + 5, 3 * BLOCK)]
    for offset, length in holes:
        data[offset : offset + length] = bytes(length)
    source = MemorySource(bytes(data), holes=holes)
    async with lab.repository() as repository:
        result = await repository.export(source, volume="v", block_size=BLOCK)
        assert await lab.contents(repository, "v") == data
    assert not [read for read in source.reads if read[0] < 30 * BLOCK and read[0] + read[1] > 10 * BLOCK]
    assert result.blocks_zero == 22


async def test_a_volume_may_grow_and_shrink_between_snapshots(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    data = volume(8, blocks=300)
    sizes = [len(data), 5 * BLOCK + 7, 290 * BLOCK, 0, len(data)]
    expected = {}
    async with lab.repository() as repository:
        for size in sizes:
            result = await repository.export(MemorySource(data[:size]), volume="v", block_size=BLOCK)
            expected[result.id] = data[:size]
    await lab.assert_restores_alone(expected)


async def test_a_dry_run_counts_and_writes_nothing(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(9)), volume="v", block_size=BLOCK)
        before = {name: dict(store) for name, store in lab.stores.items()}
        result = await repository.export(MemorySource(changed(volume(9), 1, [2, 8])), volume="v", dry_run=True)
    assert (result.dry_run, result.blocks_new, result.exit_code) == (True, 2, 0)
    assert lab.stores == before


async def test_progress_ends_with_everything_done(make_lab: MakeLab) -> None:
    lab = await make_lab()
    seen: list[Progress] = []
    data = volume(10)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="v", block_size=BLOCK, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == len(data)
    assert set(seen[-1].sent) == {"near", "far"}


async def test_a_source_that_shrinks_or_grows_makes_no_snapshot(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        for source in (ShrinksAfter(MemorySource(volume(11, blocks=400)), 1), GrowsMeanwhile(MemorySource(volume(11)))):
            with pytest.raises(SourceChanged):
                await repository.export(source, volume="v", block_size=BLOCK)
        assert await repository.list() == []
        assert all(any(key.endswith("/end") for key in store) for store in lab.stores.values())


async def test_a_read_error_fails_and_names_the_offset(make_lab: MakeLab) -> None:
    lab = await make_lab()
    source = FailingReads(MemorySource(volume(12)), [(5 * BLOCK + 100, 10)])
    async with lab.repository() as repository:
        with pytest.raises(SourceReadError, match=str(5 * BLOCK + 100)) as caught:
            await repository.export(source, volume="v", block_size=BLOCK)
        assert caught.value.offset == 5 * BLOCK + 100
        assert await repository.list() == []


async def test_skipped_extents_are_recorded_and_never_silently_zero(make_lab: MakeLab) -> None:
    lab = await make_lab()
    data = volume(13, blocks=40)
    source = FailingReads(MemorySource(data), [(5 * BLOCK + 100, 10), (6 * BLOCK, 1), (20 * BLOCK - 1, 2), (len(data) - 1, 1)])
    async with lab.repository() as repository:
        result = await repository.export(source, volume="v", block_size=BLOCK, skip_unreadable=True)
        assert result.exit_code == 3
        assert result.snapshot.unreadable == ((5 * BLOCK, 2 * BLOCK), (19 * BLOCK, 2 * BLOCK), (40 * BLOCK, 1000))
        with pytest.raises(SnapferryError) as caught:
            await lab.contents(repository, "v")
        assert caught.value.exit_code == 4
        expected = bytearray(data)
        for offset, length in result.snapshot.unreadable:
            expected[offset : offset + length] = bytes(length)
        assert await lab.contents(repository, "v", allow_unreadable=True) == expected
        # Unreadable again, it shares its page with the first; still nobody knows whether it is the same.
        await repository.export(source, volume="v", skip_unreadable=True)
        assert [extent async for extent in repository.diff("v~1", "v")] == list(result.snapshot.unreadable)
        # What could not be read is not inherited: read well the next time, it is stored.
        healed = await repository.export(MemorySource(data), volume="v")
        assert (healed.exit_code, healed.blocks_new) == (0, 5)
    async with lab.repository("far") as alone:
        assert await lab.contents(alone, "v") == data


async def test_a_destination_that_fails_leaves_the_others_alone(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far", "third")
    lab.wrappers["far"] = lambda inner: FullAfter(inner, 300_000)
    data = volume(14)
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
    assert (result.exit_code, result.acknowledged, result.behind) == (3, ("near", "third"), ("far",))
    assert isinstance(result.failures["far"], DestinationFull)
    await lab.assert_restores_alone({result.id: data})
    async with lab.repository("far") as alone:
        assert await alone.list() == []


async def test_the_next_export_catches_up_a_destination_that_was_behind(make_lab: MakeLab) -> None:
    lab = await make_lab()
    lab.wrappers["far"] = lambda inner: FullAfter(inner, 300_000)
    data, later = volume(15), changed(volume(15), 2, [1, 7])
    async with lab.repository() as repository:
        first = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
    del lab.wrappers["far"]
    async with lab.repository() as repository:
        second = await repository.export(MemorySource(later), volume="v")
        assert (second.exit_code, second.acknowledged) == (0, ("near", "far"))
        assert second.blocks_new == 2  # Whoever is behind never enlarges what the others are sent.
        listed = {item.snapshot.id: item.destinations for item in await repository.list()}
        assert listed == {first.id: ("near", "far"), second.id: ("near", "far")}
        assert (await repository.verify(read_data=100)).damage == ()
    await lab.assert_restores_alone({first.id: data, second.id: later})


async def test_a_new_destination_gets_everything(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far")
    data = volume(16)
    async with lab.repository() as repository:
        first = await repository.export(MemorySource(data), volume="v", block_size=BLOCK, to=["near"])
        assert first.exit_code == 0
        second = await repository.export(MemorySource(data), volume="v", block_size=BLOCK, to=["far"])
        assert second.acknowledged == ("far",)
        assert second.snapshot.parent is None
    await lab.assert_restores_alone({first.id: data, second.id: data})


async def test_a_pack_that_an_up_to_date_destination_lost_is_made_up_for(make_lab: MakeLab) -> None:
    """Never known: a block in a pack that is missing or torn somewhere."""
    lab = await make_lab()
    data = volume(17)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
    for key in lab.packs("far"):
        del lab.stores["far"][key]
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(data), volume="v")
        assert result.acknowledged == ("near", "far")
        assert result.blocks_new > 0
    async with lab.repository("far") as alone:
        assert await lab.contents(alone, result.id) == data


async def test_a_truncated_pack_counts_as_lost(make_lab: MakeLab) -> None:
    lab = await make_lab()
    data = volume(18)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
    for key in lab.packs("far"):
        lab.stores["far"][key] = lab.stores["far"][key][:-1]
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(data), volume="v")
    async with lab.repository("far") as alone:
        assert await lab.contents(alone, result.id) == data


def _fails_creates(error: Exception, inner: Destination) -> Destination:
    return FailsNth(inner, "create", 2, lambda: error, times=99)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([DestinationFull("no space"), DestinationDenied("no permission")], 12),
        ([DestinationFull("no space"), DestinationNotARepository("not one")], 10),
        ([DestinationFull("no space"), DestinationFull("no space")], 14),
    ],
)
async def test_below_min_copies_the_code_is_the_first_that_applies(make_lab: MakeLab, errors: Any, code: Any) -> None:
    lab = await make_lab()
    for name, error in zip(lab.names, errors, strict=True):
        lab.wrappers[name] = partial(_fails_creates, error)
    async with lab.repository() as repository:
        with pytest.raises(SnapferryError) as caught:
            await repository.export(MemorySource(volume(19)), volume="v", block_size=BLOCK)
    assert caught.value.exit_code == code
    assert str(errors[0]) in str(caught.value)
    assert str(errors[1]) in str(caught.value)


async def test_no_commit_is_begun_below_min_copies(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far", "third")
    lab.wrappers["far"] = lambda inner: FullAfter(inner, 200_000)
    async with lab.repository() as repository:
        with pytest.raises(DestinationFull):
            await repository.export(MemorySource(volume(20)), volume="v", block_size=BLOCK, min_copies=3)
        assert await repository.list() == []
    lab.missing.add("third")
    async with lab.repository() as repository:
        with pytest.raises(SnapferryError) as caught:
            await repository.export(MemorySource(volume(20)), volume="v", block_size=BLOCK, min_copies=3)
    assert caught.value.exit_code == 13
    assert not any(key.startswith("snapshots/") for store in lab.stores.values() for key in store)


async def test_bad_arguments_are_refused_before_anything_is_read(make_lab: MakeLab) -> None:
    lab = await make_lab()
    source = MemorySource(volume(21))
    async with lab.repository() as repository:
        wrongs: list[dict[str, Any]] = [
            {"block_size": 100_000},
            {"block_size": 32 << 10},
            {"volume": "a b"},
            {"volume": ""},
            {"to": ["nowhere"]},
            {"min_copies": 3},
            {"min_copies": 0},
        ]
        for wrong in wrongs:
            with pytest.raises(ConfigurationError):
                await repository.export(source, **{"volume": "v", **wrong})
        with pytest.raises(SnapshotNotFound):
            await repository.export(source, volume="v", parent="ffffffffffff")
        for path, words in (("/nowhere/at/all", "cannot open"), ("/usr", "directory"), ("/dev/null", "character device")):
            with pytest.raises(SourceError, match=words):
                await repository.export(path, volume="v")
        await repository.export(source, volume="v", block_size=BLOCK)
        with pytest.raises(ConfigurationError, match="blocks of 65536"):
            await repository.export(source, volume="v", block_size=4 * BLOCK)
    assert source.reads


async def test_a_parent_can_be_chosen(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        one = await repository.export(MemorySource(volume(22)), volume="v", block_size=BLOCK)
        await repository.export(MemorySource(volume(23)), volume="v")
        back = await repository.export(MemorySource(volume(22)), volume="v", parent=one.id)
        assert (back.snapshot.parent, back.snapshot.generation, back.blocks_new) == (one.id, 3, 0)
        free = await repository.export(MemorySource(volume(22)), volume="v", parent="none")
        assert free.snapshot.parent is None
        await repository.export(MemorySource(volume(24)), volume="w", block_size=BLOCK)
        with pytest.raises(ConfigurationError, match="of volume v"):
            await repository.export(MemorySource(volume(24)), volume="w", parent=one.id)


async def test_a_killed_writers_commit_is_finished_by_the_next(make_lab: MakeLab) -> None:
    """Killed between ``end`` and its copy under ``snapshots/``."""
    lab = await make_lab()
    async with lab.repository() as repository:
        one = await repository.export(MemorySource(volume(25)), volume="v", block_size=BLOCK)
    del lab.stores["near"][f"snapshots/{one.id}"]
    async with lab.repository() as repository:
        assert (await repository.verify()).exit_code == 4
        two = await repository.export(MemorySource(volume(25)), volume="v")
        assert {item.snapshot.id: item.destinations for item in await repository.list()} == {
            one.id: ("near", "far"),
            two.id: ("near", "far"),
        }


async def test_where_nobody_can_tell_what_is_condemned_nothing_is_built(make_lab: MakeLab) -> None:
    lab = await make_lab()
    data = volume(26)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        lab.stores["near"]["collect/0000000001/condemned"] = b"?"
        result = await repository.export(MemorySource(data), volume="v")
        assert (result.acknowledged, result.behind) == (("far",), ("near",))
        assert isinstance(result.failures["near"], ObjectDamaged)


async def test_all_memory_is_given_back(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(27, blocks=300)), volume="v", block_size=BLOCK)
        assert await lab.contents(repository, "v") == volume(27, blocks=300)
        budget = repository._membership.tools.budget
        assert budget.available == budget.total


async def test_not_a_repository_anywhere(make_lab: MakeLab) -> None:
    lab = await make_lab()
    for store in lab.stores.values():
        del store["config"]
    with pytest.raises(NotARepository, match="no config object"):
        async with lab.repository():
            pass


async def test_packs_known_to_be_broken_are_not_built_on(make_lab: MakeLab) -> None:
    """What a verification found is stored anew by the next export, so that its snapshot is whole everywhere."""
    lab = await make_lab()
    data = volume(28)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        key = max(lab.packs("far"), key=lambda key: len(lab.stores["far"][key]))
        lab.stores["far"][key] = lab.stores["far"][key][:-500] + bytes(500)
        assert (await repository.verify(read_data=100)).exit_code == 4
        result = await repository.export(MemorySource(data), volume="v")
        assert result.blocks_new > 0
        async with lab.repository("far") as alone:
            assert await lab.contents(alone, result.id) == data


async def test_a_note_of_a_damaged_pack_is_believed(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    data = volume(29)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        for key in lab.packs("only"):
            lab.stores["only"]["damaged/" + key.rsplit("/", 1)[1]] = b"note"
        result = await repository.export(MemorySource(data), volume="v")
        assert result.blocks_new == result.blocks_total - result.blocks_zero


async def test_a_destination_lost_between_two_commits_is_listed_so_and_finished_next(make_lab: MakeLab) -> None:
    lab = await make_lab()

    class NoEnd(Wrapper):
        async def create(self, key: str, data: Any) -> bool:
            if key.endswith("/end"):
                raise DestinationFull("no space", self.name)
            return await self.inner.create(key, data)

    lab.wrappers["far"] = NoEnd
    data = volume(30)
    async with lab.repository() as repository:
        with pytest.raises(DestinationFull, match="1 made"):
            await repository.export(MemorySource(data), volume="v", block_size=BLOCK, min_copies=2)
        (listed,) = await repository.list()
        assert listed.destinations == ("near",)
    del lab.wrappers["far"]
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(data), volume="v", min_copies=2)
        assert result.blocks_new == 0
        assert [item.destinations for item in await repository.list()] == [("near", "far")] * 2
    await lab.assert_restores_alone({listed.snapshot.id: data, result.id: data})


async def test_bytes_sent_count_every_object(make_lab: MakeLab) -> None:
    lab = await make_lab()
    before = {name: dict(store) for name, store in lab.stores.items()}
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(volume(31)), volume="v", block_size=BLOCK)
    for name, store in lab.stores.items():
        assert result.bytes_sent[name] == sum(len(data) for key, data in store.items() if key not in before[name])
