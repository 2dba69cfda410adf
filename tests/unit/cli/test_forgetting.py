"""``forget`` and ``prune`` as outside programs call them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.support.place import Place
from tests.support.terminal import Terminal

BLOCK = 256 << 10


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two destinations with five snapshots of one volume and one of another."""
    place = Place(tmp_path_factory.mktemp("original"))
    place.run("init", "--to", f"near={place.root}/near", "--to", f"far={place.root}/far")
    data = bytearray(random.Random(1).randbytes(16 * BLOCK))
    for number in range(5):
        data[number * BLOCK : (number + 2) * BLOCK] = random.Random(number).randbytes(2 * BLOCK)
        (place.root / "disk.img").write_bytes(data)
        place.run("export", "disk.img", "--volume", "vm/root", "--tag", f"number={number}")
    (place.root / "other.img").write_bytes(b"other" * BLOCK)
    place.run("export", "other.img", "--volume", "other")
    return place


@pytest.fixture
def place(original: Place, tmp_path: Path) -> Place:
    """A copy to change; its configuration names the copy's own destinations."""
    return original.copy(tmp_path / "place")


def _stored(place: Place, name: str) -> int:
    return sum(path.stat().st_size for path in place.packs(name))


def test_rules_keep_per_volume_and_prune_gives_back(place: Place) -> None:
    before = _stored(place, "near")
    told = place.json("forget", "--keep-last", "2", "--keep-tag", "number=0", "--dry-run")
    assert told["type"] == "forget"
    assert (len(told["forgotten"]), told["dry_run"], set(told["bytes_freed"])) == (2, True, {"near", "far"})
    assert {item["volume"] for item in told["forgotten"]} == {"vm/root"}
    reasons = [reason for item in told["kept"] for reason in item["reasons"]["near"]]
    assert {"last 1 of 2", "last 2 of 2", "tag number=0"} <= set(reasons)
    done = place.json("forget", "--keep-last", "2", "--keep-tag", "number=0")
    assert [item["snapshot"] for item in done["forgotten"]] == [item["snapshot"] for item in told["forgotten"]]
    assert done["forgotten"][0]["destinations"] == ["near", "far"]
    assert _stored(place, "near") == before
    dry = place.json("prune", "--dry-run")
    assert {item["destination"]: item["bytes_freed"] for item in dry["destinations"]} == told["bytes_freed"]
    pruned = place.json("prune", "--yes")
    assert (pruned["type"], {item["destination"] for item in pruned["destinations"]}) == ("prune", {"near", "far"})
    assert before - _stored(place, "near") == pytest.approx(told["bytes_freed"]["near"], rel=0.1)
    assert len(place.json("list", "vm/root")["snapshots"]) == 3
    place.run("verify", "--read-data", "100")
    place.run("restore", "vm/root", "out.img")
    assert (place.root / "out.img").read_bytes() == (place.root / "disk.img").read_bytes()


def test_people_are_told_what_goes(place: Place) -> None:
    assert "would forget" in place.run("forget", "vm/root", "--keep-last", "1", "--dry-run").stdout
    said = place.run("forget", "vm/root", "--keep-last", "1", "--prune").stdout
    assert said.count("forgot ") == 4
    assert "near: deleted" in said
    assert place.run("-q", "prune").stdout == ""


def test_single_snapshots_go_by_name(place: Place) -> None:
    ids = [item["snapshot"] for item in place.json("list", "vm/root")["snapshots"]]
    place.run("forget", "vm/root~1", ids[0])
    assert [item["snapshot"] for item in place.json("list", "vm/root")["snapshots"]] == [*ids[1:3], ids[4]]
    place.json("show", ids[0], code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["forget"], 2, "say which snapshots"),
        (["forget", "vm/root"], 2, "is a volume"),
        (["forget", "vm/rot", "--keep-last", "1"], 1, "vm/rot"),
        (["forget", "ffffffff"], 1, "ffffffff"),
        (["forget", "--keep-last", "0"], 2, "at least one --keep"),
        (["forget", "--keep-last", "-3"], 2, "keep-last"),
        (["forget", "--keep-daily", "many"], 2, "keep-daily"),
        (["forget", "--keep-within", "3 weeks"], 2, "keep-within"),
        (["forget", "--keep-tag", "=x"], 2, "keep-tag"),
        (["forget", "--keep-last", "1", "--destination", "nar"], 2, "near"),
        (["prune", "--destination", "nowhere"], 2, "nowhere"),
        (["prune", "--max-unused", "200"], 2, "200"),
        (["prune", "--lease", "soon"], 2, "soon"),
    ],
)
def test_bad_input_has_its_code_and_loses_nothing(original: Place, arguments: list[str], code: int, says: str) -> None:
    before = sorted(path.name for path in (original.root / "near/snapshots").iterdir())
    assert says in original.json(*arguments, code=code)["message"]
    assert sorted(path.name for path in (original.root / "near/snapshots").iterdir()) == before


def test_a_destination_that_is_away_is_told(place: Place) -> None:
    (place.root / "far").rename(place.root / "away")
    lines = place.run("forget", "--keep-last", "1", "--json", code=3).stdout.splitlines()
    assert set(json.loads(lines[-1])["failures"]) == {"far"}
    pruned = place.json("prune", code=3)
    assert (set(pruned["failures"]), [item["destination"] for item in pruned["destinations"]]) == ({"far"}, ["near"])
    (place.root / "away").rename(place.root / "far")
    # Per destination: what is left at the other one still counts there.
    assert {tuple(item["destinations"]) for item in place.json("list")["snapshots"]} == {("far",), ("near", "far")}
    place.run("verify", "--read-data", "100")
    place.run("forget", "--keep-last", "1", "--prune")
    assert len(place.json("list")["snapshots"]) == 2
    place.run("verify", "--read-data", "100")


@pytest.mark.parametrize(("command", "refused"), [(("forget", "vm/root~1"), "nothing was forgotten"), (("prune",), "nothing was deleted")])
def test_a_person_is_asked_and_may_say_no(place: Place, command: tuple[str, ...], refused: str) -> None:
    before = place.json("list")["snapshots"]
    with Terminal(place.command(*command), env=place.environment, cwd=place.root) as terminal:
        terminal.wait_for(lambda seen: "[y/N]" in seen)
        terminal.type("n\n")
        assert terminal.end() == 1
    assert refused in terminal.seen
    assert place.json("list")["snapshots"] == before


def test_what_a_person_has_seen_is_what_is_forgotten(place: Place) -> None:
    """Even if another snapshot was made while they thought about it."""
    meant = place.json("show", "vm/root~1")["snapshot"]
    with Terminal(place.command("forget", "vm/root~1"), env=place.environment, cwd=place.root) as terminal:
        terminal.wait_for(lambda seen: "[y/N]" in seen)
        place.run("export", "disk.img", "--volume", "vm/root")
        terminal.type("y\n")
        assert terminal.end() == 0
    assert meant not in {item["snapshot"] for item in place.json("list")["snapshots"]}
    assert len(place.json("list", "vm/root")["snapshots"]) == 5
