"""When memory is short because of a slow destination: what is moved to the disk, and who is left behind. A pure decision over a frozen look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ALLOWED = 0.08
"""So large a share of the time others may wait for one that is detached when it is slow; and ``GRACE`` seconds beyond that."""

GRACE = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """One channel, while somebody waits for memory.

    Attributes:
        name: of the destination. slow: what is done where it holds others up.
        waiting: packs that wait in memory for this one and others of which none makes everybody wait: taking them away helps.
        lag: bytes that others have and it has not.
        idle: it could take more than there is.
        stalled: what is on its way to it does not move.
        blame: seconds for which others have waited because of it, less those allowed.
    """

    name: str
    slow: Literal["block", "spool", "detach"]
    waiting: int
    lag: int
    idle: bool
    stalled: bool
    blame: float


@dataclass(frozen=True, slots=True)
class Relief:
    """What is to be done: names whose waiting packs go to the disk, whose packs on their way are taken back, and who is detached; and blame by name."""

    spool: tuple[str, ...]
    interrupt: tuple[str, ...]
    detach: str | None
    blame: dict[str, float]


def relieve(channels: Sequence[Look], seconds: float) -> Relief:
    """What to do now; ``seconds`` have passed since it was last asked, and memory was short all the while.

    One is detached only if another live one had nothing to do for more of the time than is allowed: who is a little slower than the
    fastest only slows it down a little. Of several the one that lags most goes first.
    """
    starved = [look.name for look in channels if look.idle]
    blame = {}
    for look in channels:
        if look.slow == "detach":
            guilty = look.lag > 0 and any(name != look.name for name in starved)
            blame[look.name] = max(0.0, look.blame + (seconds if guilty else 0.0) - ALLOWED * seconds)
    guilty_most = max((look for look in channels if blame.get(look.name, 0.0) > GRACE), key=lambda look: look.lag, default=None)
    return Relief(
        tuple(look.name for look in channels if look.slow == "spool" and look.waiting),
        tuple(look.name for look in channels if look.slow == "spool" and look.stalled),
        guilty_most.name if guilty_most else None,
        blame,
    )
