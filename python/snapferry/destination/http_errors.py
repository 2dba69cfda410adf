"""What an object server's refusals mean, and what to do about each: a table, as a pure function."""

from __future__ import annotations

from snapferry.errors import DestinationDenied, DestinationError, DestinationFull, DestinationUnreachable, ObjectNotFound


def refused(status: int, said: str, where: str, name: str, key: str, *, sent: bool, wait: float | None) -> DestinationError:
    """The error for a status that is no success: its class gives the exit code, its message what to do.

    Arguments:
        said: what the server says of it, cleaned.
        where: the place, and the key where there is one.
        key: empty if the request was for the store itself.
        sent: whether the request carried an object, of which a 400 says that its bytes are not what their digest says.
        wait: the seconds of ``Retry-After``.
    """
    answer = f"{status}: {said}" if said else str(status)
    match status:
        case 401:
            advice = "the server does not know the token; check token_file or token_env in the options"
            return DestinationDenied(f"{where}: {advice} ({answer})", name)
        case 403:
            return DestinationDenied(f"{where}: the token's role does not allow it ({answer})", name)
        case 404 if key:
            return ObjectNotFound(f"{key} does not exist", name)
        case 404:
            return DestinationUnreachable(f"{where}: there is no such store; check the URL ({answer})", name, retryable=False)
        case 507:
            return DestinationFull(f"{where}: the server has no room for it ({answer})", name)
        case 400 if sent:
            return DestinationUnreachable(f"{where}: the object was altered on its way, and the server refused it ({answer})", name)
        case 408 | 429:
            pass
        case _ if 300 <= status < 400:
            advice = "the server sends us elsewhere, which is not followed; set the right URL"
            return DestinationUnreachable(f"{where}: {advice} ({answer})", name, retryable=False)
        case _ if status < 500 or status in (501, 505):
            return DestinationError(f"{where}: the server refuses it ({answer})", name)
    asked = f", and asks to be left alone for {wait:.0f} s" if wait else ""
    return DestinationUnreachable(f"{where}: the server is busy or in trouble{asked} ({answer})", name, retry_after=wait)
