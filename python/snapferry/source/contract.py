"""What a source must offer: a size, the extents that hold data, and reads at an offset.

A source is synchronous: the pipeline calls it from worker threads, several reads at once. It knows nothing of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable


@runtime_checkable
class Source(Protocol):
    """One volume to read. ``read_into`` may be called from several threads at once; the others from one at a time.

    All positions and lengths are in bytes. Errors are ``SourceError`` and its kinds.
    """

    @property
    def name(self) -> str:
        """What it is called, for messages; its last part is the volume's name by default."""

    @property
    def size(self) -> int | None:
        """Its length, or None where nobody knows before the end is read."""

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The (offset, length) pairs within ``start`` to ``end`` that may hold data, ascending and apart; the rest are holes.

        Bytes in holes are zeros and are never asked for on their own. One extent over everything is always a right answer.
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
