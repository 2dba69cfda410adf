"""What one operation knows of its replicas: who may be asked for what, what came from each, and what was found missing or broken."""

from __future__ import annotations

import time
from collections.abc import Collection, Container, Iterable, Mapping

from snapferry.destination import Destination
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.repository import names
from snapferry.repository.objects import SMALL_OBJECT_LIMIT
from snapferry.transport import HedgeBudget, ReplicaBoard, once
from snapferry.types import ChannelProgress, Damage

_LACKS = 1 << 20
"""A rank behind all others."""

_SPEED_SECONDS = 2.0


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


class Account:
    """Of one operation.

    Arguments:
        replicas: the destinations that may be read from, by name.
        board: what is known of their speed.
        first: names of those likeliest to hold the packs; the others are asked after them.
        costs: what reading from each costs: dearer ones are asked after cheaper ones. Empty: that does not matter.
        lists: the packs that a replica lists, where that is known: one that does not list a pack is asked for it last, and that it lacks it is
            no damage.

    Attributes:
        fetched: bytes that came from each destination.
        failovers: how often another replica had to be asked because one failed, lied or hung.
        hedges: what may be asked for twice, and was.
    """

    def __init__(
        self,
        replicas: Mapping[str, Destination],
        board: ReplicaBoard,
        first: Iterable[str] | None,
        costs: Mapping[str, float],
        lists: Mapping[str, Collection[bytes]],
    ) -> None:
        self._lists = lists
        self.board = board
        self._replicas = dict(replicas)
        self._once = {name: once(destination) for name, destination in replicas.items()}
        prices = sorted({costs.get(name, 0.0) for name in replicas})
        likely = frozenset(replicas if first is None else first)
        self._ranks = {name: 2 * prices.index(costs.get(name, 0.0)) + (name not in likely) for name in replicas}
        self._damage: dict[tuple[str, str], Damage] = {}
        self._missing: dict[bytes, set[str]] = {}
        self._told: tuple[float, dict[str, int], dict[str, float]] = (time.monotonic(), dict.fromkeys(replicas, 0), {})
        self.fetched: dict[str, int] = dict.fromkeys(replicas, 0)
        self.failovers = 0
        self.hedges = HedgeBudget()
        for name in replicas:
            board.meter(name)

    @property
    def damage(self) -> list[Damage]:
        """Objects that were missing or broken, each once for each destination."""
        return list(self._damage.values())

    @property
    def alone(self) -> bool:
        """Whether there is one replica only."""
        return len(self._replicas) == 1

    def destination(self, name: str, *, patient: bool) -> Destination:
        """The replica of that name; ``patient``: whose calls are made again where that may help."""
        return self._replicas[name] if patient else self._once[name]

    def ranks(self, pack: bytes, but: Container[str]) -> dict[str, int]:
        """Who may be asked for a range of ``pack``, ``but`` not those; the lowest ranks first."""
        missing = self._missing.get(pack, ())
        lacks = {name for name in self._ranks if name in missing or self._lacks(name, pack)}
        return {name: rank + _LACKS * (name in lacks) for name, rank in self._ranks.items() if name not in but}

    def _lacks(self, name: str, pack: bytes) -> bool:
        """It is known not to list the pack."""
        return name in self._lists and pack not in self._lists[name]

    def came(self, name: str, size: int) -> None:
        """So many bytes came from there."""
        self.fetched[name] += size

    def reject(self, pack: bytes, name: str, error: DestinationError) -> None:
        """Notes that ``name`` did not serve a range of ``pack``: an error, or bytes that are not what they should be."""
        if isinstance(error, ObjectNotFound) and self._lacks(name, pack):
            return
        if isinstance(error, (ObjectDamaged, ObjectNotFound)):
            key = names.pack(pack)
            self._damage.setdefault((name, key), Damage(name, key, str(error)))
            if isinstance(error, ObjectNotFound):
                self._missing.setdefault(pack, set()).add(name)

    def forgive(self, named: Container[bytes]) -> None:
        """Packs that are missing and that the index does not name are no damage: a prune has copied what was needed of them, and deleted them."""
        for pack in [pack for pack in self._missing if pack not in named]:
            for name in self._missing.pop(pack):
                del self._damage[name, names.pack(pack)]

    async def somebody_is_there(self, pack: bytes, failures: Mapping[str, DestinationError]) -> bool:
        """Whether one of those that failed answers otherwise: then it is this object that cannot be read there, a bad sector say."""
        there = False
        for name, error in failures.items():
            try:
                await self._replicas[name].read(names.CONFIG, SMALL_OBJECT_LIMIT)
            except DestinationError:
                continue
            there = True
            key = names.pack(pack)
            self._damage.setdefault((name, key), Damage(name, key, str(error)))
        return there

    def channels(self) -> dict[str, ChannelProgress]:
        """How each replica stands; speeds are of the last seconds."""
        now = time.monotonic()
        since, fetched, speeds = self._told
        if now - since >= _SPEED_SECONDS or not speeds:
            speeds = {name: (count - fetched[name]) / max(now - since, 1e-3) for name, count in self.fetched.items()}
            self._told = now, dict(self.fetched), speeds
        states = self.board.states(self._replicas)
        return {
            state.name: ChannelProgress(
                "waiting" if state.failed else "live", self.fetched[state.name], speeds[state.name], queued=state.queued
            )
            for state in states
        }
