"""Reading a file leaves in the page cache what was there, and nothing else."""

from __future__ import annotations

import errno
import mmap
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.source import FileSource
from snapferry.source.page_cache import CourteousReader, DirectReader, resident
from snapferry.types import MiB
from tests.support.loop import loop_device

pytestmark = pytest.mark.root

SIZE = 4 * MiB + 1000
PAGES = -(-SIZE // 4096)
DATA = random.Random(1).randbytes(SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """On a disk: a file system in memory, where pytest's directories may lie, has nothing but its page cache."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(32 * MiB)
    place.mkdir()
    with loop_device(image) as device:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, str(place)], check=True)
        try:
            (place / "file").write_bytes(DATA)
            with (place / "file").open("rb") as file:
                os.fsync(file.fileno())
            drop(place / "file")  # A page that was written in part is there, and mincore says it is not.
            yield place / "file"
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def drop(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert sum(cached(path)) == 0


def touch(path: Path, offset: int, length: int) -> None:
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), length, offset)


def cached(path: Path) -> bytes:
    with path.open("rb") as file:
        return resident(file.fileno(), 0, SIZE)


def read_all(source: FileSource, step: int = MiB) -> bytes:
    out = []
    for offset in range(0, SIZE, step):
        buffer = memoryview(mmap.mmap(-1, step))[: min(step, SIZE - offset)]
        source.read_into(offset, buffer)
        out.append(bytes(buffer))
    return b"".join(out)


def test_a_cold_file_stays_out(path: Path) -> None:
    source = FileSource(path)
    assert read_all(source) == DATA
    assert sum(cached(path)) == 0
    source.close()


def test_a_warm_file_stays_in(path: Path) -> None:
    touch(path, 0, SIZE)
    source = FileSource(path)
    for _ in range(2):
        assert read_all(source) == DATA
        assert sum(cached(path)) == PAGES
    source.close()


@pytest.mark.parametrize("direct", [True, False])
def test_what_is_in_here_and_there_stays_and_nothing_more(path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool) -> None:
    if not direct:
        monkeypatch.setattr(DirectReader, "read", lambda *_: None)
    for offset in (MiB + 40960, 2 * MiB + 4096, 3 * MiB):
        touch(path, offset, 65536)
    before = cached(path)
    assert sum(before) == 48
    source = FileSource(path)
    assert read_all(source) == DATA
    assert cached(path) == before
    source.close()


def test_where_what_is_in_ends_one_read_may_stay(path: Path) -> None:
    touch(path, 0, 2 * MiB + 8192)
    source = FileSource(path)
    assert read_all(source) == DATA
    after = cached(path)
    assert sum(after[: 2 * MiB // 4096 + 2]) == 2 * MiB // 4096 + 2
    assert sum(after[3 * MiB // 4096 :]) == 0
    source.close()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_nothing_can_be_told_it_reads_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.preadv

    def plain_only(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags or (offset > 2 * MiB and fd != source._fd):
            raise OSError(number, os.strerror(number))
        return real(fd, buffers, offset)

    touch(path, 0, SIZE)
    source = FileSource(path)
    monkeypatch.setattr(os, "preadv", plain_only)
    assert read_all(source) == DATA
    assert not source._cached._courteous
    source.close()


def test_other_errors_come_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with path.open("rb") as file:
        direct = DirectReader(file.fileno(), 4096)
        reader = CourteousReader(file.fileno(), direct)
        buffer = memoryview(mmap.mmap(-1, 8192))
        assert reader.read(buffer, 0) == 8192
        monkeypatch.setattr(os, "preadv", broken)
        for attempt in (reader, direct):
            with pytest.raises(OSError, match="Input/output"):
                attempt.read(buffer, 0)
        direct.close()
        direct.close()
        assert direct.read(buffer, 0) is None


def test_residence_past_the_end_cannot_be_told(path: Path) -> None:
    with path.open("rb") as file, pytest.raises((OSError, ValueError)):
        resident(file.fileno(), SIZE + 4096 - SIZE % 4096, 4096)
