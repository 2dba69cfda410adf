"""The five policies, as they are configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

POLICIES = ("mirror", "alternate", "spread", "route", "cheapest")


@dataclass(frozen=True, slots=True)
class Mirror:
    """Everything to every site: each holds the whole snapshot."""

    name: Literal["mirror"] = "mirror"


@dataclass(frozen=True, slots=True)
class Alternate:
    """Snapshot n of a volume whole to site n mod N."""

    name: Literal["alternate"] = "alternate"


@dataclass(frozen=True, slots=True)
class Spread:
    """Each data pack to ``copies`` of the sites, by weight; all else to all of them."""

    copies: int = 2
    name: Literal["spread"] = "spread"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of ``Route``: what it takes, and where that goes. What is None or empty is not asked for.

    Attributes:
        to: names of sites; ``copies`` of them get each data pack, all unless it is said.
        volume: a glob, as in ``db-*``; tags: all of these must be there.
        every: each so-manieth snapshot of a volume, the first among them; first: only the first.
        kind: ``full`` (compared with nothing) or ``incremental``.
        range: from byte to byte of the volume, the end not included; None: to its end. A block belongs where its first byte lies.
    """

    to: tuple[str, ...]
    copies: int | None = None
    volume: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    every: int | None = None
    first: bool = False
    kind: Literal["full", "incremental"] | None = None
    range: tuple[int, int | None] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """The first rule that takes a block says where it goes."""

    rules: tuple[Rule, ...]
    name: Literal["route"] = "route"


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Everything to each of the cheapest set of sites that has what is asked for.

    Attributes:
        copies: how many sites at least.
        operators, regions: of how many different ones at least.
        months: for how long a snapshot is likely to be kept.
        restores_per_month: how often all of it is likely to be read back, in a month; from the site that is cheapest to read.
    """

    copies: int = 1
    operators: int = 1
    regions: int = 1
    months: float = 12.0
    restores_per_month: float = 0.05
    name: Literal["cheapest"] = "cheapest"


Policy = Mirror | Alternate | Spread | Route | Cheapest
