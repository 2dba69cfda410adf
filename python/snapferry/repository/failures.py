"""One error out of those of several destinations."""

from __future__ import annotations

from collections.abc import Mapping

from snapferry.errors import (
    AccessDenied,
    DestinationFull,
    DestinationUnreachable,
    Fenced,
    NotARepository,
    SnapferryError,
    worst_of,
)

_KINDS: dict[int, type[SnapferryError]] = {
    12: AccessDenied,
    10: NotARepository,
    11: Fenced,
    14: DestinationFull,
    13: DestinationUnreachable,
}


def combined(message: str, failures: Mapping[str, BaseException]) -> SnapferryError:
    """The error that ends a command when too few destinations are left, with the contract's code and every cause in its message."""
    errors = list(failures.values())
    causes = "; ".join(str(error) or type(error).__name__ for error in errors)
    kind = _KINDS.get(worst_of(errors), SnapferryError)
    error = kind(f"{message}: {causes}" if causes else message)
    error.__cause__ = errors[0] if len(errors) == 1 else BaseExceptionGroup("the destinations' failures", errors) if errors else None
    return error
