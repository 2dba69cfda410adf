"""Placement from the command line, with real places: set in the file, per volume and per command; shown, priced, verified and restored."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.support.place import Place

NAMES = ("near", "far", "cold")
BLOCK = 256 << 10


def run(place: Place, *arguments: str, code: int = 0) -> str:
    """All that it said."""
    done = place.run(*arguments, code=code, last_line_is_ours=False)
    return done.stdout + done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.run("init", *(argument for name in NAMES for argument in ("--to", f"{name}={tmp_path}/{name}")))
    file = tmp_path / "snapferry.toml"
    text = file.read_text().replace('policy = "mirror"', 'policy = "spread"\ncopies = 1')
    text = text.replace('slow = "block"', 'slow = "block"\nprice = { store_gb_month = 0.02, egress_gb = 0.09 }')
    file.write_text(text + '\n[[placement.volume]]\nmatch = "small/*"\npolicy = "mirror"\n')
    (tmp_path / "disk.img").write_bytes(random.Random(1).randbytes(40 * BLOCK))
    return place


def test_a_volume_is_placed_shown_and_restored(place: Place) -> None:
    data = (place.root / "disk.img").read_bytes()
    assert 'placement.policy = "spread"' in run(place, "config", "show")
    made = place.json("export", "disk.img")
    assert (made["acknowledged"], made["placement"]) == (list(NAMES), "spread copies=1 over near,far,cold")
    assert sum(made["bytes_sent"].values()) < 1.2 * len(data)
    shown = place.json("show", "disk.img")
    assert (shown["placement"], shown["copies"], shown["packs_short"], shown["packs_lost"]) == (made["placement"], 1, 0, 0)
    replicas = {replica["destination"]: replica for replica in shown["replicas"]}
    assert all(replicas[name]["committed"] and not replicas[name]["packs_missing"] for name in NAMES)
    assert shown["month_cost"] == pytest.approx(sum(replica["bytes"] for replica in replicas.values()) / 1e9 * 0.02)
    assert shown["restore_cost"] == pytest.approx(len(data) / 1e9 * 0.09, rel=0.01)
    text = run(place, "show", "disk.img")
    assert "spread copies=1 over near,far,cold" in text
    assert "data packs, 1 manifest packs" in text
    assert "a month, what other snapshots share counted whole" in text
    listed = place.json("list")["snapshots"]
    assert [item["destinations"] for item in listed] == [list(NAMES)]
    assert place.json("verify", "--read-data", "100")["short"] == []
    run(place, "restore", "disk.img", "back.img")
    assert (place.root / "back.img").read_bytes() == data


def test_a_command_and_a_volume_may_ask_for_something_else(place: Place) -> None:
    assert place.json("export", "disk.img", "--volume", "small/a")["placement"] == "mirror"
    assert place.json("export", "disk.img", "--volume", "b", "--placement", "alternate")["acknowledged"] == ["near"]
    assert place.json("export", "disk.img", "--volume", "b", "--placement", "alternate")["acknowledged"] == ["far"]
    cheap = place.json("export", "disk.img", "--volume", "small/a", "--placement", "cheapest:copies=2")
    assert (cheap["acknowledged"], cheap["placement"]) == (["near", "far"], "cheapest over near,far")
    assert cheap["cost_gb"] == pytest.approx(2 * 12 * 0.02 + 0.09 * 0.05 * 12)
    (place.root / "jobs.toml").write_text('[[job]]\nsource = "disk.img"\nvolume = "c"\nplacement = "spread:copies=2"\n')
    assert place.json("export", "--jobs", "jobs.toml")["exported"] == 1
    assert place.json("show", "c")["placement"] == "spread copies=2 over near,far,cold"
    for wrong, text in (("spread:copies=4", "4 copies"), ("sprea", "did you mean 'spread'"), ("alternate:n=1", "takes none")):
        assert text in run(place, "export", "disk.img", "--placement", wrong, code=2)
    assert "min_copies is 2" in run(place, "export", "disk.img", "--min-copies", "2", code=2)


def test_what_a_lost_place_takes_with_it_is_said(place: Place) -> None:
    run(place, "export", "disk.img")
    (place.root / "other.raw").write_bytes(random.Random(2).randbytes(40 * BLOCK))
    run(place, "export", "other.raw", "--volume", "two", "--placement", "spread:copies=2")
    shown = place.json("show", "disk.img")
    lost = next(replica["destination"] for replica in shown["replicas"] if replica["data_packs"])
    others = [argument for name in NAMES if name != lost for argument in ("--from", name)]
    text = run(place, "restore", "disk.img", "back.img", *others, code=1)
    assert "lies in parts" in text
    assert f"read from {lost} too" in text
    run(place, "restore", "two", "two.img", *others)
    shutil.rmtree(place.root / lost)
    assert f"{lost} cannot be reached" in run(place, "restore", "disk.img", "back.img", code=13)
    assert "fewer than 1 copies" in run(place, "verify", "disk.img", code=3)
    assert "data packs are at none of the destinations that answer" in run(place, "show", "disk.img")
    run(place, "restore", "two", "other.img")
    assert (place.root / "two.img").read_bytes() == (place.root / "other.img").read_bytes() == (place.root / "other.raw").read_bytes()
