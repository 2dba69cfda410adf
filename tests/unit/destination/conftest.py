from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from snapferry.destination.file import FileDestination


@pytest.fixture
async def destination(tmp_path: Path) -> AsyncIterator[FileDestination]:
    (tmp_path / "root").mkdir()
    opened = await FileDestination.open("near", str(tmp_path / "root"), writable=True)
    yield opened
    await opened.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    if os.geteuid() != 0:
        pytest.fail("a full disk is a real one here: mounting a tmpfs needs root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
