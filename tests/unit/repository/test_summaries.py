"""Runs of summaries: what goes in comes out, in order, and nothing else does."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry import _core
from snapferry.errors import ObjectDamaged
from snapferry.repository.summaries import Run, Summaries, absorbed, summarize
from snapferry.types import Roots, Snapshot, SnapshotSummary

KEYRING = _core.Keyring.generate()


def summary(number: int, volume: str = "v", generation: int = 1, tags: dict[str, str] | None = None) -> SnapshotSummary:
    created = datetime(2026, 1, 1, 1, 2, 3, number % 1000, tzinfo=UTC)
    return SnapshotSummary(
        f"{number:032x}", volume, generation, created, 1 << 40, 1 << 18, 5, None if number % 2 else "ab" * 16, tags or {}
    )


# Names that sort oddly, need escapes, or begin with each other.
volumes = st.sampled_from(["v", "v/", "v/w", "V", "w", "", 'a"b', "a\\", "é", "\U0001f600", "\n", "v\x00"])
summaries = st.lists(
    st.tuples(st.integers(0, 1 << 127), volumes, st.integers(0, 9), st.dictionaries(st.text(), st.text(), max_size=2)),
    max_size=60,
    unique_by=lambda row: row[0],
).map(lambda rows: [summary(*row) for row in rows])


def in_order(found: list[SnapshotSummary]) -> list[SnapshotSummary]:
    return sorted(found, key=lambda it: (it.volume, it.generation, it.id))


@given(summaries, st.integers(1, 4))
def test_runs_say_what_went_into_them(given_: list[SnapshotSummary], count: int) -> None:
    known = Summaries(Run.of(given_[number::count]) for number in range(count))
    assert known.all() == in_order(given_)
    assert known.ids() == {it.id for it in given_}
    for volume in {it.volume for it in given_} | {"none", "v0", "~"}:
        own = [it for it in in_order(given_) if it.volume == volume]
        assert known.of_volume(volume) == own
        assert list(known.newest_first(volume)) == own[::-1]


@given(summaries)
def test_a_sealed_run_opens_as_it_was(given_: list[SnapshotSummary]) -> None:
    run = Run.of(given_)
    opened = Run.open(KEYRING, run.seal(KEYRING), "the catalog")
    assert opened.all() == run.all()
    assert len(opened) == len(given_)


def test_a_run_of_which_a_byte_has_rotted_does_not_open() -> None:
    sealed = Run.of([summary(number, f"v{number}") for number in range(20)]).seal(KEYRING)
    for position in range(0, len(sealed), 37):
        rotten = bytearray(sealed)
        rotten[position] ^= 1
        with pytest.raises(ObjectDamaged, match="the catalog"):
            Run.open(KEYRING, bytes(rotten), "the catalog")
    for wrong in (b"", sealed[:-1], sealed + b"x"):
        with pytest.raises(ObjectDamaged):
            Run.open(KEYRING, wrong, "the catalog")
    with pytest.raises(ObjectDamaged):
        Run.open(_core.Keyring.generate(), sealed, "the catalog")


def test_nothing_else_that_the_key_has_sealed_is_taken_for_a_run() -> None:
    for kind, name in (("segment", "index"), ("damaged", "summaries")):
        with pytest.raises(ObjectDamaged):
            Run.open(KEYRING, KEYRING.seal(kind, name, b"\n"), "the catalog")


def test_what_is_in_two_runs_is_there_once() -> None:
    first, both, last = summary(1), summary(2, generation=2), summary(3, generation=3)
    known = Summaries([Run.of([first, both]), Run.of([both, last]), Run.of([])])
    assert known.all() == known.of_volume("v") == [first, both, last]
    assert list(known.newest_first("v")) == [last, both, first]
    assert Summaries().all() == []
    assert list(Summaries().newest_first("v")) == []


def test_a_summary_is_what_its_snapshot_says() -> None:
    snapshot = Snapshot(
        "ab" * 16, "v", 3, datetime(2026, 1, 1, tzinfo=UTC), 10, 1 << 18, Roots(0, None, None), "cd" * 16, {"k": "v"}, (), 7
    )
    made = summarize(snapshot)
    for name in SnapshotSummary.__struct_fields__:
        assert getattr(made, name) == getattr(snapshot, name)


@given(st.lists(st.integers(1, 50), max_size=40))
def test_runs_stay_few(added: list[int]) -> None:
    sizes: dict[str, int] = {}
    for number, size in enumerate(added):
        for name in absorbed(sizes, size):
            size += sizes.pop(name)
        sizes[str(number)] = size
    assert sum(sizes.values()) == sum(added)
    ordered = sorted(sizes.values())
    assert all(larger > smaller for smaller, larger in pairwise(ordered))
    assert len(sizes) <= max(1, sum(added)).bit_length() + 1
