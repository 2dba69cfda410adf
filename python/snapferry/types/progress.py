"""How a command stands while it runs, and what a caller may wish of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class ChannelProgress:
    """How one destination stands in an operation.

    Attributes:
        state: ``live``; ``waiting`` (it fails at the moment, and is tried again); ``spooling`` (what it does not take goes to the spool);
            ``detached`` (it fell behind, and is left to be caught up); ``failed``; ``acknowledged`` (it holds everything).
        bytes: acknowledged (export) or fetched (restore) so far.
        speed: bytes a second lately.
        queued: bytes on their way to it, or asked of it and not come yet.
        lag: bytes that wait for it and that the fastest destination has already; those in the spool count.
    """

    state: Literal["live", "waiting", "spooling", "detached", "failed", "acknowledged"]
    bytes: int
    speed: float
    queued: int = 0
    lag: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """One progress event; counts are cumulative since the command began.

    Attributes:
        operation: what is going on.
        subject: a volume's name, a snapshot's id, or a target.
        done: bytes of the volume dealt with; holes count.
        total: bytes of the volume, or None where nobody knows.
        sent: bytes acknowledged (export) or fetched (restore) per destination.
        channels: how each destination stands, where that is known.
    """

    operation: Literal["export", "restore", "verify", "copy", "rebuild", "prune", "repair"]
    subject: str
    done: int
    total: int | None
    sent: dict[str, int]
    channels: Mapping[str, ChannelProgress] = field(default_factory=dict)


Preference = Literal["fast", "cheap"]
"""Which replicas are read from: whichever brings it first; or the cheapest that can, the others only for what that one cannot serve."""

ProgressCallback = Callable[[Progress], object]
