"""The placement policies against naive twins, and what must hold whatever is configured."""

from __future__ import annotations

import fnmatch
import math
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snapferry.errors import ConfigurationError
from snapferry.placement import (
    Alternate,
    Cheapest,
    Layout,
    Mirror,
    Route,
    Rule,
    Share,
    Site,
    Spread,
    Standing,
    Subject,
    check_policy,
    describe,
    described,
    lay_out,
    meant_for,
    placed_alike,
    ranked,
    restore_cost,
)

NAMES = ("a", "b", "c", "d", "e")
SUBJECT = Subject("v", 0)
packs = st.binary(min_size=32, max_size=32)
subsets = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(lambda chosen: tuple(name for name in NAMES if name in chosen))
weights = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.1, 0.5, 2.0, 7.0]))


def sites(names: tuple[str, ...]) -> list[Site]:
    return [Site(name) for name in names]


# Spreading.


@given(packs, subsets, st.sampled_from(NAMES), weights)
def test_a_site_more_or_less_moves_only_what_is_its_own(pack: bytes, names: tuple[str, ...], other: str, weights: dict[str, float]) -> None:
    without = [name for name in names if name != other]
    assert ranked(pack, without, weights) == [name for name in ranked(pack, names, weights) if name != other]
    assert sorted(ranked(pack, names, weights)) == list(names)
    assert ranked(pack, reversed(names), weights) == ranked(pack, names, weights)


@given(packs, subsets, st.integers(1, 5), st.frozensets(st.sampled_from(NAMES)))
def test_never_two_copies_on_one_and_as_many_as_can_be(pack: bytes, names: tuple[str, ...], copies: int, alive: frozenset[str]) -> None:
    assume(copies <= len(names))
    layout = lay_out(Spread(copies), sites(names), SUBJECT)
    chosen = layout.chosen(pack, layout.groups[0].share, alive)
    assert len(chosen) == len(set(chosen)) == min(copies, len(alive & set(names)))
    assert set(chosen) <= alive & set(names)
    # What goes where while somebody is away goes there too when everybody is there, but for what that one would have had.
    everybody = layout.chosen(pack, layout.groups[0].share, frozenset(names))
    assert set(everybody) & alive <= set(chosen)


@pytest.mark.parametrize("shares", [{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 2.0, "c": 5.0}, {"a": 0.1, "b": 1.0}])
def test_weights_are_respected(shares: dict[str, float]) -> None:
    number = 6000
    first = Counter(ranked(index.to_bytes(32, "big"), shares, shares)[0] for index in range(number))
    for name, weight in shares.items():
        chance = weight / sum(shares.values())
        assert abs(first[name] - number * chance) < 5 * math.sqrt(number * chance * (1 - chance))


# Alternating.


@given(subsets, st.integers(0, 1000))
def test_alternate_visits_each_once_a_round(names: tuple[str, ...], start: int) -> None:
    round_ = [lay_out(Alternate(), sites(names), Subject("v", start + step)) for step in range(len(names))]
    assert sorted(layout.members[0] for layout in round_) == sorted(names)
    assert all(layout.whole and len(layout.members) == 1 for layout in round_)
    assert lay_out(Alternate(), sites(names), Subject("v", start + len(names), full=False, inherits=True)).members == round_[0].members


# The cheapest set.

prices = st.sampled_from([0.0, 0.004, 0.01, 0.023, 0.09])
some_sites = st.lists(
    st.builds(
        Site,
        name=st.just(""),
        operator=st.sampled_from([None, "x", "y", "z"]),
        region=st.sampled_from([None, "eu", "us"]),
        store_gb_month=prices,
        egress_gb=prices,
        request_1k=prices,
    ),
    min_size=1,
    max_size=6,
).map(
    lambda found: [
        Site(NAMES[n] if n < 5 else "f", 1.0, it.operator, it.region, it.store_gb_month, it.egress_gb, it.request_1k)
        for n, it in enumerate(found)
    ]
)
wishes = st.builds(
    Cheapest,
    copies=st.integers(1, 4),
    operators=st.integers(1, 3),
    regions=st.integers(1, 2),
    months=st.sampled_from([1.0, 12.0, 84.0]),
    restores_per_month=st.sampled_from([0.0, 0.05, 2.0]),
)


def price(policy: Cheapest, chosen: tuple[Site, ...]) -> float:
    """Of 10⁹ bytes, in packs of 32 MiB that are read 8 MiB at a time."""
    kept = sum(site.store_gb_month * policy.months + site.request_1k * (1e9 / 2**25) / 1000 for site in chosen)
    read = min(site.egress_gb + site.request_1k * (1e9 / 2**23) / 1000 for site in chosen)
    return kept + read * policy.months * policy.restores_per_month


@given(wishes, some_sites)
def test_cheapest_is_the_cheapest_of_all_sets(policy: Cheapest, found: list[Site]) -> None:
    def suits(chosen: tuple[Site, ...]) -> bool:
        operators = {site.operator for site in chosen} - {None}
        regions = {site.region for site in chosen} - {None}
        return len(chosen) >= policy.copies and max(1, len(operators)) >= policy.operators and max(1, len(regions)) >= policy.regions

    fitting = [chosen for size in range(1, len(found) + 1) for chosen in combinations(found, size) if suits(chosen)]
    if not fitting:
        with pytest.raises(ConfigurationError, match="placement cheapest"):
            lay_out(policy, found, SUBJECT)
        return
    layout = lay_out(policy, found, SUBJECT)
    chosen = tuple(site for site in found if site.name in layout.members)
    assert layout.whole
    assert suits(chosen)
    assert price(policy, chosen) == pytest.approx(min(price(policy, it) for it in fitting), abs=1e-8)
    assert lay_out(policy, found, Subject("w", 9)) == layout


# Routing.

BLOCK = 64
cuts = st.integers(0, 12).map(lambda number: number * 40)
ranges = st.one_of(st.none(), st.tuples(cuts, st.one_of(st.none(), st.integers(1, 8).map(lambda number: number * 40)))).map(
    lambda it: None if it is None else (it[0], None if it[1] is None else it[0] + it[1])
)
rules = st.builds(
    Rule,
    to=subsets,
    copies=st.one_of(st.none(), st.just(1)),
    volume=st.sampled_from([None, "db-*", "*", "v"]),
    tags=st.sampled_from([{}, {"why": "nightly"}, {"why": "nightly", "by": "me"}]),
    every=st.sampled_from([None, 2, 3]),
    first=st.booleans(),
    kind=st.sampled_from([None, "full", "incremental"]),
    range=ranges,
)
subjects = st.builds(
    Subject,
    volume=st.sampled_from(["v", "db-1"]),
    ordinal=st.integers(0, 6),
    tags=st.sampled_from([{}, {"why": "nightly"}]),
    full=st.booleans(),
    inherits=st.booleans(),
)


def takes(rule: Rule, subject: Subject, byte: int, *, now: bool) -> bool:
    """Said for one byte. ``now``: for this snapshot; else for any of the volume."""
    of_volume = rule.volume is None or fnmatch.fnmatchcase(subject.volume, rule.volume)
    tagged = all(subject.tags.get(key) == value for key, value in rule.tags.items())
    inside = rule.range is None or (rule.range[0] <= byte and (rule.range[1] is None or byte < rule.range[1]))
    turn = (rule.every is None or subject.ordinal % rule.every == 0) and (not rule.first or subject.ordinal == 0)
    kind = rule.kind is None or rule.kind == ("full" if subject.full else "incremental")
    return of_volume and tagged and inside and (not now or (turn and kind))


def share(rule: Rule) -> Share:
    return Share(tuple(name for name in NAMES if name in rule.to), rule.copies or len(rule.to))


@given(st.lists(rules, max_size=5).map(tuple), subjects)
def test_route_is_the_first_rule_that_takes_each_block(some: tuple[Rule, ...], subject: Subject) -> None:
    policy = Route((*some, Rule(("c", "e"))))
    layout = lay_out(policy, sites(NAMES), subject)
    areas = layout.areas(BLOCK)
    assert areas[0][0] == 0
    assert areas == sorted(areas)
    members = set()
    for byte in range(0, 1000, 20):
        first = next(rule for rule in policy.rules if takes(rule, subject, byte, now=True))
        accepted = {share(rule) for rule in policy.rules if subject.inherits and takes(rule, subject, byte, now=False)} | {share(first)}
        (group,) = (it for it in layout.groups if any(low <= byte and (high is None or byte < high) for low, high in it.ranges))
        assert group.share == group.accepted[0] == share(first)
        assert set(group.accepted) == accepted
        members |= {name for it in accepted for name in it.holders}
        if byte % BLOCK == 0:
            number = [of for begin, of in areas if begin <= byte // BLOCK][-1]
            assert layout.whole or layout.group(number) == group
            assert number == (0 if layout.whole else layout.groups.index(group) + 1)
    assert set(layout.members) == members


def test_what_no_rule_takes_is_said() -> None:
    policy = Route((Rule(("a",), range=(100, 200)), Rule(("b",), first=True)))
    assert lay_out(policy, sites(NAMES), SUBJECT).members == ("a", "b")
    with pytest.raises(ConfigurationError, match=r"no rule takes bytes 0 to 100 of volume v in its snapshot 1"):
        lay_out(policy, sites(NAMES), Subject("v", 1))
    with pytest.raises(ConfigurationError, match=r"rule 1 .* sends to a, and the export goes to b only"):
        check_policy(policy, sites(("b",)), 1)


# Copies.

layouts = st.one_of(
    subsets.map(lambda names: lay_out(Mirror(), sites(names), SUBJECT)),
    st.tuples(subsets, st.integers(1, 5)).map(lambda it: lay_out(Spread(min(it[1], len(it[0]))), sites(it[0]), SUBJECT)),
    st.lists(rules, max_size=4).map(
        lambda some: lay_out(Route((*some, Rule(("b", "d"), copies=1))), sites(NAMES), Subject("v", 3, inherits=True))
    ),
)
places = st.dictionaries(st.sampled_from(NAMES), st.frozensets(st.integers(0, 30)))


@settings(max_examples=400)
@given(layouts, places, st.data())
def test_there_are_as_many_copies_as_are_counted_on(layout: Layout, where: dict[str, frozenset[int]], data: st.DataObject) -> None:
    """Whoever is absent, behind, or fails: of what counts as known, and of what is new, as many copies are left as ``left`` says, and no commit is begun below."""
    some = st.frozensets(st.sampled_from(layout.members))
    absent = data.draw(some)
    behind = data.draw(some) - absent
    assume(len(layout.members) > len(absent | behind))
    min_copies = data.draw(st.integers(1, min(share.copies for share in layout.shares)))
    standing = Standing(layout, absent, behind, min_copies)
    presence = {name: {number.to_bytes(32, "big"): None for number in where.get(name, ())} for name in NAMES}
    lost = data.draw(some) - absent
    caught_up = behind - lost
    in_play = standing.in_play(presence)
    alive = frozenset(layout.members) - absent
    for group in layout.groups:
        for pack in standing.known_in(group, presence):
            holders = {name for name in layout.members if name not in absent | lost and pack in presence[name]}
            assert {name for name in layout.members if name not in absent and pack in presence[name]}  # Somebody to copy it from.
            good = frozenset(layout.members) - absent - data.draw(st.frozensets(st.sampled_from(sorted(lost)))) if lost else alive
            holders |= {name for name in standing.wanting(pack, group, good, presence) if name in caught_up}
            under = [share for share in group.accepted if pack in standing.known(share, presence)]
            assert all(share in in_play for share in under)
            assert any(len(holders & set(share.holders)) >= standing.left(share, lost) for share in under)
            if not standing.short(lost, in_play):
                assert len(holders) >= min_copies
        new = layout.chosen(b"new".ljust(32), group.share, alive)
        assert len(set(new) - lost) >= standing.left(group.share, lost)


def test_who_is_behind_wants_what_all_that_had_it_lost() -> None:
    """Else it would be taken for up to date, and committed, without a pack that it could not get any more."""
    standing = Standing(lay_out(Spread(2), sites(("a", "b", "c")), SUBJECT), frozenset(), frozenset({"a"}), 1)
    pack = bytes(32)
    presence: dict[str, dict[bytes, object]] = {"a": {}, "b": {}, "c": {pack: None}}
    (group,) = standing.layout.groups
    assert pack in standing.known_in(group, presence)
    assert standing.wanting(pack, group, frozenset({"a", "b"}), presence) == ("a",)


@given(subsets, places, st.data())
def test_a_mirror_is_as_it_always_was(names: tuple[str, ...], where: dict[str, frozenset[int]], data: st.DataObject) -> None:
    layout = lay_out(Mirror(), sites(names), SUBJECT)
    some = st.frozensets(st.sampled_from(names))
    absent = data.draw(some)
    behind = data.draw(some) - absent
    assume(len(names) > len(absent | behind))
    standing = Standing(layout, absent, behind, data.draw(st.integers(1, len(names))))
    presence = {name: {number.to_bytes(32, "big"): None for number in where.get(name, ())} for name in names}
    ready = [set(presence[name]) for name in names if name not in absent | behind]
    assert standing.known_in(layout.groups[0], presence) == standing.everywhere(presence) == set.intersection(*ready)
    lost = data.draw(some) - absent
    good = set(names) - absent - lost
    assert bool(standing.short(lost, standing.in_play(presence))) == (len(good) < standing.min_copies)
    # Whoever is behind gets all that it lacks.
    for pack in standing.everywhere(presence):
        assert set(standing.wanting(pack, layout.groups[0], frozenset(names) - absent, presence)) == {
            name for name in behind if pack not in presence[name]
        }


# What commits say, and costs.


@given(layouts)
def test_what_a_commit_says_is_read_back(layout: Layout) -> None:
    text = describe(layout)
    said = described(text)
    assert said.policy == layout.policy
    assert said.in_parts == (not layout.whole)
    assert said.copies in (None, min(share.copies for share in layout.shares))
    assert said.members in (() if layout.policy == "mirror" else layout.members, layout.members)
    assert len(text) <= 4096
    assert placed_alike(text, layout)
    assert all(meant_for(text, name) for name in layout.members)


@given(st.text())
def test_any_text_is_read_as_something(text: str) -> None:
    assert described(text).copies is None or described(text).in_parts


def test_what_older_commits_say() -> None:
    assert (described("mirror").in_parts, described("mirror").members) == (False, ())
    assert meant_for("mirror", "anybody")


@given(st.dictionaries(packs, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 1 << 26), min_size=1), max_size=5), some_sites)
def test_a_restore_costs_what_its_cheapest_holders_ask(where: dict[bytes, dict[str, int]], found: list[Site]) -> None:
    by_name = {site.name: site for site in found}
    expected = 0.0
    for holders in where.values():
        asked = [
            size / 1e9 * by_name[name].egress_gb + math.ceil(size / (8 << 20)) * by_name[name].request_1k / 1000
            for name, size in holders.items()
            if name in by_name
        ]
        expected += min(asked, default=0.0)
    assert restore_cost(where.values(), by_name) == pytest.approx(expected)
