"""The index on this machine: segments fetched once, checked, kept as mapped files; and packs that no segment names yet.

The cache holds nothing that the destinations do not: a missing or broken file is fetched anew, a missing segment is made up for by
reading the packs it named.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound, SnapferryError
from snapferry.repository import names
from snapferry.repository.gathering import together
from snapferry.repository.presence import Presence
from snapferry.repository.threads import Threads
from snapferry.types import Damage

SEGMENT_LIMIT = 256 << 20
_AT_ONCE = 8
_PACKS_AT_ONCE = 2
_YOUNG_SECONDS = 3600.0


@dataclass(slots=True)
class LoadedIndex:
    """An index and what was met on the way.

    Attributes:
        segments: by destination, the ids of the segments it lists, with their sizes in bytes.
        damage: broken segments and packs.
        packs_read: how many packs had to be read because no segment names them.
    """

    index: _core.Index
    segments: dict[str, dict[str, int]]
    damage: list[Damage] = field(default_factory=list)
    packs_read: int = 0


class IndexCache:
    """The cached segments of one repository.

    Arguments:
        directory: where they lie; made when it is needed.
    """

    def __init__(self, directory: Path, keyring: _core.Keyring, threads: Threads) -> None:
        self._directory = directory
        self._keyring = keyring
        self._threads = threads

    @property
    def directory(self) -> Path:
        """Where the segments lie."""
        return self._directory

    async def load(self, replicas: Mapping[str, Destination], presence: Presence) -> LoadedIndex:
        """The index of all segments that ``replicas`` list, and of the packs in ``presence`` that none of them names."""
        segments = dict(zip(replicas, await together(_list_segments(destination) for destination in replicas.values()), strict=True))
        loaded = LoadedIndex(_core.Index(), segments)
        wanted = sorted({segment for listed in segments.values() for segment in listed})
        await self._threads.run(self._tidy, set(wanted))
        for start in range(0, len(wanted), _AT_ONCE):
            await together(self._add_segment(loaded, segment, replicas) for segment in wanted[start : start + _AT_ONCE])
        await self._add_packs(loaded, replicas, presence)
        return loaded

    async def store(self, segment: _core.Segment) -> Path:
        """Keeps a segment that was just made; returns where."""
        await self._threads.run(self._write, segment.id, segment.plain)
        return self._directory / segment.id

    async def packs_named(self, segments: Iterable[str]) -> set[bytes]:
        """The packs that these segments name; segments that are not cached name none."""
        return await self._threads.run(self._packs_named, list(segments))

    async def clear(self) -> None:
        """Forgets everything cached."""
        await self._threads.run(self._tidy, set(), everything=True)

    async def _add_segment(self, loaded: LoadedIndex, segment: str, replicas: Mapping[str, Destination]) -> None:
        path = self._directory / segment
        if path.exists():
            try:
                await self._threads.run(loaded.index.add_segment, str(path))
                return
            except (_core.DamagedError, OSError):
                with contextlib.suppress(OSError):
                    path.unlink()
        plain = await self._fetch(loaded, segment, replicas)
        if plain is None:
            return
        await self._threads.run(self._write, segment, plain)
        await self._threads.run(loaded.index.add_segment, str(path))

    async def _fetch(self, loaded: LoadedIndex, segment: str, replicas: Mapping[str, Destination]) -> bytes | None:
        """The segment from the first destination that has it in good order. None is no loss: its packs say the same."""
        key = names.segment(segment)
        for name, destination in replicas.items():
            if segment not in loaded.segments.get(name, {}):
                continue
            try:
                data = await destination.read(key, SEGMENT_LIMIT)
                return await self._threads.run(open_segment, self._keyring, segment, data, name)
            except (ObjectDamaged, ObjectNotFound) as error:
                loaded.damage.append(Damage(name, key, str(error)))
            except DestinationError:
                continue
        return None

    async def _add_packs(self, loaded: LoadedIndex, replicas: Mapping[str, Destination], presence: Presence) -> None:
        known = {pack for pack, _ in loaded.index.packs()}
        unknown: dict[bytes, list[str]] = {}
        for name, packs in presence.packs.items():
            for pack in packs.keys() - known:
                unknown.setdefault(pack, []).append(name)
        gate = asyncio.Semaphore(_PACKS_AT_ONCE)

        async def add(pack: bytes, holders: list[str]) -> None:
            async with gate:
                await self._add_pack(loaded, pack, holders, replicas, presence)

        await together(add(pack, holders) for pack, holders in sorted(unknown.items()))

    async def _add_pack(
        self, loaded: LoadedIndex, pack: bytes, holders: list[str], replicas: Mapping[str, Destination], presence: Presence
    ) -> None:
        for name in holders:
            if name not in replicas:
                continue
            try:
                size = presence.packs[name][pack]
                await add_whole_pack(self._keyring, self._threads, loaded.index, replicas[name], pack, size)
            except ObjectDamaged as error:
                loaded.damage.append(Damage(name, names.pack(pack), str(error)))
            except DestinationError:
                continue
            else:
                loaded.packs_read += 1
                return

    def _packs_named(self, segments: list[str]) -> set[bytes]:
        index = _core.Index()
        for segment in segments:
            with contextlib.suppress(_core.CoreError, OSError):
                index.add_segment(str(self._directory / segment))
        return {pack for pack, _ in index.packs()}

    def _tidy(self, wanted: set[str], everything: bool = False) -> None:
        """Makes the directory; removes what no destination lists any more, and what a killed run left half written."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for entry in os.scandir(self._directory):
                if entry.name not in wanted:
                    with contextlib.suppress(OSError):
                        # What is young may be another process's, just written.
                        if everything or time.time() - entry.stat().st_mtime > _YOUNG_SECONDS:
                            os.unlink(entry.path)
        except OSError as error:
            raise SnapferryError(f"cannot use the cache directory {self._directory}: {error.strerror}; set repository.cache_dir") from error

    def _write(self, segment: str, plain: bytes) -> None:
        """Whole or not at all; not synced, because its checksum is checked whenever it is mapped."""
        temporary = self._directory / f".{segment}.{secrets.token_hex(4)}"
        try:
            temporary.write_bytes(plain)
            os.replace(temporary, self._directory / segment)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise SnapferryError(f"cannot write to the cache directory {self._directory}: {error.strerror}") from error


def open_segment(keyring: _core.Keyring, segment: str, data: bytes, where: str) -> bytes:
    """The plain bytes of a segment object; ``ObjectDamaged`` if it is not what its name says."""
    key = names.segment(segment)
    if _core.blake3(data).hex() != segment:
        raise ObjectDamaged(f"{key}: torn or altered: its bytes are not what its name says", where)
    try:
        return keyring.open("segment", SEGMENT_NAME, data)
    except _core.CoreError as error:
        raise ObjectDamaged(f"{key}: {error}", where) from error


SEGMENT_NAME = "index"


async def add_whole_pack(
    keyring: _core.Keyring, threads: Threads, index: _core.Index, destination: Destination, pack: bytes, size: int
) -> int:
    """Adds the records of a pack of ``size`` bytes that no segment names; returns how many. ``ObjectDamaged`` if it is torn or altered.

    It is read whole although its tail says it all: a tail cannot name its own pack, so that a hostile store could hand out the tail of another
    one, and what is stored from then on would be taken to lie where it does not. Only the hash of all bytes is what the name promises.
    """
    key = names.pack(pack)
    if size > _core.MAX_PACK_LENGTH:
        raise ObjectDamaged(f"{key}: {size} bytes are more than a pack has", destination.name)
    data = bytearray(size)
    await destination.read_into(key, 0, memoryview(data))
    if await threads.run(_core.blake3, data) != pack:
        raise ObjectDamaged(f"{key}: torn or altered: its bytes are not what its name says", destination.name)
    try:
        return await threads.run(index.add_pack, keyring, pack, size, data)
    except (_core.CoreError, ValueError) as error:
        raise ObjectDamaged(f"{key}: {error}", destination.name) from error


async def _list_segments(destination: Destination) -> dict[str, int]:
    segments: dict[str, int] = {}
    try:
        async for info in destination.list(names.INDEX):
            segment = names.parse_segment(info.key)
            if segment is not None:
                segments[segment] = info.size
    except DestinationError:
        return {}  # What only it has is made up for by reading packs; whether it can be used is decided elsewhere.
    return segments
