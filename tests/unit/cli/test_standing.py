"""What is shown of destinations while something runs: the lines, their sums, and the terminal they are drawn on."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.cli.invocation import Invocation
from snapferry.cli.progress import progress
from snapferry.cli.standing import MOST, document, ended, lines, summed
from snapferry.types import ChannelProgress, MiB, Progress
from tests.support.place import Place
from tests.support.terminal import Terminal

STATES = ("live", "waiting", "spooling", "detached", "failed", "acknowledged")
sizes = st.integers(0, 1 << 50)
stands = st.builds(ChannelProgress, st.sampled_from(STATES), sizes, st.floats(0, 1e12), sizes, sizes)
channels = st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", fullmatch=True), stands, max_size=30)


@given(st.sampled_from(["export", "restore"]), channels, st.integers(1, 200), st.integers(1, 12))
def test_no_line_is_too_long_and_none_too_many(operation: str, standing: dict[str, ChannelProgress], width: int, most: int) -> None:
    said = lines(operation, standing, width, most)
    assert len(said) == min(len(standing), most)
    assert all(len(line) <= width for line in said)


@given(channels)
def test_each_is_named_where_there_is_room(standing: dict[str, ChannelProgress]) -> None:
    said = lines("export", standing, 200)
    assert len(standing) > MOST or all(
        line.split()[0].rstrip("…") == name[: len(line.split()[0].rstrip("…"))] for line, name in zip(said, standing, strict=True)
    )


@given(st.lists(channels, max_size=6))
def test_sums(many: list[dict[str, ChannelProgress]]) -> None:
    sums = summed(many)
    assert set(sums) == {name for standing in many for name in standing}
    for name, at in sums.items():
        of_it = [standing[name] for standing in many if name in standing]
        for count in ("bytes", "queued", "lag"):
            assert getattr(at, count) == sum(getattr(one, count) for one in of_it)
        assert at.speed == pytest.approx(sum(one.speed for one in of_it))
        assert at.state in {one.state for one in of_it}


def test_the_worst_state_is_told() -> None:
    live, failed = ChannelProgress("live", 1, 1.0), ChannelProgress("failed", 1, 0.0)
    assert summed([{"near": live}, {"near": failed}])["near"].state == summed([{"near": failed}, {"near": live}])["near"].state == "failed"


def test_what_has_ended_is_slow_no_more() -> None:
    assert ended({"near": ChannelProgress("live", 5, 3.0, 2, 1)}) == {"near": ChannelProgress("acknowledged", 5, 0.0)}
    assert ended({"near": ChannelProgress("failed", 5, 3.0)})["near"].state == "failed"


def test_of_many_the_slowest_are_shown() -> None:
    standing = {f"d{number}": ChannelProgress("live", 0, float((20 - number) * MiB), 0, 0) for number in range(12)}
    standing["d3"] = ChannelProgress("live", 0, 500.0 * MiB, 64 * MiB, 32 * MiB)
    said = lines("export", standing, 80)
    assert [line.split()[0] for line in said[:-1]] == ["d3", "d6", "d7", "d8", "d9", "d10", "d11"]
    assert said[-1] == "  and 5 more, 88MiB/s"


def test_an_export_tells_of_queue_and_lag_and_a_restore_of_shares() -> None:
    at = {"near": ChannelProgress("spooling", 3 * MiB, 2.0 * MiB, 64 * MiB, 32 * MiB), "far": ChannelProgress("live", MiB, 1.0 * MiB)}
    assert lines("export", at, 80) == [
        "  near  2MiB/s  lag 32MiB  queue 64MiB  spooling",
        "  far   1MiB/s                              live",
    ]
    assert lines("restore", at, 80) == ["  near  2MiB/s  75 %  3MiB  spooling", "  far   1MiB/s  25 %  1MiB"]
    assert lines("export", at, 24) == ["  near  2MiB/s", "  far   1MiB/s"]


def test_for_programs() -> None:
    at = ChannelProgress("live", 1, 2.6, 3, 4)
    assert document({"near": at}) == {"near": asdict(at) | {"speed": 3}}


@pytest.mark.parametrize("verbose", [True, False])
def test_json_lines(capsys: pytest.CaptureFixture[str], verbose: bool) -> None:
    standing = {"near": ChannelProgress("waiting", 1, 2.0)}
    with progress(Invocation(json_lines=True, verbose=verbose)) as tell:
        assert (tell is not None) is verbose
        if tell is not None:
            tell(Progress("export", "vm", 1, 2, {"near": 1}, standing))
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["channels"] for line in said] == ([document(standing)] if verbose else [])


def test_nothing_without_a_terminal_or_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    with progress(Invocation()) as tell:
        assert tell is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(Invocation(quiet=True)) as tell:
        assert tell is None


def test_a_real_export_says_how_its_destinations_stand_and_what_memory_it_took(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "disk.img").write_bytes(os.urandom(4 * MiB))
    place.run("init", "--to", "near=repo", "--to", "far=repo2")
    done = place.run("export", "disk.img", "--json", "-v")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    standing = [event["channels"] for event in events if event["type"] == "progress"]
    assert standing
    assert all(
        set(channels) == {"near", "far"} and set(channels["far"]) == {"state", "bytes", "speed", "queued", "lag"} for channels in standing
    )
    assert re.search(r"memory in flight: [0-9.]+[KM]iB at most, of 256MiB", done.stderr)


SHOW = """
import sys
from snapferry.cli.bars import progress_of_many
from snapferry.cli.invocation import Invocation
from snapferry.cli.progress import progress
from snapferry.types import ChannelProgress, MiB, Progress

operation, places, exports = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
standing = {f"place{n}": ChannelProgress("live", MiB, 2.0 * MiB, 4 * MiB, 3 * MiB) for n in range(places)}

def show(tell):
    for n in range(max(exports, 1)):
        tell(Progress(operation, f"vm-{n}/root", 50 * MiB, 100 * MiB, {}, standing))
    sys.stdin.readline()

if exports:
    with progress_of_many(Invocation(), exports) as (tell, end):
        show(tell)
else:
    with progress(Invocation()) as tell:
        show(tell)
"""


@pytest.mark.parametrize(
    ("columns", "arguments", "seen"),
    [
        (100, ("export", 2, 0), ["export vm-0/root", "place1  2MiB/s  lag 3MiB  queue 4MiB  live"]),
        (40, ("export", 2, 0), ["export vm-0/root  50 %", "place1  2MiB/s  lag 3MiB  queue 4MiB"]),
        (100, ("restore", 2, 0), ["restore vm-0/root", "place1  2MiB/s  50 %  1MiB"]),
        (100, ("export", 12, 0), ["place6", "and 5 more, 10MiB/s"]),
        (100, ("export", 2, 64), ["export 0 of 64 done", "place1  128MiB/s  lag 192MiB  queue 256MiB  live"]),
    ],
    ids=["wide", "narrow", "restore", "many places", "many exports"],
)
def test_on_a_terminal(tmp_path: Path, columns: int, arguments: tuple[object, ...], seen: list[str]) -> None:
    command = [sys.executable, "-c", SHOW, *map(str, arguments)]
    with Terminal(command, env=os.environ | {"LINES": "24"}, cwd=tmp_path, columns=columns) as terminal:
        terminal.wait_for(lambda text: all(part in _plain(text) for part in seen))
        assert max(map(len, _plain(terminal.seen).splitlines())) <= columns
        terminal.type("\n")
        assert terminal.end() == 0


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
