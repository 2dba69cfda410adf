"""``key``, passphrases at ``init`` and ``connect``, and write-only hosts: real processes, exit codes, JSON shapes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Machine:
    """A home and a configuration of its own; relative paths are seen from ``root``."""

    root: Path
    home: Path

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNAPFERRY", "XDG_"))}
        environment = kept | {"HOME": str(self.home), "SNAPFERRY_CONFIG": str(self.home / "snapferry.toml")}
        command = [sys.executable, "-m", "snapferry.cli.main", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.root, check=False)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run(*arguments, "--json", code=code).stdout.splitlines()[-1])
        assert document["schema_version"] == 1
        return document

    def fails(self, code: int, said: str, *arguments: object) -> None:
        last = self.run(*arguments, code=code).stderr.splitlines()[-1]
        assert last.startswith("snapferry: ")
        assert said in last


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return _machine(tmp_path, "home")


def _machine(root: Path, name: str) -> Machine:
    (root / name).mkdir()
    return Machine(root, root / name)


def _passphrase(machine: Machine, data: bytes = "zwei Wörter\n".encode(), name: str = "passphrase") -> Path:
    path = machine.root / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def _volume(machine: Machine, seed: int) -> bytes:
    data = random.Random(seed).randbytes(700_000)
    (machine.root / "disk.img").write_bytes(data)
    return data


def test_a_repository_that_a_passphrase_opens(machine: Machine) -> None:
    path = _passphrase(machine)
    made = machine.json("init", "--to", "near=repo", "--passphrase-file", path)
    assert made["passphrase_file"] == str(path)
    assert "key_file" not in made
    assert not (machine.home / "snapferry.key").exists()
    config = (machine.home / "snapferry.toml").read_text()
    assert "Wörter" not in config
    assert "key_file" not in config
    data = _volume(machine, 1)
    machine.run("export", "disk.img")
    blank = _machine(machine.root, "blank")
    blank.run("connect", "--from", "near=repo", "--passphrase-file", path)
    blank.run("restore", "disk.img", "out.img")
    assert (machine.root / "out.img").read_bytes() == data
    # A command in its place, and in the environment's.
    text = config.replace(f'passphrase_file = "{path}"', 'passphrase_command = "cat passphrase"')
    (blank.home / "snapferry.toml").write_text(text)
    assert len(blank.json("list")["snapshots"]) == 1
    (blank.home / "snapferry.toml").chmod(0o666)
    blank.fails(12, "names a command to run", "list")


def test_passphrases_that_cannot_be_used(machine: Machine) -> None:
    good = _passphrase(machine)
    for data, said in ((b"", "is empty"), (b"\n", "is empty"), (b"w\xf6rter\n", "is not UTF-8")):
        bad = _passphrase(machine, data, "bad")
        machine.fails(12, said, "init", "--to", "near=repo", "--passphrase-file", bad)
        machine.fails(12, said, "init", "--to", "near=repo", "--passphrase-file", bad, "--dry-run")
    machine.fails(12, "cannot read passphrase file", "init", "--to", "near=repo", "--passphrase-file", "none")
    machine.fails(2, "give one of them", "init", "--to", "near=repo", "--passphrase-file", good, "--key-file", good)
    assert not (machine.root / "repo").exists()
    machine.run("init", "--to", "near=repo", "--passphrase-file", good)
    blank = _machine(machine.root, "blank")
    blank.fails(2, "must say what opens the repository", "connect", "--from", "near=repo")
    wrong = _passphrase(machine, b"zwei woerter", "bad")
    blank.fails(12, "the passphrase is wrong", "connect", "--from", "near=repo", "--passphrase-file", wrong)
    empty = _passphrase(machine, b"\n", "bad")
    blank.fails(12, "is empty", "connect", "--from", "near=repo", "--passphrase-file", empty)
    assert not (blank.home / "snapferry.toml").exists()
    _passphrase(machine, b"\xff")
    machine.fails(12, "is not UTF-8", "list")


def test_keys_are_listed_added_removed_and_rotated(machine: Machine) -> None:
    machine.run("init", "--to", "near=n", "--to", "far=f")
    (first,) = machine.json("key", "list")["slots"]
    assert set(first) == {"slot", "kind", "role", "label", "created", "epoch", "up_to_date", "in_use", "destinations"}
    assert (first["kind"], first["role"], first["in_use"], first["destinations"]) == ("key file", "full", True, ["near", "far"])
    machine.fails(1, "the last full key", "key", "remove", first["slot"], "--yes")
    added = machine.json("key", "add", "--key-file", "second.key", "--label", "second")
    assert {"action": "add", "epoch": 0, "slots": 2, "changed": ["near", "far"], "failures": {}}.items() <= added.items()
    assert (machine.root / "second.key").stat().st_mode & 0o777 == 0o600
    machine.run("key", "add", "--passphrase-file", _passphrase(machine), "--label", "words")
    assert "key file" in machine.run("key", "list").stdout
    assert machine.json("key", "rotate", "--dry-run")["dry_run"]
    rotated = machine.json("key", "rotate")
    assert (rotated["action"], rotated["epoch"], rotated["slots"]) == ("rotate", 1, 3)
    machine.fails(2, "add --yes", "key", "remove", "second")
    assert machine.json("key", "remove", "second", "--dry-run")["slot"] == added["slot"]
    assert machine.json("key", "remove", "second", "--yes")["slot"] == added["slot"]
    machine.fails(1, "no key slot is called", "key", "remove", "second", "--yes")
    machine.fails(2, "one of: a key file", "key", "add")
    assert [slot["epoch"] for slot in machine.json("key", "list")["slots"]] == [1, 1]
    blank = _machine(machine.root, "blank")
    blank.fails(12, "was removed from the repository", "connect", "--from", "near=n", "--key-file", "second.key")
    assert blank.json("connect", "--from", "near=n", "--passphrase-file", "passphrase")["type"] == "connect"


def test_a_destination_that_is_away_is_told_with_3(machine: Machine) -> None:
    machine.run("init", "--to", "near=n", "--to", "far=f")
    (machine.root / "f").rename(machine.root / "away")
    change = machine.json("key", "rotate", code=3)
    assert (change["changed"], list(change["failures"])) == (["near"], ["far"])
    assert "far: not done, or not in full" in machine.run("key", "rotate", code=3).stderr
    (machine.root / "away").rename(machine.root / "f")
    _volume(machine, 1)
    machine.run("export", "disk.img")
    blank = _machine(machine.root, "blank")
    blank.run("connect", "--from", "far=f", "--key-file", machine.home / "snapferry.key")
    blank.run("restore", "disk.img", "out.img")
    (machine.root / "n").rename(machine.root / "gone")
    (machine.root / "f").rename(machine.root / "away")
    machine.fails(13, "no destination holds the repository", "key", "rotate")


def test_a_host_that_can_write_and_not_read(machine: Machine) -> None:
    machine.run("init", "--to", "near=n")
    host = _machine(machine.root, "host")
    public = host.json("key", "public", "--key-file", "host.key")
    (machine.root / "host.pub").write_text(host.run("key", "public", "--key-file", "host.key").stdout)
    assert (machine.root / "host.pub").read_text().strip() == public["public_key"]
    machine.fails(2, "must stay on its host", "key", "add", "--public-key", "host.key")
    added = machine.run("key", "add", "--public-key", "host.pub", "--write-only", "--label", "host")
    repository = machine.json("config", "show")["settings"][0]["value"]
    assert f"--id {repository}" in added.stderr

    warned = _machine(machine.root, "warned").run("connect", "--from", "near=n", "--key-file", "host.key")
    assert "compare its id" in warned.stderr
    host.fails(10, "holds repository", "connect", "--from", "near=n", "--key-file", "host.key", "--id", "0" * 32)
    assert host.run("connect", "--from", "near=n", "--key-file", "host.key", "--id", repository).stderr.count("\n") == 1
    data = _volume(machine, 1)
    host.run("export", "disk.img")
    for arguments in (("restore", "disk.img", "out.img"), ("cat", "disk.img"), ("key", "rotate"), ("key", "remove", "host", "--yes")):
        host.fails(12, "can write and not read", *arguments)
    assert host.run("verify", "--read-data", "100").stderr.count("not opened") == 1
    machine.run("restore", "disk.img", "out.img")
    assert (machine.root / "out.img").read_bytes() == data


def test_help_says_what_there_is(machine: Machine) -> None:
    text = machine.run("key", "--help").stdout
    assert all(name in text for name in ("list", "add", "remove", "rotate", "public"))
    assert "key " in machine.run("--help").stdout
