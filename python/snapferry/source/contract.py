"""What a source must offer: a size, the extents that hold data, and reads at an offset; or, where there is no size, bytes in order.

A source is synchronous: the pipeline calls it from worker threads, several reads at once. It knows nothing of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """One volume to read. ``read_into`` may be called from several threads at once; the others from one at a time.

    All positions and lengths are in bytes. Errors are ``SourceError`` and its kinds.
    """

    @property
    def name(self) -> str:
        """What it is called, for messages; its last part is the volume's name by default."""

    @property
    def size(self) -> int:
        """Its length."""

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The (offset, length) pairs within ``start`` to ``end`` that may hold data, ascending and apart; the rest are holes.

        One extent over everything is always a right answer. Reads may still touch holes, whose bytes are zeros.
        """

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` (writable, contiguous bytes) from ``offset`` on.

        Raises:
            SourceReadError: an error in the middle; names the offset.
            SourceChanged: the source ended before the buffer was full.
        """

    def check_unchanged(self) -> None:
        """After the last read: raises ``SourceChanged`` if the source is no longer as long as it was."""

    def close(self) -> None:
        """Releases what is held. Nothing may be called after it."""


@runtime_checkable
class SequentialSource(Protocol):
    """A volume that comes in order, and whose end tells its size: standard input, a pipe. Called from one thread at a time."""

    @property
    def name(self) -> str:
        """What it is called, for messages."""

    @property
    def ended(self) -> bool:
        """Whether the end was met. What was read until then is the volume."""

    def read_next(self, buffer: memoryview) -> int:
        """Reads on into ``buffer`` (writable, contiguous bytes), and returns how many bytes came.

        Fewer than asked for at the end, or where nothing more came for a moment: it never waits longer than that, so that
        whoever reads can be stopped. Call it again until ``ended``.

        Raises:
            SourceReadError: an error instead of an end; what came so far is no volume.
            SourceChanged: the end is not where it was said to be.
        """

    def close(self) -> None:
        """Releases what is held. Nothing may be called after it."""


AnySource: TypeAlias = Source | SequentialSource
