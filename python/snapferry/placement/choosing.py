"""``cheapest``: the set of sites that costs least and has what is asked for, found by looking at all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from snapferry.errors import ConfigurationError
from snapferry.placement.policies import Cheapest
from snapferry.placement.sites import GB, Site

MOST_SITES = 12
"""More would be more than some thousand sets."""

_PACKS_A_GB = GB / (32 << 20)
_READS_A_GB = GB / (8 << 20)


def choose(policy: Cheapest, sites: Sequence[Site]) -> tuple[str, ...]:
    """The names of the cheapest set, in the order of ``sites``. Of sets that cost the same the smallest is taken, then the first.

    Raises:
        ConfigurationError: no set has what is asked for, or there are too many sites.
    """
    if len(sites) > MOST_SITES:
        raise ConfigurationError(
            f"placement cheapest looks at {MOST_SITES} destinations at most, and there are {len(sites)}; name some with --to"
        )
    sets = (
        chosen for size in range(max(1, policy.copies), len(sites) + 1) for chosen in combinations(sites, size) if _suits(policy, chosen)
    )
    best = min(sets, key=lambda chosen: (round(cost_of(policy, chosen), 9), len(chosen)), default=None)
    if best is None:
        raise ConfigurationError(f"placement cheapest: {_lacking(policy, sites)}")
    return tuple(site.name for site in best)


def cost_of(policy: Cheapest, chosen: Iterable[Site]) -> float:
    """What ``GB`` bytes cost on these sites for as long as they are likely to be kept, with what is likely to be read of them."""
    chosen = list(chosen)
    kept = sum(site.store_gb_month * policy.months + site.request_1k * _PACKS_A_GB / 1000 for site in chosen)
    reads = min(site.egress_gb + site.request_1k * _READS_A_GB / 1000 for site in chosen)
    return kept + reads * policy.restores_per_month * policy.months


def _suits(policy: Cheapest, chosen: Sequence[Site]) -> bool:
    return _different(site.operator for site in chosen) >= policy.operators and _different(site.region for site in chosen) >= policy.regions


def _different(values: Iterable[str | None]) -> int:
    """How many, none of them said counting as one."""
    return max(1, len({value for value in values if value is not None}))


def _lacking(policy: Cheapest, sites: Sequence[Site]) -> str:
    if policy.copies > len(sites):
        return f"{policy.copies} copies are asked for, and there are {len(sites)} destinations to export to"
    for key, asked, found in (
        ("operator", policy.operators, _different(site.operator for site in sites)),
        ("region", policy.regions, _different(site.region for site in sites)),
    ):
        if asked > found:
            return f"{asked} different {key}s are asked for, and the `{key}` of the destinations to export to makes {found}"
    return "no set of destinations has what is asked for"
