"""The keys of a repository, as a caller sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One key that opens the repository.

    Attributes:
        id: 32 hex digits; stays the same when an epoch begins.
        kind: ``key file``, ``passphrase`` or ``public key``.
        role: ``full``, or ``write-only``: it makes snapshots and reads none.
        epoch: the number of the newest key epoch that it knows.
        up_to_date: it knows every epoch that any other does. A rotation, or the next export with a full key, sees to that.
        in_use: the repository was opened with it.
        destinations: names of those that hold it.
    """

    id: str
    kind: str
    role: str
    label: str
    created: datetime
    epoch: int
    up_to_date: bool
    in_use: bool
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What a change of keys came to.

    Attributes:
        slot: the id of the slot that was added or removed; None for a rotation.
        epoch: the number of the epoch that is written under now.
        slots: how many keys open the repository now.
        changed: names of the destinations where all was done.
        failures: those where it was not, or not in full, and why; the next export or change of keys brings them up to date.
    """

    slot: str | None
    epoch: int
    slots: int
    changed: tuple[str, ...]
    failures: dict[str, BaseException] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def exit_code(self) -> int:
        """3 where some destination is left behind, else 0."""
        return 3 if self.failures else 0
