"""What the errors of a file system say of the destination that lies on it."""

from __future__ import annotations

import errno

from snapferry.errors import DestinationDenied, DestinationError, DestinationFull, DestinationUnreachable

_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNREACHABLE = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EREMOTEIO,
    }
)


def translated(error: OSError, name: str, root: str, key: str = "") -> DestinationError:
    """What an error of the system says of the destination ``name`` in the directory ``root``, at ``key`` if there is one."""
    where = f"{root}: {key}" if key else root
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DestinationUnreachable(f"the directory {root} is missing or not a directory; is it mounted?", name)
    if error.errno in _DENIED:
        return DestinationDenied(f"{where}: {reason}", name)
    if error.errno in _FULL:
        return DestinationFull(f"{where}: {reason}", name)
    if error.errno in _UNREACHABLE:
        return DestinationUnreachable(f"{where}: {reason}", name)
    return DestinationError(f"{where}: {reason}", name)
