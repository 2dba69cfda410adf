"""Targets and journals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapferry.errors import SnapferryError, TargetError, TargetFull
from snapferry.pipeline.journal import Entry, Journal
from snapferry.pipeline.target import Target, check, look, target_error

ID = "ab" * 16


def _journal(directory: Path, path: Path) -> Journal:
    return Journal(directory / "state", str(path))


def _open(tmp_path: Path, path: Path, size: int = 1000) -> Target:
    return Target(look(path), size, ID, _journal(tmp_path, path))


def test_the_journal_is_there_before_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    journal = _journal(tmp_path, path)
    seen: list[Entry | None] = []
    real = os.open

    def watching(name: str, flags: int, mode: int = 0o777) -> int:
        if str(name) == str(path):
            seen.append(journal.read())
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", watching)
    target = _open(tmp_path, path)
    monkeypatch.undo()
    assert seen == [Entry(ID, str(path), 1000)]
    entry = journal.read()
    assert entry is not None
    assert (entry.device, entry.inode) == (path.stat().st_dev, path.stat().st_ino)
    assert target.fresh
    target.sync()
    target.close()
    check(look(path), 1000, ID, journal, force=False)
    with pytest.raises(TargetError):
        check(look(path), 1000, "cd" * 16, journal, force=False)


def test_a_journal_that_makes_no_sense_is_none(tmp_path: Path) -> None:
    journal = _journal(tmp_path, tmp_path / "out")
    assert journal.read() is None
    journal.write(Entry(ID, str(tmp_path / "out"), 5))
    assert journal.read() is not None
    for text in ("", "{", "[]", '{"snapshot":1}'):
        journal.file.write_text(text)
        assert journal.read() is None
    Journal(journal.directory, str(tmp_path / "other")).write(Entry(ID, "somewhere else", 5))
    assert Journal(journal.directory, str(tmp_path / "other")).read() is None


def test_a_journal_that_cannot_be_kept_stops_the_restore_before_the_target(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SnapferryError, match="state_dir"):
        _open(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_restores_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    first = _open(tmp_path, path)
    with pytest.raises(TargetError, match="another restore"):
        _open(tmp_path, path)
    first.close()
    _open(tmp_path, path).close()


def test_a_symbolic_link_is_followed_to_the_file_it_means(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    target = Target(look(tmp_path / "link"), 10, ID, _journal(tmp_path, tmp_path / "real"))
    target.close()
    assert (tmp_path / "real").stat().st_size == 10


def test_zero_changes_only_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"x" * 10_000)
    target = _open(tmp_path, path, 20_000)
    assert not target.fresh
    assert path.stat().st_size == 20_000
    target.zero(100, 15_000)
    assert path.read_bytes() == b"x" * 100 + bytes(19_900)
    assert target.zero(100, 15_000) == 0
    target.close()


def test_errors_are_told_apart() -> None:
    assert isinstance(target_error("t", OSError(28, "No space left on device")), TargetFull)
    assert isinstance(target_error("t", OSError(122, "Disk quota exceeded")), TargetFull)
    assert not isinstance(target_error("t", OSError(5, "Input/output error")), TargetFull)


def test_a_device_that_is_not_there_is_made_by_nobody() -> None:
    """A file below /dev would lie in memory, and be gone with it."""
    with pytest.raises(TargetError, match=r"/dev/snapferry-none does not exist, .* make the device first"):
        look("/dev/snapferry-none")


def test_a_file_that_grew_while_it_was_opened_is_not_taken_for_empty(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch()
    found = look(path)
    path.write_bytes(b"another restore's")
    with pytest.raises(TargetError, match="changed"):
        Target(found, 1000, ID, _journal(tmp_path, path))
    assert path.read_bytes() == b"another restore's"


def test_what_a_failed_sync_left_in_memory_is_not_compared_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = _open(tmp_path, tmp_path / "out")
    forgotten: list[tuple[int, int, int, int]] = []

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "posix_fadvise", lambda *call: forgotten.append(call))
    with pytest.raises(TargetError):
        target.sync()
    assert forgotten == [(target.fd, 0, 0, os.POSIX_FADV_DONTNEED)]
    target.close()


def test_a_restore_that_was_turned_away_may_not_overwrite_the_other_one_later(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch()
    seen_empty = look(path)
    journal = _journal(tmp_path, path)
    other = _open(tmp_path, path)
    with pytest.raises(TargetError, match="another restore"):
        Target(seen_empty, 1000, "cd" * 16, journal)
    other.close()
    with pytest.raises(TargetError, match="--force"):
        check(look(path), 1000, "cd" * 16, journal, force=False)
    check(look(path), 1000, ID, journal, force=False)
