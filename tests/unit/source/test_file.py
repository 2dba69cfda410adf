"""Regular files as sources."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from snapferry.errors import SourceChanged, SourceError, SourceReadError
from snapferry.source import FileSource, Source, open_source
from snapferry.testing.sources import CallsAt, FailingReads, GrowsMeanwhile, MemorySource, ShrinksAfter


def _read(source: FileSource, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    source.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def test_size_name_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "volume.img"
    path.write_bytes(b"0123456789")
    source = FileSource(path)
    assert (source.size, source.name) == (10, "volume.img")
    assert _read(source, 3, 4) == b"3456"
    source.check_unchanged()
    source.close()
    source.close()


def test_holes_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 4096)
        file.truncate(8 << 20)
    source = FileSource(path)
    assert list(source.extents(0, 8 << 20)) == [(1 << 20, 4096)]
    assert list(source.extents((1 << 20) + 100, 8 << 20)) == [((1 << 20) + 100, 3996)]
    assert list(source.extents(2 << 20, 8 << 20)) == []
    assert list(source.extents(0, 1000)) == []
    source.close()


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    source = open_source(tmp_path / "empty")
    assert isinstance(source, FileSource)
    assert source.size == 0
    assert list(source.extents(0, 0)) == []
    source.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_without_seek_data_everything_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    source = FileSource(tmp_path / "file")

    def refuse(*arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "lseek", refuse)
    assert list(source.extents(5, 1 << 20)) == [(5, (1 << 20) - 5)]
    source.close()


def test_a_file_that_shrinks_is_detected_while_reading_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))
    source = FileSource(path)
    os.truncate(path, 5000)
    with pytest.raises(SourceChanged, match="shrank"):
        _read(source, 4000, 2000)
    with pytest.raises(SourceChanged, match="from 10000 to 5000"):
        source.check_unchanged()
    os.truncate(path, 20_000)
    with pytest.raises(SourceChanged, match="grew"):
        source.check_unchanged()
    source.close()


def test_a_read_error_names_its_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(10_000))
    source = FileSource(tmp_path / "file")
    real = os.preadv

    def short_then_broken(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if offset >= 4096:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, [buffers[0][:1000]], offset, flags)

    monkeypatch.setattr(os, "preadv", short_then_broken)
    with pytest.raises(SourceReadError, match="byte 5000") as caught:
        _read(source, 3000, 5000)
    assert caught.value.offset == 5000
    source.close()


def test_what_is_no_source(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for path, words in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "socket", "is a socket"),
        ("/dev/zero", "is a character device"),
    ):
        with pytest.raises(SourceError, match=words) as caught:
            open_source(path)
        assert caught.value.exit_code == 1
        assert str(path) in str(caught.value)


def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0)
    # Root may read everything, and the directories of pytest are only its own: so nobody looks, from where it is.
    directory = os.open(tmp_path, os.O_RDONLY)
    before = os.getcwd()
    os.fchdir(directory)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(SourceError, match="Permission denied"):
            open_source("secret")
    finally:
        os.seteuid(user)
        os.chdir(before)
        os.close(directory)


def test_an_open_source_is_handed_through() -> None:
    source = MemorySource(b"abc", holes=[(1, 1)])
    assert open_source(source) is source
    assert list(source.extents(0, 3)) == [(0, 1), (2, 1)]
    for double in (source, FailingReads(source, []), ShrinksAfter(source, 1), GrowsMeanwhile(source), CallsAt(source, 0, int)):
        assert isinstance(double, Source)
        assert double.size == 3
