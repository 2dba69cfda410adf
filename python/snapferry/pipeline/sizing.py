"""How much an export or a restore holds at once, from the budget and the block size: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from snapferry import _core
from snapferry.errors import ConfigurationError
from snapferry.types import KiB, MiB

PACK_SIZE = 32 * MiB
UNLIKE_PACK_SIZE = 16 * MiB
"""Where a destination is not to hold others up: a pack on its way there is memory that nobody else has."""

_SMALLEST_PACK = 4 * MiB
_BATCH = 8 * MiB
_SPARE = 256 * KiB
_READS, _SPARES = 16, 3


@dataclass(frozen=True, slots=True)
class ExportSizing:
    """How an export shares out the budget.

    Attributes:
        batch: so many blocks are read at once, by up to ``readers`` at once.
        smallest_pack, largest_pack: bounds of what a pack reserves, in bytes.
        held: bytes that the export may hold at most without anything draining: read buffers, and packs that are not full.
    """

    batch: int
    readers: int
    smallest_pack: int
    largest_pack: int
    held: int

    @property
    def share(self) -> int:
        """Bytes that it goes on with whatever others do: what it holds without draining stays below two thirds, and leaves room for a pack.

        Exports side by side never lock each other up as long as their shares fit into the budget: when all that can drain has drained,
        there is a smallest pack for each of them.
        """
        return max(-(-3 * self.held // 2), self.held + self.smallest_pack)


def room_needed(blocks: int, block_size: int) -> int:
    """Bytes of pack that a batch may take at most: its records stored raw, and a block lost at a pack's end."""
    return blocks * (block_size + _core.RECORD_OVERHEAD) + block_size + _SPARE


def export_sizing(share: int, block_size: int, processors: int, largest_pack: int = PACK_SIZE) -> ExportSizing:
    """For one export that has ``share`` bytes and a machine of so many processors, and makes packs of at most so many bytes, if it can.

    What cannot drain by itself (read buffers, packs that are being filled) stays below two thirds of the share; the rest is for
    packs on their way, which always drain.

    Raises:
        ConfigurationError: the share is too small for blocks of that size.
    """
    for batch_bytes in (_BATCH, _BATCH // 2, _BATCH // 4, _BATCH // 8, _BATCH // 16, _BATCH // 32, _BATCH // 64, _BATCH // 128):
        batch = max(1, batch_bytes // block_size)
        for readers in range(processors + 1, 0, -1):
            sizing = _sizing(batch, readers, block_size, largest_pack=min(largest_pack, share // 6))
            if sizing.share <= share:
                return sizing
    raise ConfigurationError(
        f"a memory budget of {share // MiB} MiB is too small for blocks of {block_size // KiB} KiB; "
        f"set engine.memory to {max(64 * MiB, 16 * block_size) // MiB} MiB or more"
    )


def smallest_share(block_size: int) -> int:
    """The least that ``export_sizing`` makes do with for blocks of that size."""
    return _sizing(1, 1, block_size, largest_pack=0).share


def fair_share(budget: int, block_size: int, side_by_side: int) -> int:
    """What each of so many exports gets of ``budget``; no less than it makes do with, so that perhaps not all of them run at once."""
    return max(budget // side_by_side, smallest_share(block_size))


def _sizing(batch: int, readers: int, block_size: int, largest_pack: int) -> ExportSizing:
    need = room_needed(batch, block_size)
    smallest = max(_SMALLEST_PACK, need + 64 * KiB)
    largest = max(smallest, largest_pack)
    # Buffers, room promised to the batches under way, the pack being filled, and one more that was provided whole.
    return ExportSizing(batch, readers, smallest, largest, readers * batch * block_size + readers * need + 2 * largest)


@dataclass(frozen=True, slots=True)
class ReadSizing:
    """Attributes: ranged reads of at most ``extent`` bytes, up to ``most`` of them at once; and ``spares`` more, of what was late elsewhere."""

    extent: int
    most: int
    spares: int


def read_sizing(budget: int, block_size: int, processors: int) -> ReadSizing:
    """For one restore or reader, which may hold half of the budget; raises as ``export_sizing``."""
    smallest = block_size + 64 * KiB
    extent = max(smallest, min(_BATCH, budget // 16))
    buffers = min(max(_READS, 2 * processors + 2), budget // 2 // extent)
    if buffers < 1:
        raise ConfigurationError(f"a memory budget of {budget // MiB} MiB is too small for blocks of {block_size // KiB} KiB")
    spares = min(_SPARES, buffers // 3)
    return ReadSizing(extent, buffers - spares, spares)
