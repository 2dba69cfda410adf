"""Exports with a map of changes: what it names is read and nothing else, the rest is the parent's; and a map that lies is found out."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from snapferry.engine import Repository
from snapferry.errors import ConfigurationError, SnapshotNotFound, SourceError, SourceReadError
from snapferry.pipeline import steps
from snapferry.pipeline.changes import AUDIT_LEAST
from snapferry.repository import names
from snapferry.repository.collections import Condemned, publish
from snapferry.source import ChangeMap
from snapferry.testing.sources import FailingReads, MemorySource, MemoryStream
from snapferry.types import ExportResult, Root, Roots
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

Extents = Sequence[tuple[int, int]]
DATA = volume(1, blocks=700)


def a_map(extents: Extents, zeros: Extents = (), parent: str | None = None) -> ChangeMap:
    return ChangeMap("map", parent, tuple(extents), tuple(zeros))


def at(blocks: Sequence[int]) -> list[tuple[int, int]]:
    """What ``changed`` changes there."""
    return [(block * BLOCK, 5000) for block in blocks]


def outside_of(source: MemorySource, extents: Extents) -> int:
    """How many bytes were read that no extent touches, in whole blocks."""
    touched = {block for offset, length in extents for block in range(offset // BLOCK, -(-(offset + length) // BLOCK))}
    return sum(
        min(BLOCK, offset + length - start)
        for offset, length in source.reads
        for start in range(offset, offset + length, BLOCK)
        if start // BLOCK not in touched
    )


async def same_roots(repository: Repository, result: ExportResult, data: bytes) -> Roots:
    """Compares with a snapshot that was made by reading everything."""
    full = await repository.export(MemorySource(data), volume=f"full-{result.id}", block_size=BLOCK)
    ours, theirs = result.snapshot.roots, full.snapshot.roots
    assert (ours.height, page(ours.ids)) == (theirs.height, page(theirs.ids))
    assert await lab_contents(repository, result.id) == data
    return theirs


def page(root: Root | None) -> bytes | None:
    return root.page if root else None


async def lab_contents(repository: Repository, snapshot: str) -> bytes:
    async with repository.open_snapshot(snapshot) as reader:
        return b"".join([bytes(piece) async for piece in reader.stream()])


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    """A volume of 700 blocks; ``id`` is its snapshot."""
    return await (await make_lab()).begin_with(DATA)


async def test_only_what_it_names_and_the_audit_is_read(lab: Lab) -> None:
    after = changed(DATA, 2, [5, 300, 699])
    extents = at([5, 300, 699])
    source = MemorySource(after)
    async with lab.repository() as repository:
        result = await repository.export(source, volume="v", changed=a_map(extents), parent=lab.id)
        assert result.map is not None
        assert (result.map.used, result.map.audited, result.map.reason) == (True, AUDIT_LEAST, None)
        assert (result.blocks_new, result.blocks_total, result.snapshot.parent) == (3, 701, lab.id)
        assert outside_of(source, extents) <= AUDIT_LEAST * BLOCK
        assert result.bytes_read == sum(length for _, length in source.reads)
        await same_roots(repository, result, after)
    for name in lab.names:
        async with lab.repository(name) as alone:
            assert await lab.contents(alone, result.id) == after


async def test_nothing_changed_writes_no_page(lab: Lab) -> None:
    packs = {name: lab.packs(name) for name in lab.names}
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(DATA), volume="v", changed=a_map([], parent=lab.id))
        before = (await repository.show(lab.id)).snapshot
    assert result.snapshot.roots == before.roots
    assert {name: lab.packs(name) for name in lab.names} == packs


async def test_what_became_zeros_is_not_read(lab: Lab) -> None:
    zeros = [(10 * BLOCK + 100, 40 * BLOCK), (300 * BLOCK, 300 * BLOCK)]
    after = bytearray(DATA)
    for offset, length in zeros:
        after[offset : offset + length] = bytes(length)
    source = MemorySource(bytes(after))
    async with lab.repository() as repository:
        result = await repository.export(source, volume="v", changed=a_map([], zeros, lab.id))
        assert result.map
        assert result.map.used
        assert result.map.audited == 2 * AUDIT_LEAST
        assert sum(length for _, length in source.reads) <= (2 * AUDIT_LEAST + 2) * BLOCK
        await same_roots(repository, result, bytes(after))
        # All of it.
        result = await repository.export(MemorySource(bytes(len(DATA))), volume="v", changed=a_map([], [(0, len(DATA))], result.id))
        assert result.snapshot.roots.ids is None
        await same_roots(repository, result, bytes(len(DATA)))


@pytest.mark.parametrize(
    "size", [0, 5, 256 * BLOCK, 300 * BLOCK, 300 * BLOCK + 17, len(DATA) - 5, len(DATA) + 3, 701 * BLOCK, 900 * BLOCK + 1]
)
async def test_a_volume_that_grew_or_shrank(lab: Lab, size: int) -> None:
    after = (changed(DATA, 5, [7]) + random.Random(6).randbytes(max(0, size - len(DATA))))[:size]
    extents = [extent for extent in at([7]) if sum(extent) <= size]
    cut = [(size - size % BLOCK, 1), (len(DATA) - len(DATA) % BLOCK, 1)]
    tail = [(len(DATA), max(0, size - len(DATA)))]
    source = MemorySource(after)
    async with lab.repository() as repository:
        result = await repository.export(source, volume="v", changed=a_map(extents, parent=lab.id))
        assert result.map
        assert result.map.used
        assert result.snapshot.size == size
        assert outside_of(source, [*extents, *cut, *tail]) <= AUDIT_LEAST * BLOCK
        await same_roots(repository, result, after)


async def test_a_grown_sparse_file_reads_only_its_data(lab: Lab) -> None:
    after = DATA + bytes(400 * BLOCK) + b"x" * 10
    holes = [(len(DATA) - len(DATA) % BLOCK + BLOCK, 399 * BLOCK)]
    source = MemorySource(after, holes=holes)
    async with lab.repository() as repository:
        result = await repository.export(source, volume="v", changed=a_map([], parent=lab.id))
        assert sum(length for _, length in source.reads) <= (AUDIT_LEAST + 4) * BLOCK
        await same_roots(repository, result, after)


async def test_a_map_that_leaves_something_out_is_found_out(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Half of all blocks are other ones: ten drawn blocks are all unchanged once in a thousand times or so."""
    after = changed(DATA, 8, range(0, 700, 2))
    source = MemorySource(after)
    async with lab.repository() as repository:
        attempts = 0
        while True:
            result = await repository.export(source, volume="v", changed=a_map(at([0]), parent=lab.id), dry_run=True)
            attempts += 1
            assert result.map
            if not result.map.used:
                break
            assert attempts < 5
        result = await repository.export(source, volume="v", changed=a_map(at([0]), parent=lab.id))
        assert result.map
        assert not result.map.used
        assert result.map.audited > 0
        assert "not unchanged, as it says" in (result.map.reason or "")
        assert result.exit_code == 0
        await same_roots(repository, result, after)
    assert "map is not used, and all of memory is read" in caplog.text


async def test_said_zeros_are_audited_too(lab: Lab) -> None:
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(DATA), volume="v", changed=a_map([], [(0, len(DATA))], lab.id))
        assert result.map
        assert "not zeros" in (result.map.reason or "")
        await same_roots(repository, result, DATA)


async def test_only_with_the_parent_that_is_named(lab: Lab) -> None:
    source = MemorySource(DATA)
    async with lab.repository() as repository:
        other = await repository.export(MemorySource(DATA), volume="other", block_size=BLOCK)
        newer = await repository.export(MemorySource(changed(DATA, 9, [3])), volume="v")
        for changes, parent, error, words in (
            (a_map([]), "auto", ConfigurationError, "does not say which snapshot it was made against"),
            (a_map([], parent=lab.id), "none", ConfigurationError, "needs a parent"),
            (a_map([], parent="f" * 32), "auto", SnapshotNotFound, "f" * 32),
            (a_map([], parent=other.id), "auto", SourceError, "of volume other, not of v"),
            (a_map([]), other.id, SourceError, "of volume other, not of v"),
            (a_map([], parent=lab.id), newer.id, SourceError, f"made against {lab.id}"),
        ):
            with pytest.raises(error, match=words) as caught:
                await repository.export(source, volume="v", changed=changes, parent=parent)
            assert caught.value.exit_code == (2 if error is ConfigurationError else 1)
        assert source.reads == []
        # Any snapshot of the volume will do, as long as it is that one.
        result = await repository.export(source, volume="v", changed=a_map([], parent="v~1"), parent=lab.id)
        assert result.snapshot.parent == lab.id
        await same_roots(repository, result, DATA)


async def test_maps_that_cannot_be_of_this_source(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "map").write_text(json.dumps([{"offset": len(DATA) - 5, "length": 6, "exists": "true"}]))
    async with lab.repository() as repository:
        with pytest.raises(ConfigurationError, match=f"reaches to byte {len(DATA) + 1}, and the source has {len(DATA)}"):
            await repository.export(MemorySource(DATA), volume="v", changed=tmp_path / "map", parent=lab.id)
        with pytest.raises(ConfigurationError, match="a source that can be read anywhere"):
            await repository.export(MemoryStream(DATA), volume="v", changed=a_map([], parent=lab.id))
        assert len(await repository.list()) == 1


async def test_what_the_parent_could_not_read_is_read(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    bad = [(5 * BLOCK, 2 * BLOCK), (290 * BLOCK + 5, 10)]
    async with lab.repository() as repository:
        torn = await repository.export(FailingReads(MemorySource(DATA), bad), volume="v", block_size=BLOCK, skip_unreadable=True)
        assert torn.exit_code == 3
        still = await repository.export(
            FailingReads(MemorySource(DATA), bad[1:]), volume="v", changed=a_map([], parent=torn.id), skip_unreadable=True
        )
        assert still.snapshot.unreadable == ((290 * BLOCK, BLOCK),)
        whole = await repository.export(MemorySource(DATA), volume="v", changed=a_map([], parent=still.id))
        assert whole.snapshot.unreadable == ()
        await same_roots(repository, whole, DATA)


async def test_a_block_that_cannot_be_read_for_the_audit(lab: Lab) -> None:
    """It is inherited as the map says, or ends the export where nobody wants to skip."""
    source = FailingReads(MemorySource(DATA), [(0, len(DATA))])
    async with lab.repository() as repository:
        with pytest.raises(SourceReadError):
            await repository.export(source, volume="v", changed=a_map([], parent=lab.id))
        result = await repository.export(source, volume="v", changed=a_map([], parent=lab.id), skip_unreadable=True)
        assert result.map
        assert (result.map.audited, result.snapshot.unreadable) == (0, ())
        await same_roots(repository, result, DATA)


async def test_a_machine_that_never_saw_the_parent_walks_its_pages_and_reads_no_more(lab: Lab) -> None:
    after = changed(DATA, 10, [5, 300])
    source = MemorySource(after)
    async with lab.repository(*lab.names) as blank:
        result = await blank.export(source, volume="v", changed=a_map(at([5, 300]), [(400 * BLOCK, 0)], lab.id))
        assert result.map
        assert result.map.used
        assert outside_of(source, at([5, 300])) <= AUDIT_LEAST * BLOCK
        # And knows it then.
        again = MemorySource(after)
        second = await blank.export(again, volume="v", changed=a_map([], parent=result.id))
        assert second.snapshot.roots == result.snapshot.roots
        await same_roots(blank, result, after)


@pytest.mark.parametrize("where", [("near",), ("near", "far")])
async def test_blocks_whose_packs_are_gone_are_read_and_stored_again(lab: Lab, where: tuple[str, ...]) -> None:
    """Whether one up-to-date destination lacks them, or all do: the new snapshot is whole everywhere."""
    gone = max(lab.packs("near"), key=lambda key: len(lab.stores["near"][key]))
    for name in where:
        del lab.stores[name][gone]
    after = changed(DATA, 11, [5])
    source = MemorySource(after)
    async with lab.repository() as repository:
        result = await repository.export(source, volume="v", changed=a_map(at([5]), parent=lab.id))
        assert result.map
        assert result.map.used
        assert result.blocks_new > 10
        assert sum(length for _, length in source.reads) < len(DATA)
    for name in lab.names:
        async with lab.repository(name) as alone:
            assert await lab.contents(alone, result.id) == after


async def test_manifest_packs_that_are_gone_are_written_again(lab: Lab) -> None:
    gone = min(lab.packs("near"), key=lambda key: len(lab.stores["near"][key]))
    del lab.stores["near"][gone]
    after = changed(DATA, 12, [5])
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(after), volume="v", changed=a_map(at([5]), parent=lab.id))
        assert result.map
        assert result.map.used
    for name in lab.names:
        async with lab.repository(name) as alone:
            assert await lab.contents(alone, result.id) == after


async def test_pages_that_are_damaged_everywhere_make_everything_be_read(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    for name in lab.names:
        damage_manifests(lab, name)
    after = changed(DATA, 13, [5])
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(after), volume="v", changed=a_map(at([5]), parent=lab.id))
        assert result.map
        assert not result.map.used
        assert "damaged" in (result.map.reason or "")
        assert result.blocks_new == 1
    assert "all of memory is read" in caplog.text
    for name in lab.names:
        async with lab.repository(name) as alone:
            assert await lab.contents(alone, result.id) == after


async def test_pages_that_turn_out_damaged_half_way_make_it_begin_anew(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the audit, and after some changed blocks were sent: those are not sent twice."""
    first, later = [5, 50, 100, 150], [300, 600]
    after = changed(DATA, 16, [*first, *later])
    monkeypatch.setattr(steps, "WINDOW", 256)  # A step at a time, so that more are begun than there are buffers.

    class DamagesMeanwhile(MemorySource):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            if {start // BLOCK for start in range(offset, offset + len(buffer), BLOCK)} & set(first):
                for name in lab.names:
                    damage_manifests(lab, name)
            super().read_into(offset, buffer)

    async with lab.repository() as repository:
        result = await repository.export(DamagesMeanwhile(after), volume="v", changed=a_map(at([*first, *later]), parent=lab.id))
        assert result.map
        assert (result.map.used, result.map.audited) == (False, AUDIT_LEAST)
        assert result.blocks_new == len(first) + len(later)
        assert (result.blocks_total, result.blocks_zero) == (701, 3)
        budget = repository._membership.tools.budget
        assert budget.available == budget.total
    assert "all of memory is read" in caplog.text
    for name in lab.names:
        async with lab.repository(name) as alone:
            assert await lab.contents(alone, result.id) == after


def damage_manifests(lab: Lab, name: str) -> None:
    """Of the first snapshot: the smallest pack."""
    key = min(lab.packs(name), key=lambda key: len(lab.stores[name][key]))
    pack = lab.stores[name][key]
    lab.stores[name][key] = pack[:300] + bytes(len(pack) - 600) + pack[-300:]


async def test_while_all_of_it_is_collected_nothing_is_taken_over(lab: Lab) -> None:
    source = MemorySource(DATA)
    async with lab.repository() as repository:
        for name in lab.names:
            packs = frozenset(pack for key in lab.packs(name) if (pack := names.parse_pack(key)))
            place = repository._membership.replicas[name]
            assert await publish(repository._membership.members.keyring, place, Condemned(1, packs, frozenset()))
        result = await repository.export(source, volume="v", changed=a_map([], parent=lab.id))
        assert result.blocks_new == result.blocks_total - 3
        await same_roots(repository, result, DATA)


async def test_after_a_prune_what_was_remembered_is_looked_at_again(lab: Lab) -> None:
    """The parent's blocks lie in other packs then than when it was made, and what nobody needs any more is gone."""
    async with lab.repository() as repository:
        middle = changed(DATA, 17, range(0, 650, 2))
        parent = await repository.export(MemorySource(middle), volume="v", changed=a_map(at(range(0, 650, 2)), parent=lab.id))
        await repository.forget([lab.id])
        pruned = await repository.prune(max_unused=0.0)
        assert pruned.exit_code == 0
        after = changed(middle, 18, [5, 300])
        source = MemorySource(after)
        result = await repository.export(source, volume="v", changed=a_map(at([5, 300]), parent=parent.id))
        assert result.map
        assert (result.map.used, result.blocks_new) == (True, 2)
        assert outside_of(source, at([5, 300])) <= AUDIT_LEAST * BLOCK
        assert (await repository.verify(read_data=100)).damage == ()
        # And once more, with what is remembered now.
        last = await repository.export(MemorySource(after), volume="v", changed=a_map([], parent=result.id))
        assert last.snapshot.roots == result.snapshot.roots
    for name in lab.names:
        async with lab.repository(name) as alone:
            assert await lab.contents(alone, last.id) == after


async def test_a_parent_that_nobody_here_holds(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    for key in [key for key in lab.stores["far"] if lab.id in key]:
        del lab.stores["far"][key]
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(DATA), volume="v", to=["far"], changed=a_map([], parent=lab.id))
        assert result.map
        assert "holds its parent" in (result.map.reason or "")
    assert "is not used" in caplog.text
    async with lab.repository("far") as alone:
        assert await lab.contents(alone, result.id) == DATA


async def test_a_dry_run_counts_and_writes_nothing(lab: Lab) -> None:
    after = changed(DATA, 14, [5, 6])
    before = {name: dict(store) for name, store in lab.stores.items()}
    async with lab.repository() as repository:
        result = await repository.export(
            MemorySource(after), volume="v", changed=a_map(at([5, 6]), [(20 * BLOCK, 0)], lab.id), dry_run=True
        )
    assert (result.blocks_new, result.dry_run, result.map is not None) == (2, True, True)
    assert lab.stores == before


async def test_random_changes_many_times(lab: Lab) -> None:
    """A chain of snapshots by maps alone, with every size and kind of change, ends where reading everything ends."""
    make = random.Random(15)
    data, parent = bytearray(DATA), lab.id
    async with lab.repository() as repository:
        for number in range(6):
            size = max(0, len(data) + make.choice([0, 0, 0, -3 * BLOCK - 7, 5 * BLOCK + 9, -300 * BLOCK, 310 * BLOCK]))
            data = bytearray(bytes(data[:size]) + make.randbytes(max(0, size - len(data))))
            extents, zeros, offset = [], [], 0
            while (offset := offset + make.randrange(1, 90 * BLOCK)) < size:
                length = min(make.choice([1, 4096, BLOCK, 30 * BLOCK + 5]), size - offset)
                if make.random() < 0.6:
                    extents.append((offset, length))
                    data[offset : offset + length] = make.randbytes(length)
                else:
                    zeros.append((offset, length))
                    data[offset : offset + length] = bytes(length)
                offset += length
            result = await repository.export(MemorySource(bytes(data)), volume="v", changed=a_map(extents, zeros, parent))
            assert result.map
            assert result.map.used, (number, result.map.reason)
            await same_roots(repository, result, bytes(data))
            parent = result.id
