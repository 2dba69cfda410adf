"""Who may do what: bearer tokens, of which only hashes are known here, and the roles that they have. No request is seen here."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from snapferry.config.service import ROLES, AccessConfig
from snapferry.errors import AccessDenied

_LONGEST_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token allows. ``digest``: SHA-256 of the token."""

    digest: bytes = field(repr=False)
    role: str
    stores: frozenset[str]

    def allows(self, role: str, store: str) -> bool:
        """Whether it may do in ``store`` what needs ``role``; each role has what those before it have."""
        return store in self.stores and ROLES.index(self.role) >= ROLES.index(role)


def new_token() -> tuple[str, str]:
    """A random token of 256 bits, and its SHA-256 in hex."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()


def grants_of(entries: Iterable[AccessConfig]) -> tuple[Grant, ...]:
    """The grants of the configuration; files with tokens are read now. ``AccessDenied``: one cannot be, or holds none."""
    return tuple(Grant(_digest(entry), entry.role, frozenset(entry.stores)) for entry in entries)


def grant_of(authorization: str | None, grants: Iterable[Grant]) -> Grant | None:
    """The grant of an ``Authorization`` header, or None. It takes as long for any token: all are compared, each in constant time."""
    scheme, _, token = (authorization or "").partition(" ")
    known = scheme.lower() == "bearer" and 0 < len(token) <= _LONGEST_TOKEN
    digest = hashlib.sha256(token.strip().encode(errors="surrogateescape") if known else b"").digest()
    found = None
    for grant in grants:
        if hmac.compare_digest(grant.digest, digest):
            found = grant
    return found if known else None


def _digest(entry: AccessConfig) -> bytes:
    if entry.token_sha256 is not None:
        return bytes.fromhex(entry.token_sha256)
    assert entry.token_file is not None
    try:
        token = entry.token_file.read_bytes().strip()
    except OSError as error:
        raise AccessDenied(f"{entry.token_file} cannot be read: {error.strerror}") from error
    if not 16 <= len(token) <= _LONGEST_TOKEN or not token.isascii() or b" " in token or b"\n" in token:
        raise AccessDenied(f"{entry.token_file} holds no token (one word of ASCII, 16 characters at least)")
    return hashlib.sha256(token).digest()
