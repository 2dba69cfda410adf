"""What placement knows of a destination and of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GB = 1_000_000_000
"""What prices are said for: a decimal gigabyte, as stores bill it."""


@dataclass(frozen=True, slots=True)
class Site:
    """One destination.

    Attributes:
        weight: how much of what is spread it gets, in proportion to the others' (above 0).
        operator, region: whose it is and where; None: nobody said, so it counts for no constraint.
        store_gb_month, egress_gb, request_1k: prices in one currency, for ``GB`` bytes and for a thousand requests.
    """

    name: str
    weight: float = 1.0
    operator: str | None = None
    region: str | None = None
    store_gb_month: float = 0.0
    egress_gb: float = 0.0
    request_1k: float = 0.0


@dataclass(frozen=True, slots=True)
class Subject:
    """One export that is to be placed.

    Attributes:
        ordinal: how many snapshots of the volume there were before it: 0 for the first. The same when an export is run again that made none.
        full: it is compared with nothing.
        inherits: an earlier snapshot of the volume may hold blocks that are not to be stored again.
    """

    volume: str
    ordinal: int
    tags: Mapping[str, str] = field(default_factory=dict)
    full: bool = True
    inherits: bool = False
