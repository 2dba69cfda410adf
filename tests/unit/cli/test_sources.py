"""Standard input, devices and maps of changes on the command line, and a restore to standard output: real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.loop import loop_device
from tests.support.place import Place
from tests.unit.cli.test_commands import BLOCK

DATA = random.Random(1).randbytes(5 * BLOCK) + bytes(4 * BLOCK) + random.Random(2).randbytes(3 * BLOCK)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("original"))
    place.run("init", "--to", f"near={place.root}/near")
    (place.root / "disk.img").write_bytes(DATA)
    place.run("export", "disk.img", "--volume", "vm")
    return place


@pytest.fixture
def place(original: Place, tmp_path: Path) -> Place:
    return original.copy(tmp_path / "place")


def call(place: Place, *arguments: object, data: bytes | None = None, **how: Any) -> subprocess.CompletedProcess[bytes]:
    given = how if "stdin" in how else {"input": data, **how}
    return subprocess.run(
        place.command(*arguments), capture_output=True, env=place.environment, cwd=place.root, timeout=60, check=False, **given
    )


def last_line(text: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text.splitlines()[-1])
    return document


@pytest.mark.root
def test_device_standard_input_and_map_give_the_same_root(place: Place) -> None:
    with loop_device(place.root / "disk.img") as device:
        exported = place.json("export", device, "--volume", "device")
        with open(device, "rb") as file:
            piped = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
            done = call(place, "export", "-", "--volume", "stream", "--json", stdin=piped.stdout)
            assert piped.stdout is not None
            piped.stdout.close()
            assert piped.wait() == 0
        assert done.returncode == 0, done.stderr
        stream = last_line(done.stdout)
        (place.root / "map.json").write_text("[]")
        mapped = place.json("export", device, "--volume", "device", "--changed", "map.json", "--parent", exported["snapshot"])
    file_root = place.json("export", "disk.img", "--volume", "vm")["root"]
    assert exported["root"] == stream["root"] == mapped["root"] == file_root
    assert (stream["size"], exported["volume"], mapped["parent"]) == (len(DATA), "device", exported["snapshot"])
    assert mapped["map"] == {"used": True, "blocks_audited": 10}
    assert mapped["bytes_read"] == 10 * BLOCK
    assert mapped["bytes_sent"]["near"] < 10_000
    assert "map" not in exported


def test_a_fifo_is_a_stream(place: Place) -> None:
    os.mkfifo(place.root / "pipe")
    export = subprocess.Popen(
        place.command("export", "pipe", "--json"), env=place.environment, cwd=place.root, stdout=subprocess.PIPE, text=True
    )
    with (place.root / "pipe").open("wb") as writer:
        writer.write(DATA)
    said, _ = export.communicate(timeout=60)
    assert export.returncode == 0
    assert (json.loads(said)["volume"], json.loads(said)["size"]) == ("pipe", len(DATA))


def test_standard_input_that_cannot_be(place: Place) -> None:
    assert "needs a name: --volume" in place.json("export", "-", code=2)["message"]
    (place.root / "map.json").write_text("[]")
    assert "not standard input" in place.json("export", "-", "--volume", "v", "--changed", "map.json", code=2)["message"]
    for given, words in (({"stdin": subprocess.DEVNULL}, b"character device"), ({"preexec_fn": lambda: os.close(0)}, b"standard input")):
        done = call(place, "export", "-", "--volume", "v", **given)
        assert done.returncode == 1, done.stderr
        assert words in done.stderr
    directory = os.open(place.root, os.O_RDONLY)
    done = call(place, "export", "-", "--volume", "v", stdin=directory)
    os.close(directory)
    assert (done.returncode, b"a directory" in done.stderr) == (1, True)
    assert len(place.json("list")["snapshots"]) == 1


def test_an_empty_stream_and_one_of_another_size_than_announced(place: Place) -> None:
    assert last_line(call(place, "export", "-", "--volume", "empty", "--json", data=b"").stdout)["size"] == 0
    for announced, words in (("5", b"ended after 3 bytes"), ("2", b"goes on after 2 bytes")):
        done = call(place, "export", "-", "--volume", "v", "--stream-size", announced, data=b"abc")
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert call(place, "export", "-", "--volume", "v", "--stream-size", "3", data=b"abc").returncode == 0
    assert "tells its size itself" in place.json("export", "disk.img", "--stream-size", "5", code=2)["message"]


@pytest.mark.parametrize("system_call", ["readv", "poll"])
def test_an_error_of_the_pipe_is_no_end(place: Place, system_call: str) -> None:
    """The third read of a megabyte or so fails, as it would on a broken medium behind a pipe."""
    rule = "readv:error=EIO:when=3" if system_call == "readv" else "poll:error=ENOMEM:when=3"
    command = ["strace", "-f", "-qq", "-e", f"trace={system_call}", "-e", f"inject={rule}", "-o", "/dev/null"]
    done = subprocess.run(
        [*command, *place.command("export", "-", "--volume", "broken", "--json")],
        input=DATA, capture_output=True, env=place.environment, cwd=place.root, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, (done.stdout, done.stderr)
    error = last_line(done.stdout)
    assert (error["type"], error["code"]) == ("error", 1)
    assert "standard input: cannot read on after byte" in error["message"]
    assert len(place.json("list")["snapshots"]) == 1


def test_a_file_that_errs_is_told_with_its_place(place: Place) -> None:
    """An I/O error of the kernel, for this file only."""
    command = ["strace", "-f", "-qq", "-P", str(place.root / "disk.img"), "-e", "inject=preadv,preadv2:error=EIO", "-o", "/dev/null"]
    done = subprocess.run(
        [*command, *place.command("export", "disk.img", "--volume", "vm", "--json")],
        capture_output=True, env=place.environment, cwd=place.root, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "disk.img: cannot read at byte" in last_line(done.stdout)["message"]
    assert "Input/output error" in last_line(done.stdout)["message"]
    assert len(place.json("list")["snapshots"]) == 1


def test_a_killed_stream_leaves_nothing_and_its_packs_are_found_again(place: Place) -> None:
    data = random.Random(3).randbytes(100 << 20)
    export = subprocess.Popen(place.command("export", "-", "--volume", "big"), stdin=subprocess.PIPE, env=place.environment, cwd=place.root)
    assert export.stdin is not None
    export.stdin.write(data[: 90 << 20])
    while len([pack for pack in place.packs("near") if pack.stat().st_size > 16 << 20]) < 2:
        time.sleep(0.01)
    export.kill()
    export.wait()
    export.stdin.close()
    assert len(place.json("list")["snapshots"]) == 1
    again = last_line(call(place, "export", "-", "--volume", "big", "--json", data=data).stdout)
    assert again["bytes_new"] <= len(data) - (48 << 20)
    assert call(place, "restore", "big", "-").stdout == data


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_silent_pipe(place: Place, number: signal.Signals) -> None:
    export = subprocess.Popen(
        place.command("export", "-", "--volume", "silent"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=place.environment,
        cwd=place.root,
    )
    sessions = place.root / "near" / "sessions"
    before = len(list(sessions.iterdir()))
    while len(list(sessions.iterdir())) == before:
        time.sleep(0.01)
    begun = time.monotonic()
    export.send_signal(number)
    assert export.wait(timeout=30) == 128 + number
    assert time.monotonic() - begun < 5
    assert export.stdin is not None
    export.stdin.close()
    assert export.stderr is not None
    export.stderr.close()
    assert len(place.json("list")["snapshots"]) == 1


def test_a_map_from_a_file_from_standard_input_and_one_that_lies(place: Place) -> None:
    parent = place.json("list")["snapshots"][0]["snapshot"]
    after = DATA[: 2 * BLOCK] + b"new" + DATA[2 * BLOCK + 3 :]
    (place.root / "disk.img").write_bytes(after)
    text = json.dumps({"parent": parent, "extents": [{"offset": 2 * BLOCK, "length": 3, "exists": "true"}]})
    (place.root / "map.json").write_text(text)
    one = place.json("export", "disk.img", "--volume", "vm", "--changed", "map.json")
    assert (one["map"]["used"], one["blocks_new"], one["bytes_read"]) == (True, 1, 11 * BLOCK)
    two = last_line(
        call(place, "export", "disk.img", "--volume", "vm", "--changed", "-", "--parent", parent, "--json", data=text.encode()).stdout
    )
    assert (two["map"]["used"], two["root"], two["parent"]) == (True, one["root"], parent)
    said = place.run("export", "disk.img", "--volume", "vm", "--changed", "map.json", "--parent", parent)
    assert "read only what the map of changes names; 10 blocks read to audit it" in said.stderr
    (place.root / "disk.img").write_bytes(after[::-1])
    done = call(place, "export", "disk.img", "--volume", "vm", "--changed", "map.json", "--json")
    line = last_line(done.stdout)
    assert (done.returncode, line["map"]["used"]) == (0, False)
    assert "not unchanged, as it says" in line["map"]["reason"]
    assert b"map.json is not used, and all of disk.img is read" in done.stderr
    assert call(place, "cat", "vm").stdout == after[::-1]


@pytest.mark.parametrize(
    ("text", "options", "code", "words"),
    [
        ("[", [], 2, "not what `rbd diff"),
        ('[{"offset": -4, "length": 5}]', ["--parent", "vm"], 2, "not what `rbd diff"),
        ('[{"offset": 9, "length": 5}, {"offset": 0, "length": 5}]', ["--parent", "vm"], 2, "ascending order"),
        ('[{"offset": 0, "length": 5}, {"offset": 4, "length": 5}]', ["--parent", "vm"], 2, "ascending order"),
        (f'[{{"offset": {len(DATA)}, "length": 1}}]', ["--parent", "vm"], 2, "something else"),
        ("[]", [], 2, "give that with --parent"),
        ("[]", ["--parent", "none"], 2, "needs a parent"),
        ("[]", ["--parent", "0123456789ab"], 1, "no snapshot or volume"),
        ('{"parent": "0123456789ab", "extents": []}', [], 1, "no snapshot or volume"),
        ('{"parent": "other", "extents": []}', [], 1, "of volume other, not of vm"),
        ('{"parent": "vm~1", "extents": []}', ["--parent", "vm"], 1, "which is snapshot"),
    ],
)
def test_maps_that_are_refused(place: Place, text: str, options: list[str], code: int, words: str) -> None:
    place.run("export", "disk.img", "--volume", "other")
    place.run("export", "disk.img", "--volume", "vm")
    (place.root / "map.json").write_text(text)
    assert words in place.json("export", "disk.img", "--volume", "vm", "--changed", "map.json", *options, code=code)["message"]
    assert len(place.json("list")["snapshots"]) == 3


def test_a_missing_map(place: Place) -> None:
    assert "No such file" in place.json("export", "disk.img", "--volume", "vm", "--changed", "nowhere", "--parent", "vm", code=2)["message"]


def test_restore_to_standard_output(place: Place) -> None:
    done = call(place, "restore", "vm", "-", "--json")
    assert (done.returncode, done.stdout) == (0, DATA)
    line = last_line(done.stderr)
    assert (line["type"], line["size"], line["bytes_written"], line["failovers"]) == ("restore", len(DATA), len(DATA), 0)
    assert line["bytes_fetched"]["near"] > 0
    done = call(place, "--json", "restore", "vm", "-", "--range", "100-5000", "--from", "near")
    assert (done.stdout, last_line(done.stderr)["size"]) == (DATA[100:5000], 4900)
    done = call(place, "restore", "vm", "-")
    assert (done.stdout, b"to standard output" in done.stderr) == (DATA, True)
    assert call(place, "-q", "restore", "vm", "-").stderr == b""
    dry = call(place, "restore", "vm", "-", "--dry-run", "--json")
    assert (dry.returncode, dry.stdout, last_line(dry.stderr)["dry_run"]) == (0, b"", True)


def test_the_cheapest_is_read_from_where_that_is_asked_for(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run("init", "--to", f"far={tmp_path}/far", "--to", f"near={tmp_path}/near")
    (tmp_path / "disk.img").write_bytes(DATA)
    place.run("export", "disk.img", "--volume", "vm")
    config = (tmp_path / "snapferry.toml").read_text()
    assert 'name = "far"\n' in config
    (tmp_path / "snapferry.toml").write_text(config.replace('name = "far"\n', 'name = "far"\nprice = { egress_gb = 0.09 }\n'))
    for number, command in enumerate((["restore", "vm", "cheap.img"], ["restore", "vm", "-"])):
        done = call(place, "--json", *command, "--prefer", "cheap")
        line = last_line(done.stderr if number else done.stdout)
        assert line["bytes_fetched"]["near"] > 0
        assert line["bytes_fetched"]["far"] == 0
    assert (place.root / "cheap.img").read_bytes() == DATA
    assert call(place, "cat", "vm", "--prefer", "cheap").stdout == DATA
    assert call(place, "cat", "vm", "--prefer", "dear").returncode == 2


def test_errors_of_a_restore_to_standard_output_leave_it_alone(place: Place) -> None:
    for arguments, code in ((["restore", "nothing", "-"], 1), (["restore", "vm", "-", "--nonsense"], 2), (["restore", "-"], 2)):
        done = call(place, *arguments, "--json")
        assert (done.returncode, done.stdout) == (code, b"")
        assert last_line(done.stderr)["code"] == code
    done = subprocess.run(
        " ".join(place.command("restore", "vm", "-")) + " | head -c 10", shell=True, capture_output=True, env=place.environment, check=False
    )
    assert done.stdout == DATA[:10]


def test_what_is_lost_ends_it_or_is_listed(place: Place) -> None:
    pack = place.packs("near")[0]
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:1000] + bytes(BLOCK) + pack.read_bytes()[1000 + BLOCK :])
    done = call(place, "restore", "vm", "-", "--json")
    assert (done.returncode, last_line(done.stderr)["code"]) == (4, 4)
    assert len(done.stdout) < len(DATA)
    done = call(place, "restore", "vm", "-", "--best-effort", "--json")
    line = last_line(done.stderr)
    assert (done.returncode, line["type"], len(done.stdout)) == (4, "restore", len(DATA))
    for offset, length in line["lost"]:
        assert done.stdout[offset : offset + length] == bytes(length)
    kept = bytearray(DATA)
    for offset, length in line["lost"]:
        kept[offset : offset + length] = bytes(length)
    assert done.stdout == kept
    assert line["lost"]
