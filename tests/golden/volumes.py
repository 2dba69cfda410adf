"""The volumes that the golden repositories hold, made by code: 64 KiB blocks, most of them compressible, so that the repositories stay small."""

from __future__ import annotations

import random

BLOCK = 64 << 10
VOLUME = "golden/volume"
HOLES = "golden/holes"
GONE = "golden/gone"
UNREADABLE = ((3 * BLOCK, BLOCK),)
"""Of the volume ``HOLES``."""


def first() -> bytes:
    """300 blocks (so the trees have two levels), nearly all zeros; text, one random block, two equal ones, a cut last one."""
    make = random.Random("golden repository")
    blocks = [bytes(BLOCK)] * 300
    blocks[0] = make.randbytes(BLOCK)
    for number in (1, 2, 77, 255, 256, 299):
        blocks[number] = (f"block {number}\n".encode() * BLOCK)[:BLOCK]
    blocks[200] = blocks[77]
    return b"".join(blocks)[: -BLOCK + 1234]


def second() -> bytes:
    """The same with a block changed, one turned to zeros, and some appended."""
    data = bytearray(first())
    data[2 * BLOCK : 3 * BLOCK] = (b"changed\n" * BLOCK)[:BLOCK]
    data[77 * BLOCK : 78 * BLOCK] = bytes(BLOCK)
    return bytes(data) + b"appended\n" * 20_000


def gone() -> bytes:
    """What the first one is, and random blocks, which nobody needs once it is forgotten."""
    return first() + random.Random("forgotten").randbytes(3 * BLOCK)


def holes() -> bytes:
    """Five blocks, the fourth of which cannot be read."""
    return b"".join(bytes([65 + number]) * BLOCK for number in range(5))
