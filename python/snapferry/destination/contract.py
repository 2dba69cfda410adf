"""What a store must offer to hold a repository: create-if-absent, read, list, delete. Nothing else is ever asked of it.

Objects are immutable and named by keys such as ``packs/ab/ab…`` (ASCII, ``/`` between parts, no empty, ``.`` or ``..`` part).
A destination knows nothing of packs, keys or snapshots: only names and bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from typing_extensions import Buffer

from snapferry.errors import ObjectNotFound


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store declares of itself, so that nobody tests its type.

    Attributes:
        exclusive_create: a second create of the same key is refused by the store itself, even from another host.
        consistent_list: a listing shows what was created before it began.
        concurrency: how many operations at once are useful.
        durable: a create that returned survives a power loss.
    """

    exclusive_create: bool
    consistent_list: bool
    concurrency: int
    durable: bool


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One line of a listing: the key and the object's size in bytes."""

    key: str
    size: int


@runtime_checkable
class Destination(Protocol):
    """One place that stores objects. All methods are safe to call side by side and to cancel.

    Errors are those of ``snapferry.errors``: ``ObjectNotFound``, ``ObjectDamaged`` (shorter than asked for),
    ``DestinationUnreachable`` (retryable), ``DestinationDenied``, ``DestinationFull``, else ``DestinationError``.
    """

    @property
    def name(self) -> str:
        """The name of this destination in the configuration."""

    @property
    def url(self) -> str:
        """Where it is, without secrets."""

    @property
    def capabilities(self) -> Capabilities:
        """What the store declares of itself."""

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores ``data`` under ``key`` if nothing is there; when it returns, the object and its name are durable.

        Returns:
            True if this call created it, False if the key was taken (whatever its bytes).
            After an error or a cancellation the object is there whole or not at all.
        """

    async def read(self, key: str, limit: int) -> bytes:
        """The whole object of at most ``limit`` bytes; a larger one raises ``ObjectDamaged`` and is not read into memory."""

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` (writable, contiguous bytes) from ``offset`` on; ``ObjectDamaged`` if the object ends before it is full."""

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """The last ``length`` bytes (the whole object if it is shorter) and the object's size in bytes."""

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with ``prefix`` (which ends in ``/``, or is empty), in no particular order."""

    async def delete(self, key: str) -> None:
        """Removes the object durably; one that is not there is no error."""

    async def close(self) -> None:
        """Releases what is held. Nothing may be called after it."""


@runtime_checkable
class TellsSpace(Protocol):
    """What a store offers besides if it knows how much room it has."""

    async def free_bytes(self) -> int | None:
        """Bytes that may still be stored there, or None where nobody knows."""


@runtime_checkable
class ListsKeys(Protocol):
    """What a store offers besides if it tells the names of objects for less than their sizes."""

    async def list_keys(self, prefix: str) -> Sequence[str]:
        """The keys that ``Destination.list`` would name, in no particular order."""


async def free_bytes(destination: Destination) -> int | None:
    """Bytes that may still be stored there, or None where the store does not say."""
    return await destination.free_bytes() if isinstance(destination, TellsSpace) else None


async def list_keys(destination: Destination, prefix: str) -> Sequence[str]:
    """The keys of all objects below ``prefix``, in no particular order, in the cheapest way that the store has."""
    if isinstance(destination, ListsKeys):
        return await destination.list_keys(prefix)
    return [info.key async for info in destination.list(prefix)]


async def is_there(destination: Destination, key: str) -> bool:
    """Whether an object exists."""
    try:
        await destination.read_tail(key, 0)
    except ObjectNotFound:
        return False
    return True
