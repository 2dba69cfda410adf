"""What is synced when, as the kernel saw it (docs/format.md, "Order")."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import snapferry
from snapferry.config import DestinationConfig, new_config
from tests.support.lab import volume

_CALL = re.compile(r"^\d+\s+(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")


@pytest.mark.slow
async def test_every_object_and_its_directory_are_synced_before_the_commit(tmp_path: Path) -> None:
    entries = [DestinationConfig("near", str(tmp_path / "near"))]
    config = new_config(tmp_path / "snapferry.toml", entries, environment={})
    local = dataclasses.replace(
        config.repository, cache_dir=tmp_path / "cache", state_dir=tmp_path / "state", catalog=f"sqlite:///{tmp_path}/catalog.sqlite"
    )
    config = await snapferry.create_repository(dataclasses.replace(config, repository=local))
    source, trace = tmp_path / "volume.img", tmp_path / "trace"
    source.write_bytes(volume(1))
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat"
    command = [
        "strace",
        "-f",
        "-y",
        "-e",
        calls,
        "-o",
        str(trace),
        sys.executable,
        "-m",
        "tests.crash.exporter",
        str(config.path),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    root = str(tmp_path / "near")
    events = _events(trace.read_text(), root)
    placed = {path: at for at, (kind, path) in enumerate(events) if kind == "placed"}
    commits = [path for path in placed if "/snapshots/" in path]
    assert len(commits) == 1
    commit = placed[commits[0]]
    kinds = {path.removeprefix(root).split("/")[1] for path in placed}
    assert {"packs", "index", "sessions", "snapshots"} <= kinds
    synced_directories = [(at, path) for at, (kind, path) in enumerate(events) if kind == "synced"]
    for path, at in placed.items():
        if path == commits[0]:
            continue
        assert at < commit, path
        directory = str(Path(path).parent)
        assert any(at < when < commit and synced == directory for when, synced in synced_directories), f"the directory of {path}"
    # Each object's own bytes were synced before it got its name: as many file syncs below tmp/ as objects, each before its rename.
    files = [at for at, path in synced_directories if f"{root}/tmp/" in path]
    for count, at in enumerate(sorted(placed.values()), start=1):
        assert sum(1 for when in files if when < at) >= count
    # And the commit's own, at the end.
    assert any(when > commit and synced == f"{root}/snapshots" for when, synced in synced_directories)


def _events(trace: str, root: str) -> list[tuple[str, str]]:
    """("placed", key's path) for each rename or link that succeeded, ("synced", path) for each fsync, in the order they ended."""
    events: list[tuple[str, str]] = []
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread = line.split(maxsplit=1)[0]
        rest = line[len(thread) :].strip()
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>")
            continue
        if rest.startswith("<..."):
            rest = begun.pop(thread, "") + rest.split("resumed>", 1)[1]
        if not re.search(r"= 0$", rest):
            continue
        if rest.startswith(("rename", "link")):
            names = re.findall(r'"([^"]*)"', rest)
            directories = re.findall(r"<([^>]*)>", rest)
            path = names[-1] if names[-1].startswith("/") else f"{directories[-1]}/{names[-1]}"
            if path.startswith(root):
                events.append(("placed", path))
        elif rest.startswith(("fsync", "fdatasync")):
            path = re.findall(r"<([^>]*)>", rest)[0]
            if path.startswith(root):
                events.append(("synced", path))
    return events
