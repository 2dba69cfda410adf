"""``destination``, ``repair`` and limits as outside programs call them: real processes, exit codes, JSON shapes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.place import Place
from tests.support.terminal import Terminal

MiB = 1 << 20


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two destinations and one snapshot; the configuration has a comment."""
    place = Place(tmp_path_factory.mktemp("original"))
    place.run("init", "--to", f"near={place.root}/near", "--to", f"far={place.root}/far")
    (place.root / "disk.img").write_bytes(random.Random(1).randbytes(2 * MiB))
    place.run("export", "disk.img", "--volume", "v")
    config = place.root / "snapferry.toml"
    config.write_text("# ours\n" + config.read_text())
    return place


@pytest.fixture
def place(original: Place, tmp_path: Path) -> Place:
    return original.copy(tmp_path / "place")


def test_a_destination_is_added_filled_listed_and_removed(place: Place) -> None:
    assert "would add third" in place.run("destination", "add", "third=third", "--dry-run").stdout
    added = place.json("destination", "add", f"third={place.root}/third")
    assert (added["name"], added["attached"]) == ("third", False)
    assert (place.root / "snapferry.toml").read_text().startswith("# ours\n")
    listed = place.json("destination", "list")
    assert listed["type"] == "destinations"
    assert [(item["name"], item["snapshots"], item["behind"]) for item in listed["destinations"]] == [
        ("near", 1, 0),
        ("far", 1, 0),
        ("third", 0, 1),
    ]
    told = place.json("destination", "sync", "third", "--dry-run")
    assert [len(item["snapshots"]) for item in told["destinations"]] == [1]
    assert told["destinations"][0]["bytes_copied"] > 2 * MiB
    assert "got 1 snapshots" in place.run("destination", "sync", "third", "--from", "far").stdout
    assert "it lacks nothing" in place.run("destination", "sync").stdout
    tested = place.json("destination", "test", "third")
    assert next(check["detail"] for check in tested["checks"] if check["what"] == "durable").startswith("it says that")
    assert {check["what"] for check in tested["checks"]} == {"create", "create-if-absent", "list", "read", "durable", "delete"}
    assert "create-if-absent  ok" in place.run("destination", "test", "third").stdout
    place.run("restore", "v", "out.img", "--from", "third")
    assert (place.root / "out.img").read_bytes() == (place.root / "disk.img").read_bytes()
    place.run("destination", "remove", "third", "--delete-objects", code=2)
    assert place.json("destination", "remove", "third", "--delete-objects", "--yes")["objects_deleted"] > 5
    assert [item["name"] for item in place.json("destination", "list")["destinations"]] == ["near", "far"]


def test_adding_may_sync_at_once(place: Place) -> None:
    assert "third: got 1 snapshots" in place.run("destination", "add", "third=third", "--sync").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["destination", "add", "near=elsewhere"], 2, "two destinations are named"),
        (["destination", "add", "x=near"], 2, "same place"),
        (["destination", "add", "x=gopher://y"], 2, "gopher"),
        (["destination", "sync", "nar"], 2, "near"),
        (["destination", "sync", "near", "--from", "near"], 2, "from itself"),
        (["destination", "sync", "--snapshot", "ffffffff"], 1, "ffffffff"),
        (["destination", "sync", "--volume", "w"], 1, "w"),
        (["destination", "test", "nowhere"], 2, "nowhere"),
        (["destination", "remove", "nowhere"], 2, "nowhere"),
        (["repair", "--destination", "nowhere"], 2, "nowhere"),
        (["repair", "ffffffff"], 1, "ffffffff"),
        (["repair", "--read-data", "101"], 2, "101"),
        (["verify", "--limit-rate", "nar=1MiB"], 2, "near"),
        (["verify", "--limit-rate", "near=fast"], 2, "fast"),
        (["verify", "--limit-rate", "=1MiB"], 2, "names no destination"),
    ],
)
def test_bad_input_has_its_code_and_changes_nothing(original: Place, arguments: list[str], code: int, says: str) -> None:
    before = (original.root / "snapferry.toml").read_text()
    message = original.json(*arguments, code=code)["message"]
    assert says in message
    assert (original.root / "snapferry.toml").read_text() == before


def test_one_that_is_away_is_told(place: Place) -> None:
    (place.root / "far").rename(place.root / "away")
    place.json("export", "disk.img", "--volume", "w", code=3)
    listed = {item["name"]: item for item in place.json("destination", "list", code=3)["destinations"]}
    assert (listed["near"]["error"], "missing" in listed["far"]["error"]) == (None, True)
    assert place.json("destination", "sync", code=3)["failures"].keys() == {"far"}
    assert place.json("destination", "sync", "far", code=13)["type"] == "error"
    assert place.json("destination", "test", "far", code=13)["code"] == 13
    assert place.json("destination", "remove", "far", code=1)["code"] == 1
    (place.root / "away").rename(place.root / "far")
    assert "far: got 1 snapshots" in place.run("destination", "sync").stdout
    place.run("verify", "--read-data", "100")


def test_what_verify_finds_repair_heals(place: Place) -> None:
    (pack, *_) = place.packs("near")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    (gone, *_) = place.packs("far")[1:]
    gone.unlink()
    place.run("export", "disk.img", "--volume", "w")
    found = place.run("verify", "--read-data", "100", code=4)
    lines = [line for line in found.stdout.splitlines() if "packs/" in line]
    assert len(lines) == 2  # One for each object, though two snapshots need them.
    assert all("needed by" in line and "whole at" in line for line in lines)
    assert "snapferry repair" in found.stderr
    told = place.json("repair", "--dry-run")
    assert {item["object"].rpartition("/")[2] for item in told["healed"]} == {pack.name, gone.name}
    said = place.run("repair").stdout
    assert said.count("healed  ") == 2
    assert "2 objects healed, 0 left" in said
    place.run("verify", "--read-data", "100")
    assert place.json("repair", "--read-data", "100")["healed"] == []
    assert "damaged" not in place.run("show", "v").stdout


def test_what_cannot_be_healed_is_named(place: Place) -> None:
    for name in ("near", "far"):
        place.packs(name)[0].unlink()
    left = place.json("repair", code=4)["left"]
    assert {item["destination"] for item in left} == {"near", "far"}
    assert left[0]["extents"] == [[0, 2 * MiB]]
    assert "NOT HEALED" in place.run("repair", code=4).stdout


def test_a_person_is_asked_before_anything_is_removed(place: Place) -> None:
    before = (place.root / "snapferry.toml").read_text()
    with Terminal(place.command("destination", "remove", "far", "--delete-objects"), env=place.environment, cwd=place.root) as terminal:
        terminal.wait_for(lambda seen: "for good" in seen)
        terminal.type("n\n")
        terminal.wait_for(lambda seen: "nothing was removed" in seen)
    assert (place.root / "snapferry.toml").read_text() == before
    assert place.packs("far")


def test_limits_by_name_and_read_again_on_a_signal(place: Place) -> None:
    """A restore that would take an hour goes on at once when the file says so, and a broken file is a warning."""
    config = place.root / "snapferry.toml"
    text = config.read_text()
    slow = text.replace('slow = "block"', 'slow = "block"\nlimit_rate = "2KiB"')
    config.write_text(slow)
    settings = {item["key"]: item["value"] for item in place.json("config", "show")["settings"]}
    assert settings["destination.near.limit_rate"] == "2KiB/s"
    # A flag beats the file.
    place.run("verify", "--read-data", "100", "--limit-rate", "near=0", "--limit-rate", "far=0")
    with subprocess.Popen(
        place.command("-v", "restore", "v", "out.img"), env=place.environment, cwd=place.root, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stderr is not None
            _until_handled(running.pid)
            config.write_text("[[[")
            running.send_signal(signal.SIGHUP)
            while "stay as they were" not in (line := running.stderr.readline()):
                assert line, "it ended"
            config.write_text(text)
            running.send_signal(signal.SIGHUP)
            running.stderr.read()
            assert running.wait(60) == 0
        finally:
            running.kill()
    assert (place.root / "out.img").read_bytes() == (place.root / "disk.img").read_bytes()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_sync_that_is_killed_goes_on_when_it_is_run_again(place: Place, how: signal.Signals) -> None:
    shutil.rmtree(place.root / "far")
    place.run("destination", "remove", "far", "--force")
    for number in range(3):
        (place.root / "disk.img").write_bytes(random.Random(number).randbytes(2 * MiB))
        place.run("export", "disk.img", "--volume", f"v{number}")
    place.run("destination", "add", "far=far")
    with subprocess.Popen(
        place.command("destination", "sync", "far", "--limit-rate", "far=1MiB"),
        env=place.environment,
        cwd=place.root,
        stderr=subprocess.DEVNULL,
    ) as running:
        _until(lambda: bool(place.packs("far")))
        running.send_signal(how)
        assert running.wait(30) == (-9 if how == signal.SIGKILL else 130)
    before = {path.name for path in place.packs("far")}
    assert "far: got" in place.run("destination", "sync", "far").stdout
    assert before <= {path.name for path in place.packs("far")}
    assert [item["behind"] for item in place.json("destination", "list")["destinations"]] == [0, 0]
    place.run("verify", "--read-data", "100")
    place.run("restore", "v2", "out.img", "--from", "far")
    assert (place.root / "out.img").read_bytes() == (place.root / "disk.img").read_bytes()


def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        os.sched_yield()


def _until_handled(pid: int) -> None:
    """Until that process handles SIGHUP, as the kernel says."""

    def handled() -> bool:
        caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) & 1 << signal.SIGHUP - 1)

    _until(handled)
