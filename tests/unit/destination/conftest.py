from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from snapferry.destination.file import FileDestination
from tests.support.tmpfs import tmpfs


@pytest.fixture
async def destination(tmp_path: Path) -> AsyncIterator[FileDestination]:
    (tmp_path / "root").mkdir()
    opened = await FileDestination.open("near", str(tmp_path / "root"), writable=True)
    yield opened
    await opened.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    with tmpfs(tmp_path / "disk", "size=4m,mode=0755") as place:
        yield place
