"""Maps of changes: what storage systems print, and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.errors import ConfigurationError
from snapferry.source import changed as changed_module
from snapferry.source import parse_change_map, read_change_map


def extent(offset: int, length: int, exists: Any = "true") -> dict[str, Any]:
    return {"offset": offset, "length": length, "exists": exists}


def test_as_rbd_prints_it() -> None:
    text = b'[{"offset":0,"length":4194304,"exists":"true"},{"offset":8388608,"length":100,"exists":"false"}]'
    found = parse_change_map(text)
    assert (found.parent, found.changed, found.zeros, found.end) == (None, ((0, 4194304),), ((8388608, 100),), 8388708)
    assert parse_change_map(b" []\n").end == 0


def test_one_that_names_its_parent() -> None:
    found = parse_change_map(json.dumps({"parent": "vm~1", "extents": [extent(5, 10), extent(15, 5, False), extent(20, 0)]}).encode())
    assert (found.parent, found.changed, found.zeros) == ("vm~1", ((5, 10),), ((15, 5),))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "{}",
        "7",
        '"text"',
        "[[0, 5]]",
        '[{"offset": 0}]',
        '[{"offset": -1, "length": 5, "exists": "true"}]',
        '[{"offset": 0, "length": -5, "exists": "true"}]',
        '[{"offset": 0, "length": 1.5, "exists": "true"}]',
        '[{"offset": 0, "length": 5, "exists": "maybe"}]',
        '[{"offset": 9223372036854775808, "length": 5}]',
        '[{"offset": 0, "length": 5, "exists": "true"}',
        '{"parent": "", "extents": []}',
        '{"extents": []}',
        '{"parent": "v", "extents": [], "size": 5}',
        # What qemu-img map prints has such keys as well, and another meaning.
        '[{"start": 0, "length": 65536, "depth": 0, "zero": false, "data": true, "offset": 0}]',
        "[" * 100_000,
    ],
)
def test_what_is_no_map(text: str) -> None:
    with pytest.raises(ConfigurationError, match="the-map: not what `rbd diff --format json` prints") as caught:
        parse_change_map(text.encode(), "the-map")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("extents", [[(5, 10), (10, 1)], [(5, 10), (5, 10)], [(50, 1), (5, 1)]])
def test_overlapping_and_unsorted_extents(extents: list[tuple[int, int]]) -> None:
    with pytest.raises(ConfigurationError, match="extent 1 begins at byte .* ascending order and apart"):
        parse_change_map(json.dumps([extent(*pair) for pair in extents]).encode())


@given(st.binary(max_size=200) | st.text(alphabet='[]{}":,offsetlnghxiru0123456789 ', max_size=200).map(str.encode))
def test_hostile_text_is_refused_and_nothing_else(text: bytes) -> None:
    with contextlib.suppress(ConfigurationError):
        parse_change_map(text)


def test_past_the_end() -> None:
    found = parse_change_map(json.dumps([extent(0, 10), extent(90, 10, "false")]).encode())
    found.check_within(100, 0)
    found.check_within(10, 100)  # Zeros where a larger parent had bytes.
    with pytest.raises(ConfigurationError, match="reaches to byte 100, and the source has 99 bytes"):
        found.check_within(99, 99)
    with pytest.raises(ConfigurationError, match="the source has 9 bytes"):
        found.check_within(9, 100)


def test_from_a_file_and_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps([extent(0, 7)]).encode()
    (tmp_path / "map").write_bytes(text)
    assert read_change_map(tmp_path / "map").changed == ((0, 7),)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert read_change_map("-").changed == ((0, 7),)
    for path, words in (("missing", "No such file"), (".", "directory")):
        with pytest.raises(ConfigurationError, match=words):
            read_change_map(tmp_path / path)
    monkeypatch.setattr(changed_module, "LIMIT", 20)
    with pytest.raises(ConfigurationError, match="longer than"):
        read_change_map(tmp_path / "map")


def test_many_extents_are_no_trouble() -> None:
    extents = [extent(number * 8192, random.Random(number).randrange(1, 8192)) for number in range(20_000)]
    assert len(parse_change_map(json.dumps(extents).encode()).changed) == 20_000
