"""``route``: the first rule that takes a block says where it goes."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator

from snapferry.errors import ConfigurationError
from snapferry.placement.layout import Group, Range, Share
from snapferry.placement.policies import Route, Rule
from snapferry.placement.sites import Subject


def route(policy: Route, names: Collection[str], subject: Subject) -> tuple[tuple[str, ...], tuple[Group, ...]]:
    """Members and groups for one export.

    What an earlier snapshot of the volume may have put elsewhere, by a rule that asks for another ordinal or kind, stays there and counts as known;
    so its holders are members too. ``names``: of the sites that may be used. ``ConfigurationError``: a part of the volume is taken by no rule.
    """
    numbered = list(enumerate(policy.rules, 1))
    of_volume = [(number, rule) for number, rule in numbered if _takes_volume(rule, subject)]
    now = [(number, rule) for number, rule in of_volume if _takes_snapshot(rule, subject)]
    pieces: dict[tuple[str, tuple[Share, ...]], list[Range]] = {}
    for piece in _pieces([rule for _, rule in of_volume]):
        chosen = next(((number, rule) for number, rule in now if _covers(rule, piece)), None)
        if chosen is None:
            raise ConfigurationError(
                f"placement route: no rule takes {_bytes(piece)} of volume {subject.volume} in its snapshot {subject.ordinal}; "
                "let the last rule ask for nothing but `to`"
            )
        share = _share(*chosen, names)
        others = [_share(number, rule, names) for number, rule in of_volume if _covers(rule, piece)] if subject.inherits else []
        accepted = tuple(dict.fromkeys([share, *others]))
        _join(pieces.setdefault((f"rule {chosen[0]} of placement route", accepted), []), piece)
    groups = tuple(
        Group(tuple(ranges), accepted[0], accepted, f"{why}, for {', '.join(map(_bytes, ranges))}")
        for (why, accepted), ranges in pieces.items()
    )
    wanted = {name for group in groups for share in group.accepted for name in share.holders}
    return tuple(name for name in names if name in wanted), groups


def check_rules(policy: Route, names: Collection[str]) -> tuple[int, str]:
    """The fewest copies that a rule makes, and how to say so; ``ConfigurationError`` for a rule that cannot be kept to."""
    if not policy.rules:
        raise ConfigurationError("placement route has no rules: write [[placement.rule]] tables, each with `to`")
    shares = {number: _share(number, rule, names) for number, rule in enumerate(policy.rules, 1)}
    least = min(shares, key=lambda number: shares[number].copies)
    return shares[least].copies, f"rule {least} of placement route makes {shares[least].copies}"


def _takes_volume(rule: Rule, subject: Subject) -> bool:
    return (rule.volume is None or fnmatch.fnmatchcase(subject.volume, rule.volume)) and rule.tags.items() <= dict(subject.tags).items()


def _takes_snapshot(rule: Rule, subject: Subject) -> bool:
    return (
        (rule.every is None or subject.ordinal % rule.every == 0)
        and (not rule.first or subject.ordinal == 0)
        and (rule.kind is None or (rule.kind == "full") == subject.full)
    )


def _covers(rule: Rule, piece: Range) -> bool:
    if rule.range is None:
        return True
    (start, end), (low, high) = piece, rule.range
    return low <= start and (high is None or (end is not None and end <= high))


def _pieces(rules: Collection[Rule]) -> Iterator[Range]:
    """The volume, cut wherever a rule's range begins or ends."""
    cuts = sorted({0} | {cut for rule in rules if rule.range is not None for cut in rule.range if cut is not None})
    yield from zip(cuts, [*cuts[1:], None], strict=True)


def _join(ranges: list[Range], piece: Range) -> None:
    if ranges and ranges[-1][1] == piece[0]:
        ranges[-1] = (ranges[-1][0], piece[1])
    else:
        ranges.append(piece)


def _share(number: int, rule: Rule, names: Collection[str]) -> Share:
    """``ConfigurationError`` for sites that are not there, or fewer than its copies."""
    unknown = [name for name in rule.to if name not in names]
    if unknown:
        raise ConfigurationError(
            f"rule {number} of placement route sends to {', '.join(unknown)}, and the export goes to {', '.join(names)} only"
        )
    copies = len(rule.to) if rule.copies is None else rule.copies
    if copies > len(rule.to):
        raise ConfigurationError(f"rule {number} of placement route asks for {copies} copies on {len(rule.to)} destinations")
    return Share(tuple(name for name in names if name in rule.to), copies)


def _bytes(piece: Range) -> str:
    return f"bytes {piece[0]} to {'the end' if piece[1] is None else piece[1]}"
