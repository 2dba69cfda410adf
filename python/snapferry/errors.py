"""Every error this package raises on purpose; the exit codes are those of the command line's contract.

An error says what failed, where, and what to do. Causes are chained, never swallowed.
"""

from __future__ import annotations

from collections.abc import Sequence


class SnapferryError(Exception):
    """The root of all errors raised on purpose.

    Attributes:
        exit_code: what the command line exits with when this error ends a command.
    """

    exit_code: int = 1


class ConfigurationError(SnapferryError):
    """The configuration or an argument is unusable: unknown key, scheme, policy or size. Nothing was started."""

    exit_code = 2


class SourceError(SnapferryError):
    """A source is missing, unreadable, or changed its size while it was read."""


class SourceReadError(SourceError):
    """A source could not supply bytes that it should have: a read error, which a smaller read may get around.

    Attributes:
        offset: the first byte of the failed read, in bytes of the source.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class SourceChanged(SourceError):
    """A source shrank or grew while it was read: what was read is no point in time, and must not be kept."""


class TargetError(SnapferryError):
    """A restore target is too small, not empty, or cannot be written."""


class TargetFull(TargetError):
    """The file system of a restore target has no space left."""

    exit_code = 14


class SnapshotNotFound(SnapferryError):
    """No snapshot goes by that name or id, or more than one does."""


class DamageError(SnapferryError):
    """Blocks that no replica can supply, or objects that fail their check.

    Attributes:
        extents: the lost (offset, length) pairs in bytes of the volume; empty when the damage is not in a volume's data.
    """

    exit_code = 4

    def __init__(self, message: str, extents: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(message)
        self.extents = tuple(extents)


class NotARepository(SnapferryError):
    """There is no repository there, or not this one, or one of a version or suite this program does not know."""

    exit_code = 10


class Fenced(SnapferryError):
    """This session was ended by another: a collector's fence or a clone of this writer."""

    exit_code = 11


class AccessDenied(SnapferryError):
    """A wrong key, no usable key slot, or a permission that is missing."""

    exit_code = 12


class CatalogError(SnapferryError):
    """The local catalog is damaged, locked or of a newer version. No backup is touched by that; ``snapferry rebuild`` makes it anew."""


class DestinationError(SnapferryError):
    """An operation on a destination failed.

    Attributes:
        destination: the name of the destination in the configuration.
        retryable: whether the same call may succeed later without anybody's doing; by default as is usual for the class.
        retry_after: the seconds that the store asks to be left alone for, or None.
    """

    retryable: bool = False
    retry_after: float | None = None

    def __init__(self, message: str, destination: str = "", *, retryable: bool | None = None, retry_after: float | None = None) -> None:
        super().__init__(f"{destination}: {message}" if destination else message)
        self.destination = destination
        self.retry_after = retry_after
        if retryable is not None:
            self.retryable = retryable


class ObjectNotFound(DestinationError):
    """The object does not exist there."""


class ObjectDamaged(DestinationError):
    """The object is shorter than asked for, or its bytes fail their check. Never retried on the same replica."""

    exit_code = 4


class DestinationUnreachable(DestinationError):
    """The destination does not answer, or its root is missing."""

    exit_code = 13
    retryable = True


class DestinationDetached(DestinationUnreachable):
    """The destination was left behind, because it was slower than the others or did not answer; it is brought up to date later."""


class DestinationDenied(DestinationError):
    """The destination refuses: permission or credentials."""

    exit_code = 12


class DestinationFull(DestinationError):
    """The destination has no space left."""

    exit_code = 14


class DestinationNotARepository(DestinationError):
    """The destination answers but holds no repository, another one, or one of an unknown version."""

    exit_code = 10


def worst_of(errors: Sequence[BaseException]) -> int:
    """The exit code below ``min_copies``: the first that applies of 12, 10, 11, 14, 13, 1 (interfaces: exit codes)."""
    codes = {getattr(error, "exit_code", 1) for error in errors}
    return next((code for code in (12, 10, 11, 14, 13) if code in codes), 1)
