"""Summaries of snapshots by the hundred thousand: what a listing shows and a name is looked up in, kept on this machine.

A commit never changes, so its summary is made once, when the commit has been read and authenticated. Summaries lie in sorted runs, as in a
log-structured merge tree. A run is sealed as a whole with the repository's key: it opens as it was or not at all, whatever became of the file
it lies in, and a volume's snapshots are found in it by bisection, without decoding the others. A snapshot that is read, restored or built on
is taken from its commit all the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import msgspec

from snapferry import _core
from snapferry.repository.small import open_object
from snapferry.types import Snapshot, SnapshotSummary

_KIND, _NAME = "segment", "summaries"
_ID = 32
_GROWTH = 2

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(SnapshotSummary)


def summarize(snapshot: Snapshot) -> SnapshotSummary:
    """What a listing shows of it."""
    return SnapshotSummary(
        snapshot.id,
        snapshot.volume,
        snapshot.generation,
        snapshot.created,
        snapshot.size,
        snapshot.block_size,
        snapshot.bytes_new,
        snapshot.parent,
        snapshot.tags,
        snapshot.placement,
    )


def by_age(summary: SnapshotSummary) -> tuple[int, str]:
    """The order of one volume's snapshots: by generation, ties by id."""
    return summary.generation, summary.id


def _in_order(summary: SnapshotSummary) -> tuple[str, int, str]:
    return summary.volume, summary.generation, summary.id


class Run:
    """Summaries by volume, generation and id, in one immutable block of bytes: a line of all ids, then a line of JSON for each."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._first = data.index(b"\n") + 1

    @classmethod
    def of(cls, summaries: Iterable[SnapshotSummary]) -> Run:
        """A run of these, in any order."""
        ordered = sorted(summaries, key=_in_order)
        lines = ["".join(summary.id for summary in ordered).encode(), *map(_encode, ordered)]
        return cls(b"\n".join(lines) + b"\n")

    @classmethod
    def open(cls, keyring: _core.Keyring, sealed: bytes, where: str) -> Run:
        """What ``seal`` made; ``ObjectDamaged`` if a bit of it is another, or it was sealed with another key."""
        return cls(open_object(keyring, _KIND, _NAME, sealed, where))

    def seal(self, keyring: _core.Keyring) -> bytes:
        """To be kept wherever it may rot."""
        return keyring.seal(_KIND, _NAME, self._data)

    def __len__(self) -> int:
        """How many there are."""
        return (self._first - 1) // _ID

    def ids(self) -> list[str]:
        """The snapshots' ids."""
        ids = self._data[: self._first - 1].decode()
        return [ids[at : at + _ID] for at in range(0, len(ids), _ID)]

    def all(self) -> list[SnapshotSummary]:
        """Every summary, in order."""
        return self._decode(self._first, len(self._data))

    def of_volume(self, volume: str) -> list[SnapshotSummary]:
        """The volume's, oldest first."""
        return self._decode(self._bound(volume, after=False), self._bound(volume, after=True))

    def newest_first(self, volume: str) -> Iterator[SnapshotSummary]:
        """The volume's, each decoded when it is asked for."""
        begin, end = self._bound(volume, after=False), self._bound(volume, after=True)
        while end > begin:
            start = (self._data.rfind(b"\n", begin, end - 1) + 1) or begin
            yield _decoder.decode(memoryview(self._data)[start : end - 1])
            end = start

    def _decode(self, begin: int, end: int) -> list[SnapshotSummary]:
        return _decoder.decode_lines(memoryview(self._data)[begin:end])

    def _bound(self, volume: str, *, after: bool) -> int:
        """Where the first line begins that is not before the volume's own; ``after``: that is behind them."""
        low, high = self._first, len(self._data)
        while low < high:
            start = (self._data.rfind(b"\n", low, (low + high) // 2) + 1) or low
            end = self._data.index(b"\n", start)
            found = _decoder.decode(memoryview(self._data)[start:end]).volume
            if found < volume or (after and found == volume):
                low = end + 1
            else:
                high = start
        return low


class Summaries:
    """Several runs as one. A snapshot that is in more than one, because two processes listed it at once, is there once."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.runs: Sequence[Run] = tuple(run for run in runs if len(run))

    def ids(self) -> set[str]:
        """Of all snapshots."""
        return set(chain.from_iterable(run.ids() for run in self.runs))

    def all(self) -> list[SnapshotSummary]:
        """Every summary, by volume, generation and id."""
        if len(self.runs) == 1:
            return self.runs[0].all()
        return _once(sorted(chain.from_iterable(run.all() for run in self.runs), key=_in_order))

    def of_volume(self, volume: str) -> list[SnapshotSummary]:
        """The volume's, oldest first."""
        return _once(sorted(chain.from_iterable(run.of_volume(volume) for run in self.runs), key=by_age))

    def newest_first(self, volume: str) -> Iterator[SnapshotSummary]:
        """The volume's, each decoded when it is asked for."""
        last = ""
        for summary in heapq.merge(*(run.newest_first(volume) for run in self.runs), key=by_age, reverse=True):
            if summary.id != last:
                last = summary.id
                yield summary


def absorbed(sizes: Mapping[str, int], size: int) -> list[str]:
    """Which runs a new one of ``size`` snapshots is to be merged with.

    Of what is left each is more than twice as large as the next, so that there are few, and a summary is written again only as often as the
    number of its run's doublings (O'Neil and others, "The log-structured merge-tree", 1996).
    """
    merged = []
    for name, other in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        if other > _GROWTH * size:
            break
        merged.append(name)
        size += other
    return merged


def _once(ordered: list[SnapshotSummary]) -> list[SnapshotSummary]:
    """Without those that follow themselves."""
    before = chain([None], ordered)
    return [summary for summary, previous in zip(ordered, before, strict=False) if previous is None or previous.id != summary.id]
