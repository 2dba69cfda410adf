"""How a file of an SFTP server gets its name without taking it from another, and how to find out what the server really does."""

from __future__ import annotations

import stat

import asyncssh

from snapferry.config.sftp_place import Naming
from snapferry.destination.sftp_client import Call
from snapferry.destination.sftp_errors import MISSING

_TAKEN = (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists)


async def give_name(call: Call, naming: Naming, temporary: str, path: str) -> bool:
    """Whether ``path`` now names the file; False if it was taken. By a rename the temporary name is gone then, by a link it is left."""
    try:
        if naming == "link":
            await call.step(call.client.link(temporary, path))
        else:
            await call.step(call.client.rename(temporary, path))
    except _TAKEN:
        if await kind_of(call, path) is None:
            raise
        return False
    return True


async def prove_naming(call: Call, first: str, second: str, taken: str) -> tuple[Naming, bool]:
    """Names the file ``first``, and then ``second``, ``taken``. All three are to be removed afterwards.

    Returns:
        How names are given, and whether a name that is taken is refused, whoever asks. A server that knows links, but not on this file system,
        looks before it renames, as OpenSSH's does there: it refuses here, and not where two writers ask at the same moment.
    """
    try:
        await give_name(call, "link", first, taken)
    except asyncssh.SFTPOpUnsupported:
        knows_links = False
    except (asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied):
        knows_links = True
    else:
        return "link", not await give_name(call, "link", second, taken)
    await give_name(call, "rename", first, taken)
    refuses = not await give_name(call, "rename", second, taken)
    return "rename", refuses and not knows_links


async def kind_of(call: Call, path: str) -> str | None:
    """``directory``, ``file`` for all else, or None where nothing is."""
    try:
        found = await call.step(call.client.lstat(path))
    except (*MISSING, asyncssh.SFTPFailure):
        return None
    return "directory" if found.permissions is not None and stat.S_ISDIR(found.permissions) else "file"
