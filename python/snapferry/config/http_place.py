"""What an ``http://`` or ``https://`` URL of a destination and its options say: checked words. No server is asked, and no secret is among them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from snapferry.config.option_values import seconds_of, text_of, truth_of, with_query, without_query
from snapferry.config.places import join, nearest
from snapferry.errors import ConfigurationError

OPTIONS = ("token_file", "token_env", "ca_bundle", "allow_plain_http", "first_byte_timeout", "stall_timeout")

_PORTS = {"http": 80, "https": 443}
_PATH = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._:%-]+", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SECRET = re.compile(r"^token$|secret|password|credential|^user", re.IGNORECASE)
_HOW = 'write the token into a file that only you can read, and options = { token_file = "FILE" } (or token_env = "VARIABLE")'


@dataclass(frozen=True, slots=True)
class HttpPlace:
    """A store of a server, and how to get there.

    Attributes:
        url: without a slash at its end; scheme and host in lower case, without a port that is the usual one.
        token_file: holds the token alone; token_env: the variable that does. At most one of them.
        ca_bundle: a file of certificates to trust instead of the system's.
        allow_plain_http: a token may be sent to another machine without encryption.
        first_byte_timeout: seconds for a server to begin its answer, once it has all of the request.
        stall_timeout: seconds in which at least some bytes must move while a body is under way, either way.
    """

    url: str
    token_file: str | None = None
    token_env: str | None = None
    ca_bundle: str | None = None
    allow_plain_http: bool = False
    first_byte_timeout: float = 30.0
    stall_timeout: float = 30.0

    @property
    def has_token(self) -> bool:
        """Whether requests carry a token."""
        return self.token_file is not None or self.token_env is not None

    @property
    def is_exposed(self) -> bool:
        """Whether what is sent there can be read on the way."""
        return self.url.startswith("http://") and not is_loopback(urlsplit(self.url).hostname or "")


def is_http(url: str) -> bool:
    """Whether ``url`` is for this file."""
    return re.match(r"https?://", url, re.IGNORECASE) is not None


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, by name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_http(url: str, options: Mapping[str, object], where: str) -> HttpPlace:
    """The place that ``url`` and ``options`` name together. Any option may stand in the URL's query instead, as ``?token_file=…``.

    Raises:
        ConfigurationError: naming ``where``: a secret in the URL (which is not shown), an unknown option (and the nearest known), one of the
            wrong type, or a token that would go to another machine unencrypted.
    """
    given = with_query(url, options, where)
    for key in given:
        if key not in OPTIONS:
            if _SECRET.search(key):
                raise ConfigurationError(f"{where}: {key} does not belong in the configuration; {_HOW}")
            raise ConfigurationError(f"{where}: http has no option {key!r}{nearest(key, OPTIONS)}; known are {', '.join(OPTIONS)}")
    place = HttpPlace(
        _url(url, where),
        text_of(given, "token_file", where),
        text_of(given, "token_env", where),
        text_of(given, "ca_bundle", where),
        truth_of(given, "allow_plain_http", where) is True,
        seconds_of(given, "first_byte_timeout", where),
        seconds_of(given, "stall_timeout", where),
    )
    if place.token_file and place.token_env:
        raise ConfigurationError(f"{where}: token_file and token_env are both given; one of them holds the token: give one")
    if place.token_env and not _VARIABLE.fullmatch(place.token_env):
        raise ConfigurationError(
            f"{where}: token_env is no name of a variable of the environment; the token itself does not belong here; {_HOW}"
        )
    if place.has_token and place.is_exposed and not place.allow_plain_http:
        raise ConfigurationError(
            f"{where}: {place.url}: the token would go over the network where anybody can read it; write https://, or, on a network that "
            "is yours alone, options.allow_plain_http = true"
        )
    return place


def split_http(url: str, options: Mapping[str, object], base: Path, where: str) -> tuple[str, dict[str, object]]:
    """The URL as every spelling of the place has it, and all options, with paths seen from ``base``. Raises as ``parse_http``."""
    place = parse_http(url, options, where)
    given = with_query(url, options, where)
    return place.url, {key: str(join(base, str(value))) if key in ("token_file", "ca_bundle") else value for key, value in given.items()}


def _url(url: str, where: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.fragment:
        raise ConfigurationError(f"{where}: a URL holds no user, password, token or '#'; {_HOW}")
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    path = parts.path.rstrip("/")
    if not _HOST.fullmatch(host) or port == 0 or not _PATH.fullmatch(path):
        raise ConfigurationError(f"{where}: url {without_query(url)!r} should read https://HOST/objects/NAME")
    scheme = parts.scheme.lower()
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + (f":{port}" if port not in (None, _PORTS[scheme]) else "") + path
