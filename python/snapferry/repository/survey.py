"""Which snapshots there are, on which destinations: by their names, and the summaries of those that were read before.

The semantics are those of ``snapshots``; but only the commits are read that this machine has never seen, and the one that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.repository.gathering import together
from snapferry.repository.references import resolve
from snapferry.repository.snapshots import AT_ONCE, Names, bad_copies, read_first_good, read_notes, why_broken
from snapferry.repository.summaries import Run, Summaries, summarize
from snapferry.types import Damage, ListedSnapshot, ListedSummary, SnapshotSummary


@dataclass(slots=True)
class Survey:
    """The snapshots of a repository, as its reachable destinations list them.

    Attributes:
        summaries: of all that are held, and of others that once were.
        fresh: those of them that were read just now.
        held: by destination, the ids it lists and has no note for.
        forgotten: by destination, ids it has a note for, as far as that matters: they are held, or were.
        broken: by id, commits of which no copy is in good order, and why; also those that could not be read, which are ``unread`` too.
        damage: bad copies of commits, and bad notes.
        failures: destinations that could not be listed.
    """

    summaries: Summaries
    fresh: list[SnapshotSummary]
    held: dict[str, set[str]]
    forgotten: dict[str, set[str]]
    broken: dict[str, str] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    failures: dict[str, DestinationError] = field(default_factory=dict)
    unread: dict[str, DestinationError] = field(default_factory=dict)

    def holders(self, snapshot_id: str) -> tuple[str, ...]:
        """The destinations that hold it; none for one that is broken."""
        return () if snapshot_id in self.broken else tuple(name for name, held in self.held.items() if snapshot_id in held)

    def listed(self, volume: str | None = None) -> list[ListedSummary]:
        """The snapshots, of one volume or of all: by volume, generation and id."""
        found = self.summaries.all() if volume is None else self.summaries.of_volume(volume)
        everywhere = set[str]() if not self.held else set.intersection(*self.held.values()) - self.broken.keys()
        all_names = tuple(self.held)
        listed = [ListedSummary(summary, all_names if summary.id in everywhere else self.holders(summary.id)) for summary in found]
        return [item for item in listed if item.destinations]

    def newest_first(self, volume: str) -> Iterator[SnapshotSummary]:
        """The volume's snapshots: by generation, ties by id, the latest first."""
        return (summary for summary in self.summaries.newest_first(volume) if self.holders(summary.id))

    def beginning_with(self, prefix: str) -> set[str]:
        """The ids that begin so."""
        return {item for held in self.held.values() for item in held if item.startswith(prefix)} - self.broken.keys()

    def volumes(self) -> list[str]:
        """The names of all volumes, in order."""
        return sorted({item.snapshot.volume for item in self.listed()})

    async def find(self, keyring: _core.Keyring, replicas: Mapping[str, Destination], reference: str) -> ListedSnapshot:
        """The snapshot that ``reference`` means, by its commit, read now.

        One whose commit turns out to be in good order nowhere is no snapshot: then the name means another, or nothing.

        Raises:
            SnapshotNotFound: there is none, or more than one. DestinationError: it could not be read, which says nothing of its commit.
        """
        while True:
            snapshot_id = resolve(reference, self)
            if (found := await self._read(keyring, replicas, snapshot_id)) is not None:
                return found
            if snapshot_id in self.unread:
                raise self.unread[snapshot_id]

    async def latest(
        self, keyring: _core.Keyring, replicas: Mapping[str, Destination], volume: str, among: Iterable[str] | None = None
    ) -> ListedSnapshot | None:
        """The volume's latest snapshot whose commit can be read now, or None if it has none; of those that some of ``among`` hold, if given."""
        names = set(self.held if among is None else among)
        while (
            newest := next((item for item in self.newest_first(volume) if not names.isdisjoint(self.holders(item.id))), None)
        ) is not None:
            if (found := await self._read(keyring, replicas, newest.id)) is not None:
                return found
        return None

    async def _read(self, keyring: _core.Keyring, replicas: Mapping[str, Destination], snapshot_id: str) -> ListedSnapshot | None:
        """The commit from whoever holds it; None if nobody gives it in good order, which is noted."""
        holders = self.holders(snapshot_id)
        snapshot, failures = await read_first_good(keyring, replicas, snapshot_id, holders)
        self.note(snapshot_id, None if snapshot is None else summarize(snapshot), failures)
        return None if snapshot is None else ListedSnapshot(snapshot, self.holders(snapshot_id))

    def note(self, snapshot_id: str, summary: SnapshotSummary | None, failures: Mapping[str, DestinationError]) -> None:
        """What came of reading a commit: its summary, if anybody gave it in good order, and what went wrong, by destination."""
        self.damage += bad_copies(snapshot_id, failures)
        if summary is None:
            self.broken[snapshot_id] = why_broken(failures)
            passing = [error for error in failures.values() if not isinstance(error, (ObjectDamaged, ObjectNotFound))]
            if passing:
                self.unread[snapshot_id] = passing[0]
            return
        for name, error in failures.items():
            if isinstance(error, ObjectNotFound):
                self.held[name].discard(snapshot_id)


async def take_survey(
    keyring: _core.Keyring, replicas: Mapping[str, Destination], listed: Names, known: Summaries, seen: Mapping[str, AbstractSet[str]]
) -> Survey:
    """Reads the commits that are listed and not ``known``, one good copy of each, and the notes that matter.

    Arguments:
        listed: what ``replicas`` list; it is taken over.
        known: summaries of commits that were read before.
        seen: by destination, the ids that were ever seen there.
    """
    asked = {name: ids & (listed.held[name] | seen.get(name, set())) if ids else ids for name, ids in listed.noted.items()}
    forgotten, damage = await read_notes(keyring, replicas, asked)
    for name, ids in forgotten.items():
        listed.held[name] -= ids
    survey = Survey(known, [], listed.held, forgotten, damage=damage, failures=listed.failures)
    unknown = sorted(set[str]().union(*listed.held.values()) - known.ids())
    for start in range(0, len(unknown), AT_ONCE):
        await together(_summarize(survey, keyring, replicas, snapshot_id) for snapshot_id in unknown[start : start + AT_ONCE])
    if survey.fresh:
        survey.summaries = Summaries([*known.runs, Run.of(survey.fresh)])
    return survey


async def _summarize(survey: Survey, keyring: _core.Keyring, replicas: Mapping[str, Destination], snapshot_id: str) -> None:
    snapshot, failures = await read_first_good(keyring, replicas, snapshot_id, survey.holders(snapshot_id))
    summary = None if snapshot is None else summarize(snapshot)
    survey.note(snapshot_id, summary, failures)
    if summary is not None:
        survey.fresh.append(summary)
