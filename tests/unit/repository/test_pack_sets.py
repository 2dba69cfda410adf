"""Which packs a snapshot names: a cache that is right or says nothing."""

from __future__ import annotations

from pathlib import Path

from snapferry.repository.pack_sets import PackSets

PACKS = bytes(range(64))


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    sets = PackSets(tmp_path / "deep" / "packs")
    assert sets.load("v", "a" * 32) is None
    sets.store("v", "a" * 32, PACKS)
    sets.store("w/x", "b" * 32, b"")
    assert sets.load("v", "a" * 32) == PACKS
    assert sets.load("w/x", "b" * 32) == b""
    assert sets.load("w/x", "a" * 32) is None


def test_older_ones_of_the_volume_are_forgotten(tmp_path: Path) -> None:
    sets = PackSets(tmp_path)
    for number in range(4):
        sets.store("v", f"{number:032}", PACKS, keep=f"{number - 1:032}")
    assert [sets.load("v", f"{number:032}") is not None for number in range(4)] == [False, False, True, True]


def test_any_byte_torn_or_altered_and_it_is_not_known(tmp_path: Path) -> None:
    sets = PackSets(tmp_path)
    sets.store("v", "a" * 32, PACKS)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    good = file.read_bytes()
    for at in range(len(good)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert sets.load("v", "a" * 32) is None
        file.write_bytes(good[:at])
        assert sets.load("v", "a" * 32) is None
    file.write_bytes(good)
    assert sets.load("v", "a" * 32) == PACKS


def test_a_place_that_cannot_be_used_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sets = PackSets(tmp_path / "file")
    sets.store("v", "a" * 32, PACKS)
    assert sets.load("v", "a" * 32) is None
