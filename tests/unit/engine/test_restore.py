"""Restores through the facade: bit-exact, healed from other replicas, and never over what nobody asked to lose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import (
    AccessDenied,
    ConfigurationError,
    DamageError,
    DestinationNotARepository,
    DestinationUnreachable,
    NotARepository,
    SnapferryError,
    SnapshotNotFound,
    TargetError,
    TargetFull,
)
from snapferry.testing.faults import FlipsByte, Hangs, Truncates, Vanishes
from snapferry.testing.sources import MemorySource
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

DATA = volume(1, blocks=60, zeros=[3, 4, 30])


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    return await (await make_lab()).begin_with(DATA)


async def test_a_fresh_file_is_exact_sparse_and_private(lab: Lab, tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    async with lab.repository() as repository:
        result = await repository.restore("v", target)
    assert target.read_bytes() == DATA
    assert (result.exit_code, result.size, result.bytes_written) == (0, len(DATA), len(DATA) - 3 * BLOCK)
    assert target.stat().st_blocks * 512 <= len(DATA) - 3 * BLOCK + 8192
    assert target.stat().st_mode & 0o777 == 0o600


async def test_the_same_restore_runs_again_and_changes_only_what_differs(lab: Lab, tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    async with lab.repository() as repository:
        await repository.restore("v", target)
        assert (await repository.restore("v", target)).bytes_written == 0
        with target.open("r+b") as file:
            file.seek(7 * BLOCK + 5)
            file.write(b"changed")
            file.seek(3 * BLOCK)
            file.write(b"no longer zeros")
        result = await repository.restore("v", target)
    assert target.read_bytes() == DATA
    assert BLOCK < result.bytes_written <= 3 * BLOCK


async def test_a_target_that_holds_something_needs_force(lab: Lab, tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    for size in (1, len(DATA) + 5 * BLOCK):
        target.write_bytes(b"x" * size)
        async with lab.repository() as repository:
            with pytest.raises(TargetError, match="--force"):
                await repository.restore("v", target)
            assert target.read_bytes() == b"x" * size
            await repository.restore("v", target, force=True)
        assert target.read_bytes() == DATA
        target.unlink()


async def test_the_journal_allows_only_the_same_snapshot_and_inode(lab: Lab, tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    async with lab.repository() as repository:
        other = await repository.export(MemorySource(changed(DATA, 2, [5])), volume="v")
        await repository.restore(lab.id, target)
        with pytest.raises(TargetError, match="--force"):
            await repository.restore(other.id, target)
        target.rename(tmp_path / "moved.img")
        (tmp_path / "moved.img").unlink()
        target.write_bytes(b"somebody else's")
        with pytest.raises(TargetError, match="--force"):
            await repository.restore(lab.id, target)
    assert target.read_bytes() == b"somebody else's"


async def test_an_empty_file_is_a_target(lab: Lab, tmp_path: Path) -> None:
    target = tmp_path / "out.img"
    target.touch()
    async with lab.repository() as repository:
        await repository.restore("v", target)
    assert target.read_bytes() == DATA


async def test_targets_that_can_be_none(lab: Lab, tmp_path: Path) -> None:
    async with lab.repository() as repository:
        for path, words in ((tmp_path, "directory"), ("/dev/null", "neither"), (tmp_path / "no" / "such", "does not exist")):
            with pytest.raises(TargetError, match=words) as caught:
                await repository.restore("v", path, force=True)
            assert caught.value.exit_code == 1


async def test_a_full_target_is_told_and_the_restore_goes_on_later(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.img"

    class FullPlan:
        def __init__(self, *arguments: Any) -> None:
            self.real = real(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def write(self, number: int, data: memoryview, fd: int) -> None:
            raise OSError(28, os.strerror(28))

    real = _core.Plan
    async with lab.repository() as repository:
        with monkeypatch.context() as patch:
            patch.setattr(_core, "Plan", FullPlan)
            with pytest.raises(TargetFull) as caught:
                await repository.restore("v", target)
        assert caught.value.exit_code == 14
    async with lab.repository() as repository:
        await repository.restore("v", target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("extent", [(0, 1), (5, 5), (BLOCK - 1, 2 * BLOCK + 1), (2 * BLOCK, 9 * BLOCK), (100, None), (59 * BLOCK, None)])
async def test_a_range_is_restored_at_its_place(lab: Lab, tmp_path: Path, extent: Any) -> None:
    start, end = extent[0], len(DATA) if extent[1] is None else extent[1]
    target = tmp_path / "out.img"
    old = bytes(range(1, 256)) * (len(DATA) // 255 + 1)
    target.write_bytes(old)
    async with lab.repository() as repository:
        with pytest.raises(TargetError, match="--force"):
            await repository.restore("v", target, range=extent)
        result = await repository.restore("v", target, range=extent, force=True)
    assert target.read_bytes() == old[:start] + DATA[start:end] + old[end:]
    assert result.size == end - start


async def test_a_range_outside_the_volume_is_refused(lab: Lab, tmp_path: Path) -> None:
    async with lab.repository() as repository:
        for extent in ((0, len(DATA) + 1), (9, 5), (-1, 5)):
            with pytest.raises(ConfigurationError):
                await repository.restore("v", tmp_path / "out.img", range=extent)
    assert not (tmp_path / "out.img").exists()


async def test_a_dry_run_touches_nothing(lab: Lab, tmp_path: Path) -> None:
    async with lab.repository() as repository:
        result = await repository.restore("v", tmp_path / "out.img", dry_run=True)
    assert (result.size, result.bytes_written) == (len(DATA), 0)
    assert not (tmp_path / "out.img").exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: FlipsByte(inner, 5000, lambda key: key.startswith("packs/")),
        lambda inner: FlipsByte(inner, 3, lambda key: key.startswith("packs/")),
        lambda inner: Truncates(inner, 400_000, lambda key: key.startswith("packs/")),
        lambda inner: Truncates(inner, 0, lambda key: key.startswith("packs/")),
        lambda inner: Vanishes(inner, 600_000),
    ],
)
@pytest.mark.parametrize("broken", ["near", "far"])
async def test_a_broken_replica_is_healed_from_the_other_in_the_middle(lab: Lab, tmp_path: Path, wrap: Any, broken: Any) -> None:
    lab.wrappers[broken] = wrap
    async with lab.repository() as repository:
        result = await repository.restore("v", tmp_path / "out.img")
    assert (tmp_path / "out.img").read_bytes() == DATA
    assert result.exit_code == 0
    assert {damage.destination for damage in result.damage} <= {broken}


async def test_missing_packs_are_healed_and_reported(lab: Lab, tmp_path: Path) -> None:
    for key in lab.packs("near"):
        del lab.stores["near"][key]
    async with lab.repository() as repository:
        result = await repository.restore("v", tmp_path / "out.img")
        assert (tmp_path / "out.img").read_bytes() == DATA
        details = await repository.show("v")
    assert {damage.object for damage in result.damage} <= set(lab.packs("far"))
    assert result.damage
    assert result.failovers
    assert details.replicas[0].packs_missing == len(lab.packs("far"))
    assert details.replicas[0].damage


async def test_what_no_replica_can_supply_is_named_and_the_rest_restored(lab: Lab, tmp_path: Path) -> None:
    async with lab.repository() as repository:
        packs = lab.packs("near")
        await repository.export(MemorySource(changed(DATA, 3, [6, 40])), volume="v")
        new = set(lab.packs("near")) - set(packs)
        data_pack = max(new, key=lambda key: len(lab.stores["near"][key]))
        for store in lab.stores.values():
            del store[data_pack]
        target = tmp_path / "out.img"
        with pytest.raises(DamageError) as caught:
            await repository.restore("v", target)
        lost = ((6 * BLOCK, BLOCK), (40 * BLOCK, BLOCK))
        assert (caught.value.extents, caught.value.exit_code) == (lost, 4)
        assert f"{6 * BLOCK}+{BLOCK}" in str(caught.value)
        result = await repository.restore("v", target, best_effort=True)
        assert (result.lost, result.exit_code) == (lost, 4)
        expected = bytearray(changed(DATA, 3, [6, 40]))
        for offset, length in lost:
            expected[offset : offset + length] = bytes(length)
        assert target.read_bytes() == expected
        assert (await repository.restore(lab.id, tmp_path / "old.img")).exit_code == 0


async def test_a_block_is_found_elsewhere_when_its_pack_is_lost(lab: Lab, tmp_path: Path) -> None:
    """A copy of the same blocks in another pack serves, though the snapshot does not name it."""
    async with lab.repository() as repository:
        before = set(lab.packs("near"))
        held = {key: lab.stores["near"].pop(key) for key in before}
        for key in before:
            del lab.stores["far"][key]
        again = await repository.export(MemorySource(DATA), volume="w", block_size=BLOCK)
        manifests = {key: data for key, data in held.items() if len(data) < 200_000}
        for store in lab.stores.values():
            store.update(manifests)
        assert again.blocks_new
        result = await repository.restore(lab.id, tmp_path / "out.img")
    assert (tmp_path / "out.img").read_bytes() == DATA
    assert result.damage


async def test_no_destination_answers(lab: Lab, tmp_path: Path) -> None:
    async with lab.repository() as repository:
        for name in lab.names:
            lab.wrappers[name] = lambda inner: Vanishes(inner, 150_000)
    async with lab.repository() as repository:
        with pytest.raises(DestinationUnreachable) as caught:
            await repository.restore("v", tmp_path / "out.img")
    assert caught.value.exit_code == 13
    lab.wrappers.clear()
    async with lab.repository() as repository:
        await repository.restore("v", tmp_path / "out.img")
    assert (tmp_path / "out.img").read_bytes() == DATA


async def test_only_the_named_sources_are_read(lab: Lab, tmp_path: Path) -> None:
    async with lab.repository() as repository:
        result = await repository.restore("v", tmp_path / "out.img", sources=["far"])
        assert set(result.bytes_fetched) == {"far"}
        with pytest.raises(ConfigurationError):
            await repository.restore("v", tmp_path / "two.img", sources=["nowhere"])


async def test_names_of_snapshots(lab: Lab, tmp_path: Path) -> None:
    async with lab.repository() as repository:
        two = await repository.export(MemorySource(changed(DATA, 3, [6])), volume="v")
        assert (await repository.show("v")).snapshot.id == two.id
        assert (await repository.show("v~1")).snapshot.id == lab.id
        assert (await repository.show(lab.id[:8])).snapshot.id == lab.id
        for wrong in ("v~2", "w", "0" * 8, lab.id[:7]):
            with pytest.raises(SnapshotNotFound) as caught:
                await repository.show(wrong)
            assert caught.value.exit_code == 1
        # A volume's name goes before an id prefix.
        named = await repository.export(MemorySource(DATA), volume=lab.id[:8], block_size=BLOCK)
        assert (await repository.show(lab.id[:8])).snapshot.id == named.id


async def test_a_hanging_replica_does_not_hang_the_next_read(lab: Lab) -> None:
    hangs: dict[str, Hangs] = {}

    def wrap(inner: Destination) -> Destination:
        hangs["far"] = Hangs(inner, "read_into", lambda key: False)
        return hangs["far"]

    lab.wrappers["far"] = wrap
    async with lab.repository() as repository:
        assert await lab.contents(repository, "v") == DATA


async def test_wrong_key_and_no_key(lab: Lab, tmp_path: Path) -> None:
    machine = lab.machine()
    key = machine.repository.key_file
    assert key is not None
    good = key.read_text()
    for text in ("snapferry-key-v1:" + "A" * 43 + "=\n", "garbage", ""):
        key.write_text(text)
        with pytest.raises(AccessDenied) as caught:
            async with lab.repository():
                pass
        assert caught.value.exit_code == 12
    key.unlink()
    with pytest.raises(AccessDenied):
        async with lab.repository():
            pass
    key.write_text(good)


async def test_one_destination_of_another_repository_is_passed_over(lab: Lab, make_lab: MakeLab, tmp_path: Path) -> None:
    from snapferry.destination.memory import MemoryDestination
    from snapferry.repository.creating import create_repository

    lab.stores["far"].clear()
    await create_repository({"far": MemoryDestination("far", lab.stores["far"])}, os.urandom(32))
    async with lab.repository() as repository:
        assert await lab.contents(repository, "v") == DATA
        result = await repository.export(MemorySource(DATA), volume="v")
        assert (result.exit_code, result.acknowledged) == (3, ("near",))
        assert isinstance(result.failures["far"], DestinationNotARepository)
    with pytest.raises(NotARepository):
        async with lab.repository("far"):
            pass


async def test_one_place_under_two_names(lab: Lab) -> None:
    lab.stores["far"] = lab.stores["near"]
    with pytest.raises(ConfigurationError, match="same place") as caught:
        async with lab.repository():
            pass
    assert caught.value.exit_code == 2


async def test_reading_parts(lab: Lab) -> None:
    async with lab.repository() as repository, repository.open_snapshot("v") as reader:
        assert (reader.size, reader.block_size) == (len(DATA), BLOCK)
        for offset, length in ((0, 0), (0, 1), (BLOCK - 1, 2), (3 * BLOCK - 7, 3 * BLOCK), (len(DATA) - 1, 100), (len(DATA) + 5, 3)):
            assert await reader.pread(length, offset) == DATA[offset : offset + length]
        for start, end in ((0, None), (5, 5), (70_000, 20 * BLOCK + 3)):
            assert b"".join([bytes(piece) async for piece in reader.stream(start, end)]) == DATA[start:end]


async def test_a_reader_names_what_is_lost(lab: Lab) -> None:
    for store in lab.stores.values():
        for key in [key for key in store if key.startswith("packs/") and len(store[key]) > 200_000]:
            del store[key]
    async with lab.repository() as repository, repository.open_snapshot("v") as reader:
        with pytest.raises(DamageError) as caught:
            await reader.pread(10, 5 * BLOCK + 100)
        assert caught.value.extents == ((5 * BLOCK + 100, 10),)
        assert await reader.pread(BLOCK, 3 * BLOCK) == bytes(BLOCK)


async def test_diff(lab: Lab) -> None:
    async with lab.repository() as repository:
        await repository.export(MemorySource(changed(DATA, 3, [6, 7, 40])[: 50 * BLOCK]), volume="v")
        found = [extent async for extent in repository.diff("v~1", "v")]
        assert found == [(6 * BLOCK, 2 * BLOCK), (40 * BLOCK, BLOCK), (50 * BLOCK, len(DATA) - 50 * BLOCK)]
        assert [extent async for extent in repository.diff("v", "v")] == []
        await repository.export(MemorySource(DATA), volume="w", block_size=4 * BLOCK)
        with pytest.raises(SnapferryError, match="cannot be compared"):
            [extent async for extent in repository.diff("v", "w")]


async def test_a_name_means_the_newest_there_is_wherever_it_is_read_from(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        old = await repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK)
        new = await repository.export(MemorySource(volume(2)), volume="v", to=["near"])
        for name in ("v", new.id):
            with pytest.raises(SnapshotNotFound, match=f"{new.id}, which near hold and far does not"):
                await repository.restore(name, lab.directory / "out", sources=["far"])
        assert not (lab.directory / "out").exists()
        await repository.restore(old.id, lab.directory / "out", sources=["far"])
        with pytest.raises(SnapshotNotFound, match="none of far holds"):
            await repository.verify([new.id], destination="far")


async def test_a_snapshot_by_time(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        one = await repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK)
        two = await repository.export(MemorySource(volume(2)), volume="v")
        assert (await repository.show(f"v@{one.snapshot.created.isoformat()}")).snapshot.id == one.id
        assert (await repository.show(f"v@{one.snapshot.created.replace(tzinfo=None).isoformat()}")).snapshot.id == one.id
        assert (await repository.show("v@9999-01-01")).snapshot.id == two.id
        with pytest.raises(SnapshotNotFound, match="its first is from"):
            await repository.show("v@1999-01-01T10:00")
        with pytest.raises(SnapshotNotFound, match="is no time"):
            await repository.show("v@yesterday")
