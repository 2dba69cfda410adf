"""Ranges of packs from the replicas, all of them at once: what an operation reads through."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from snapferry.destination import Destination
from snapferry.pipeline.account import Account, NoReplica
from snapferry.pipeline.leavings import Leavings
from snapferry.pipeline.racing import Check, Memory, Race, Spare
from snapferry.transport import HedgeBudget, ReplicaBoard
from snapferry.types import ChannelProgress, Damage

_SMALL = 1 << 20
"""Bytes that no budget needs to know of."""

__all__ = ["Expected", "Fetcher", "Memory", "NoReplica"]


class Fetcher:
    """Reads ranges of packs for one operation, and keeps account of it.

    Arguments:
        replicas: the destinations that may be read from, by name.
        board: what is known of their speed.
        first: names of those likeliest to hold the packs; the others are asked after them.
        costs: by name, what reading costs there, in any unit: then the dearer are asked only for what the cheaper cannot serve.
        lists: by name, the packs that a replica lists, where that is known: one that does not list a pack is asked for it last, and that it
            lacks it is no damage.
    """

    def __init__(
        self,
        replicas: Mapping[str, Destination],
        board: ReplicaBoard,
        first: Iterable[str] | None = None,
        costs: Mapping[str, float] = MappingProxyType({}),
        lists: Mapping[str, Collection[bytes]] = MappingProxyType({}),
    ) -> None:
        self._board = board
        self._account = Account(replicas, board, first, costs, lists)
        self._leavings: Leavings | None = None

    @property
    def fetched(self) -> dict[str, int]:
        """Bytes that came from each destination."""
        return dict(self._account.fetched)

    @property
    def failovers(self) -> int:
        """How often another replica had to be asked because one failed, lied or hung."""
        return self._account.failovers

    @property
    def hedges(self) -> HedgeBudget:
        """What was asked for twice because it was late."""
        return self._account.hedges

    @property
    def damage(self) -> list[Damage]:
        """Objects that were missing or broken, each once for each destination."""
        return self._account.damage

    def channels(self) -> dict[str, ChannelProgress]:
        """How each replica stands."""
        return self._account.channels()

    def forgive(self, named: Container[bytes]) -> None:
        """Packs that are missing and that the index does not name are no damage: a prune has copied what was needed of them, and deleted them."""
        self._account.forgive(named)

    def leave_to(self, leavings: Leavings | None) -> None:
        """From now on, reads that do not end when they are cancelled are left to it; None: they are waited for, as at first."""
        self._leavings = leavings

    async def read(self, pack: bytes, offset: int, length: int, check: Check) -> None:
        """A few bytes that somebody waits for: hands them to ``check`` until some replica's pass.

        Raises:
            NoReplica: no replica has them in good order. What ``check`` raises.
        """

        def spare() -> Memory | None:
            return _memory(length) if length <= _SMALL else None

        await Race(self._account, pack, offset, _memory(length), check, spare, self._leavings, urgent=True).run()

    async def read_extent(self, pack: bytes, offset: int, memory: Memory, check: Check, spare: Spare) -> None:
        """As ``read``, for many bytes among many others.

        Arguments:
            memory: of the length wanted; ``spare`` gives as much again if there is any now. Given back as soon as no read uses it.
        """
        await Race(self._account, pack, offset, memory, check, spare, self._leavings, urgent=False).run()

    @contextmanager
    def expecting(self, size: int) -> Iterator[Expected]:
        """While the block runs, so many bytes will be read, less those that are ``taken``: replicas are chosen with a view to it."""
        expected = Expected(self._board, size)
        try:
            yield expected
        finally:
            expected.taken(expected.left)


class Expected:
    """Bytes that will be asked for soon."""

    def __init__(self, board: ReplicaBoard, size: int) -> None:
        self._board = board
        self.left = size
        board.expect(size)

    def taken(self, size: int) -> None:
        """So many of them are being asked for now."""
        self.left -= size
        self._board.expect(-size)


def _memory(length: int) -> Memory:
    return Memory(memoryview(bytearray(length)), lambda: None)
