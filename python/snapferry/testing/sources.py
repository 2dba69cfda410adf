"""Sources for tests, named by their fault. For authors of sources and of programs that export; the product knows none of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from snapferry.errors import SourceChanged, SourceReadError


class VolumeSource(Protocol):
    """What a source offers; see ``snapferry.source.Source``."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]: ...
    def read_into(self, offset: int, buffer: memoryview) -> None: ...
    def check_unchanged(self) -> None: ...
    def close(self) -> None: ...


class MemorySource:
    """A volume in memory. Every (offset, length) that is read is kept in ``reads``; holes are as told.

    Args:
        data: the volume.
        name: what it is called.
        holes: (offset, length) pairs that hold no data; their bytes in ``data`` must be zeros.
    """

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "memory", holes: Sequence[tuple[int, int]] = ()) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []
        self.closed = False
        self._name = name
        self._holes = sorted(holes)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    @property
    def size(self) -> int:
        """The length of the data."""
        return len(self.data)

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """All but the holes."""
        at, end = start, min(end, len(self.data))
        for offset, length in self._holes:
            if offset >= end:
                break
            if offset > at:
                yield at, offset - at
            at = max(at, offset + length)
        if at < end:
            yield at, end - at

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Copies from the data; ``SourceChanged`` past its end."""
        with self._lock:
            self.reads.append((offset, len(buffer)))
        piece = self.data[offset : offset + len(buffer)]
        if len(piece) < len(buffer):
            raise SourceChanged(f"{self._name} shrank while it was read: it ends at byte {len(self.data)}")
        buffer[:] = piece

    def check_unchanged(self) -> None:
        """Nothing changes here."""

    def close(self) -> None:
        """Only notes that it was called."""
        self.closed = True


class MemoryStream:
    """A stream from memory that comes in pieces of ``piece`` bytes at most; ``taken`` is how much was read so far.

    Args:
        waits: called before each piece, from the reading thread: to hold the stream up, or to look at who reads.
    """

    def __init__(self, data: bytes, name: str = "stream", *, piece: int = 1 << 16, waits: Callable[[], object] | None = None) -> None:
        self.taken = 0
        self.ended = False
        self.closed = False
        self._data = data
        self._name = name
        self._piece = piece
        self._waits = waits

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    def read_next(self, buffer: memoryview) -> int:
        """The next piece; the end is met by a read of its own, as a pipe's is."""
        if self._waits is not None:
            self._waits()
        piece = self._data[self.taken : self.taken + min(self._piece, len(buffer))]
        buffer[: len(piece)] = piece
        self.taken += len(piece)
        self.ended = not piece
        return len(piece)

    def close(self) -> None:
        """Only notes that it was called."""
        self.closed = True


class BreaksOff(MemoryStream):
    """A stream that ends in an error: its data comes whole, and then no end."""

    def read_next(self, buffer: memoryview) -> int:
        """Fails as ``SourceReadError`` where the end would be."""
        count = super().read_next(buffer)
        if self.ended:
            self.ended = False
            raise SourceReadError(f"source {self.name}: cannot read on after byte {self.taken}: Input/output error", self.taken)
        return count


class _Wrapped:
    def __init__(self, inner: VolumeSource) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """As the inner source."""
        return self._inner.name

    @property
    def size(self) -> int:
        """As the inner source."""
        return self._inner.size

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """As the inner source."""
        return self._inner.extents(start, end)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As the inner source."""
        self._inner.read_into(offset, buffer)

    def check_unchanged(self) -> None:
        """As the inner source."""
        self._inner.check_unchanged()

    def close(self) -> None:
        """As the inner source."""
        self._inner.close()


class FailingReads(_Wrapped):
    """Read errors wherever a read touches one of ``extents``, as a medium with bad sectors has them."""

    def __init__(self, inner: VolumeSource, extents: Sequence[tuple[int, int]]) -> None:
        super().__init__(inner)
        self._bad = sorted(extents)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fails as ``SourceReadError`` at the first bad byte of the range."""
        for start, length in self._bad:
            if start < offset + len(buffer) and offset < start + length:
                at = max(start, offset)
                raise SourceReadError(f"source {self.name}: cannot read at byte {at}: Input/output error", at)
        super().read_into(offset, buffer)


class ShrinksAfter(_Wrapped):
    """Ends early: after ``reads`` reads every further read finds the end of the source."""

    def __init__(self, inner: VolumeSource, reads: int) -> None:
        super().__init__(inner)
        self._left = reads

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Counts down, then raises ``SourceChanged``."""
        self._left -= 1
        if self._left < 0:
            raise SourceChanged(f"source {self.name} shrank while it was read: it ends at byte {offset}")
        super().read_into(offset, buffer)


class GrowsMeanwhile(_Wrapped):
    """Reads well, and is of another length when it is looked at after the last read."""

    def check_unchanged(self) -> None:
        """Always raises ``SourceChanged``."""
        raise SourceChanged(f"source {self.name} grew while it was read")


class CallsAt(_Wrapped):
    """Calls ``action`` (from the reading thread) once, at the first read that reaches ``offset``: to kill, cancel or damage something then."""

    def __init__(self, inner: VolumeSource, offset: int, action: Callable[[], object]) -> None:
        super().__init__(inner)
        self._offset = offset
        self._action: Callable[[], object] | None = action

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Reads, and calls the action first if the time has come."""
        if offset + len(buffer) > self._offset and self._action is not None:
            action, self._action = self._action, None
            action()
        super().read_into(offset, buffer)
