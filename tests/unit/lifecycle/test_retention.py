"""What a policy keeps, and the reasons it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

import pytest

from snapferry.errors import ConfigurationError
from snapferry.lifecycle.durations import Duration
from snapferry.lifecycle.retention import UNLIMITED, RetentionPolicy, decide, parse_count
from snapferry.types import Roots, Snapshot

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Item:
    id: str
    created: datetime
    generation: int
    volume: str = "v"
    tags: dict[str, str] = field(default_factory=dict)


def series(*times: str, volume: str = "v") -> list[Item]:
    """Snapshots of these times, oldest first, called a, b, c and so on."""
    return [
        Item(chr(ord("a") + number), datetime.fromisoformat(time + "+00:00"), number + 1, volume)
        for number, time in enumerate(sorted(times))
    ]


def kept(items: list[Item], policy: RetentionPolicy, now: datetime = NOW) -> dict[str, list[str]]:
    return {it.snapshot.id: list(it.reasons) for it in decide(items, policy, now) if it.keep}


DAYS = series(
    "2026-11-20T08:00", "2026-11-20T20:00", "2026-11-21T09:00", "2026-11-23T07:00", "2026-11-23T07:30", "2026-11-24T01:00"
)  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RetentionPolicy(keep_last=2), {"f": ["last 1 of 2"], "e": ["last 2 of 2"]}),
        (RetentionPolicy(keep_last=UNLIMITED), {letter: [f"last {6 - n}"] for n, letter in enumerate("abcdef")}),
        # The 22nd has none, and uses up nothing.
        (RetentionPolicy(keep_daily=3), {"f": ["daily 1 of 3"], "e": ["daily 2 of 3"], "c": ["daily 3 of 3"]}),
        # Four days are there: the fifth goes to the oldest.
        (
            RetentionPolicy(keep_daily=5),
            {
                "f": ["daily 1 of 5"],
                "e": ["daily 2 of 5"],
                "c": ["daily 3 of 5"],
                "b": ["daily 4 of 5"],
                "a": ["oldest, daily 5 of 5"],
            },
        ),
        (RetentionPolicy(keep_daily=4), {"f": ["daily 1 of 4"], "e": ["daily 2 of 4"], "c": ["daily 3 of 4"], "b": ["daily 4 of 4"]}),
        (RetentionPolicy(keep_hourly=2), {"f": ["hourly 1 of 2"], "e": ["hourly 2 of 2"]}),
        # The weeks of ISO 8601: Monday the 23rd begins one.
        (RetentionPolicy(keep_weekly=2), {"f": ["weekly 1 of 2"], "c": ["weekly 2 of 2"]}),
        (RetentionPolicy(keep_monthly=1), {"f": ["monthly 1 of 1"]}),
        (RetentionPolicy(keep_yearly=2), {"f": ["yearly 1 of 2"], "a": ["oldest, yearly 2 of 2"]}),
        (RetentionPolicy(keep_within=Duration(days=1)), {"f": ["within 1d of the newest"], "e": ["within 1d of the newest"], "d": ["within 1d of the newest"]}),
        # What is exactly as old is not within.
        (RetentionPolicy(keep_within=Duration(hours=18)), {"f": ["within 18h of the newest"], "e": ["within 18h of the newest"]}),
        (RetentionPolicy(keep_last=1, keep_daily=1), {"f": ["last 1 of 1", "daily 1 of 1"]}),
    ],
    ids=str,
)  # fmt: skip
def test_each_rule(policy: RetentionPolicy, expected: dict[str, list[str]]) -> None:
    assert kept(DAYS, policy) == expected


def test_an_empty_policy_keeps_everything_and_is_false() -> None:
    assert not RetentionPolicy()
    assert not RetentionPolicy(keep_within=Duration())
    assert kept(DAYS, RetentionPolicy()) == {it.id: ["the policy is empty"] for it in DAYS}
    assert decide([], RetentionPolicy(keep_last=1), NOW) == []


def test_volumes_are_counted_by_themselves_and_come_in_order() -> None:
    items = series("2026-01-01T00:00", "2026-01-02T00:00", volume="w") + series("2025-01-01T00:00", "2025-01-02T00:00")
    found = decide(items[::-1], RetentionPolicy(keep_last=1), NOW)
    assert [(it.snapshot.volume, it.snapshot.id, it.keep) for it in found] == [
        ("v", "a", False), ("v", "b", True), ("w", "a", False), ("w", "b", True),
    ]  # fmt: skip


def test_the_calendar_is_that_of_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    # Two days in Tokyo, one in UTC.
    items = [
        Item("a", datetime(2026, 5, 1, 23, tzinfo=tokyo), 1),
        Item("b", datetime(2026, 5, 2, 1, tzinfo=tokyo), 2),
        Item("c", datetime(2026, 6, 2, 1, tzinfo=tokyo), 3),
    ]
    assert list(kept(items, RetentionPolicy(keep_daily=2))) == ["b", "c"]


def test_weeks_belong_to_the_year_of_their_thursday() -> None:
    items = series("2025-12-29T00:00", "2026-01-01T00:00", "2026-01-05T00:00", "2025-12-28T00:00")
    assert list(kept(items, RetentionPolicy(keep_weekly=3))) == ["a", "c", "d"]


def test_tags_are_read_in_the_way_that_keeps_more() -> None:
    times = series(*(f"2026-01-0{day}T00:00" for day in range(1, 6)))
    tags = [{"env": "prod"}, {"env": "prod", "app": "db"}, {"env": "test"}, {"note": "a,b"}, {}]
    items = [Item(it.id, it.created, it.generation, tags=tag) for it, tag in zip(times, tags, strict=True)]

    def with_tag(*rules: str) -> list[str]:
        return list(kept(items, RetentionPolicy(keep_tags=rules)))

    assert with_tag("env=prod") == ["a", "b"]
    assert with_tag("env") == ["a", "b", "c"]
    assert with_tag("env=prod,app=db") == ["b"]
    assert with_tag("env=test", "app") == ["b", "c"]
    assert with_tag("note=a,b") == ["d"]
    assert with_tag("env=") == []
    # Tags alone keep no latest: whoever asks for them alone means it, as in restic.
    assert kept(items, RetentionPolicy(keep_tags=("app=db",))) == {"b": ["tag app=db"]}


def test_a_clock_that_was_off_never_costs_the_latest_snapshot() -> None:
    items = [*DAYS, Item("z", datetime(1970, 1, 1, tzinfo=UTC), 7)]
    assert kept(items, RetentionPolicy(keep_daily=1)) == {"f": ["daily 1 of 1"], "z": ["latest"]}
    assert kept(items, RetentionPolicy(keep_within=Duration(hours=1))) == {"f": ["within 1h of the newest"], "z": ["latest"]}
    assert kept(items, RetentionPolicy(keep_last=1)) == {"z": ["last 1 of 1"]}


def test_the_future_is_not_what_within_counts_from() -> None:
    ahead = Item("z", datetime(2030, 1, 1, tzinfo=UTC), 7)
    assert list(kept([*DAYS, ahead], RetentionPolicy(keep_within=Duration(days=1)))) == ["d", "e", "f", "z"]
    # Nothing to count from: everything is kept.
    assert len(kept([*DAYS], RetentionPolicy(keep_within=Duration(days=1)), now=datetime(2020, 1, 1, tzinfo=UTC))) == len(DAYS)


def test_snapshots_of_the_same_moment_are_told_apart_by_generation_and_id() -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    items = [Item("b", time, 1), Item("a", time, 2), Item("c", time, 2)]
    assert list(kept(items, RetentionPolicy(keep_daily=1))) == ["c"]
    assert list(kept(items, RetentionPolicy(keep_last=2))) == ["a", "c"]


def test_snapshots_of_the_repository_fit() -> None:
    snapshot = Snapshot("ab" * 16, "v", 1, NOW, 0, 1 << 18, Roots(0, None, None), tags={"k": "v"})
    assert [it.reasons for it in decide([snapshot], RetentionPolicy(keep_tags=("k=v",)), NOW)] == [("tag k=v",)]


def test_counts_as_they_are_written() -> None:
    assert [parse_count(text, "keep-last") for text in ("0", "7", "unlimited")] == [0, 7, UNLIMITED]
    for text in ("-1", "", "x", "1.5", "٣", " 1", "1234567890"):
        with pytest.raises(ConfigurationError, match="keep-last"):
            parse_count(text, "keep-last")


@pytest.mark.parametrize("wrong", [{"keep_daily": -2}, {"keep_tags": ("",)}, {"keep_tags": ("=x",)}, {"keep_tags": ("a,",)}], ids=str)
def test_what_can_only_be_a_mistake_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetentionPolicy(**wrong)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
