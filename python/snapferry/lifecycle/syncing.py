"""What a sync is to bring where, and what that costs. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from snapferry.config import Price
from snapferry.types import ListedSummary, SnapshotSummary

GB = 1e9
"""Bytes of the unit in which stores are priced."""


@dataclass(frozen=True, slots=True)
class Bring:
    """One snapshot that is to be brought, and the destinations that hold it."""

    snapshot: SnapshotSummary
    holders: tuple[str, ...]


def to_bring(
    target: str,
    listed: Iterable[ListedSummary],
    forgotten: AbstractSet[str],
    wanted: Callable[[SnapshotSummary, str], bool],
    *,
    sources: AbstractSet[str] | None = None,
    chosen: AbstractSet[str] | None = None,
) -> list[Bring]:
    """The snapshots that ``target`` neither holds nor has let go, and that are wanted there and held elsewhere; of each volume the oldest first.

    Arguments:
        listed: every snapshot, with those that hold it.
        forgotten: ids that ``target`` has a note for: what was let go there stays away.
        sources: only what one of these holds; None for any.
        chosen: only these ids; None for all.
    """
    found = []
    for item in listed:
        holders = tuple(name for name in item.destinations if name != target and (sources is None or name in sources))
        missing = target not in item.destinations and item.snapshot.id not in forgotten
        if missing and holders and (chosen is None or item.snapshot.id in chosen) and wanted(item.snapshot, target):
            found.append(Bring(item.snapshot, holders))
    return sorted(found, key=lambda bring: (bring.snapshot.created, bring.snapshot.generation, bring.snapshot.id))


def price_of(
    packs: Mapping[bytes, int], holders: Mapping[bytes, Sequence[str]], prices: Mapping[str, Price], target: str
) -> tuple[float, float]:
    """(once, by the month) what copying ``packs`` (id to bytes) to ``target`` costs, in the owner's currency.

    Arguments:
        holders: of each pack, who could serve it: the cheapest is counted. Which one is asked is decided by speed, so that it may be more.
    """
    size = sum(packs.values())
    once = len(packs) * prices[target].request_1k / 1000
    for pack, length in packs.items():
        once += min((prices[name].egress_gb * length / GB + prices[name].request_1k / 1000 for name in holders[pack]), default=0.0)
    return once, size / GB * prices[target].store_gb_month
