"""What a directory as a destination does beyond the conformance suite: real files, real errors, nothing half."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from snapferry.destination import durable
from snapferry.destination import file as file_module
from snapferry.destination.file import FileDestination
from snapferry.errors import (
    DestinationDenied,
    DestinationError,
    DestinationFull,
    DestinationUnreachable,
    ObjectDamaged,
    ObjectNotFound,
)
from snapferry.testing.conformance import keys_of


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def open_files() -> list[str]:
    paths = []
    for number in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is gone by now.
        with contextlib.suppress(FileNotFoundError):
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
    return paths


async def test_objects_are_private_files_by_their_key(destination: FileDestination, tmp_path: Path) -> None:
    await destination.create("packs/ab/abcd", b"bytes")
    path = tmp_path / "root/packs/ab/abcd"
    assert path.read_bytes() == b"bytes"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_nlink == 1
    assert files_below(tmp_path / "root") == {"packs/ab/abcd"}


async def test_everything_is_synced_in_order(destination: FileDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then name, then directory; a new directory's own name before anything is named in it."""
    root = str(tmp_path / "root")
    calls: list[tuple[str, str]] = []

    real = os.fsync

    def record_sync(descriptor: int) -> None:
        calls.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(root)))
        real(descriptor)

    def record_rename(old: str, new: str) -> bool:
        calls.append(("rename", new.removeprefix(root)))
        return durable.rename_exclusive(old, new)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(file_module, "rename_exclusive", record_rename)
    await destination.create("packs/ab/one", b"1")
    temporary = next(name for kind, name in calls if name.startswith("/tmp/"))
    named = [(kind, "TEMPORARY" if name == temporary else name) for kind, name in calls]
    assert named == [
        ("sync", ""),  # packs
        ("sync", "/packs"),  # ab
        ("sync", ""),  # tmp
        ("sync", "TEMPORARY"),
        ("rename", "/packs/ab/one"),
        ("sync", "/packs/ab"),
    ]
    calls.clear()
    await destination.create("packs/ab/two", b"2")
    assert [name for _, name in calls][1:] == ["/packs/ab/two", "/packs/ab"]
    calls.clear()
    assert not await destination.create("packs/ab/two", b"2")
    assert calls == [("sync", "/packs/ab")], "a taken name must be durable too before it counts"
    calls.clear()
    await destination.delete("packs/ab/two")
    assert calls == [("sync", "/packs/ab")]


async def test_a_pack_is_not_copied(destination: FileDestination, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(20 << 20)
    written: list[memoryview] = []

    real = os.write

    def record(descriptor: int, view: memoryview) -> int:
        written.append(view)
        return real(descriptor, view)

    monkeypatch.setattr(os, "write", record)
    await destination.create("packs/ab/big", data)
    assert all(view.obj is data for view in written)
    assert sum(len(view) for view in written) == len(data)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_rename_falls_back_to_links(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_renameat2", lambda: lambda *_: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    (tmp_path / "old").write_bytes(b"old")
    assert durable.rename_exclusive(str(tmp_path / "old"), str(tmp_path / "new"))
    assert files_below(tmp_path) == {"new"}
    (tmp_path / "old").write_bytes(b"other")
    assert not durable.rename_exclusive(str(tmp_path / "old"), str(tmp_path / "new"))
    assert (tmp_path / "new").read_bytes() == b"old"


def test_rename_without_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_renameat2", lambda: None)
    (tmp_path / "old").write_bytes(b"old")
    assert durable.rename_exclusive(str(tmp_path / "old"), str(tmp_path / "new"))
    assert files_below(tmp_path) == {"new"}


def test_rename_says_what_failed(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        durable.rename_exclusive(str(tmp_path / "old"), str(tmp_path / "no" / "new"))


async def test_a_full_disk_is_full_and_leaves_nothing(small_disk: Path) -> None:
    destination = await FileDestination.open("near", str(small_disk), writable=True)
    await destination.create("packs/ab/fits", bytes(1 << 20))
    with pytest.raises(DestinationFull) as caught:
        await destination.create("packs/ab/large", bytes(16 << 20))
    assert caught.value.exit_code == 14
    assert not caught.value.retryable
    assert files_below(small_disk) == {"packs/ab/fits"}
    assert await destination.create("packs/ab/fits-too", bytes(1 << 20))
    await destination.close()


async def test_a_read_only_mount_is_denied(small_disk: Path) -> None:
    (small_disk / "config").write_bytes(b"x")
    early = await FileDestination.open("near", str(small_disk), writable=True)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DestinationDenied) as caught:
        await early.create("packs/ab/x", b"x")
    assert caught.value.exit_code == 12
    await early.close()
    with pytest.raises(DestinationDenied):
        await FileDestination.open("near", str(small_disk), writable=True)
    late = await FileDestination.open("near", str(small_disk), writable=False)
    assert await late.read("config", 1) == b"x"
    await late.close()


@pytest.mark.parametrize(
    ("code", "kind", "exit_code", "retryable"),
    [
        (errno.EACCES, DestinationDenied, 12, False),
        (errno.EPERM, DestinationDenied, 12, False),
        (errno.EROFS, DestinationDenied, 12, False),
        (errno.ENOSPC, DestinationFull, 14, False),
        (errno.EDQUOT, DestinationFull, 14, False),
        (errno.EIO, DestinationUnreachable, 13, True),
        (errno.ESTALE, DestinationUnreachable, 13, True),
        (errno.ETIMEDOUT, DestinationUnreachable, 13, True),
        (errno.ENODEV, DestinationUnreachable, 13, True),
        (errno.EMFILE, DestinationError, 1, False),
    ],
)
async def test_what_the_system_says_is_told_in_our_words(
    code: int,
    kind: type[DestinationError],
    exit_code: int,
    retryable: bool,
    destination: FileDestination,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.fsync
    failing = True

    def fail(descriptor: int) -> None:
        if failing and "/tmp/" in os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(tmp_path)):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind) as caught:
        await destination.create("packs/ab/x", b"x")
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code
    assert caught.value.retryable is retryable
    assert caught.value.destination == "near"
    assert isinstance(caught.value.__cause__, OSError)
    assert files_below(tmp_path / "root") == set()
    failing = False
    assert await destination.create("packs/ab/x", b"x")


async def test_a_root_that_goes_away_is_unreachable(destination: FileDestination, tmp_path: Path) -> None:
    await destination.create("config", b"x")
    (tmp_path / "root").rename(tmp_path / "elsewhere")
    for call in (
        destination.create("packs/ab/x", b"x"),
        destination.read("config", 1),
        destination.read_into("config2", 0, memoryview(bytearray(1))),
        destination.read_tail("config3", 1),
        destination.delete("config"),
        keys_of(destination),
        keys_of(destination, "packs/"),
    ):
        with pytest.raises(DestinationUnreachable):
            await call


async def test_a_removed_directory_is_made_again(destination: FileDestination, tmp_path: Path) -> None:
    await destination.create("packs/ab/x", b"x")
    (tmp_path / "root/packs/ab/x").unlink()
    (tmp_path / "root/packs/ab").rmdir()
    with pytest.raises(DestinationUnreachable, match="vanished"):
        await destination.create("packs/ab/y", b"y")
    assert files_below(tmp_path / "root") == set()
    assert await destination.create("packs/ab/y", b"y")


async def test_old_temporary_files_go_and_young_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    for name, age in (("old", 25 * 3600), ("young", 23 * 3600)):
        (tmp_path / "tmp" / name).write_bytes(b"x")
        os.utime(tmp_path / "tmp" / name, (time.time() - age,) * 2)
    await (await FileDestination.open("near", str(tmp_path), writable=False)).close()
    assert files_below(tmp_path) == {"tmp/old", "tmp/young"}
    await (await FileDestination.open("near", str(tmp_path), writable=True)).close()
    assert files_below(tmp_path) == {"tmp/young"}


async def test_what_is_no_object_is_not_listed_nor_read(destination: FileDestination, tmp_path: Path) -> None:
    root = tmp_path / "root"
    await destination.create("packs/ab/x", b"x")
    (root / "tmp/left-over").write_bytes(b"x")
    (root / "packs/.nfs0001").write_bytes(b"x")
    (root / "packs/é").write_bytes(b"x")
    (root / "lost+found").mkdir(mode=0)
    (root / "link").symlink_to(root / "packs/ab/x")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe")
    assert await keys_of(destination) == {"packs/ab/x": 1}
    assert await destination.list_keys("") == ["packs/ab/x"]
    with pytest.raises(DestinationError, match="not a regular file"):
        await destination.read("pipe", 1)


async def test_a_listing_survives_what_vanishes_under_it(
    destination: FileDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_LIST_BATCH", 1)
    for directory in "abc":
        for number in range(3):
            await destination.create(f"packs/{directory}/{number}", b"x")
    found = []
    async for item in destination.list("packs/"):
        found.append(item.key)
        if len(found) == 1:
            for directory in {"a", "b", "c"} - {item.key.split("/")[1]}:
                for path in (tmp_path / "root/packs" / directory).iterdir():
                    path.unlink()
                (tmp_path / "root/packs" / directory).rmdir()
    assert len(found) == 3


async def test_a_cancelled_create_is_waited_for_and_undone(
    destination: FileDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    real = os.write

    def held(descriptor: int, view: memoryview) -> int:
        writing.set()
        assert go_on.wait(60)
        return real(descriptor, view)

    monkeypatch.setattr(os, "write", held)
    creating = asyncio.create_task(destination.create("packs/ab/x", bytes(20 << 20)))
    await asyncio.to_thread(writing.wait, 60)
    for _ in range(3):
        creating.cancel()
        await asyncio.sleep(0)
    assert not creating.done(), "the thread still has the buffer"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert files_below(tmp_path / "root") == set()
    monkeypatch.setattr(os, "write", real)
    assert await destination.create("packs/ab/x", b"x")


async def test_a_cancelled_call_that_has_not_begun_does_nothing(
    destination: FileDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(os, "preadv", lambda *_: int(go_on.wait(60)))
    await destination.create("config", b"x")
    readers = [asyncio.create_task(destination.read("config", 1)) for _ in range(6)]
    creating = asyncio.create_task(destination.create("packs/ab/x", b"x"))
    await asyncio.sleep(0)
    creating.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*readers)
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert files_below(tmp_path / "root") == {"config"}


async def test_closing_waits_for_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = FileDestination("near", str(tmp_path))
    creating = asyncio.create_task(destination.create("packs/ab/x", bytes(1 << 20)))
    await asyncio.sleep(0)
    await destination.close()
    await destination.close()
    assert await creating
    assert files_below(tmp_path) == {"packs/ab/x"}
    assert not any(thread.name.startswith("destination-near") for thread in threading.enumerate())


async def test_few_files_stay_open_and_none_after_close(tmp_path: Path) -> None:
    destination = await FileDestination.open("near", str(tmp_path), writable=True)
    before = set(os.listdir("/proc/self/fd"))
    for number in range(40):
        await destination.create(f"packs/ab/{number}", b"x")
        await destination.read_into(f"packs/ab/{number}", 0, memoryview(bytearray(1)))
    assert 1 <= len(set(os.listdir("/proc/self/fd")) - before) <= 17
    await destination.close()
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_a_file_replaced_by_another_process_is_read_anew(destination: FileDestination, tmp_path: Path) -> None:
    await destination.create("packs/ab/x", b"bad!")
    buffer = bytearray(4)
    await destination.read_into("packs/ab/x", 0, memoryview(buffer))
    (tmp_path / "root/packs/ab/x").unlink()
    with pytest.raises(ObjectNotFound):
        await destination.read_into("packs/ab/x", 0, memoryview(buffer))
    (tmp_path / "root/packs/ab/x").write_bytes(b"good")
    await destination.read_into("packs/ab/x", 0, memoryview(buffer))
    assert buffer == b"good"


async def test_a_truncated_file_is_damaged(destination: FileDestination, tmp_path: Path) -> None:
    await destination.create("packs/ab/x", bytes(100))
    os.truncate(tmp_path / "root/packs/ab/x", 40)
    with pytest.raises(ObjectDamaged, match="ends at 40"):
        await destination.read_into("packs/ab/x", 30, memoryview(bytearray(20)))


async def test_who_loses_a_race_leaves_nothing(destination: FileDestination, tmp_path: Path) -> None:
    won = await asyncio.gather(*(destination.create("packs/ab/x", bytes(1 << 20)) for _ in range(6)))
    assert won.count(True) == 1
    assert files_below(tmp_path / "root") == {"packs/ab/x"}


async def test_a_deleted_file_is_not_kept_open(destination: FileDestination) -> None:
    await destination.create("packs/ab/x", b"x")
    await destination.read_into("packs/ab/x", 0, memoryview(bytearray(1)))
    await destination.delete("packs/ab/x")
    assert not [path for path in open_files() if path.endswith("/packs/ab/x (deleted)")]


async def test_a_disk_that_swallows_bytes_is_caught(destination: FileDestination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: real(descriptor, view[:-1]) + 1)
    with pytest.raises(DestinationUnreachable, match="99 bytes after 100"):
        await destination.create("packs/ab/x", bytes(100))
    assert files_below(tmp_path / "root") == set()
