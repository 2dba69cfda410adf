"""Retention against a twin that says the same as sets, and what must hold whatever the policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from snapferry.lifecycle.durations import Duration
from snapferry.lifecycle.retention import UNLIMITED, RetentionPolicy, decide

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
COUNTS = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


@dataclass(frozen=True)
class Item:
    id: str
    created: datetime
    generation: int
    volume: str
    tags: dict[str, str] = field(default_factory=dict)


# Mostly close to each other, some hours apart, some years; a few in the future.
moments = st.one_of(st.integers(-48, 200), st.integers(-400, 20_000)).map(lambda hours: NOW - timedelta(hours=hours, minutes=hours % 60))
tags = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), max_size=2)
items = st.lists(st.tuples(moments, st.integers(1, 30), st.sampled_from(["v", "w"]), tags), max_size=40).map(
    lambda rows: [Item(f"{number:04}", *row) for number, row in enumerate(rows)]
)
counts = st.one_of(st.just(0), st.integers(0, 8), st.just(UNLIMITED))
policies = st.builds(
    RetentionPolicy,
    **dict.fromkeys(COUNTS, counts),
    keep_within=st.builds(Duration, st.integers(0, 1), st.integers(0, 2), st.integers(0, 3), st.integers(0, 30)),
    keep_tags=st.lists(st.sampled_from(["a", "b=1", "a=1,b=2"]), max_size=2).map(tuple),
)


def kept(snapshots: list[Item], policy: RetentionPolicy) -> set[str]:
    return {it.snapshot.id for it in decide(snapshots, policy, NOW) if it.keep}


def twin(series: list[Item], policy: RetentionPolicy) -> set[str]:
    """Of one volume, said as sets instead of a walk."""
    if not policy:
        return {it.id for it in series}
    keep: set[str] = set()
    by_time = sorted(series, key=lambda it: (it.created, it.generation, it.id))
    by_generation = sorted(series, key=lambda it: (it.generation, it.id))
    form = {"keep_hourly": "%Y%m%d%H", "keep_daily": "%Y%m%d", "keep_weekly": "%G%V", "keep_monthly": "%Y%m", "keep_yearly": "%Y"}
    for rule in COUNTS:
        count = getattr(policy, rule)
        if count == 0:
            continue
        order = by_generation if rule == "keep_last" else by_time
        newest = {it.id if rule == "keep_last" else it.created.strftime(form[rule]): it.id for it in order}
        chosen = list(newest.values())
        if count == UNLIMITED or len(chosen) < count:
            keep |= {*chosen, order[0].id}
        else:
            keep |= set(chosen[-count:])
    for rule in policy.keep_tags:
        keep |= {it.id for it in series if all(part in {*it.tags, *map("=".join, it.tags.items())} for part in rule.split(","))}
    if policy.keep_within:
        past = [it.created for it in series if it.created < NOW]
        start = policy.keep_within.before(max(past)) if past else None
        keep |= {it.id for it in series if start is None or it.created > start}
    if any(getattr(policy, rule) for rule in COUNTS) or policy.keep_within:
        keep.add(by_generation[-1].id)
    return keep


@given(items, policies)
def test_it_keeps_what_the_twin_keeps(snapshots: list[Item], policy: RetentionPolicy) -> None:
    expected: set[str] = set()
    for volume in {it.volume for it in snapshots}:
        expected |= twin([it for it in snapshots if it.volume == volume], policy)
    assert kept(snapshots, policy) == expected
    assert sorted(it.snapshot.id for it in decide(snapshots, policy, NOW)) == [it.id for it in snapshots]


@given(items, policies)
def test_what_was_kept_is_kept_again(snapshots: list[Item], policy: RetentionPolicy) -> None:
    once = kept(snapshots, policy)
    assert kept([it for it in snapshots if it.id in once], policy) == once


@given(items, policies, st.sampled_from(COUNTS))
def test_more_keeps_more(snapshots: list[Item], policy: RetentionPolicy, rule: str) -> None:
    if policy:  # Without any rule all is kept, and a first rule is what lets things go.
        count = getattr(policy, rule)
        for more in (count + 1, UNLIMITED) if count != UNLIMITED else ():
            assert kept(snapshots, policy) <= kept(snapshots, replace(policy, **{rule: more}))  # type: ignore[arg-type]


@given(items, policies)
def test_the_newest_stay_unless_only_tags_are_asked_for(snapshots: list[Item], policy: RetentionPolicy) -> None:
    if policy and not replace(policy, keep_tags=()):
        return
    keep = kept(snapshots, policy)
    for volume in {it.volume for it in snapshots}:
        series = [it for it in snapshots if it.volume == volume]
        assert max(series, key=lambda it: (it.generation, it.id)).id in keep
        if policy.keep_hourly or policy.keep_daily or policy.keep_weekly or policy.keep_monthly or policy.keep_yearly:
            assert max(series, key=lambda it: (it.created, it.generation, it.id)).id in keep


@given(items, policies)
def test_the_order_they_come_in_is_of_no_matter(snapshots: list[Item], policy: RetentionPolicy) -> None:
    assert decide(snapshots, policy, NOW) == decide(snapshots[::-1], policy, NOW)
