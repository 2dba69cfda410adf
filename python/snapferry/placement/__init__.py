"""Which destinations get which packs of a snapshot: pure decisions over frozen values.

A policy (``policies``), the sites it may use, and the export it is asked for make a ``Layout``. What follows from one is decided here too: where
a pack goes (``spreading``), which blocks count as known, and whether enough copies are left to acknowledge (``copies``), what is said of
it in a commit (``describing``), and what it costs (``costs``). Nothing here knows a destination, a pack's bytes, or the configuration's file.
"""

from snapferry.placement.copies import Standing
from snapferry.placement.costs import monthly_cost, restore_cost
from snapferry.placement.describing import Described, describe, described, meant_for, placed_alike
from snapferry.placement.laying import check_policy, lay_out
from snapferry.placement.layout import Group, Layout, Share
from snapferry.placement.policies import POLICIES, Alternate, Cheapest, Mirror, Policy, Route, Rule, Spread
from snapferry.placement.sites import Site, Subject
from snapferry.placement.spreading import ranked

__all__ = [
    "POLICIES",
    "Alternate",
    "Cheapest",
    "Described",
    "Group",
    "Layout",
    "Mirror",
    "Policy",
    "Route",
    "Rule",
    "Share",
    "Site",
    "Spread",
    "Standing",
    "Subject",
    "check_policy",
    "describe",
    "described",
    "lay_out",
    "meant_for",
    "monthly_cost",
    "placed_alike",
    "ranked",
    "restore_cost",
]
