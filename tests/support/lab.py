"""A repository in memory with destinations that can be broken, and "blank machines" that know nothing but one place and the key."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from snapferry import _core
from snapferry.config import Config, DestinationConfig, new_config
from snapferry.destination import Destination
from snapferry.destination.memory import MemoryDestination, MemoryStore
from snapferry.engine import Repository, membership, open_repository
from snapferry.errors import DestinationUnreachable
from snapferry.repository.creating import create_repository
from snapferry.repository.keyfile import create_key_file, read_key_file
from snapferry.repository.opening import open_members
from snapferry.testing.faults import FailsNth
from snapferry.testing.sources import MemorySource
from snapferry.transport import RetryPolicy, with_retry
from snapferry.types import KiB, MiB

BLOCK = 64 * KiB
Wrap = Callable[[Destination], Destination]


async def _at_once(seconds: float) -> None:
    del seconds


QUICK = RetryPolicy(attempts=2, sleep=_at_once)


def volume(seed: int, *, blocks: int = 24, tail: int = 1000, zeros: Sequence[int] = (3, 4, 9)) -> bytes:
    """Blocks of random and of compressible bytes, some of zeros, and a last one that is cut."""
    make = random.Random(seed)
    out = bytearray()
    for number in range(blocks):
        if number in zeros:
            out += bytes(BLOCK)
        elif number % 2:
            out += make.randbytes(BLOCK)
        else:
            out += make.randbytes(64) * (BLOCK // 64)
    return bytes(out + make.randbytes(tail))


def changed(data: bytes, seed: int, at: Sequence[int]) -> bytes:
    """The same volume with some blocks changed."""
    make = random.Random(seed)
    out = bytearray(data)
    for block in at:
        out[block * BLOCK : block * BLOCK + 5000] = make.randbytes(5000)
    return bytes(out)


class FailsNthThroughAll:
    """To be put before a place: ``FailsNth`` for every handle that is opened there; ``fired`` says whether any did fail."""

    def __init__(self, operation: Any, nth: int, error: Callable[[], Exception], *, times: int = 1) -> None:
        self._make = partial(FailsNth, operation=operation, nth=nth, error=error, times=times)
        self._made: list[FailsNth] = []

    def __call__(self, inner: Destination) -> Destination:
        self._made.append(self._make(inner))
        return self._made[-1]

    @property
    def fired(self) -> bool:
        return any(double.fired for double in self._made)


class EndsWhenLetGo(MemorySource):
    """Waits at its end until ``released`` is set; ``reading`` is set when it gets there."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reading, self.released = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def check_unchanged(self) -> None:
        asyncio.run_coroutine_threadsafe(self._wait(), self._loop).result()

    async def _wait(self) -> None:
        self.reading.set()
        await self.released.wait()


MakeLab = Callable[..., Awaitable["Lab"]]


class Lab:
    """One repository; ``stores`` are its places, ``wrappers`` what stands before them when they are opened."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, names: Sequence[str] = ("near", "far")) -> None:
        self.directory = directory
        self.names = tuple(names)
        self.stores: dict[str, MemoryStore] = {name: {} for name in names}
        self.wrappers: dict[str, Wrap] = {}
        self.missing: set[str] = set()
        self.id = ""
        """For a fixture to say which snapshot it has made."""
        self._machines = itertools.count()
        self._key_file = directory / "snapferry.key"
        self._repository_id: str | None = None
        monkeypatch.setattr(membership, "open_destination", self._open)
        monkeypatch.setattr(membership, "with_retry", lambda destination: with_retry(destination, QUICK))
        self.config = self.machine()

    async def create(self) -> None:
        """Makes the repository at all places."""
        secret = create_key_file(self._key_file)
        self._repository_id = await create_repository({name: MemoryDestination(name, self.stores[name]) for name in self.names}, secret)
        self.config = self.config.with_id(self._repository_id)

    def machine(self, *names: str, memory: int = 64 * MiB, min_copies: int = 1, catalog: str | None = None) -> Config:
        """The configuration of a machine with no cache, catalog or journals that knows these places (all, unless given) and the key."""
        home = self.directory / f"machine-{next(self._machines)}"
        entries = [DestinationConfig(name, f"memory://{name}", patience=0) for name in names or self.names]
        config = new_config(home / "snapferry.toml", entries, key_file=self._key_file, min_copies=min_copies, environment={})
        local = dataclasses.replace(
            config.repository,
            id=self._repository_id,
            cache_dir=home / "cache",
            state_dir=home / "state",
            catalog=catalog or f"sqlite:///{home}/catalog.sqlite",
        )
        return dataclasses.replace(config, repository=local, engine=dataclasses.replace(config.engine, memory=memory, threads=2))

    def repository(self, *names: str, **how: Any) -> Repository:
        """All places from the usual machine, or those of these names from a blank one."""
        return open_repository(self.machine(*names, **how) if names or how else self.config)

    async def keyring(self) -> _core.Keyring:
        """What opens and seals its objects, for tests that read or forge them."""
        places = {name: MemoryDestination(name, self.stores[name]) for name in self.names}
        return (await open_members(places, read_key_file(self._key_file), expected_id=self._repository_id)).keyring

    async def contents(self, repository: Repository, snapshot: str, **how: Any) -> bytes:
        """The whole volume of a snapshot."""
        async with repository.open_snapshot(snapshot, **how) as reader:
            return b"".join([bytes(piece) async for piece in reader.stream()])

    async def assert_restores_alone(self, expected: Mapping[str, bytes], *names: str) -> None:
        """Every snapshot in ``expected`` that is listed at one of these places restores bit-exact from it alone, on a blank machine."""
        for name in names or self.names:
            async with self.repository(name) as alone:
                for item in await alone.list():
                    assert await self.contents(alone, item.snapshot.id) == expected[item.snapshot.id], (name, item.snapshot.id)

    async def begin_with(self, data: bytes) -> Lab:
        """Exports a first snapshot of the volume ``v``, whose ``id`` is this lab's."""
        async with self.repository() as repository:
            self.id = (await repository.export(MemorySource(data), volume="v", block_size=BLOCK)).id
        return self

    def saved(self) -> dict[str, MemoryStore]:
        """What lies at its places now, for ``go_back``."""
        return {name: dict(store) for name, store in self.stores.items()}

    def go_back(self, saved: Mapping[str, MemoryStore]) -> None:
        """Its places hold again what they held."""
        for name, store in self.stores.items():
            store.clear()
            store.update(saved[name])

    def packs(self, name: str) -> list[str]:
        """Keys of the packs at a place."""
        return sorted(key for key in self.stores[name] if key.startswith("packs/"))

    async def _open(self, name: str, url: str, options: object = None, **how: object) -> Destination:
        del url, options, how
        if name in self.missing:
            raise DestinationUnreachable("its root is missing", name)
        destination: Destination = MemoryDestination(name, self.stores[name])
        wrap = self.wrappers.get(name)
        return destination if wrap is None else wrap(destination)
