"""What a user's name for a snapshot means: a volume (its latest), ``volume~N``, ``volume@TIME``, or 8 or more digits of an id."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from snapferry.errors import DestinationError, SnapshotNotFound

FULL_ID = re.compile(r"[0-9a-f]{32}")
ID_PREFIX = re.compile(r"[0-9a-f]{8,32}")
_BACK = re.compile(r"(?P<volume>[A-Za-z0-9._/-]+)~(?P<back>[0-9]{1,9})")
_DATED = re.compile(r"(?P<volume>[A-Za-z0-9._/-]+)@(?P<time>.+)")
_CLOCK = re.compile(r"[T ][0-9]{2}:?[0-9]{2}(?P<second>:?[0-9]{2}(?P<fraction>[.,][0-9]+)?)?")
_NAMED = 5


class Dated(Protocol):
    """What names are told apart by."""

    @property
    def id(self) -> str:
        """32 hex digits."""

    @property
    def created(self) -> datetime:
        """When the snapshot was begun."""


D_co = TypeVar("D_co", bound=Dated, covariant=True)


class Known(Protocol[D_co]):
    """The snapshots among which names are looked up."""

    @property
    def broken(self) -> Mapping[str, str]:
        """By id, commits of which no copy is in good order, and why."""

    @property
    def failures(self) -> Mapping[str, DestinationError]:
        """Destinations that could not be asked."""

    def newest_first(self, volume: str) -> Iterator[D_co]:
        """The volume's snapshots: by generation, ties by id, the latest first."""

    def beginning_with(self, prefix: str) -> Iterable[str]:
        """The ids that begin so."""

    def volumes(self) -> Iterable[str]:
        """The names of all volumes."""


def resolve(reference: str, known: Known[Dated]) -> str:
    """The id of the snapshot that ``reference`` means. A volume's name goes before an id.

    Raises:
        SnapshotNotFound: there is none, or more than one.
    """
    back = _BACK.fullmatch(reference)
    volume, steps = (back["volume"], int(back["back"])) if back else (reference, 0)
    passed = 0
    for item in known.newest_first(volume):
        if passed == steps:
            return item.id
        passed += 1
    if passed:
        raise SnapshotNotFound(f"volume {volume} has {passed} snapshots; there is no {reference}")
    dated = _DATED.fullmatch(reference)
    if dated and next(known.newest_first(dated["volume"]), None) is not None:
        return _latest_at(known, dated["volume"], dated["time"])
    if ID_PREFIX.fullmatch(reference):
        found = sorted(known.beginning_with(reference))
        if len(found) == 1:
            return found[0]
        if found:
            more = ", …" if len(found) > _NAMED else ""
            raise SnapshotNotFound(f"{reference} is ambiguous: {len(found)} snapshots begin with it ({', '.join(found[:_NAMED])}{more})")
        broken = [f"snapshots/{key}: {reason}" for key, reason in known.broken.items() if key.startswith(reference)]
        if broken:
            raise SnapshotNotFound(
                f"no snapshot {reference} can be used: its commit is damaged on every destination that has it: {'; '.join(broken)}"
            )
    raise SnapshotNotFound(f"no snapshot or volume is called {reference!r}{_hint(reference, known)}")


def _until_the_end_of(text: str) -> timedelta:
    """From a time to the end of the second or minute that it names, so that a time as it was printed means the snapshot it was printed for."""
    clock = _CLOCK.search(text)
    if clock is None or clock["fraction"]:
        return timedelta()
    return timedelta(seconds=1 if clock["second"] else 60) - timedelta(microseconds=1)


def _latest_at(known: Known[Dated], volume: str, text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SnapshotNotFound(f"{text!r} is no time such as 2026-11-22T10:00") from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    time += _until_the_end_of(text)
    first = None
    for item in known.newest_first(volume):
        if item.created <= time:
            return item.id
        first = item.created if first is None else min(first, item.created)
    assert first is not None
    raise SnapshotNotFound(f"volume {volume} has no snapshot from {text} or before; its first is from {first:%Y-%m-%dT%H:%M:%SZ}")


def _hint(reference: str, known: Known[Dated]) -> str:
    close = difflib.get_close_matches(reference, list(known.volumes()), 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if known.broken:
        damaged = "; ".join(f"snapshots/{key}: {why}" for key, why in sorted(known.broken.items())[:_NAMED])
        hint += f" ({len(known.broken)} damaged commits were passed over: {damaged})"
    if known.failures:
        hint += f" (not asked, because they failed: {', '.join(known.failures)})"
    return hint
