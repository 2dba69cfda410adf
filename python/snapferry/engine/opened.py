"""An open repository: what is opened and closed with it, what belongs to it, and the rates it keeps to."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from snapferry.config import Config, format_size
from snapferry.engine.destinations import Destinations
from snapferry.engine.keys import Keys
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.errors import ConfigurationError

logger = logging.getLogger("snapferry")


class OpenRepository:
    """What ``Repository`` is beside its commands; it says how entering it may fail."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._opened: tuple[Membership, Memory] | None = None

    async def __aenter__(self) -> Self:
        """Opens the destinations and the keys."""
        membership = await Membership.open(self._config)
        self._opened = membership, Memory(membership)
        for error in (*membership.members.failures.values(), *membership.members.unwritable.values()):
            logger.warning("%s", error)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes everything."""
        await self.close()

    async def close(self) -> None:
        """Releases destinations, threads and the catalog. Nothing may be called after it; a second call does nothing."""
        opened, self._opened = self._opened, None
        if opened is not None:
            membership, memory = opened
            used = membership.tools.budget.statistics()
            if used.peak:
                logger.debug("memory in flight: %s at most, of %s", format_size(used.peak), format_size(used.total))
            try:
                await memory.close()
            finally:
                await membership.close()

    @property
    def id(self) -> str:
        """The repository's id, 32 hex digits."""
        return self._membership.members.repository_id

    @property
    def keys(self) -> Keys:
        """The keys that open the repository: listed, added, removed, and renewed."""
        return Keys(self._membership)

    @property
    def destinations(self) -> Destinations:
        """The places that hold the repository: listed, added, tried out, and removed. ``sync`` copies between them."""
        return Destinations(*self._both)

    @property
    def limit_rate(self) -> float | None:
        """Bytes a second that may go to all destinations together, and as many that may come from them; None for no limit.

        May be set at any time, also while something runs; it begins as ``engine.limit_rate`` says.
        """
        return self._membership.limits.rate

    @limit_rate.setter
    def limit_rate(self, rate: float | None) -> None:
        _check_rate(rate)
        self._membership.limits.rate = rate

    def limit_rate_of(self, destination: str) -> float | None:
        """Bytes a second that may go to one destination, and as many from it, beside what all together may; None for no limit."""
        return self._membership.limits.rate_of(self._config.destination(destination).name)

    def set_limit_rate(self, destination: str | None, rate: float | None) -> None:
        """Sets the limit of a destination, or of all together (None), for what is under way too.

        Arguments:
            destination: its name. rate: bytes a second; None for no limit.

        Raises:
            ConfigurationError: no destination is called so, or the rate is not above 0.
        """
        if destination is None:
            self.limit_rate = rate
            return
        _check_rate(rate)
        self._membership.limits.set_rate_of(self._config.destination(destination).name, rate)

    def take_limits(self, config: Config) -> None:
        """Limits as another reading of the configuration has them, for what is under way too; nothing else of it counts.

        Destinations that are new in it are passed over; those that are gone from it keep their limit.
        """
        self._membership.limits.rate = config.engine.limit_rate
        for name, rate in config.rates().items():
            if any(destination.name == name for destination in self._config.destinations):
                self._membership.limits.set_rate_of(name, rate)

    @property
    def _both(self) -> tuple[Membership, Memory]:
        if self._opened is None:
            raise ConfigurationError("the repository is not open: use it as `async with open_repository(…) as repository`")
        return self._opened

    @property
    def _membership(self) -> Membership:
        return self._both[0]


def _check_rate(rate: float | None) -> None:
    if rate is not None and rate <= 0:
        raise ConfigurationError(f"{rate} bytes a second would never end")
