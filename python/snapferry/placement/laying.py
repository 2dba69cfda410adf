"""From a policy to the layout of one export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from snapferry.errors import ConfigurationError
from snapferry.placement.choosing import choose, cost_of
from snapferry.placement.layout import Group, Layout, Share
from snapferry.placement.policies import Alternate, Cheapest, Mirror, Policy, Route, Spread
from snapferry.placement.routing import check_rules, route
from snapferry.placement.sites import Site, Subject


def lay_out(policy: Policy, sites: Sequence[Site], subject: Subject) -> Layout:
    """Where the export goes.

    Arguments:
        sites: those that may be used, in the order of the configuration.

    Raises:
        ConfigurationError: the policy cannot be had with these sites, or no rule takes some part of the volume.
    """
    names = tuple(site.name for site in sites)
    match policy:
        case Mirror():
            return _whole(policy.name, names)
        case Alternate():
            return _whole(policy.name, (names[subject.ordinal % len(names)],))
        case Spread():
            return _laid(policy.name, names, (_group(Share(names, _copies(policy, len(names)))),), sites)
        case Route():
            members, groups = route(policy, names, subject)
            return _laid(policy.name, members, groups, sites)
        case Cheapest():
            chosen = choose(policy, sites)
            return replace(_whole(policy.name, chosen), cost=cost_of(policy, [site for site in sites if site.name in chosen]))


def check_policy(policy: Policy, sites: Sequence[Site], min_copies: int) -> None:
    """``ConfigurationError`` where no export could keep to the policy, or to ``min_copies``, with these sites."""
    most, what = 0, ""
    match policy:
        case Mirror():
            most, what = len(sites), f"there are {len(sites)} destinations to export to"
        case Alternate():
            most, what = 1, "placement alternate puts each snapshot on one destination"
        case Spread():
            most = _copies(policy, len(sites))
            what = f"placement spread makes {most} copies of each pack"
        case Cheapest():
            most = len(choose(policy, sites))
            what = f"placement cheapest chooses {most} destinations"
        case Route():
            most, what = check_rules(policy, [site.name for site in sites])
    if min_copies > most:
        raise ConfigurationError(f"min_copies is {min_copies}, and {what}")


def _copies(policy: Spread, sites: int) -> int:
    if policy.copies > sites:
        raise ConfigurationError(
            f"placement spread: {policy.copies} copies are asked for, never two on one destination, and there are {sites} to export to"
        )
    return policy.copies


def _group(share: Share, why: str = "") -> Group:
    return Group(((0, None),), share, (share,), why)


def _whole(name: str, members: tuple[str, ...]) -> Layout:
    return Layout(name, members, (_group(Share(members, len(members))),))


def _laid(name: str, members: tuple[str, ...], groups: tuple[Group, ...], sites: Sequence[Site]) -> Layout:
    weights = {site.name: site.weight for site in sites if site.weight != 1.0 and site.name in members}
    return Layout(name, members, groups, weights)
