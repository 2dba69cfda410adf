"""A destination in this process's memory, for trials and tests. It is lost when the process ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

from typing_extensions import Buffer

from snapferry.destination.contract import Capabilities, ObjectInfo
from snapferry.destination.keys import check_key, check_prefix
from snapferry.errors import ObjectDamaged, ObjectNotFound

MemoryStore = dict[str, bytes]
"""What a memory destination holds, by key. Two destinations given the same store are the same place."""

_CAPABILITIES = Capabilities(exclusive_create=True, consistent_list=True, concurrency=3, durable=False)


class MemoryDestination:
    """Objects in a dictionary.

    Arguments:
        name: of this destination in the configuration.
        store: what it holds; a new empty one unless given.
    """

    def __init__(self, name: str, store: MemoryStore | None = None, *, url: str | None = None) -> None:
        self._name = name
        self._url = f"memory://{name}" if url is None else url
        self.store: MemoryStore = {} if store is None else store

    @property
    def name(self) -> str:
        """The name of this destination in the configuration."""
        return self._name

    @property
    def url(self) -> str:
        """``memory://`` and the place's name."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """All but durable."""
        return _CAPABILITIES

    async def create(self, key: str, data: Buffer) -> bool:
        """Copies ``data`` into the store unless the key is taken; returns whether it did."""
        if check_key(key) in self.store:
            return False
        self.store[key] = bytes(data)
        return True

    async def read(self, key: str, limit: int) -> bytes:
        """The whole object; ``ObjectDamaged`` if it is longer than ``limit`` bytes."""
        data = self._object(key)
        if len(data) > limit:
            raise ObjectDamaged(f"{key} has {len(data)} bytes where at most {limit} are expected", self._name)
        return data

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on; ``ObjectDamaged`` if the object ends before it is full."""
        if offset < 0:
            raise ValueError(f"negative offset {offset}")
        data = self._object(key)
        if offset + buffer.nbytes > len(data):
            raise ObjectDamaged(f"{key} ends at {len(data)}, before {offset + buffer.nbytes}", self._name)
        buffer.cast("B")[:] = memoryview(data)[offset : offset + buffer.nbytes]

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """The last ``length`` bytes at most, and the object's size."""
        data = self._object(key)
        return data[max(0, len(data) - length) :], len(data)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with ``prefix``."""
        check_prefix(prefix)
        for key, data in tuple(self.store.items()):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(data))

    async def delete(self, key: str) -> None:
        """Removes the object, if it is there."""
        self.store.pop(check_key(key), None)

    async def close(self) -> None:
        """Nothing is held: the store stays with whoever has it."""

    def _object(self, key: str) -> bytes:
        try:
            return self.store[check_key(key)]
        except KeyError:
            raise ObjectNotFound(f"{key} does not exist", self._name) from None
