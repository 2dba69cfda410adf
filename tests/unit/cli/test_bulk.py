"""``export`` of several sources, as outside programs call it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.place import Place

NAMES = ["a.img", "b.img", "c.img"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.run("init", "--to", "near=near", "--to", "far=far")
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(random.Random(number).randbytes(300_000 + number))
    return place


def lines(place: Place, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.run("--json", "export", *arguments, code=code).stdout.splitlines()]


def test_a_line_for_each_and_a_summary(place: Place) -> None:
    *each, last = lines(place, *NAMES, "-j", "2", "--tag", "why=test")
    assert sorted(line["volume"] for line in each) == NAMES
    assert {line["type"] for line in each} == {"snapshot"}
    seconds = last.pop("seconds")
    assert seconds > 0
    assert last.pop("bytes_sent").keys() == {"near", "far"}
    total = sum(line["bytes_read"] for line in each)
    assert total == 900_003
    counts = {
        "sources": 3,
        "exported": 3,
        "partial": 0,
        "failed": 0,
        "bytes_read": total,
        "bytes_new": 6 * 262144,
        "failures": [],
        "code": 0,
    }
    assert last == {"type": "summary", "schema_version": 1, **counts}
    for name in NAMES:
        place.run("restore", name, f"restored-{name}")
        assert (place.root / f"restored-{name}").read_bytes() == (place.root / name).read_bytes()


def test_a_missing_source_is_the_failure_of_that_one(place: Place) -> None:
    found = lines(place, *NAMES, "missing.img", code=3)
    assert [line["type"] for line in found].count("snapshot") == 3
    failed = next(line for line in found if line["type"] == "failed")
    message = "cannot open source missing.img: No such file or directory"
    described = {"volume": "missing.img", "source": "missing.img", "code": 1, "message": message}
    assert failed == {"type": "failed", "schema_version": 1, **described}
    assert found[-1]["failures"] == [described]
    assert (found[-1]["type"], found[-1]["code"]) == ("summary", 3)
    done = place.run("export", "missing.img", "also-missing.img", code=1, last_line_is_ours=False)
    assert "missing.img failed: cannot open source" in done.stderr
    assert done.stdout.startswith("0 of 2 sources exported, 2 failed")


def test_for_people(place: Place) -> None:
    done = place.run("export", *NAMES, "missing.img", code=3, last_line_is_ours=False)
    assert done.stdout.splitlines()[-1].startswith("3 of 4 sources exported, 1 failed: read 878.9KiB in ")
    assert done.stderr.splitlines()[-1] == "  failed: missing.img (missing.img), code 1"
    assert "\x1b" not in done.stderr
    quiet = place.run("-q", "export", *NAMES, "missing.img", code=3, last_line_is_ours=False)
    assert quiet.stdout == ""
    assert "missing.img failed" in quiet.stderr


def test_a_dry_run_writes_nothing(place: Place) -> None:
    found = lines(place, *NAMES, "--dry-run")
    assert [line.get("dry_run") for line in found] == [True, True, True, None]
    assert found[-1]["code"] == 0
    assert place.json("list")["snapshots"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.img", "./a.img"], "volume a.img is exported twice, from a.img and from ./a.img"),
        (["a.img", "b.img", "--volume", "v"], "--volume names one volume"),
        (["a.img", "b.img", "--parent", "0123456789"], "--parent with several sources is auto or none"),
        (["a.img", "-"], "source - has no name of its own"),
        (["a.img", "b.img", "-j", "0"], "0 is not in the range"),
        (["a.img", "b.img", "--limit-rate", "fast"], "'fast' is not a rate"),
        (["a.img", "b.img", "--limit-rate", "50"], "50 is 50 bytes a second; give it a unit, as in 50MiB"),
        (["a.img", "b.img", "--to", "nera"], "did you mean 'near'"),
        ([], "a SOURCE is missing"),
        (["a.img", "--jobs", "jobs.toml"], "either SOURCE or --jobs"),
        (["--jobs", "jobs.toml", "--volume", "v"], "with --jobs, --volume is said in the file"),
        (["--jobs", "jobs.toml", "--tag", "a=b"], "with --jobs, --tag is said in the file"),
    ],
)
def test_usage(place: Place, arguments: list[str], said: str) -> None:
    (error,) = lines(place, *arguments, code=2)
    assert said in error["message"]
    assert place.json("list")["snapshots"] == []


def jobs(place: Place, text: str) -> None:
    (place.root / "deep").mkdir(exist_ok=True)
    (place.root / "deep/jobs.toml").write_text(text)


def test_a_jobs_file(place: Place) -> None:
    jobs(
        place,
        'parallel = 2\n[defaults]\ntags = { by = "night" }\n[[job]]\nsource = "../a.img"\nvolume = "vm/a"\nblock_size = "64KiB"\n'
        '[[job]]\nsource = "../b.img"\nto = "far"\ntags = { why = "x" }\nlimit_rate = "10MiB/s"\n',
    )
    *each, last = lines(place, "--jobs", "deep/jobs.toml")
    assert {(line["volume"], line["block_size"], *line["acknowledged"]) for line in each} == {
        ("vm/a", 65536, "near", "far"),
        ("b.img", 262144, "far"),
    }
    assert last["code"] == 0
    assert {item["volume"]: item["tags"] for item in place.json("list")["snapshots"]} == {
        "vm/a": {"by": "night"},
        "b.img": {"by": "night", "why": "x"},
    }


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ('[[job]]\nsource = "../a.img"\nvolum = "v"', 2, "unknown key 'volum' in [[job]] 1 (did you mean 'volume'?)"),
        ('[[job]]\nsource = "../a.img"\n[[job]]\nsource = "../b.img"\nvolume = "a.img"', 2, "volume a.img is exported twice"),
        ('[[job]]\nsource = "../a.img"\nto = "nera"', 2, "did you mean 'near'"),
        ('[[job]]\nsource = "../a.img"\nmin_copies = 3', 2, "min_copies is 3"),
        ('[[job]]\nsource = "../a.img"\nblock_size = "3KiB"', 2, "block size of 3072"),
        ('[[job]]\nsource = "../a.img"\n[[job]]\nsource = "gone"\n[[job]]\nsource = "."', 1, "nothing was started"),
    ],
)
def test_a_jobs_file_is_checked_before_anything_starts(place: Place, text: str, code: int, said: str) -> None:
    jobs(place, text)
    (error,) = lines(place, "--jobs", "deep/jobs.toml", code=code)
    assert said in error["message"]
    if code == 1:
        assert f"{place.root}/deep/gone" in error["message"]
        assert "is a directory" in error["message"]
    assert place.json("list")["snapshots"] == []


def test_a_jobs_file_that_is_not_there(place: Place) -> None:
    assert "No such file" in lines(place, "--jobs", "jobs.toml", code=1)[0]["message"]


def test_the_limit_is_a_setting_like_others(place: Place) -> None:
    settings = {item["key"]: item["value"] for item in place.json("config", "show")["settings"]}
    assert settings["engine.limit_rate"] == "none"
    config = place.root / "snapferry.toml"
    config.write_text(config.read_text().replace("[engine]", '[engine]\nlimit_rate = "400KiB"'))
    settings = {item["key"]: item["value"] for item in place.json("config", "show")["settings"]}
    assert settings["engine.limit_rate"] == "400KiB/s"
    # Two destinations, 300 kB each.
    assert lines(place, "a.img")[-1]["seconds"] >= 1.0
    assert lines(place, "b.img", "--limit-rate", "0")[-1]["seconds"] < 1.0
    assert place.json("restore", "a.img", "out", "--limit-rate", "250KiB")["seconds"] >= 0.8
    config.write_text(config.read_text().replace("400KiB", "fast"))
    assert "engine.limit_rate" in place.json("list", code=2)["message"]
