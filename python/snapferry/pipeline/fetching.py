"""Ranges of packs from whichever replica answers best, and from the next one where it fails or lies."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from snapferry.destination import Destination
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.repository import names
from snapferry.repository.objects import SMALL_OBJECT_LIMIT
from snapferry.transport import ReplicaBoard
from snapferry.types import Damage


class NoReplica(Exception):
    """No replica is left to ask for a range.

    Attributes:
        answered: some replica answered, and had the range missing or damaged; so waiting does not bring it back.
        failures: why each replica could not serve.
    """

    def __init__(self, pack: bytes, failures: Mapping[str, DestinationError]) -> None:
        super().__init__(f"no replica has {names.pack(pack)} in good order")
        self.failures = dict(failures)
        self.answered = not failures or any(isinstance(error, (ObjectDamaged, ObjectNotFound)) for error in failures.values())


class Attempts:
    """Who has been asked for one range, and what came of it."""

    def __init__(self, pack: bytes) -> None:
        self.pack = pack
        self.failures: dict[str, DestinationError] = {}


class Fetcher:
    """Reads ranges of packs for one operation, and keeps account of it.

    Arguments:
        replicas: the destinations that may be read from, by name.
        board: what is known of their speed.
        first: names of those likeliest to hold the packs; the others are asked after them.

    Attributes:
        fetched: bytes that came from each destination.
        failovers: how often a second replica had to be asked.
    """

    def __init__(self, replicas: Mapping[str, Destination], board: ReplicaBoard, first: Iterable[str] | None = None) -> None:
        self._replicas = dict(replicas)
        self._board = board
        self._first = frozenset(self._replicas if first is None else first)
        self._dead: set[str] = set()
        self._damage: dict[tuple[str, str], Damage] = {}
        self._missing: dict[bytes, set[str]] = {}
        self.fetched: dict[str, int] = dict.fromkeys(self._replicas, 0)
        self.failovers = 0

    @property
    def damage(self) -> list[Damage]:
        """Objects that were missing or broken, each once for each destination."""
        return list(self._damage.values())

    async def read(self, attempts: Attempts, offset: int, buffer: memoryview) -> str:
        """Fills ``buffer`` from the best replica that was not yet asked, and returns its name; goes on to the next where one fails.

        Raises:
            NoReplica: there is none left.
        """
        while True:
            try:
                name = self._next(attempts, len(buffer))
            except NoReplica as error:
                if not error.answered:
                    error.answered = await self._somebody_is_there(attempts)
                raise
            if attempts.failures:
                self.failovers += 1
            try:
                await self._replicas[name].read_into(names.pack(attempts.pack), offset, buffer)
            except DestinationError as error:
                self.reject(attempts, name, error)
            else:
                self.fetched[name] += len(buffer)
                return name

    def reject(self, attempts: Attempts, name: str, error: DestinationError) -> None:
        """Notes that ``name`` did not serve: an error, or bytes that are not what they should be. It is not asked for this range again."""
        attempts.failures[name] = error
        if isinstance(error, (ObjectDamaged, ObjectNotFound)):
            key = names.pack(attempts.pack)
            self._damage.setdefault((name, key), Damage(name, key, str(error)))
            if isinstance(error, ObjectNotFound):
                self._missing.setdefault(attempts.pack, set()).add(name)
        else:
            self._dead.add(name)

    def forgive(self, named: Container[bytes]) -> None:
        """Packs that are missing and that the index does not name are no damage: a prune has copied what was needed of them, and deleted them."""
        for pack in [pack for pack in self._missing if pack not in named]:
            for name in self._missing.pop(pack):
                del self._damage[name, names.pack(pack)]

    async def _somebody_is_there(self, attempts: Attempts) -> bool:
        """Whether one of those that failed answers otherwise: then it is this object that cannot be read there, a bad sector say."""
        there = False
        for name in attempts.failures:
            try:
                await self._replicas[name].read(names.CONFIG, SMALL_OBJECT_LIMIT)
            except DestinationError:
                continue
            there = True
            self._dead.discard(name)
            key = names.pack(attempts.pack)
            self._damage.setdefault((name, key), Damage(name, key, str(attempts.failures[name])))
        return there

    def _next(self, attempts: Attempts, size: int) -> str:
        left = [name for name in self._replicas if name not in attempts.failures]
        for choice in (self._first - self._dead, self._replicas.keys() - self._dead, self._first, self._replicas.keys()):
            candidates = [name for name in left if name in choice]
            if candidates:
                return self._board.choose(candidates, size)
        raise NoReplica(attempts.pack, attempts.failures)
