"""The key file: one line of text that holds the 32 bytes which open a repository's key slot; and a host's public key, as text."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
import warnings
from pathlib import Path

from snapferry import _core
from snapferry.errors import AccessDenied, ConfigurationError, SnapferryError

PREFIX = "snapferry-key-v1:"
PUBLIC_PREFIX = "snapferry-public-v1:"
_LENGTH = 32
_LONGEST = 4096


class LooseKeyFile(UserWarning):
    """A key file that others than its owner can read."""


def create_key_file(path: str | os.PathLike[str]) -> bytes:
    """Makes a new key file, readable by its owner alone, and makes it durable; returns the key (32 bytes).

    Raises:
        SnapferryError: there is a file already (it is never overwritten), or it cannot be written.
    """
    key = secrets.token_bytes(_LENGTH)
    text = PREFIX + base64.urlsafe_b64encode(key).decode() + "\n"
    path = Path(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise SnapferryError(f"key file {path} exists already; it is never overwritten") from error
    except OSError as error:
        raise SnapferryError(f"cannot create key file {path}: {error.strerror}") from error
    try:
        try:
            _write_all(fd, text.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(path.parent)
    except OSError as error:
        # A torn key file must not be taken for a key later; it protects nothing yet.
        path.unlink(missing_ok=True)
        raise SnapferryError(f"cannot write key file {path}: {error.strerror}") from error
    return key


def read_key_file(path: str | os.PathLike[str]) -> bytes:
    """The key (32 bytes); warns with ``LooseKeyFile`` where others than the owner can read the file.

    Raises:
        AccessDenied: it is missing, unreadable, or no key file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            text = os.read(fd, _LONGEST)
        finally:
            os.close(fd)
    except OSError as error:
        raise AccessDenied(f"cannot read key file {os.fspath(path)}: {error.strerror}") from error
    body = text.strip()
    try:
        key = base64.b64decode(body.removeprefix(PREFIX.encode()), altchars=b"-_", validate=True)
    except binascii.Error:
        key = b""
    if not body.startswith(PREFIX.encode()) or len(key) != _LENGTH:
        raise AccessDenied(f"{os.fspath(path)} is not a snapferry key file: it must hold one line that begins with {PREFIX}")
    warn_if_loose(mode, f"key file {os.fspath(path)}")
    return key


def warn_if_loose(mode: int, what: str) -> None:
    """Warns with ``LooseKeyFile`` if a regular file of that mode can be read by others than its owner."""
    if stat.S_ISREG(mode) and mode & 0o077:
        warnings.warn(LooseKeyFile(f"{what} can be read by others than its owner; chmod 600 it"), stacklevel=3)


def host_public_key(key: bytes) -> str:
    """The public key of a key file's 32 bytes, as one word of text."""
    return PUBLIC_PREFIX + base64.urlsafe_b64encode(_core.host_public_key(key)).decode()


def read_public_key(text: str) -> bytes:
    """The public key (32 bytes) that ``text`` is, or that the file of that name holds.

    Raises:
        AccessDenied: the file is missing or unreadable. ConfigurationError: it is no public key; a private one above all.
    """
    where = "the public key"
    if not text.startswith(PUBLIC_PREFIX):
        where = text
        try:
            with open(text, "rb") as file:
                text = file.read(_LONGEST).decode("ascii", "replace").strip()
        except OSError as error:
            raise AccessDenied(f"cannot read public key file {where}: {error.strerror}") from error
        if text.startswith(PREFIX):
            raise ConfigurationError(f"{where} is a key file, which must stay on its host; `snapferry key public` prints its public key")
    try:
        key = base64.b64decode(text.removeprefix(PUBLIC_PREFIX), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PUBLIC_PREFIX) or len(key) != _LENGTH:
        raise ConfigurationError(f"{where} is not a snapferry public key: one line that begins with {PUBLIC_PREFIX}")
    return key


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
