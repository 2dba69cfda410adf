"""What goes into the catalog and comes out of it. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

VERSION = 2
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
    """What reading from a destination was like: seconds to the first byte, then bytes per second."""

    first_byte: float
    goodput: float
