"""A destination around another that forwards everything: what wrappers begin from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from typing_extensions import Buffer

from snapferry.destination.contract import Capabilities, Destination, ObjectInfo, free_bytes, list_keys


class Wrapper:
    """Forwards every call to ``inner``. A subclass overrides what it is about."""

    def __init__(self, inner: Destination) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """The inner destination's name."""
        return self.inner.name

    @property
    def url(self) -> str:
        """The inner destination's URL."""
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        """What the inner destination declares."""
        return self.inner.capabilities

    async def create(self, key: str, data: Buffer) -> bool:
        """See ``Destination.create``."""
        return await self.inner.create(key, data)

    async def read(self, key: str, limit: int) -> bytes:
        """See ``Destination.read``."""
        return await self.inner.read(key, limit)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """See ``Destination.read_into``."""
        await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """See ``Destination.read_tail``."""
        return await self.inner.read_tail(key, length)

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See ``Destination.list``."""
        return self.inner.list(prefix)

    async def list_keys(self, prefix: str) -> Sequence[str]:
        """See ``ListsKeys``. A wrapper that does something to listings does it to this one too."""
        if type(self).list is not Wrapper.list:
            return [info.key async for info in self.list(prefix)]
        return await list_keys(self.inner, prefix)

    async def free_bytes(self) -> int | None:
        """See ``TellsSpace``."""
        return await free_bytes(self.inner)

    async def delete(self, key: str) -> None:
        """See ``Destination.delete``."""
        await self.inner.delete(key)

    async def close(self) -> None:
        """See ``Destination.close``."""
        await self.inner.close()
