"""``[placement]``: the policy, its parameters, its rules, and which volumes have another one.

A policy is written as its name, perhaps with parameters, as in ``spread:copies=2``; those that are not named are as ``[placement]`` says.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snapferry.config.places import nearest, not_offered
from snapferry.config.tables import check_table
from snapferry.config.units import parse_size
from snapferry.errors import ConfigurationError
from snapferry.placement import POLICIES, Alternate, Cheapest, Mirror, Policy, Route, Rule, Spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_RULE = tuple(field.name for field in dataclasses.fields(Rule))
_VOLUME = ("match", "policy", "min_copies")
_PARAMETERS = {"spread": ("copies",), "cheapest": ("copies", "operators", "regions", "months", "restores_per_month")}
_FRACTIONS = ("months", "restores_per_month")
_MOST = 1 << 10


@dataclass(frozen=True, slots=True)
class VolumePlacement:
    """One ``[[placement.volume]]``: volumes whose name the glob ``match`` takes are placed by ``policy``."""

    match: str
    policy: str
    min_copies: int | None = None


@dataclass(frozen=True, slots=True)
class PlacementConfig:
    """``[placement]``: which destinations get what, and how many copies there must be before an export succeeds.

    Attributes:
        policy: a name, perhaps with parameters.
        copies: of each pack (``spread``, by default 2) or of everything (``cheapest``, by default 1); None where nobody says.
        operators, regions, months, restores_per_month: of ``cheapest``.
        rules: of ``route``. volumes: the first that takes a volume's name goes before ``policy``.
    """

    policy: str = "mirror"
    min_copies: int = 1
    copies: int | None = None
    operators: int = 1
    regions: int = 1
    months: float = Cheapest().months
    restores_per_month: float = Cheapest().restores_per_month
    rules: tuple[Rule, ...] = ()
    volumes: tuple[VolumePlacement, ...] = ()

    def of_volume(self, volume: str, asked: str | None = None) -> tuple[Policy, int]:
        """The policy of a volume, or the one that was ``asked`` for, and how many copies there must be. ``ConfigurationError``: it is none."""
        if asked is not None:
            return self.parse(asked), self.min_copies
        found = next((item for item in self.volumes if fnmatch.fnmatchcase(volume, item.match)), None)
        if found is None:
            return self.parse(self.policy), self.min_copies
        return self.parse(found.policy), self.min_copies if found.min_copies is None else found.min_copies

    def parse(self, text: str) -> Policy:
        """A policy as it is written. ``ConfigurationError`` naming what is unknown, and the nearest that is known."""
        name, _, rest = text.partition(":")
        if name not in POLICIES:
            raise ConfigurationError(f"placement {not_offered(name, POLICIES)}")
        given = self._parameters(name, rest)
        copies = given.pop("copies", self.copies)
        match name:
            case "alternate":
                return Alternate()
            case "spread":
                return Spread(2 if copies is None else copies)
            case "route":
                return Route(self.rules)
            case "cheapest":
                usual = {key: getattr(self, key) for key in _PARAMETERS[name] if key != "copies"}
                return Cheapest(copies=1 if copies is None else copies, **{**usual, **given})
            case _:
                return Mirror()

    def _parameters(self, name: str, text: str) -> dict[str, Any]:
        known = _PARAMETERS.get(name, ())
        found: dict[str, Any] = {}
        for item in text.split(",") if text else []:
            key, equals, value = item.partition("=")
            if key not in known:
                offered = f"it takes {', '.join(known)}" if known else "it takes none"
                raise ConfigurationError(f"placement {name} has no parameter {key!r}{nearest(key, known)}; {offered}")
            found[key] = check_number(key, value if equals else "", f"placement {name}")
        return found


def check_number(key: str, value: object, where: str) -> int | float:
    """A count from 1, or for some keys a number above 0 (``restores_per_month``: 0 or more); as text or as it is. ``ConfigurationError``."""
    whole = key not in _FRACTIONS
    try:
        number = (int if whole else float)(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    right = isinstance(number, int) if whole else isinstance(number, (int, float))
    least = 0 if key == "restores_per_month" else 1 if whole else 0.01
    if not right or isinstance(number, bool) or not isinstance(number, (int, float)) or not least <= number <= _MOST:
        raise ConfigurationError(f"{where}: {key} must be a {'whole ' if whole else ''}number from {least} to {_MOST}, not {value!r}")
    return number if whole else float(number)


def check_rules(entries: object, names: Sequence[str], file: Path) -> tuple[Rule, ...]:
    """The checked ``[[placement.rule]]`` tables; ``names``: of all destinations."""
    return tuple(_rule(entry, f"[[placement.rule]] {number}", names, file) for number, entry in enumerate(_list(entries, "rule", file), 1))


def check_volumes(entries: object, placement: PlacementConfig, file: Path) -> tuple[VolumePlacement, ...]:
    """The checked ``[[placement.volume]]`` tables, whose policies take their parameters from ``placement``."""
    found = []
    for number, entry in enumerate(_list(entries, "volume", file), 1):
        where = f"{file}: [[placement.volume]] {number}"
        table = check_table(entry, f"[[placement.volume]] {number}", _VOLUME, file)
        match, policy = (_text(table, key, where, needed=True) or "" for key in ("match", "policy"))
        try:
            placement.parse(policy)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: policy: {error}") from error
        copies = check_number("min_copies", table["min_copies"], where) if "min_copies" in table else None
        found.append(VolumePlacement(match, policy, None if copies is None else int(copies)))
    return tuple(found)


def _list(entries: object, name: str, file: Path) -> list[object]:
    if not isinstance(entries, list):
        raise ConfigurationError(f"{file}: placement.{name} is written as [[placement.{name}]] tables")
    return entries


def _rule(entry: object, place: str, names: Sequence[str], file: Path) -> Rule:
    where = f"{file}: {place}"
    table = check_table(entry, place, _RULE, file)
    to = table.get("to")
    to = [to] if isinstance(to, str) else to
    if not isinstance(to, list) or not to or not all(isinstance(name, str) for name in to) or len(set(to)) != len(to):
        raise ConfigurationError(f'{where}: to must be a list of different destinations, as in ["near", "far"]')
    for name in to:
        if name not in names:
            raise ConfigurationError(f"{where}: to: no destination is named {name!r}{nearest(name, names)}; there are {', '.join(names)}")
    copies, every = (int(check_number(key, table[key], where)) if key in table else None for key in ("copies", "every"))
    if copies is not None and copies > len(to):
        raise ConfigurationError(f"{where}: {copies} copies are asked for, and `to` names {len(to)}")
    tags = table.get("tags", {})
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise ConfigurationError(f'{where}: tags must be a table of texts, as in {{ why = "nightly" }}')
    first, kind = table.get("first", False), table.get("kind")
    if not isinstance(first, bool):
        raise ConfigurationError(f"{where}: first must be true or false, not {first!r}")
    if kind not in (None, "full", "incremental"):
        raise ConfigurationError(f"{where}: kind: {not_offered(kind, ('full', 'incremental'))}")
    return Rule(tuple(to), copies, _text(table, "volume", where), dict(tags), every, first, kind, _range(table, where))


def _text(table: Mapping[str, Any], key: str, where: str, *, needed: bool = False) -> str | None:
    value = table.get(key)
    if (value is None and needed) or (value is not None and (not isinstance(value, str) or not value)):
        raise ConfigurationError(f"{where}: {key} must be text in quotes" + ("" if value is None else f", not {value!r}"))
    return value


def _range(table: Mapping[str, Any], where: str) -> tuple[int, int | None] | None:
    """``A-B`` as ``--range`` takes it: from byte A up to, not including, B; an empty B is the volume's end."""
    text = _text(table, "range", where)
    if text is None:
        return None
    first, dash, last = text.partition("-")
    if not dash:
        raise ConfigurationError(f"{where}: range {text!r}: write A-B, as in 0-1GiB or 1GiB-")
    start = parse_size(first, f"{where}: range") if first.strip() else 0
    end = parse_size(last, f"{where}: range") if last.strip() else None
    if end is not None and end <= start:
        raise ConfigurationError(f"{where}: range {text!r} ends before it begins")
    return start, end
