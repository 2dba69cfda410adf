"""The index on this machine: what the segments say, folded into a few mapped files; and packs that no segment names yet.

The cache holds nothing that the destinations do not: what is missing or damaged is fetched anew, a missing segment is made up for by
reading the packs it named. Processes may share a directory: each sees one state of it, one at a time changes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
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

logger = logging.getLogger("snapferry")

SEGMENT_LIMIT = 256 << 20
_AT_ONCE = 8
_PACKS_AT_ONCE = 2
_PACKS_A_SEGMENT = 4096
_YOUNG_SECONDS = 3600.0
_LOCK = "lock"
_CURRENT = "current"
_POLL_SECONDS = 0.1


@dataclass(slots=True)
class LoadedIndex:
    """An index and what was met on the way.

    Attributes:
        segments: by destination, the ids of the segments it lists, with their sizes in bytes.
        damage: broken segments and packs.
        packs_read: how many packs had to be read because no segment names them.
        made: files of the cache with the segments made of them, by id, until they are stored somewhere.
    """

    index: _core.Index
    segments: dict[str, dict[str, int]]
    damage: list[Damage] = field(default_factory=list)
    packs_read: int = 0
    made: dict[str, Path] = field(default_factory=dict)

    @property
    def bad_packs(self) -> dict[str, set[bytes]]:
        """By destination, the packs that were found torn or altered there."""
        found: dict[str, set[bytes]] = {}
        for item in self.damage:
            pack = names.parse_pack(item.object)
            if pack is not None:
                found.setdefault(item.destination, set()).add(pack)
        return found

    def packs_named(self, segments: Iterable[str]) -> set[bytes]:
        """The packs that these segments name; segments that are in good order nowhere name none."""
        return set(split(self.index.packs_of(join(segments))))

    def sizes_that_differ(self, presence: Presence) -> dict[bytes, int]:
        """The size that the index knows of each pack that some destination lists with another one, in bytes."""
        return {pack: size for packs in presence.packs.values() for pack, size in self.index.misfits(b"".join(packs), list(packs.values()))}


class IndexCache:
    """The cached index of one repository.

    Arguments:
        directory: where it lies; made when it is needed.
        places: the names of all destinations. Who has asked fewer of them drops nothing of what the others may list.
    """

    def __init__(self, directory: Path, keyring: _core.Keyring, threads: Threads, places: Iterable[str]) -> None:
        self._directory = directory
        self._places = frozenset(places)
        self._keyring = keyring
        self._threads = threads
        self._full = False

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self._directory

    async def load(self, replicas: Mapping[str, Destination], presence: Presence, *, complete: bool = False) -> LoadedIndex:
        """The index of all segments that ``replicas`` list, and of the packs in ``presence`` that none of them names.

        Arguments:
            complete: nothing may be missed because a file of the cache is damaged, so all of them are read and checked. For whoever
                concludes from what is not found; else it is only stored again.
        """
        loaded = await self._load(replicas, presence)
        if complete:
            try:
                await self._verify(loaded.index)
            except _core.DamagedError:
                # What was damaged is removed by now, and fetched again.
                loaded = await self._load(replicas, presence)
                await self._verify(loaded.index)
        return loaded

    async def _verify(self, index: _core.Index) -> None:
        number, more = 0, True
        while more:
            # All of them: each one that is damaged is removed when that is found, so that the next load is whole.
            try:
                more = await self._threads.run(index.verify, number)
            except _core.DamagedError:
                more = number < len(index.files)
                if not more:
                    raise
            number += 1

    async def _load(self, replicas: Mapping[str, Destination], presence: Presence) -> LoadedIndex:
        listed = dict(zip(replicas, await together(_segments_of(destination) for destination in replicas.values()), strict=True))
        segments = {name: found or {} for name, found in listed.items()}
        whole = {name for name, found in listed.items() if found is not None} >= self._places
        loaded = LoadedIndex(_core.Index(), segments)
        wanted = {segment for found in segments.values() for segment in found}
        missing = [segment.hex() for segment in split(await self._threads.run(self._open, loaded.index, wanted, whole))]
        for start in range(0, len(missing), _AT_ONCE):
            await together(self._add_segment(loaded, segment, replicas) for segment in missing[start : start + _AT_ONCE])
            await self.fold(loaded.index)
        await self._add_packs(loaded, replicas, presence)
        await self.fold(loaded.index, last=True)
        return loaded

    async def fold(self, index: _core.Index, *, last: bool = False) -> None:
        """Moves what ``index`` holds in memory into files, if it is much, or if it is the ``last`` for now.

        Not where another process is about to change the directory, nor where its disk is full, which is said: then it stays in memory, and
        is fetched again by whoever loads the index next.
        """
        if not (last or index.crowded) or self._full:
            return
        with self._as_far_as_there_is_room(), self._changing() as alone:
            if not alone:
                return
            # A damaged file was removed when that was found; what it held is fetched when the index is loaded next.
            with contextlib.suppress(_core.DamagedError):
                fold = await self._threads.run(_core.Fold, index, str(self._directory), last)
                while await self._threads.run(fold.step):
                    pass

    async def clear(self) -> None:
        """Forgets everything cached, once no other process changes it."""
        if not self._directory.exists():
            return
        said = False
        while True:
            with self._usable(), self._changing() as alone:
                if alone:
                    await self._threads.run(self._remove, self._others({_LOCK}))
                    return
            if not said:
                logger.warning("waiting for another process that changes %s", self._directory)
                said = True
            await asyncio.sleep(_POLL_SECONDS)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[bool]:
        """Whether this is the only one that changes the directory for as long as the block runs. A kill lets go of it."""
        lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                alone = False
            yield alone
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SnapferryError(f"cannot use the cache directory {self._directory}: {error.strerror}; set repository.cache_dir") from error

    @contextlib.contextmanager
    def _as_far_as_there_is_room(self) -> Iterator[None]:
        """A cache that cannot be written takes nothing from an export or a restore: only the next one is slower."""
        try:
            yield
        except OSError as error:
            self._full = True
            logger.warning(
                "cannot write to the cache directory %s: %s; what is missing there is fetched again each time",
                self._directory,
                error.strerror,
            )

    def _open(self, index: _core.Index, wanted: set[str], whole: bool) -> bytes:
        with self._usable():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._full = False
        missing = index.open(str(self._directory), join(wanted), whole)
        self._tidy({*index.files, _CURRENT, _LOCK})
        return missing

    async def _add_segment(self, loaded: LoadedIndex, segment: str, replicas: Mapping[str, Destination]) -> None:
        """From the first destination that has it in good order. To have none is no loss: its packs say the same."""
        key = names.segment(segment)
        for name, destination in replicas.items():
            if segment not in loaded.segments.get(name, {}):
                continue
            try:
                data = await destination.read(key, SEGMENT_LIMIT)
                await self._threads.run(_add_segment, loaded.index, self._keyring, segment, data, name)
            except (ObjectDamaged, ObjectNotFound) as error:
                loaded.damage.append(Damage(name, key, str(error)))
            except DestinationError:
                continue
            else:
                return

    async def _add_packs(self, loaded: LoadedIndex, replicas: Mapping[str, Destination], presence: Presence) -> None:
        unknown: dict[bytes, list[str]] = {}
        for name, packs in presence.packs.items():
            listed = b"".join(packs)
            named = await self._threads.run(loaded.index.named, listed)
            if len(named) < len(listed):
                for pack in packs.keys() - set(split(named)):
                    unknown.setdefault(pack, []).append(name)
        gate = asyncio.Semaphore(_PACKS_AT_ONCE)

        async def add(pack: bytes, holders: list[str]) -> None:
            async with gate:
                await self._add_pack(loaded, pack, holders, replicas, presence)

        packs_unknown = sorted(unknown.items())
        for start in range(0, len(packs_unknown), _PACKS_A_SEGMENT):
            await together(add(pack, holders) for pack, holders in packs_unknown[start : start + _PACKS_A_SEGMENT])
            for segment in await self._threads.run(loaded.index.take_added, self._keyring):
                await self._threads.run(self._keep, loaded, segment)
            await self.fold(loaded.index)

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

    def _keep(self, loaded: LoadedIndex, segment: _core.Segment) -> None:
        # Of its own name: exports side by side, in other processes too, make the same segment of the same packs, and remove their file.
        path = self._directory / f"made-{segment.id}-{secrets.token_hex(4)}"
        with self._as_far_as_there_is_room():
            try:
                path.write_bytes(segment.data)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            loaded.made[segment.id] = path

    def _tidy(self, kept: set[str]) -> None:
        """Removes what is old and does not count: left by a process that was killed, or by one that folded a directory that was cleared."""
        if self._others(kept, older_than=_YOUNG_SECONDS):
            with self._as_far_as_there_is_room(), self._changing() as alone:
                # What somebody made count just now may be old too, if that took long.
                current = self._directory / _CURRENT
                counts = current.read_text(errors="replace").splitlines()[1:-1] if current.exists() else []
                if alone and kept.issuperset(counts):
                    self._remove(self._others(kept, older_than=_YOUNG_SECONDS))

    def _others(self, kept: set[str], older_than: float = 0.0) -> list[str]:
        found = []
        with self._usable():
            for entry in os.scandir(self._directory):
                with contextlib.suppress(OSError):
                    if entry.name not in kept and time.time() - entry.stat().st_mtime >= older_than:
                        found.append(entry.path)
        return found

    def _remove(self, paths: list[str]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)


def join(segments: Iterable[str]) -> bytes:
    """Segment ids in hex, as the core takes them."""
    return bytes.fromhex("".join(segments))


def split(ids: bytes) -> Iterator[bytes]:
    """The ids that stand one after another."""
    return (ids[at : at + 32] for at in range(0, len(ids), 32))


def open_segment(keyring: _core.Keyring, segment: str, data: bytes, where: str) -> bytes:
    """The plain bytes of a segment object; ``ObjectDamaged`` if it is not what its name says."""
    key = names.segment(segment)
    if _core.blake3(data).hex() != segment:
        raise ObjectDamaged(f"{key}: torn or altered: its bytes are not what its name says", where)
    try:
        return keyring.open("segment", SEGMENT_NAME, data)
    except _core.CoreError as error:
        raise ObjectDamaged(f"{key}: {error}", where) from error


def _add_segment(index: _core.Index, keyring: _core.Keyring, segment: str, data: bytes, where: str) -> None:
    plain = open_segment(keyring, segment, data, where)
    try:
        index.add_segment(bytes.fromhex(segment), plain)
    except _core.DamagedError as error:
        raise ObjectDamaged(f"{names.segment(segment)}: {error}", where) from error


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


async def list_segments(destination: Destination) -> dict[str, int]:
    """The ids of the segments that a destination lists, with their sizes in bytes."""
    segments: dict[str, int] = {}
    async for info in destination.list(names.INDEX):
        segment = names.parse_segment(info.key)
        if segment is not None:
            segments[segment] = info.size
    return segments


async def _segments_of(destination: Destination) -> dict[str, int] | None:
    try:
        return await list_segments(destination)
    except DestinationError:
        return None  # What only it has is made up for by reading packs; whether it can be used is decided elsewhere.
