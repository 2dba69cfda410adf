"""The demo, small, as a stranger would run it; and what it says where it cannot run."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snapferry.cli import demo as demo_module
from snapferry.cli import s3_server, sample
from snapferry.cli.invocation import Invocation
from snapferry.config import DestinationConfig
from snapferry.destination import open_destination
from snapferry.errors import DestinationDenied, SnapferryError, TargetFull


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
    assert "cloud is s3://backups/demo" in done.stdout
    assert "damage the replica cloud" in done.stdout
    assert "found 0" not in done.stdout
    assert "healed from the other replica" in done.stdout
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


async def test_without_an_s3_server_the_second_place_is_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(s3_server, "find_program", lambda: None)
    async with demo_module._second(Invocation(), tmp_path) as second:
        assert second.config == DestinationConfig("far", str(tmp_path / "far"))
        assert second.root == tmp_path / "far"
    assert "there is no rclone here" in capsys.readouterr().err


async def test_the_server_takes_its_own_credentials_alone_and_ends_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = s3_server.find_program()
    assert program is not None
    (tmp_path / "backups").mkdir()
    monkeypatch.setenv("AWS_PROFILE", "the-user's")
    options = {"region": "us-east-1", "conditional_put": False}
    async with s3_server.serve_directory(program, tmp_path) as served:
        arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(os.getpid())]
        assert any(b"serve\0s3" in argument for argument in arguments)
        assert not any(served.secret_key.encode() in argument for argument in arguments)
        assert served.secret_key not in repr(served)
        with s3_server.credentials_of(served):
            assert "AWS_PROFILE" not in os.environ
            opened = await open_destination("cloud", "s3://backups/x", {"endpoint": served.endpoint, **options})
            await opened.create("config", b"x")
            assert (tmp_path / "backups/x/config").read_bytes() == b"x"
            await opened.close()
        assert os.environ["AWS_PROFILE"] == "the-user's"
        assert "AWS_SECRET_ACCESS_KEY" not in os.environ
        with s3_server.credentials_of(s3_server.Served(served.endpoint, served.access_key, "wrong")):
            opened = await open_destination("cloud", "s3://backups/x", {"endpoint": served.endpoint, **options})
            with pytest.raises(DestinationDenied):
                await opened.read("config", 1)
            await opened.close()
    reader = asyncio.open_connection("127.0.0.1", int(served.endpoint.rsplit(":", 1)[1]))
    with pytest.raises(OSError, match="Connect"):
        await reader


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SnapferryError, match="the S3 server did not start: .*unrecognized"):
        async with s3_server.serve_directory("/bin/ls", tmp_path):
            pass


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
