"""Key files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from snapferry.errors import AccessDenied, SnapferryError
from snapferry.repository.keyfile import LooseKeyFile, create_key_file, read_key_file


def test_made_once_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = create_key_file(path)
    assert len(key) == 32
    assert read_key_file(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().count("\n") == 1
    before = path.read_bytes()
    with pytest.raises(SnapferryError, match="never overwritten"):
        create_key_file(path)
    assert path.read_bytes() == before


def test_a_loose_mode_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = create_key_file(path)
    path.chmod(0o644)
    with pytest.warns(LooseKeyFile):
        assert read_key_file(path) == key


@pytest.mark.parametrize(
    "text", ["", "snapferry-key-v1:", "snapferry-key-v1:AAAA", "snapferry-key-v2:" + "A" * 43 + "=", "\xff" * 50, "x" * 10_000]
)
def test_what_is_no_key_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(AccessDenied, match="not a snapferry key file") as caught:
        read_key_file(path)
    assert caught.value.exit_code == 12


def test_missing_and_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(AccessDenied, match="cannot read"):
            read_key_file(path)
    with pytest.raises(SnapferryError, match="cannot create"):
        create_key_file(tmp_path / "no" / "key")
