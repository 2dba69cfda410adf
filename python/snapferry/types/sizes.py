"""Units of bytes, and how large a volume's blocks may be."""

from __future__ import annotations

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30

MIN_BLOCK_SIZE = 64 * KiB
MAX_BLOCK_SIZE = 4 * MiB
DEFAULT_BLOCK_SIZE = 256 * KiB
