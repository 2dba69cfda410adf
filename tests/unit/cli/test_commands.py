"""The commands as outside programs call them: real processes, exit codes, JSON shapes, and which stream carries what."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

import snapferry
from snapferry.testing.sources import FailingReads, MemorySource
from tests.support.place import Place

BLOCK = 256 << 10


def volume(seed: int) -> bytes:
    """Blocks of text, of noise and of zeros, and a last one that is not whole."""
    choice = random.Random(seed)
    parts = [choice.randbytes(BLOCK), b"words " * (BLOCK // 6) + b"word", bytes(BLOCK), choice.randbytes(2 * BLOCK), bytes(BLOCK), b"end"]
    return b"".join(part[:BLOCK] if part.startswith(b"words") else part for part in parts)


def damage(pack: Path) -> None:
    data = bytearray(pack.read_bytes())
    for position in range(100, len(data), 1000):
        data[position] ^= 0xFF
    pack.chmod(0o600)
    pack.write_bytes(data)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two destinations with two snapshots of one volume: the one before in ``before.img``, the latest in ``disk.img``."""
    place = Place(tmp_path_factory.mktemp("original"))
    place.run("init", "--to", f"near=file://{place.root}/near", "--to", f"far={place.root}/far")
    data = volume(1)
    (place.root / "disk.img").write_bytes(data)
    (place.root / "before.img").write_bytes(data)
    place.run("export", "disk.img", "--volume", "vm/root")
    (place.root / "disk.img").write_bytes(random.Random(2).randbytes(BLOCK) + data[BLOCK:])
    place.run("export", "disk.img", "--volume", "vm/root")
    return place


@pytest.fixture
def place(original: Place, tmp_path: Path) -> Place:
    """A copy to break; its configuration names the copy's own destinations."""
    return original.copy(tmp_path / "place")


@pytest.fixture
def blank(tmp_path: Path) -> Place:
    (tmp_path / "blank").mkdir()
    return Place(tmp_path / "blank")


async def test_cat_says_where_zeros_stand_for_what_could_not_be_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    data = (place.root / "disk.img").read_bytes()
    source = FailingReads(MemorySource(data), [(BLOCK, 1)])
    async with snapferry.open_repository(place.root / "snapferry.toml") as repository:
        await repository.export(source, volume="torn", skip_unreadable=True)
    done = subprocess.run(place.command("cat", "torn"), capture_output=True, env=place.environment, cwd=place.root, check=False)
    assert done.returncode == 3
    assert done.stdout == data[:BLOCK] + bytes(BLOCK) + data[2 * BLOCK :]
    assert f"{BLOCK}".encode() in done.stderr
    # A range beside it is whole.
    done = subprocess.run(
        place.command("cat", "torn", "--range", f"0-{BLOCK}"), capture_output=True, env=place.environment, cwd=place.root, check=False
    )
    assert (done.returncode, done.stdout) == (0, data[:BLOCK])


def test_init_writes_the_configuration_and_a_private_key(blank: Place) -> None:
    config = blank.root / "state/snapferry.toml"
    config.parent.mkdir()
    document = blank.json("--config", config, "init", "--to", f"near=file://{blank.root}/deep/repo")
    assert (document["type"], document["config"], document["destinations"]) == ("init", str(config), ["near"])
    key = blank.root / "state/snapferry.key"
    assert document["key_file"] == str(key)
    assert key.stat().st_mode & 0o777 == 0o600
    assert (blank.root / "deep/repo/config").is_file()
    before = config.read_bytes(), key.read_bytes()
    assert "exists already" in blank.json("--config", config, "init", "--to", f"{blank.root}/other", code=1)["message"]
    blank.json("init", "--to", f"near=file://{blank.root}/deep/repo", code=1)  # a repository is there
    assert (config.read_bytes(), key.read_bytes()) == before
    assert not (blank.root / "snapferry.toml").exists()


def test_export_says_what_it_did(place: Place) -> None:
    line = place.json("export", "disk.img", "--volume", "vm/root", "--tag", "why=test")
    assert line["type"] == "snapshot"
    assert (line["volume"], line["size"], line["block_size"]) == ("vm/root", (place.root / "disk.img").stat().st_size, BLOCK)
    assert (line["blocks_total"], line["blocks_new"], line["blocks_zero"], line["bytes_new"]) == (7, 0, 2, 0)
    assert sorted(line["acknowledged"]) == ["far", "near"]
    assert line["behind"] == []
    assert set(line["bytes_sent"]) == {"near", "far"}
    assert place.json("show", line["snapshot"])["tags"] == {"why": "test"}
    new = place.json("export", "before.img")
    assert (new["volume"], new["bytes_new"], new["blocks_new"]) == ("before.img", 0, 0)


def test_a_dry_export_writes_nothing(place: Place) -> None:
    (place.root / "disk.img").write_bytes(volume(3))
    before = sorted(path for name in ("near", "far") for path in (place.root / name).rglob("*"))
    line = place.json("export", "disk.img", "--volume", "vm/root", "--dry-run")
    assert line["dry_run"] is True
    assert line["blocks_new"] == 3
    assert sorted(path for name in ("near", "far") for path in (place.root / name).rglob("*")) == before
    assert len(place.json("list")["snapshots"]) == 2


def test_list_show_and_diff(original: Place) -> None:
    snapshots = original.json("list")["snapshots"]
    assert [item["volume"] for item in snapshots] == ["vm/root"] * 2
    assert {"snapshot", "volume", "created", "size", "bytes_new", "destinations", "parent"} <= set(snapshots[0])
    assert sorted(snapshots[1]["destinations"]) == ["far", "near"]
    assert snapshots[1]["parent"] == snapshots[0]["snapshot"]
    assert snapshots[0]["created"].endswith("Z")
    assert original.json("list", "vm/root")["snapshots"] == snapshots
    shown = original.json("show", "vm/root")
    assert shown["snapshot"] == snapshots[1]["snapshot"]
    assert {(replica["destination"], replica["committed"], replica["packs_missing"]) for replica in shown["replicas"]} == {
        ("near", True, 0),
        ("far", True, 0),
    }
    assert original.json("diff", "vm/root~1", "vm/root") == {
        "type": "diff",
        "schema_version": 1,
        "block_size": BLOCK,
        "extents": [[0, BLOCK]],
    }
    said = original.run("list").stdout
    assert snapshots[0]["snapshot"] in said
    assert original.run("diff", "vm/root~1", snapshots[1]["snapshot"][:8]).stdout == f"0 {BLOCK}\n"
    assert "vm/root" in original.run("show", "vm/root").stdout
    assert original.run("-q", "list").stderr == ""


def test_restore_and_cat_bring_back_the_bytes(original: Place, tmp_path: Path) -> None:
    line = original.json("restore", "vm/root", tmp_path / "out.img")
    assert line["type"] == "restore"
    assert line["size"] == (original.root / "disk.img").stat().st_size
    assert (tmp_path / "out.img").read_bytes() == (original.root / "disk.img").read_bytes()
    assert original.json("restore", "vm/root", tmp_path / "out.img")["bytes_written"] == 0  # run again, it is all there
    wanted = (original.root / "before.img").read_bytes()
    done = subprocess.run(original.command("cat", "vm/root~1", "--json"), capture_output=True, env=original.environment, check=True)
    assert done.stdout == wanted
    assert json.loads(done.stderr.splitlines()[-1])["bytes_written"] == len(wanted)
    part = subprocess.run(
        original.command("cat", "vm/root~1", "--range", "1000-300KiB"), capture_output=True, env=original.environment, check=True
    )
    assert part.stdout == wanted[1000 : 300 << 10]
    assert part.stderr == b""


def test_cat_keeps_errors_off_the_volumes_stream(original: Place) -> None:
    done = original.run("cat", "nothing", "--json", code=1)
    assert done.stdout == ""
    assert json.loads(done.stderr.splitlines()[-1])["code"] == 1


def test_cat_into_a_closed_pipe_is_quiet(original: Place) -> None:
    process = subprocess.Popen(original.command("cat", "vm/root"), stdout=-1, stderr=-1, env=original.environment)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_target_that_is_not_empty_needs_force(original: Place, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    assert "--force" in original.run("restore", "vm/root", target, code=1).stderr
    assert target.read_bytes() == b"precious"
    original.run("restore", "vm/root", target, "--force", "--dry-run")
    assert target.read_bytes() == b"precious"
    original.run("restore", "vm/root", target, "--force")
    assert target.read_bytes() == (original.root / "disk.img").read_bytes()
    original.run("restore", "vm/root", tmp_path, code=1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["export", "missing.img"], 1),
        (["export", "near"], 1),
        (["export", "disk.img", "--volume", "white space"], 2),
        (["export", "disk.img", "--min-copies", "3"], 2),
        (["export", "disk.img", "--volume", "vm/root", "--parent", "ffffffffffff"], 1),
        (["restore", "nothing", "x"], 1),
        (["restore", "vm/root~9", "x"], 1),
        (["show", "ffffffff"], 1),
        (["diff", "vm/root", "nothing"], 1),
        (["list", "--config", "missing.toml"], 10),
    ],
)
def test_bad_input_has_its_code(original: Place, arguments: list[str], code: int) -> None:
    original.json(*arguments, code=code)
    assert len(original.json("list")["snapshots"]) == 2


def test_a_damaged_replica_is_healed_and_said(place: Place, tmp_path: Path) -> None:
    for pack in place.packs("near"):
        damage(pack)
    line = place.json("restore", "vm/root", tmp_path / "out.img", "--from", "near", "--from", "far")
    assert (tmp_path / "out.img").read_bytes() == (place.root / "disk.img").read_bytes()
    assert set(line["bytes_fetched"]) >= {"far"}
    found = place.json("verify", "--read-data", "100", code=4)
    assert {item["destination"] for item in found["damage"]} == {"near"}
    assert "near" in place.run("verify", "--read-data", "100%", code=4).stdout
    assert place.json("verify", "--destination", "far", "--read-data", "100")["damage"] == []


def test_what_no_replica_can_supply_is_4_with_the_extents(place: Place, tmp_path: Path) -> None:
    for name in ("near", "far"):
        damage(place.packs(name)[0])
    line = place.json("restore", "vm/root~1", tmp_path / "out.img", code=4)
    assert line["type"] == "error"
    assert line["extents"]
    line = place.json("restore", "vm/root~1", tmp_path / "best.img", "--best-effort", code=4)
    assert line["type"] == "restore"
    assert line["lost"]
    assert (tmp_path / "best.img").stat().st_size == (place.root / "before.img").stat().st_size


def test_missing_places(place: Place, tmp_path: Path) -> None:
    shutil.move(place.root / "near", place.root / "elsewhere")
    line = place.json("export", "before.img", "--volume", "other", code=3)
    assert (line["acknowledged"], line["behind"]) == (["far"], ["near"])
    assert "near" in line["failures"]
    assert place.json("export", "before.img", "--volume", "more", "--min-copies", "2", code=13)["type"] == "error"
    place.run("restore", "vm/root", tmp_path / "out.img")
    shutil.move(place.root / "far", place.root / "gone")
    assert place.json("list", code=13)["message"]
    (place.root / "near").mkdir()
    (place.root / "far").mkdir()
    place.json("list", code=10)


def test_a_wrong_or_missing_key_is_12(place: Place, blank: Place) -> None:
    blank.run("init", "--to", "near=repo")
    (place.root / "snapferry.key").write_bytes((blank.root / "snapferry.key").read_bytes())
    place.json("list", code=12)
    (place.root / "snapferry.key").unlink()
    assert "snapferry.key" in place.json("list", code=12)["message"]


def test_connect_on_a_blank_machine(place: Place, blank: Place) -> None:
    shutil.rmtree(place.root / "near")
    document = blank.json("connect", "--from", f"far=file://{place.root}/far", "--key-file", place.root / "snapferry.key")
    assert (document["type"], document["snapshots"], document["destinations"]) == ("connect", 2, ["far"])
    blank.run("restore", "vm/root~1", "out.img")
    assert (blank.root / "out.img").read_bytes() == (place.root / "before.img").read_bytes()
    blank.json("connect", "--from", f"{place.root}/far", "--key-file", place.root / "snapferry.key", code=1)


def test_connect_that_fails_writes_nothing(place: Place, blank: Place) -> None:
    blank.json("connect", "--from", f"{place.root}/nothing", "--key-file", place.root / "snapferry.key", code=13)
    (blank.root / "wrong").write_text("nonsense")
    blank.json("connect", "--from", f"{place.root}/far", "--key-file", "wrong", code=12)
    assert not (blank.root / "snapferry.toml").exists()


def test_a_damaged_catalog_stops_nothing_and_is_rebuilt(place: Place, tmp_path: Path) -> None:
    (catalog,) = (place.root / "home/.local/share/snapferry").glob("catalog-*.sqlite")
    for path in catalog.parent.iterdir():
        path.unlink()
    catalog.write_bytes(b"nonsense" * 1000)
    said = place.run("restore", "vm/root", tmp_path / "out.img").stderr
    assert "snapferry rebuild" in said
    assert len(place.json("list")["snapshots"]) == 2
    assert place.json("rebuild") == {"type": "rebuild", "schema_version": 1, "snapshots": 2}
    assert place.run("list").stderr == ""
    with sqlite3.connect(catalog) as connection:
        assert connection.execute("SELECT count(DISTINCT snapshot) FROM replicas").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing_and_runs_again(blank: Place, number: int) -> None:
    blank.run("init", "--to", "near=repo")
    with (blank.root / "disk.img").open("wb") as file:
        for _ in range(40):
            file.write(os.urandom(8 << 20))
    command = blank.command("export", "disk.img", "--json", "-v")
    with subprocess.Popen(command, stdout=-1, stderr=subprocess.DEVNULL, text=True, env=blank.environment, cwd=blank.root) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["type"] == "progress"
        process.send_signal(number)
        last = json.loads(process.stdout.read().splitlines()[-1])
    assert (last["type"], last["code"], process.returncode) == ("error", 128 + number, 128 + number)
    assert blank.json("list")["snapshots"] == []
    blank.run("export", "disk.img")
    blank.run("restore", "disk.img", "out.img")
    assert subprocess.run(["cmp", blank.root / "disk.img", blank.root / "out.img"], check=False).returncode == 0
