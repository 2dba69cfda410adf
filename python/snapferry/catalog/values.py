"""What goes into the catalog and comes out of it. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

VERSION = 3
"""Of the tables (``schema``); kept here so that asking for it imports nothing."""


@dataclass(frozen=True, slots=True)
class RecordedDamage:
    """An object found missing or broken at a destination (by its id, 32 hex digits), not seen in good order since."""

    destination: str
    object: str
    reason: str
    found: datetime


@dataclass(frozen=True, slots=True)
class ReplicaSpeed:
    """What reading from a destination was like when it was last measured.

    Attributes:
        first_byte: in seconds.
        goodput: bytes per second from then on.
        tail: how many times what was predicted nearly all reads took at most; 0 if that is not known.
        errors: the share (0 to 1) of reads that came to nothing.
    """

    first_byte: float
    goodput: float
    tail: float
    errors: float
    measured: datetime
