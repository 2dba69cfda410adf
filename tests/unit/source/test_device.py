"""Block devices as sources: real loop devices, read past the page cache."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.errors import SourceChanged, SourceError, SourceReadError
from snapferry.source import DeviceSource, open_source
from snapferry.source.page_cache import DirectReader, resident
from snapferry.types import MiB
from tests.support.loop import loop_device, set_capacity

SIZE = 8 * MiB

pytestmark = pytest.mark.root


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.fixture
def device(backing: Path) -> Iterator[str]:
    with loop_device(backing, "--direct-io=on") as path:
        yield path


def read(source: DeviceSource, offset: int, length: int) -> bytes:
    """Into memory that lies as the pipeline's does: whole pages."""
    buffer = memoryview(mmap.mmap(-1, max(length, 1)))[:length]
    source.read_into(offset, buffer)
    return bytes(buffer)


def cached(device: str) -> bytes:
    fd = os.open(device, os.O_RDONLY)
    try:
        return resident(fd, 0, SIZE)
    finally:
        os.close(fd)


def test_size_name_and_bytes(device: str, backing: Path) -> None:
    data = backing.read_bytes()
    source = open_source(device)
    assert isinstance(source, DeviceSource)
    assert (source.size, source.name) == (SIZE, Path(device).name)
    assert list(source.extents(4096, 10 * SIZE)) == [(4096, SIZE - 4096)]
    assert list(source.extents(SIZE, SIZE)) == []
    for offset, length in ((0, SIZE), (MiB, 512), (5, 3), (511, 1025), (SIZE - 700, 700), (SIZE, 0)):
        assert read(source, offset, length) == data[offset : offset + length]
    source.check_unchanged()
    source.close()
    source.close()


def test_memory_on_no_boundary_is_read_into_as_well(device: str, backing: Path) -> None:
    source = DeviceSource(device)
    buffer = memoryview(bytearray(MiB + 1))[1:]
    source.read_into(4096, buffer)
    assert buffer == backing.read_bytes()[4096 : 4096 + MiB]
    source.close()


def test_the_hosts_page_cache_is_left_as_it_was(device: str) -> None:
    source = DeviceSource(device)
    assert source._direct._fd >= 0
    with open(device, "rb", buffering=0) as file:
        file.seek(MiB)
        file.read(2 * MiB)
    before = cached(device)
    assert MiB // 4096 <= sum(before) < SIZE // 4096
    for offset in range(0, SIZE, MiB):
        read(source, offset, MiB)
    assert cached(device) == before
    source.close()


def test_without_direct_reads_it_is_left_as_it_was_but_for_one_read(device: str, backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DirectReader, "read", lambda *_: None)
    source = DeviceSource(device)
    with open(device, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.seek(2 * MiB)
        file.read(MiB)
    before = cached(device)
    assert sum(before) == MiB // 4096
    assert b"".join(read(source, offset, MiB) for offset in range(0, SIZE, MiB)) == backing.read_bytes()
    after, border = cached(device), 3 * MiB // 4096
    assert (after[:border], sum(after[border + MiB // 4096 :])) == (before[:border], 0)
    source.close()


def test_what_was_written_and_not_synced_is_read(device: str) -> None:
    source = DeviceSource(device)
    with open(device, "r+b", buffering=0) as file:
        file.seek(3 * MiB)
        file.write(b"new" * 1000)
        assert read(source, 3 * MiB, 3000) == b"new" * 1000
        assert read(source, 3 * MiB, 4096)[:3000] == b"new" * 1000
    source.close()


def test_a_device_that_shrinks(device: str, backing: Path) -> None:
    source = DeviceSource(device)
    os.truncate(backing, SIZE // 2)
    set_capacity(device)
    assert read(source, 0, MiB) == backing.read_bytes()[:MiB]
    with pytest.raises(SourceChanged, match=f"{device} shrank while it was read: it ends at byte {SIZE // 2} and was {SIZE}"):
        read(source, SIZE // 2 - MiB, 2 * MiB)
    with pytest.raises(SourceChanged, match=f"shrank from {SIZE} to {SIZE // 2}"):
        source.check_unchanged()
    os.truncate(backing, 2 * SIZE)
    set_capacity(device)
    with pytest.raises(SourceChanged, match="grew"):
        source.check_unchanged()
    source.close()


def test_a_read_error_says_where(device: str, backing: Path) -> None:
    """What lies past the end of the backing file cannot be read from the device."""
    source = DeviceSource(device)
    os.truncate(backing, SIZE // 2)
    with pytest.raises(SourceReadError, match=f"{device}: cannot read {MiB} bytes at byte {6 * MiB}: Input/output error") as caught:
        read(source, 6 * MiB, MiB)
    assert (caught.value.offset, caught.value.exit_code) == (6 * MiB, 1)
    source.close()


@pytest.mark.parametrize("path", ["/dev/zero", "/usr", "/nowhere"])
def test_what_is_no_device(path: str) -> None:
    with pytest.raises(SourceError, match=path):
        DeviceSource(path)


def test_a_device_that_is_gone_is_no_bad_sector(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all of it could be recorded as unreadable."""
    source = DeviceSource(device)

    def gone(*_: object) -> int:
        raise OSError(19, os.strerror(19))

    monkeypatch.setattr(os, "preadv", gone)
    with pytest.raises(SourceChanged, match="is gone: No such device at byte 0"):
        read(source, 0, 4096)
    source.close()
