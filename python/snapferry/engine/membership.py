"""The destinations of one configuration: opened, wrapped, and opened as a repository. One that fails does not stop the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack

from snapferry.config import Config, DestinationConfig
from snapferry.destination import Destination, open_destination
from snapferry.engine.secret import read_secret
from snapferry.errors import AccessDenied, DestinationUnreachable, SnapferryError
from snapferry.pipeline.tools import Tools, make_tools
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import IndexCache
from snapferry.repository.opening import Members, admit, check_place, identify, open_members
from snapferry.repository.pack_sets import PackSets
from snapferry.repository.slot_keeping import refresh
from snapferry.transport import CALL_SECONDS, Limits, ReplicaBoard, with_deadline, with_retry
from snapferry.types import MiB, Preference

_EXTENT = 8 * MiB


async def open_all(
    configs: Iterable[DestinationConfig], board: ReplicaBoard, limits: Limits, stack: AsyncExitStack, *, writable: bool
) -> tuple[dict[str, Destination], dict[str, SnapferryError]]:
    """Opens destinations side by side, with retries, measured, and within the limits: by name those that opened, and why the others did not.

    ``stack`` closes them.
    """
    configs = list(configs)

    async def one(config: DestinationConfig) -> Destination | SnapferryError:
        seconds = _seconds(config)
        try:
            async with asyncio.timeout(seconds):
                return await open_destination(config.name, config.url, config.options, writable=writable, plugin=config.plugin)
        except TimeoutError:
            return DestinationUnreachable(f"could not be opened within {seconds:.0f} s", config.name)
        except SnapferryError as error:
            if error.exit_code == 2:
                raise
            return error

    opened: dict[str, Destination] = {}
    failures: dict[str, SnapferryError] = {}
    for config, result in zip(configs, await together(one(config) for config in configs), strict=True):
        if isinstance(result, SnapferryError):
            failures[config.name] = result
        else:
            stack.push_async_callback(result.close)
            opened[config.name] = limits.limited(board.metered(with_deadline(with_retry(limits.counted(result)), _seconds(config))))
    return opened, failures


def _seconds(config: DestinationConfig) -> float:
    """How long any call may take: one that is not to hold others up is not waited for longer than its patience, whatever is asked of it."""
    return CALL_SECONDS if config.slow == "block" else min(CALL_SECONDS, config.patience)


class Membership:
    """An opened repository's destinations, keys and tools; closed by ``close``.

    Attributes:
        members: what was found when it was opened, for reading.
        tools: what the pipelines share.
        cache: the local index.
        pack_sets: the packs that snapshots name, as far as this machine has met them.
        limits: of the bytes a second to and from each destination, and all together.
    """

    def __init__(self, config: Config, members: Members, tools: Tools, cache: IndexCache, limits: Limits, stack: AsyncExitStack) -> None:
        self.config = config
        self.members = members
        self.tools = tools
        self.cache = cache
        self.pack_sets = PackSets(config.repository.cache_dir / members.repository_id / "packs")
        self.limits = limits
        self._stack = stack

    @classmethod
    async def open(cls, config: Config) -> Membership:
        """Opens all destinations for reading. Raises as ``open_members``, and ``AccessDenied`` for the key file or passphrase."""
        secret = await read_secret(config.repository)
        async with AsyncExitStack() as stack:
            board = ReplicaBoard([destination.name for destination in config.destinations])
            limits = Limits(config.engine.limit_rate, config.rates())
            opened, failures = await open_all(config.destinations, board, limits, stack, writable=False)
            members = await open_members(opened, secret, expected_id=config.repository.id, failures=failures)

            async def renew_keys() -> None:
                async with members.changing:
                    await refresh(members, members.replicas)

            tools = make_tools(members.keyring, config.engine.threads, config.engine.memory, board, renew_keys)
            stack.callback(tools.threads.close)
            places = [destination.name for destination in config.destinations]
            cache = IndexCache(config.repository.cache_dir / members.repository_id / "index", members.keyring, tools.threads, places)
            return cls(config, members, tools, cache, limits, stack.pop_all())
        raise AssertionError("unreachable")

    @property
    def replicas(self) -> dict[str, Destination]:
        """The destinations that can be read."""
        return self.members.replicas

    def costs(self, prefer: Preference) -> dict[str, float]:
        """By destination, what it costs to read an extent of some MiB, in the currency of the configuration; empty where that is not to matter."""
        if prefer == "fast":
            return {}
        return {item.name: item.price.egress_gb * _EXTENT / 1e9 + item.price.request_1k / 1000 for item in self.config.destinations}

    @property
    def spool_root(self) -> str:
        """Where spools of this repository lie on this machine."""
        return str(self.config.spool_dir / self.members.repository_id)

    def spooled_for(self) -> frozenset[str]:
        """The names of the destinations for which packs may lie in a spool."""
        return frozenset(place.name for place in self.config.destinations if place.slow == "spool")

    def check_reads(self) -> None:
        """``AccessDenied`` for a key that may only write."""
        if not self.members.keyring.reads_data:
            raise AccessDenied(
                "this key can write and not read: it makes snapshots, lists and verifies them, and restores none; restore with a full key"
            )

    async def writable(self, wanted: Iterable[str], stack: AsyncExitStack) -> tuple[dict[str, Destination], dict[str, BaseException]]:
        """Opens those of the ``wanted`` names for writing that may be written to; and why not the others. ``stack`` closes them."""
        wanted = list(wanted)
        failures: dict[str, BaseException] = {}
        for name in wanted:
            problem = self.members.failures.get(name) or self.members.unwritable.get(name)
            if problem is not None:
                failures[name] = problem
        configs = [self.config.destination(name) for name in wanted if name not in failures]
        opened, refused = await open_all(configs, self.tools.board, self.limits, stack, writable=True)
        failures.update(refused)
        for name, problem in zip(
            list(opened), await together(check_place(self.members, destination) for destination in opened.values()), strict=True
        ):
            if problem is not None:
                failures[name] = problem
                del opened[name]
        return opened, failures

    async def raw(self, name: str, stack: AsyncExitStack) -> Destination:
        """A destination of the configuration open for writing, whatever is there. ``stack`` closes it."""
        opened, failures = await open_all([self.config.destination(name)], self.tools.board, self.limits, stack, writable=True)
        if failures:
            raise failures[name]
        return opened[name]

    async def admit(self, name: str) -> None:
        """Takes in a destination that could not be used when the repository was opened; raises what still keeps it out."""
        if name not in self.members.replicas:
            opened, failures = await open_all([self.config.destination(name)], self.tools.board, self.limits, self._stack, writable=False)
            if failures:
                raise failures[name]
            await admit(self.members, opened[name])
            order = [destination.name for destination in self.config.destinations]
            ordered = sorted(self.members.replicas.items(), key=lambda item: order.index(item[0]))
            self.members.replicas = dict(ordered)
        await identify(self.members, name)

    async def close(self) -> None:
        """Closes destinations and threads."""
        await self._stack.aclose()
