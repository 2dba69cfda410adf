"""What an ``sftp://`` URL and its options say: checked words, and nothing else. No host is asked, and no secret is ever among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args
from urllib.parse import quote, unquote, urlsplit

from snapferry.config.places import nearest
from snapferry.errors import ConfigurationError

Naming = Literal["link", "rename"]
"""How an object gets its name there without taking it from another: ``hardlink@openssh.com``, or the protocol's own rename."""

OPTIONS = ("port", "identity_file", "known_hosts", "host_key", "stall_timeout", "naming", "conditional_put")
PATHS = ("identity_file", "known_hosts")
"""Options that are seen from the configuration file."""

_STALL = 60.0
_SECRET = re.compile(r"secret|token|password|passphrase|credential", re.IGNORECASE)
# Commands of ~/.ssh/config are given them, so they may not be taken for options or for words of a shell.
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+$-]*")
_SHAPE = "sftp://USER@HOST/PATH, with PATH from the root of the file system, or from the user's home as in sftp://USER@HOST/~/PATH"


@dataclass(frozen=True, slots=True)
class SftpPlace:
    """A directory on a host, and how to get there.

    Attributes:
        path: absolute, or relative to the user's home; no ``.`` or ``..`` in it.
        user, port: None leaves them to ``~/.ssh/config``, and then to the usual ones.
        identity_file: the private key to show; None leaves it to ``~/.ssh/config``, the agent and the usual files.
        known_hosts: the file with the host's key; None: those of ``~/.ssh/config``, or ``~/.ssh/known_hosts``.
        host_key: the host's public key itself, as a line of ``ssh-ed25519 AAAA…``; no file is looked at then.
        stall_timeout: seconds in which some answer must come.
        naming: how names are given; None: not known yet, to be tried out.
        conditional_put: whether the server refuses a name that is taken; None: not known yet, to be tried out.
    """

    host: str
    path: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    known_hosts: str | None = None
    stall_timeout: float = _STALL
    host_key: str | None = None
    naming: Naming | None = None
    conditional_put: bool | None = None

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
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{where}: url {_shown(url)!r} should read {_SHAPE}") from None
    if parts.password is not None:
        raise ConfigurationError(
            f"{where}: url {_shown(url)!r}: a password does not belong in a URL; put a key into the host's authorized_keys, and name it with identity_file"
        )
    path = unquote(parts.path)
    relative = path.startswith("/~/")
    inside = path[3:] if relative else path[1:]
    inside = inside.rstrip("/")
    user = unquote(parts.username) if parts.username else None
    good = parts.hostname and _HOST.fullmatch(parts.hostname) and (user is None or _USER.fullmatch(user)) and port != 0
    good = good and not parts.query and not parts.fragment and path.startswith("/") and inside.isprintable()
    if not good or not inside or any(part in ("", ".", "..") for part in inside.split("/")):
        raise ConfigurationError(f"{where}: url {_shown(url)!r} should read {_SHAPE}")
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
    naming = options.get("naming")
    if naming is not None and naming not in get_args(Naming):
        raise ConfigurationError(
            f"{where}: naming: {naming!r} is unknown{nearest(naming, get_args(Naming))}; write {' or '.join(get_args(Naming))}"
        )
    conditional = options.get("conditional_put")
    if conditional is not None and not isinstance(conditional, bool):
        raise ConfigurationError(f"{where}: conditional_put: {conditional!r} must be true or false")
    assert parts.hostname is not None
    return SftpPlace(
        parts.hostname,
        inside if relative else f"/{inside}",
        user,
        _port(port, options, where),
        _text(options, "identity_file", where),
        _text(options, "known_hosts", where),
        float(stall),
        _text(options, "host_key", where),
        cast(Naming | None, naming),
        conditional,
    )


def _port(in_url: int | None, options: Mapping[str, object], where: str) -> int | None:
    port = options.get("port")
    if port is None:
        return in_url
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 1 << 16:
        raise ConfigurationError(f"{where}: port: {port!r} must be a number from 1 to 65535")
    if in_url is not None and in_url != port:
        raise ConfigurationError(f"{where}: port is {in_url} in the URL and {port} among the options; give one")
    return port


def _shown(url: str) -> str:
    """``url`` without what may be a password, whatever stands in it."""
    scheme, _, rest = url.partition("://")
    before, at, after = rest.rpartition("@")
    return f"{scheme}://{before.partition(':')[0]}:(hidden)@{after}" if at and ":" in before else url


def _text(options: Mapping[str, object], key: str, where: str) -> str | None:
    value = options.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{where}: {key}: {value!r} must be text in quotes")
    return value
