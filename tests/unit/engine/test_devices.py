"""Block devices, real ones: exported, restored to, and failing on the way."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.engine import Repository
from snapferry.errors import ConfigurationError, SourceChanged, SourceReadError, TargetError
from snapferry.source import ChangeMap, DeviceSource
from snapferry.testing.sources import CallsAt, MemorySource
from snapferry.types import MiB, Snapshot
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume
from tests.support.loop import loop_device, set_capacity

pytestmark = pytest.mark.root

DATA = volume(1, blocks=300, tail=0, zeros=[3, 4, 150, 299])
SIZE = len(DATA)


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    return await (await make_lab()).begin_with(DATA)


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def device(backing: Path) -> Iterator[str]:
    with loop_device(backing, "--direct-io=on") as path:
        yield path


@pytest.fixture
def blank(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A device larger than the volume, of zeros but for what lies past its end and before the last MiB; and its backing file."""
    path = tmp_path / "blank.img"
    path.write_bytes(bytes(SIZE) + b"not ours" * 1000 + bytes(2 * MiB - 8000))
    with loop_device(path, "--direct-io=on") as device:
        yield device, path


def root(snapshot: Snapshot) -> bytes:
    assert snapshot.roots.ids is not None
    return snapshot.roots.ids.page


async def test_device_stream_and_map_give_one_root(lab: Lab, device: str, backing: Path) -> None:
    async with lab.repository() as repository:
        exported = await repository.export(device, volume="device", block_size=BLOCK)
        assert (exported.snapshot.size, exported.blocks_new, exported.bytes_read) == (SIZE, 0, SIZE)
        cat = subprocess.Popen(["cat", device], stdout=subprocess.PIPE)
        assert cat.stdout is not None
        with cat.stdout:
            stream = await repository.export(f"/proc/self/fd/{cat.stdout.fileno()}", volume="stream", block_size=BLOCK)
        assert cat.wait() == 0
        file = await repository.export(backing, volume="file", block_size=BLOCK)
        assert root(exported.snapshot) == root(stream.snapshot) == root(file.snapshot)
        after = changed(DATA, 2, [5, 200])
        with open(device, "r+b", buffering=0) as target:
            target.write(after)  # Not synced: what was written is what is read.
            changes = ChangeMap("map", exported.id, ((5 * BLOCK, 5000), (200 * BLOCK, 5000)), ())
            mapped = await repository.export(device, volume="device", changed=changes)
            full = await repository.export(device, volume="stream", block_size=BLOCK)
        assert mapped.map
        assert mapped.map.used
        assert mapped.bytes_read <= 12 * BLOCK
        assert root(mapped.snapshot) == root(full.snapshot)
    async with lab.repository("far") as alone:
        assert await lab.contents(alone, mapped.id) == after


async def test_a_device_that_shrinks_meanwhile_is_no_snapshot(lab: Lab, device: str, backing: Path) -> None:
    def shrink() -> None:
        os.truncate(backing, SIZE // 2)
        set_capacity(device)

    source = DeviceSource(device)
    async with lab.repository() as repository:
        with pytest.raises(SourceChanged, match="shrank") as caught:
            await repository.export(CallsAt(source, 10 * BLOCK, shrink), volume="w")
        assert caught.value.exit_code == 1
        with pytest.raises(SourceChanged, match="shrank"):
            await repository.export(CallsAt(source, 10 * BLOCK, shrink), volume="w", skip_unreadable=True)
        assert [item.snapshot.volume for item in await repository.list()] == ["v"]
    source.close()


async def test_a_device_that_errs(lab: Lab, device: str, backing: Path) -> None:
    """Past the end of its backing file it answers with an I/O error."""
    os.truncate(backing, 280 * BLOCK)
    async with lab.repository() as repository:
        with pytest.raises(SourceReadError, match=f"{device}: cannot read .* Input/output error") as caught:
            await repository.export(device, volume="w", block_size=BLOCK)
        assert caught.value.exit_code == 1
        assert len(await repository.list()) == 1
        result = await repository.export(device, volume="w", block_size=BLOCK, skip_unreadable=True)
        assert (result.exit_code, result.snapshot.unreadable) == (3, ((280 * BLOCK, 20 * BLOCK),))
        os.truncate(backing, SIZE)
        with backing.open("r+b") as file:
            file.write(DATA)
        again = await repository.export(device, volume="w", changed=ChangeMap("map", result.id, (), ()))
        assert (again.exit_code, again.snapshot.unreadable) == (0, ())
        assert root(again.snapshot) == root((await repository.show((await repository.list("v"))[0].snapshot.id)).snapshot)


async def written_again(repository: Repository, lab: Lab, device: str) -> int:
    return (await repository.restore(lab.id, device)).bytes_written


async def test_a_restore_is_exact_and_leaves_the_rest_alone(lab: Lab, blank: tuple[str, Path]) -> None:
    device, backing = blank
    before = backing.read_bytes()
    async with lab.repository() as repository:
        result = await repository.restore("v", device)
        assert (result.size, result.exit_code) == (SIZE, 0)
        assert result.bytes_written <= SIZE
        # On the disk behind the device, not only in memory.
        assert backing.read_bytes() == DATA + before[SIZE:]
        # Again, without force: nothing to do.
        assert await written_again(repository, lab, device) == 0


async def test_only_what_differs_is_written(lab: Lab, blank: tuple[str, Path]) -> None:
    device, backing = blank
    async with lab.repository() as repository:
        await repository.restore("v", device)
        with open(device, "r+b", buffering=0) as target:
            for block, data in ((7, b"changed"), (150, b"no zeros"), (3, bytes(9) + b"x")):
                target.seek(block * BLOCK)
                target.write(data)
        assert BLOCK < await written_again(repository, lab, device) <= 3 * MiB
    assert backing.read_bytes()[:SIZE] == DATA


async def test_what_is_compared_is_the_disk_and_not_what_was_cached_of_it(lab: Lab, blank: tuple[str, Path]) -> None:
    """A disk that others can reach too: here, its backing file."""
    device, backing = blank
    async with lab.repository() as repository:
        await repository.restore("v", device)
        with open(device, "rb", buffering=0) as held:
            assert held.read(SIZE)
            with backing.open("r+b", buffering=0) as file:
                file.seek(10 * BLOCK)
                file.write(b"changed behind its back")
                os.fsync(file.fileno())
            assert await written_again(repository, lab, device) == BLOCK
    assert backing.read_bytes()[:SIZE] == DATA


async def test_what_may_not_be_written(lab: Lab, tmp_path: Path) -> None:
    small, full = tmp_path / "small.img", tmp_path / "full.img"
    small.write_bytes(bytes(SIZE - BLOCK))
    full.write_bytes(bytes(SIZE + MiB) + b"the end")
    os.truncate(full, SIZE + 2 * MiB)
    before = full.read_bytes()
    async with lab.repository() as repository:
        words = f"is too small: it holds {SIZE - BLOCK} bytes and the snapshot has {SIZE}"
        with loop_device(small) as device, pytest.raises(TargetError, match=words):
            await repository.restore("v", device, force=True)
        with loop_device(full) as device:
            with pytest.raises(TargetError, match=f"{device} is not empty; use --force"):
                await repository.restore("v", device)
            assert full.read_bytes() == before
            await repository.restore("v", device, force=True)
            assert full.read_bytes() == DATA + before[SIZE:]
    assert not any(small.read_bytes())


async def test_a_mounted_device_is_refused_whatever_is_asked(lab: Lab, tmp_path: Path) -> None:
    image, place = tmp_path / "fs.img", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(SIZE + 4 * MiB)
    place.mkdir()
    with loop_device(image) as device:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, str(place)], check=True)
        try:
            (place / "file").write_text("precious")
            async with lab.repository() as repository:
                with pytest.raises(TargetError, match=f"{device} cannot be written: Device or resource busy") as caught:
                    await repository.restore("v", device, force=True)
                assert caught.value.exit_code == 1
            assert (place / "file").read_text() == "precious"
        finally:
            subprocess.run(["umount", str(place)], check=True)


async def test_two_restores_at_once(lab: Lab, blank: tuple[str, Path]) -> None:
    device, _ = blank
    fd = os.open(device, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    async with lab.repository() as repository:
        with pytest.raises(TargetError, match="is being written by another restore"):
            await repository.restore("v", device)
    os.close(fd)


async def test_an_interrupted_restore_goes_on_without_force(lab: Lab, blank: tuple[str, Path]) -> None:
    device, backing = blank
    async with lab.repository() as repository:
        restoring = asyncio.create_task(repository.restore("v", device))
        while not restoring.done() and not any(backing.read_bytes()[:MiB]):
            await asyncio.sleep(0)
        restoring.cancel()
        await asyncio.gather(restoring, return_exceptions=True)
        with open(device, "r+b", buffering=0) as target:
            target.write(DATA[:MiB])  # It is not empty, however far the restore had come.
        await repository.restore("v", device)
    assert backing.read_bytes()[:SIZE] == DATA


async def test_another_disk_at_the_same_device_is_not_taken_for_the_restored_one(lab: Lab, tmp_path: Path) -> None:
    one, other = tmp_path / "one.img", tmp_path / "other.img"
    one.write_bytes(bytes(SIZE))
    other.write_bytes(random.Random(9).randbytes(SIZE))
    before = other.read_bytes()
    async with lab.repository() as repository:
        with loop_device(one) as device:
            await repository.restore("v", device)
        subprocess.run(["losetup", device, str(other)], check=True)
        try:
            with pytest.raises(TargetError, match="is not empty"):
                await repository.restore("v", device)
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
    assert other.read_bytes() == before


async def test_a_part_of_a_device(lab: Lab, blank: tuple[str, Path]) -> None:
    device, backing = blank
    before = backing.read_bytes()
    low, high = 5 * BLOCK + 100, 9 * BLOCK + 7
    async with lab.repository() as repository:
        await repository.restore("v", device, range=(low, high))
        with pytest.raises(ConfigurationError, match="does not lie in the volume"):
            await repository.restore("v", device, range=(low, SIZE + 1))
    assert backing.read_bytes() == before[:low] + DATA[low:high] + before[high:]


async def test_a_volume_of_odd_size(make_lab: MakeLab, blank: tuple[str, Path]) -> None:
    """Zeros that end in the middle of a sector, where nothing can be discarded."""
    device, backing = blank
    lab = await make_lab("only")
    data = bytearray(DATA[: 100 * BLOCK + 777])
    data[90 * BLOCK :] = bytes(10 * BLOCK + 777)
    with open(device, "r+b", buffering=0) as target:
        target.write(random.Random(3).randbytes(120 * BLOCK))
    before = backing.read_bytes()
    async with lab.repository() as repository:
        await repository.export(MemorySource(bytes(data)), volume="odd", block_size=BLOCK)
        await repository.restore("odd", device, force=True)
    assert backing.read_bytes() == bytes(data) + before[len(data) :]
