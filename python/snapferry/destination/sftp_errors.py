"""What an SSH or SFTP library's errors mean in our words, each with what to do. Knows no connection and no object."""

from __future__ import annotations

import asyncssh
from asyncssh.packet import PacketDecodeError

from snapferry.config.sftp_place import SftpPlace
from snapferry.errors import (
    ConfigurationError,
    DestinationDenied,
    DestinationError,
    DestinationFull,
    DestinationUnreachable,
    ObjectNotFound,
    SnapferryError,
)

# What may end a call that is under way, but for a cancellation and a missed deadline.
FAILURES = (asyncssh.Error, PacketDecodeError, OSError, EOFError)

MISSING = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


def is_lost(error: Exception) -> bool:
    """Whether nothing more can be asked over the connection: it is gone, or the server no longer speaks the protocol."""
    broken = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.SFTPBadMessage)
    return isinstance(error, broken) or not isinstance(error, asyncssh.SFTPError)


def translated(error: Exception, place: SftpPlace, name: str, what: str) -> DestinationError:
    """Our error for one of ``FAILURES`` in a call for ``what``."""
    text = f"{what}: {reason(error)}"
    if is_lost(error):
        return DestinationUnreachable(f"{text}; the connection to {place.host} was lost", name)
    if isinstance(error, MISSING):
        return ObjectNotFound(text, name)
    if isinstance(error, (asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect)):
        return DestinationDenied(text, name)
    if isinstance(error, (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)):
        return DestinationFull(text, name)
    return DestinationError(text, name)


def refused(error: Exception, place: SftpPlace, name: str) -> SnapferryError:
    """Our error for one that ended the making of a connection."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return DestinationDenied(_unknown_host(error, place), name)
    if isinstance(error, asyncssh.PermissionDenied):
        shown = f"{place.identity_file} not" if place.identity_file else "none of the agent's keys and of those in ~/.ssh"
        return DestinationDenied(
            f"{place.host} does not let {place.user or 'us'} in: it takes {shown}; put the public key into authorized_keys there "
            "(a key with a passphrase is only used through ssh-agent)",
            name,
        )
    if isinstance(error, (asyncssh.KeyEncryptionError, asyncssh.KeyImportError)):
        return locked(reason(error), place, name)
    if isinstance(error, asyncssh.ConfigParseError):
        return ConfigurationError(f"destination {name}: ~/.ssh/config: {reason(error)}")
    if isinstance(error, FileNotFoundError) or (isinstance(error, ValueError) and not isinstance(error, asyncssh.Error)):
        return DestinationDenied(f"{getattr(error, 'filename', None) or 'a key'}: {reason(error)}", name)
    return DestinationUnreachable(f"{place.host} cannot be reached: {reason(error)}", name)


def locked(why: str, place: SftpPlace, name: str) -> DestinationDenied:
    """Of a private key that cannot be used as it is."""
    key = place.identity_file or "in ~/.ssh"
    return DestinationDenied(
        f"the key {key} cannot be used: {why}; a key with a passphrase is used through ssh-agent: `ssh-add {place.identity_file or ''}`".rstrip()
        + f", with its public half beside it in {place.identity_file}.pub" * (place.identity_file is not None),
        name,
    )


def reason(error: Exception) -> str:
    """What the server says, in one bounded line."""
    text = getattr(error, "reason", "") or str(error) or type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)[:300]).split())


def _unknown_host(error: Exception, place: SftpPlace) -> str:
    if place.host_key is not None:
        return f"the key of the host {place.host} is not the one of host_key, so nothing was sent ({reason(error)}); if the host has a new one, set that"
    file = place.known_hosts or "~/.ssh/known_hosts"
    port = "" if place.port in (None, 22) else f"-p {place.port} "
    return (
        f"the key of the host {place.host} is not in {file}, or is not the one that stands there, so nothing was sent ({reason(error)}); if you expect this,"
        f" compare the fingerprint of `ssh-keyscan {port}{place.host}` with the host's own and add the line to {file}"
    )
