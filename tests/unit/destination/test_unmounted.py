"""A directory whose disk is unmounted while it is open: below the mount point there is another one, which is not the destination."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.destination import durable
from snapferry.destination import file as file_module
from snapferry.destination.file import FileDestination
from snapferry.errors import DestinationUnreachable


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


async def test_nothing_goes_below_the_mount_point_when_the_disk_is_unmounted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    destination = await FileDestination.open("near", str(root), writable=True)
    try:
        await destination.create("packs/ab/abcd", b"bytes")
        root.rename(tmp_path / "elsewhere")
        root.mkdir()  # As after an unmount: an empty directory of the same name.
        for _ in range(2):
            with pytest.raises(DestinationUnreachable, match="unmounted"):
                await destination.create("packs/ab/abce", b"more")
        with pytest.raises(DestinationUnreachable, match="unmounted"):
            [info async for info in destination.list("packs/")]
        assert files_below(root) == set()
    finally:
        await destination.close()


async def test_a_disk_unmounted_while_an_object_is_written_acknowledges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    destination = await FileDestination.open("near", str(root), writable=True)
    real = durable.rename_exclusive

    def unmounted(old: str, new: str) -> bool:
        created = real(old, new)
        root.rename(tmp_path / "elsewhere")
        (root / "packs/ab").mkdir(parents=True)
        return created

    monkeypatch.setattr(file_module, "rename_exclusive", unmounted)
    try:
        with pytest.raises(DestinationUnreachable, match="unmounted"):
            await destination.create("packs/ab/abcd", b"bytes")
    finally:
        await destination.close()
