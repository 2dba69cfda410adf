"""The demo, small, as a stranger would run it; and what it says where it cannot run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snapferry.cli import sample
from snapferry.errors import SnapferryError, TargetFull


def demo(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SNAPFERRY", "XDG_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(home)}
    command = [sys.executable, "-m", "snapferry.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_it_ends_by_saying_that_they_are_identical(tmp_path: Path) -> None:
    done = demo(tmp_path, "demo", "--size", "8")
    assert done.returncode == 0, done.stderr
    assert "identical to what was exported" in done.stdout.splitlines()[-1]
    assert "MiB/s" in done.stdout
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_what_is_kept_can_be_worked_with(tmp_path: Path) -> None:
    done = demo(tmp_path, "demo", "--size", "8", "--keep", str(tmp_path / "kept"), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert (document["type"], document["identical"]) == ("demo", True)
    assert {"step", "seconds", "bytes", "notes"} == set(document["steps"][0])
    assert sample.compare(tmp_path / "kept/volume.img", tmp_path / "kept/second.img")
    assert not sample.compare(tmp_path / "kept/volume.img", tmp_path / "kept/first.img")
    listed = demo(tmp_path, "--config", str(tmp_path / "kept/snapferry.toml"), "list", "--json")
    assert len(json.loads(listed.stdout)["snapshots"]) == 2
    assert demo(tmp_path, "demo", "--keep", str(tmp_path / "kept")).returncode == 2


async def test_without_mkfs_it_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(SnapferryError, match="e2fsprogs"):
        await sample.make_image(tmp_path / "x.img", tmp_path / "staged", 1 << 20)


async def test_without_space_it_says_how_much_is_needed(tmp_path: Path) -> None:
    with pytest.raises(TargetFull, match="TMPDIR"):
        await sample.make_image(tmp_path / "x.img", tmp_path / "staged", 1 << 60)


def test_damage_and_changes_are_what_they_say(tmp_path: Path) -> None:
    image = tmp_path / "x.img"
    image.write_bytes(os.urandom(4 << 20))
    sample.copy_image(image, tmp_path / "copy.img")
    assert sample.change_image(image) > 0
    assert not sample.compare(image, tmp_path / "copy.img")
    assert image.stat().st_size == 4 << 20
    for number in range(4):
        pack = tmp_path / f"near/packs/{number:02}/{number}"
        pack.parent.mkdir(parents=True)
        pack.write_bytes(bytes(1000))
    assert sample.damage_packs(tmp_path / "near") == (2, 1)
    left = [path for path in (tmp_path / "near/packs").rglob("*") if path.is_file()]
    assert len(left) == 3
    assert sum(any(path.read_bytes()) for path in left) == 2
