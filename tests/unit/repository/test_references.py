"""What names of snapshots mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from snapferry.errors import DestinationError, SnapshotNotFound
from snapferry.repository.references import resolve


@dataclass(frozen=True)
class Made:
    id: str
    created: datetime


@dataclass
class Volume:
    """One volume ``v`` with these snapshots, the latest first."""

    made: list[Made]
    broken: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, DestinationError] = field(default_factory=dict)

    def newest_first(self, volume: str) -> Iterator[Made]:
        return iter(self.made if volume == "v" else ())

    def beginning_with(self, prefix: str) -> Iterable[str]:
        return [it.id for it in self.made if it.id.startswith(prefix)]

    def volumes(self) -> Iterable[str]:
        return ["v"]


def at(hour: int, minute: int, second: int, microsecond: int) -> datetime:
    return datetime(2026, 11, 25, hour, minute, second, microsecond, tzinfo=UTC)


KNOWN = Volume([Made("c" * 32, at(1, 28, 37, 900_000)), Made("b" * 32, at(1, 28, 36, 578_000)), Made("a" * 32, at(0, 59, 59, 999_999))])


@pytest.mark.parametrize(
    ("time", "meant"),
    [
        ("2026-11-25T01:28:37Z", "c"),
        ("2026-11-25T01:28:37", "c"),
        ("2026-11-25 01:28:37+00:00", "c"),
        ("2026-11-25T02:28:37+01:00", "c"),
        ("2026-11-25T01:28:37.5Z", "b"),
        ("2026-11-25T01:28:36Z", "b"),
        ("2026-11-25T01:28:35Z", "a"),
        ("2026-11-25T01:28", "c"),
        ("2026-11-25T01:27", "a"),
        ("2026-11-25T00:59:59", "a"),
        ("20261125T012836", "b"),
        ("2026-11-26", "c"),
    ],
)
def test_a_time_means_all_of_the_second_or_minute_it_names(time: str, meant: str) -> None:
    """``list`` prints seconds: what it printed names the snapshot that it was printed for."""
    assert resolve(f"v@{time}", KNOWN) == meant * 32


@pytest.mark.parametrize("time", ["2026-11-25", "2026-11-25T00:59:58", "2026-11-25T00:58"])
def test_before_the_first_there_is_none(time: str) -> None:
    with pytest.raises(SnapshotNotFound, match="its first is from 2026-11-25T00:59:59Z"):
        resolve(f"v@{time}", KNOWN)
