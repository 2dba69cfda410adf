"""SIGINT and SIGTERM to real processes at many points: they end within seconds with 130 or 143, the last line says so, and the next run goes on."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.place import Place
from tests.support.terminal import Terminal

SECONDS = 12.0
"""More than the grace of 5 s, for machines that are busy."""

SOURCES = ["a.img", "b.img", "c.img", "d.img"]
HANGING = Path(__file__).with_name("hanging.py")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.run("init", "--to", "near=near", "--to", "far=far")
    for number, name in enumerate(SOURCES):
        (tmp_path / name).write_bytes(random.Random(number).randbytes(3_000_000))
    return place


class Running:
    """A command whose output goes to files, so that it can be looked at while it runs."""

    def __init__(self, place: Place, command: list[str]) -> None:
        self._out, self._said = place.root / "out", place.root / "said"
        with self._out.open("wb") as out, self._said.open("wb") as said:
            self.process = subprocess.Popen(command, stdout=out, stderr=said, env=place.environment, cwd=place.root)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition() and self.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def assert_ends(self, number: int, *, within: float = SECONDS) -> None:
        """After a signal: soon, with its code, and with a last line that says so."""
        began = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(60) == 128 + number, (self.lines, self._said.read_text())
        assert time.monotonic() - began < within
        word = "interrupted" if number == signal.SIGINT else "terminated"
        assert self.lines[-1] == {"type": "error", "schema_version": 1, "code": 128 + number, "message": word}
        assert "Traceback" not in self._said.read_text()


def start(place: Place, *arguments: object) -> Running:
    return Running(place, place.command("--json", *arguments))


def hanging(place: Place, dead: Path, *arguments: object) -> list[str]:
    """The command line where ``dead``, a source or a destination, answers nothing any more."""
    return [sys.executable, str(HANGING), str(dead), *map(str, arguments)]


def objects(place: Place) -> int:
    return sum(len(files) for name in ("near", "far") for _, _, files in os.walk(place.root / name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "more"), [(signal.SIGINT, 1), (signal.SIGTERM, 3), (signal.SIGTERM, 6), (signal.SIGINT, 12), (signal.SIGTERM, 20)]
)
def test_several_exports_at_once(place: Place, number: int, more: int) -> None:
    before = objects(place)
    process = start(place, "export", *SOURCES, "--limit-rate", "4MiB")
    process.wait_for(lambda: objects(place) >= before + more)
    process.assert_ends(number, within=5)
    done = place.run("export", *SOURCES)
    assert done.stdout.count("snapshot ") == 4
    place.run("verify", "--read-data", "100")
    for name in SOURCES:
        place.run("restore", name, f"restored-{name}")
        assert (place.root / f"restored-{name}").read_bytes() == (place.root / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.2, 0.3])
def test_however_early(place: Place, after: float) -> None:
    """Python itself is ended by a signal before it has begun with our program; from then on it is ours."""
    process = start(place, "export", *SOURCES, "--limit-rate", "1MiB")
    time.sleep(after)
    process.process.terminate()
    code = process.process.wait(60)
    assert code in (143, -signal.SIGTERM)
    if code == 143:
        assert process.lines[-1]["code"] == 143
    place.run("export", *SOURCES)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_a_source_hangs(place: Place, number: int) -> None:
    dead = place.root / "a.img"
    process = Running(place, hanging(place, dead, "--json", "export", dead, "b.img", "c.img"))
    process.wait_for(lambda: len(process.lines) == 2)
    assert {line["volume"] for line in process.lines} == {"b.img", "c.img"}
    process.assert_ends(number)
    place.run("export", *SOURCES)


@pytest.mark.slow
def test_while_a_destination_hangs(place: Place) -> None:
    place.run("export", "a.img")
    process = Running(place, hanging(place, place.root / "far", "--json", "export", "b.img"))
    process.wait_for((place.root / "far.hangs").exists)
    process.assert_ends(signal.SIGTERM)
    place.run("export", "a.img", "b.img")
    place.run("verify", "--read-data", "100")


@pytest.mark.slow
def test_a_second_signal_ends_at_once(place: Place) -> None:
    dead = place.root / "a.img"
    process = Running(place, hanging(place, dead, "--json", "export", dead))
    process.wait_for((place.root / "a.img.hangs").exists)
    process.process.terminate()
    time.sleep(0.2)
    assert process.process.poll() is None
    process.assert_ends(signal.SIGTERM, within=3)


@pytest.mark.slow
def test_nobody_reads_what_is_said(place: Place) -> None:
    """Standard output is a full pipe: the last line cannot be said, and the process ends all the same."""
    place.run("export", "a.img")
    reader, writer = os.pipe()
    with subprocess.Popen(place.command("cat", "a.img"), stdout=writer, stderr=-1, env=place.environment, cwd=place.root) as process:
        os.close(writer)
        assert select.select([reader], [], [], 30)[0]
        time.sleep(0.5)
        assert process.poll() is None
        began = time.monotonic()
        process.terminate()
        assert process.wait(30) == 143
        assert time.monotonic() - began < SECONDS
    os.close(reader)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["restore", "a.img", "out.img"], ["verify", "--read-data", "100"]])
def test_other_long_commands(place: Place, command: list[str]) -> None:
    place.run("export", "a.img")
    process = start(place, *command, "--limit-rate", "100KiB")
    time.sleep(1.0)
    process.assert_ends(signal.SIGINT, within=5)
    place.run(*command)
    if command[0] == "restore":
        assert (place.root / "out.img").read_bytes() == (place.root / "a.img").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_the_terminal_is_left_as_it_was(place: Place, hangs: bool) -> None:
    arguments = ["export", *(place.root / name for name in SOURCES), "--block-size", "64KiB", "--limit-rate", "1MiB"]
    command = hanging(place, place.root / "a.img", *arguments) if hangs else place.command(*arguments)
    with Terminal(command, env=place.environment, cwd=place.root) as terminal:
        terminal.wait_for(lambda seen: "of 4 done" in seen and "export b.img" in seen)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    hidden, shown = terminal.seen.rfind("\x1b[?25l"), terminal.seen.rfind("\x1b[?25h")
    assert 0 <= hidden < shown
    assert terminal.seen.splitlines()[-1].endswith("snapferry: interrupted")
