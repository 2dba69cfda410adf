"""What a snapshot costs, by the prices of the destinations it lies on: estimates, in the currency of the prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from snapferry.placement.sites import GB, Site

_READ = 8 << 20
"""Bytes that a restore asks for at once, about."""


def monthly_cost(site: Site, size: int) -> float:
    """For ``size`` bytes on one site."""
    return size / GB * site.store_gb_month


def read_cost(site: Site, size: int) -> float:
    """To read ``size`` bytes of one pack from it."""
    return size / GB * site.egress_gb + -(-size // _READ) * site.request_1k / 1000


def restore_cost(packs: Iterable[Mapping[str, int]], sites: Mapping[str, Site]) -> float:
    """To read every one of these packs once, where that costs least. ``packs``: for each, who has it, and its size in bytes."""
    return sum(min((read_cost(sites[name], size) for name, size in holders.items() if name in sites), default=0.0) for holders in packs)
