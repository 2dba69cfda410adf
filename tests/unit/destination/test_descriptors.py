from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapferry.destination.descriptors import Descriptors


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    found = [str(tmp_path / name) for name in "abc"]
    for path in found:
        Path(path).write_text(path)
    return found


def test_the_least_recently_used_is_closed(paths: list[str]) -> None:
    descriptors = Descriptors(2)
    numbers = {}
    for path in (paths[0], paths[1], paths[0]):
        with descriptors.lease(path) as numbers[path]:
            assert os.pread(numbers[path], 200, 0).decode() == path
    with descriptors.lease(paths[2]):
        assert not is_open(numbers[paths[1]])
        assert is_open(numbers[paths[0]])
    descriptors.close()
    assert not is_open(numbers[paths[0]])


def test_what_is_in_use_is_closed_when_it_is_not(paths: list[str]) -> None:
    descriptors = Descriptors(1)
    with descriptors.lease(paths[0]) as used, descriptors.lease(paths[0]) as again:
        assert used == again
        with descriptors.lease(paths[1]):
            pass
        descriptors.drop(paths[1])
        assert os.pread(used, 200, 0).decode() == paths[0]
    assert not is_open(used)
    with descriptors.lease(paths[0]) as used:
        descriptors.close()
        assert is_open(used)
    assert not is_open(used)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    descriptors = Descriptors(1)
    for path, error in ((tmp_path / "none", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error), descriptors.lease(str(path)):
            pass
