"""Which snapshots a retention policy keeps, and why: a pure function, with the rules of restic's ``forget``.

Each volume is looked at by itself. Its snapshots are walked from the newest to the oldest; of each hour, day, week (ISO 8601), month or
year that has any, the newest counts, until the rule's number is used up: periods without a snapshot use up nothing. If the walk ends
with some left, the oldest snapshot is kept too, so that the history reaches back as far as it can. A snapshot that any rule keeps is kept.

Where this departs from restic, it keeps more. Periods are those of UTC. "Last" counts generations, not clocks; and as long as any rule but
``keep_tags`` is given, a volume's latest snapshot (of the highest generation) is kept whatever the clock of the host that made it said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from snapferry.errors import ConfigurationError
from snapferry.lifecycle.durations import Duration

UNLIMITED = -1
"""As a count: every period's newest."""


class Retainable(Protocol):
    """What the rules look at; ``snapferry.types.Snapshot`` has it."""

    @property
    def id(self) -> str: ...
    @property
    def volume(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def created(self) -> datetime: ...
    @property
    def tags(self) -> Mapping[str, str]: ...


S = TypeVar("S", bound=Retainable)


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What to keep of each volume. Counts are 0 (no such rule), a number, or ``UNLIMITED``.

    Attributes:
        keep_within: all snapshots that are newer than this before the newest that is not in the future.
        keep_tags: all snapshots with any of these: ``KEY``, ``KEY=VALUE``, or several of them that must all be there, with commas between.

    Raises:
        ConfigurationError: a count below 0, or an empty tag.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: Duration = field(default_factory=Duration)
    keep_tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what could only be a mistake."""
        for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly"):
            count = getattr(self, f"keep_{name}")
            if count < UNLIMITED:
                raise ConfigurationError(f"keep-{name}: {count} is below 0; write a number, or 'unlimited'")
        for tag in self.keep_tags:
            if any(not part.partition("=")[0] for part in tag.split(",")):
                raise ConfigurationError(
                    f"keep-tag: {tag!r} has a part without a key; write KEY, KEY=VALUE, or several with commas between"
                )

    def __bool__(self) -> bool:
        """Whether there is any rule. Without one everything is kept; who asks for that has most likely forgotten something."""
        return self._by_time or bool(self.keep_tags)

    @property
    def _by_time(self) -> bool:
        counts = (self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly)
        return any(counts) or bool(self.keep_within)


@dataclass(frozen=True, slots=True)
class Decision(Generic[S]):
    """One snapshot, and why it is kept (``daily 3 of 7``, ``tag env=prod``); no reason: it is to be forgotten."""

    snapshot: S
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether it is kept."""
        return bool(self.reasons)


def decide(snapshots: Iterable[S], policy: RetentionPolicy, now: datetime) -> list[Decision[S]]:
    """What becomes of each of ``snapshots``: by volume, oldest first as ``list`` has them.

    Arguments:
        snapshots: those of one destination; each volume's are counted by themselves.
        now: what lies after it is in the future, which ``keep_within`` does not count from.
    """
    in_order = sorted(snapshots, key=lambda item: (item.volume, item.generation, item.id))
    return [decision for _, series in groupby(in_order, lambda item: item.volume) for decision in _decide(list(series), policy, now)]


def parse_count(text: str, what: str) -> int:
    """A rule's number: 0 or more, or ``unlimited``; ``ConfigurationError`` for anything else."""
    if text == "unlimited":
        return UNLIMITED
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise ConfigurationError(f"{what}: {text!r} is not a number of snapshots; write 0 or more, or 'unlimited'")
    return int(text)


def _decide(series: list[S], policy: RetentionPolicy, now: datetime) -> list[Decision[S]]:
    """Of one volume; ``series`` is ordered by generation, ties by id."""
    reasons: dict[str, list[str]] = {item.id: [] for item in series}
    if not policy:
        return [Decision(item, ("the policy is empty",)) for item in series]
    for item in series:
        reasons[item.id] += [f"tag {tag}" for tag in policy.keep_tags if _has(item.tags, tag)]
    newest_first = sorted(series, key=lambda item: (item.created, item.generation, item.id), reverse=True)
    if policy.keep_within:
        newest = next((item.created for item in newest_first if item.created < now), None)
        start = None if newest is None else policy.keep_within.before(newest)
        for item in series:
            if start is None or item.created > start:
                reasons[item.id].append(f"within {policy.keep_within} of the newest")
    _count("last", policy.keep_last, series[::-1], range(len(series)), reasons)
    times = [item.created.astimezone(UTC) for item in newest_first]
    for name, count, period in (
        ("hourly", policy.keep_hourly, _hour),
        ("daily", policy.keep_daily, _day),
        ("weekly", policy.keep_weekly, _week),
        ("monthly", policy.keep_monthly, _month),
        ("yearly", policy.keep_yearly, _year),
    ):
        if count:
            _count(name, count, newest_first, [period(time) for time in times], reasons)
    latest = reasons[series[-1].id]
    if not latest and policy._by_time:  # noqa: SLF001 - of this module
        latest.append("latest")
    return [Decision(item, tuple(reasons[item.id])) for item in series]


def _count(name: str, count: int, series: Sequence[S], periods: Sequence[object], reasons: dict[str, list[str]]) -> None:
    """Keeps the newest of each period until ``count`` are kept, and the oldest of all if that many are not there. ``series``: newest first."""
    kept, before = 0, None
    for number, (item, period) in enumerate(zip(series, periods, strict=True), 1):
        if kept == count:
            return
        same = number > 1 and period == before
        if same and number < len(series):
            continue
        kept, before = kept + 1, period
        nth = f"{name} {kept}" if count == UNLIMITED else f"{name} {kept} of {count}"
        reasons[item.id].append(f"oldest, {nth}" if same else nth)


def _has(tags: Mapping[str, str], rule: str) -> bool:
    """Whether ``tags`` are what ``rule`` asks for. A value may hold commas itself, so it is read both ways: what either finds is kept."""
    return _has_one(tags, rule) or all(_has_one(tags, part) for part in rule.split(","))


def _has_one(tags: Mapping[str, str], rule: str) -> bool:
    key, given, value = rule.partition("=")
    return key in tags and (not given or tags[key] == value)


def _hour(time: datetime) -> object:
    return time.date(), time.hour


def _day(time: datetime) -> object:
    return time.date()


def _week(time: datetime) -> object:
    return time.isocalendar()[:2]


def _month(time: datetime) -> object:
    return time.year, time.month


def _year(time: datetime) -> object:
    return time.year
