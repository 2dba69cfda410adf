"""What an object server's refusals mean, and what to do about each: a table, as a pure function."""

from __future__ import annotations

from dataclasses import dataclass

from snapferry.errors import DestinationDenied, DestinationError, DestinationFull, DestinationUnreachable, ObjectNotFound


@dataclass(frozen=True, slots=True)
class Words:
    """What people know the other side as, and what to do about its answers.

    Attributes:
        who: it. unknown, denied, missing: what 401, 403, and 404 for the store itself mean. nonsense: where else to look when it speaks in riddles.
    """

    who: str
    unknown: str
    denied: str
    missing: str
    nonsense: str


OF_SERVER = Words(
    "the server",
    "the server does not know the token; check token_file or token_env in the options",
    "the token's role does not allow it",
    "there is no such store; check the URL",
    "; does the URL end in /objects/NAME?",
)
OF_MODULE = Words(
    "the module",
    "the module does not let us in",
    "the module does not allow it",
    "the module does not know the store; one where nothing was put yet has an empty listing",
    "",
)


def refused(status: int, said: str, where: str, name: str, key: str, words: Words, *, sent: bool, wait: float | None) -> DestinationError:
    """The error for a status that is no success: its class gives the exit code, its message what to do.

    Arguments:
        said: what the server says of it, cleaned.
        where: the place, and the key where there is one.
        words: of the other side.
        key: empty if the request was for the store itself.
        sent: whether the request carried an object, of which a 400 says that its bytes are not what their digest says.
        wait: the seconds of ``Retry-After``.
    """
    answer = f"{status}: {said}" if said else str(status)
    match status:
        case 401:
            return DestinationDenied(f"{where}: {words.unknown} ({answer})", name)
        case 403:
            return DestinationDenied(f"{where}: {words.denied} ({answer})", name)
        case 404 if key:
            return ObjectNotFound(f"{key} does not exist", name)
        case 404:
            return DestinationUnreachable(f"{where}: {words.missing} ({answer})", name, retryable=False)
        case 507:
            return DestinationFull(f"{where}: {words.who} has no room for it ({answer})", name)
        case 400 if sent:
            return DestinationUnreachable(f"{where}: the object was altered on its way, and {words.who} refused it ({answer})", name)
        case 408 | 429:
            pass
        case _ if 300 <= status < 400:
            advice = f"{words.who} sends us elsewhere, which is not followed; set the right URL"
            return DestinationUnreachable(f"{where}: {advice} ({answer})", name, retryable=False)
        case _ if status < 500 or status in (501, 505):
            return DestinationError(f"{where}: {words.who} refuses it ({answer})", name)
    asked = f", and asks to be left alone for {wait:.0f} s" if wait else ""
    return DestinationUnreachable(f"{where}: {words.who} is busy or in trouble{asked} ({answer})", name, retry_after=wait)
