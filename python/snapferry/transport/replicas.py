"""Which replica to read from: a pure decision over a frozen look at what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What is known of a destination as a place to read from.

    Attributes:
        first_byte: seconds until the first byte comes, or None if never measured.
        goodput: bytes per second from then on, or None if never measured.
        queued: bytes asked for and not come yet.
        failed: it failed lately, and is asked only if no other can be.
    """

    name: str
    first_byte: float | None = None
    goodput: float | None = None
    queued: int = 0
    failed: bool = False

    @property
    def measured(self) -> bool:
        """Whether a finish can be predicted."""
        return self.first_byte is not None and self.goodput is not None

    def predicted(self, size: int) -> float:
        """Seconds until ``size`` more bytes would be here: first byte, then all that is queued. Infinite if never measured."""
        if self.first_byte is None or self.goodput is None:
            return float("inf")
        return self.first_byte + (self.queued + size) / self.goodput


def choose(candidates: Sequence[ReplicaState], size: int) -> str:
    """The name of the replica to ask for ``size`` bytes.

    One never measured comes first while nothing is asked of it, so that each is tried, with one read at a time. Then the earliest predicted
    finish; then the unmeasured that are being tried; last, in the same order, those that failed. Ties go to the least queued, then to the order given.

    Raises:
        ValueError: there is no candidate.
    """
    if not candidates:
        raise ValueError("no replica to choose from")

    def rank(state: ReplicaState) -> tuple[bool, int, float, int]:
        kind = 1 if state.measured else 0 if not state.queued else 2
        return state.failed, kind, state.predicted(size), state.queued

    return min(candidates, key=rank).name
