"""Two hosts as real processes with real directories between them, exporting at once; and two processes of one host, which share its memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BLOCK = 64 << 10
BLOCKS = 40


class Host:
    """A machine: its home, with configuration, catalog, cache and images."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(exist_ok=True)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNAPFERRY", "XDG_"))}
        environment = kept | {"HOME": str(self.home), "SNAPFERRY_CONFIG": str(self.home / "snapferry.toml")}
        command = [sys.executable, "-m", "snapferry.cli.main", "--json", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=self.home)

    def run(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        return ended(self.start(*arguments), code)

    def image(self, name: str, data: bytes) -> Path:
        path = self.home / f"{name}.img"
        path.write_bytes(data)
        return path


def ended(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    """The document at the end of what a command said."""
    out, error = process.communicate(timeout=100)
    assert process.returncode == code, (process.args, process.returncode, out, error)
    assert "Traceback" not in error
    document: dict[str, Any] = json.loads(out.splitlines()[-1])
    return document


def content(seed: int, common: int) -> bytes:
    """Blocks of which every other one is in all volumes of the same ``common``."""
    parts = []
    for number in range(BLOCKS):
        make = random.Random(common * 1000 + number if number % 2 else seed * 1000 + number)
        parts.append(make.randbytes(BLOCK // 2) + bytes(BLOCK // 2))
    return b"".join(parts)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    first = Host(tmp_path / "first")
    first.run("init", "--to", f"near=file://{tmp_path}/near", "--to", f"far=file://{tmp_path}/far")
    return tmp_path


def another(root: Path, name: str) -> Host:
    host = Host(root / name)
    shutil.copy(root / "first/snapferry.key", host.home / "snapferry.key")
    places = (f"near=file://{root}/near", f"far=file://{root}/far")
    host.run("connect", "--from", places[0], "--from", places[1], "--key-file", host.home / "snapferry.key")
    return host


def check(root: Path, expected: dict[str, bytes]) -> list[dict[str, Any]]:
    """A blank machine finds exactly these, whole at each place, and each of them restores."""
    blank = another(root, "blank")
    assert blank.run("verify", "--read-data", "100")["damage"] == []
    listed: list[dict[str, Any]] = blank.run("list")["snapshots"]
    assert {item["snapshot"] for item in listed} == expected.keys()
    restores = [
        blank.start("restore", item["snapshot"], root / f"{number}.img", "--from", ("near", "far")[number % 2])
        for number, item in enumerate(listed)
    ]
    for number, (item, process) in enumerate(zip(listed, restores, strict=True)):
        ended(process)
        assert item["destinations"] == ["near", "far"]
        assert (root / f"{number}.img").read_bytes() == expected[item["snapshot"]], item
    return listed


@pytest.mark.parametrize("volumes", [("v", "v"), ("v", "w")], ids=["same", "different"])
def test_two_hosts_export_at_once(root: Path, volumes: tuple[str, str]) -> None:
    hosts = Host(root / "first"), another(root, "second")
    expected: dict[str, bytes] = {}
    for turn in range(2):
        images = [host.image("disk", content(10 * turn + number, turn)) for number, host in enumerate(hosts)]
        exports = [
            host.start("export", image, "--volume", name, "--block-size", BLOCK)
            for host, image, name in zip(hosts, images, volumes, strict=True)
        ]
        for process, image in zip(exports, images, strict=True):
            result = ended(process)
            assert result["behind"] == []
            expected[result["snapshot"]] = image.read_bytes()
    listed = check(root, expected)
    for name in set(volumes):
        generations = [item["generation"] for item in listed if item["volume"] == name]
        assert generations == sorted(generations)
        assert generations[-1] >= 2
    # Both go on, each from what the other did too.
    for host in hosts:
        assert host.run("list")["snapshots"] == listed
    latest = expected[[item for item in listed if item["volume"] == "v"][-1]["snapshot"]]
    for host in hosts:
        assert host.run("export", host.image("disk", latest), "--volume", "v")["blocks_new"] == 0


def test_two_processes_of_one_host_share_its_catalog_and_cache(root: Path) -> None:
    host = Host(root / "first")
    expected: dict[str, bytes] = {}
    for turn in range(2):
        images = [host.image(f"disk{number}", content(10 * turn + number, turn)) for number in range(3)]
        exports = [host.start("export", image, "--volume", f"v{number % 2}", "--block-size", BLOCK) for number, image in enumerate(images)]
        lists = [host.start("list") for _ in range(2)]
        for process, image in zip(exports, images, strict=True):
            expected[ended(process)["snapshot"]] = image.read_bytes()
        for process in lists:
            ended(process)
    listed = check(root, expected)
    process = host.start("list")
    out, error = process.communicate(timeout=100)
    assert (json.loads(out)["snapshots"], error) == (listed, "")
