"""What an ``sftp://`` URL and its options say: checked words, and nothing else. No host is asked, and no secret is ever among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from snapferry.config.places import nearest
from snapferry.errors import ConfigurationError

OPTIONS = ("identity_file", "known_hosts", "stall_timeout")
PATHS = ("identity_file", "known_hosts")
"""Options that are seen from the configuration file."""

_STALL = 60.0
_SECRET = re.compile(r"secret|token|password|passphrase|credential", re.IGNORECASE)
_SHAPE = "sftp://USER@HOST/PATH, with PATH from the root of the file system, or from the user's home as in sftp://USER@HOST/~/PATH"


@dataclass(frozen=True, slots=True)
class SftpPlace:
    """A directory on a host, and how to get there.

    Attributes:
        path: absolute, or relative to the user's home; no ``.`` or ``..`` in it.
        user, port: None leaves them to ``~/.ssh/config``, and then to the usual ones.
        identity_file: the private key to show; None leaves it to ``~/.ssh/config``, the agent and the usual files.
        known_hosts: the file with the host's key; None: ``~/.ssh/known_hosts``.
        stall_timeout: seconds in which some answer must come.
    """

    host: str
    path: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    known_hosts: str | None = None
    stall_timeout: float = _STALL

    @property
    def url(self) -> str:
        """What names the place."""
        user = f"{quote(self.user)}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = quote(self.path if self.path.startswith("/") else f"/~/{self.path}")
        return f"sftp://{user}{host}{f':{self.port}' if self.port not in (None, 22) else ''}{path}"


def parse_sftp(url: str, options: Mapping[str, object], where: str) -> SftpPlace:
    """The place that ``url`` and ``options`` name together.

    Raises:
        ConfigurationError: naming ``where``: no host or path, a password, an unknown option (and the nearest known), one of the wrong type.
    """
    parts = urlsplit(url)
    if parts.password is not None:
        raise ConfigurationError(
            f"{where}: a password does not belong in a URL; put a key into the host's authorized_keys, and name it with identity_file"
        )
    try:
        port = parts.port
    except ValueError:
        port = 0
    path = unquote(parts.path)
    relative = path.startswith("/~/")
    inside = path[3:] if relative else path[1:]
    inside = inside.rstrip("/")
    good = parts.hostname and port != 0 and not parts.query and not parts.fragment and path.startswith("/") and inside.isprintable()
    if not good or not inside or any(part in ("", ".", "..") for part in inside.split("/")):
        raise ConfigurationError(f"{where}: url {url!r} should read {_SHAPE}")
    for key in options:
        if key not in OPTIONS:
            if _SECRET.search(key):
                raise ConfigurationError(
                    f"{where}: {key} does not belong in the configuration: use an SSH key, and an agent where it has a passphrase"
                )
            raise ConfigurationError(f"{where}: sftp has no option {key!r}{nearest(key, OPTIONS)}; known are {', '.join(OPTIONS)}")
    stall = options.get("stall_timeout", _STALL)
    if not isinstance(stall, (int, float)) or isinstance(stall, bool) or not 0.1 <= stall <= 3600:
        raise ConfigurationError(f"{where}: stall_timeout: {stall!r} must be seconds, from 0.1 to 3600")
    assert parts.hostname is not None
    return SftpPlace(
        parts.hostname,
        inside if relative else f"/{inside}",
        unquote(parts.username) if parts.username else None,
        port,
        _path(options, "identity_file", where),
        _path(options, "known_hosts", where),
        float(stall),
    )


def _path(options: Mapping[str, object], key: str, where: str) -> str | None:
    value = options.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{where}: {key}: {value!r} must be text in quotes")
    return value
