"""How each destination stands, in lines for people and in a document for programs. Pure: knows no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Literal

    from snapferry.types import ChannelProgress

    Channels = Mapping[str, ChannelProgress]

MOST = 8
"""Lines at most: of more destinations the slowest are shown, and how many the others are."""

_NAME = 16
_GAP = "  "
_WORST_FIRST: tuple[Literal["failed", "detached", "spooling", "waiting", "live", "acknowledged"], ...] = (
    "failed", "detached", "spooling", "waiting", "live", "acknowledged",
)  # fmt: skip


def document(channels: Channels) -> dict[str, dict[str, Any]]:
    """``channels`` of a progress line: by name, with bytes and bytes a second in whole numbers."""
    return {
        name: {"state": at.state, "bytes": at.bytes, "speed": round(at.speed), "queued": at.queued, "lag": at.lag}
        for name, at in channels.items()
    }


def summed(many: Iterable[Channels]) -> dict[str, ChannelProgress]:
    """The destinations of several operations side by side: what is counted is added up, and the state is the worst of all."""
    sums: dict[str, ChannelProgress] = {}
    for channels in many:
        for name, at in channels.items():
            before = sums.get(name)
            sums[name] = at if before is None else _added(before, at)
    return sums


def ended(channels: Channels) -> dict[str, ChannelProgress]:
    """What is left to say of destinations once the operation is over: what it came to."""
    from snapferry.types import ChannelProgress

    return {name: ChannelProgress("acknowledged" if at.state == "live" else at.state, at.bytes, 0.0) for name, at in channels.items()}


def lines(operation: str, channels: Channels, width: int, most: int = MOST) -> list[str]:
    """A line for each destination, of ``width`` characters at most; less is told where there is less room.

    Of an export: state, speed, queue and lag; of a restore: its share of all bytes, and its speed.
    """
    if not channels or width <= 0 or most <= 0:
        return []
    shown = _slowest(channels, most)
    total = sum(at.bytes for at in channels.values())
    rows = [_cells(operation, name, at, total) for name, at in channels.items() if name in shown]
    widest = _NAME if width >= 60 else max(4, width // 3)
    rows = [[_cut(row[0], widest), *row[1:]] for row in rows]
    others = [at for name, at in channels.items() if name not in shown]
    said = _aligned(rows, width)
    if others:
        said.append(f"{_GAP}and {len(others)} more, {_size(sum(at.speed for at in others))}/s")
    return [_cut(line, width) for line in said]


def _cells(operation: str, name: str, at: ChannelProgress, total: int) -> list[str]:
    """The name, then what is told of it, what matters most first."""
    speed = f"{_size(at.speed)}/s"
    if operation != "export":
        share = f"{100 * at.bytes / total:.0f} %" if total else ""
        return [name, speed, share, _size(at.bytes), "" if at.state == "live" else at.state]
    return [name, speed, f"lag {_size(at.lag)}" if at.lag else "", f"queue {_size(at.queued)}" if at.queued else "", at.state]


def _aligned(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """As many columns as there is room for."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    fitting, used = 0, 0
    for column in widths:
        used += (len(_GAP) + column) if column else 0
        if used > width:
            break
        fitting += 1
    fitting = max(fitting, 1)
    said = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(wide) for cell, wide in zip(row[1:fitting], widths[1:fitting], strict=True) if wide]
        said.append((_GAP + _GAP.join(cells)).rstrip())
    return said


def _slowest(channels: Channels, most: int) -> set[str]:
    if len(channels) <= most:
        return set(channels)
    # One line is for the others.
    return set(
        sorted(channels, key=lambda name: (channels[name].state == "acknowledged", -channels[name].lag, channels[name].speed))[: most - 1]
    )


def _added(one: ChannelProgress, other: ChannelProgress) -> ChannelProgress:
    from snapferry.types import ChannelProgress

    state = min(one.state, other.state, key=_WORST_FIRST.index)
    return ChannelProgress(state, one.bytes + other.bytes, one.speed + other.speed, one.queued + other.queued, one.lag + other.lag)


def _size(count: float) -> str:
    from snapferry.config import format_size

    return format_size(round(count))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
