"""The way to an object server: over TCP, TLS or a Unix socket; and what breaks on it, as our errors.

A home of aiohttp, with ``http.py``. Connections send each request once and follow no redirect: a token is good for one server, and what was
lost with a connection may have been carried out.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError

from snapferry.config.http_place import HttpPlace
from snapferry.destination.deadline import Stalled
from snapferry.destination.http_errors import OF_MODULE, OF_SERVER, Words
from snapferry.errors import AccessDenied, ConfigurationError, DestinationError, DestinationUnreachable

CONNECTIONS = 16
"""So many requests at once; more wait for their turn before their time is counted."""

FAILURES = (aiohttp.ClientError, Stalled, OSError, ValueError)
"""What may end a request that is under way, but for a cancellation. ValueError: a head that is none."""

_CONNECT_SECONDS = 10.0
_READ_AHEAD = 1 << 20
_LONGEST_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class Link:
    """Where a store of objects is, and how to get there.

    Attributes:
        base: the URL that keys are put behind; it ends in a slash.
        socket: the path of the server's Unix socket, whose ``base`` is ``http://localhost/``; None for TCP.
        token: sent with each request, if there is one.
        ca_bundle, first_byte_timeout, stall_timeout: as of ``HttpPlace``.
        shown: how errors and ``Destination.url`` name the place.
    """

    base: str
    shown: str
    socket: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    first_byte_timeout: float = 30.0
    stall_timeout: float = 30.0

    @property
    def words(self) -> Words:
        """What errors call the other side: behind a socket there is a module."""
        return OF_SERVER if self.socket is None else OF_MODULE


def link_of(place: HttpPlace, where: str) -> Link:
    """The link to a configured place, with its token, which is read now.

    Raises:
        AccessDenied: the token cannot be read, or is none. ConfigurationError: the variable that should hold it is not set.
    """
    token = _token(place, where)
    return Link(
        f"{place.url}/",
        place.url,
        token=token,
        ca_bundle=place.ca_bundle,
        first_byte_timeout=place.first_byte_timeout,
        stall_timeout=place.stall_timeout,
    )


def _token(place: HttpPlace, where: str) -> str | None:
    if place.token_env is not None:
        text, source = os.environ.get(place.token_env, ""), f"token_env: the variable {place.token_env}"
        if not text:
            raise ConfigurationError(f"{where}: {source} is not set")
    elif place.token_file is not None:
        source = f"token_file: {place.token_file}"
        try:
            with open(place.token_file, encoding="ascii", errors="replace") as file:
                text = file.read(_LONGEST_TOKEN + 1)
        except OSError as error:
            raise AccessDenied(f"{where}: {source} cannot be read: {error.strerror}") from error
    else:
        return None
    token = text.strip()
    if not token or len(text) > _LONGEST_TOKEN or not all("!" <= c <= "~" for c in token):
        raise AccessDenied(f"{where}: {source} holds no token (one word of ASCII)")
    return token


def make_session(link: Link, where: str) -> aiohttp.ClientSession:
    """A session for ``link``; nothing is connected yet. ``ConfigurationError``: the CA bundle is none."""
    if link.socket is not None:
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(link.socket, limit=0)
    else:
        try:
            trusted: ssl.SSLContext | bool = ssl.create_default_context(cafile=link.ca_bundle) if link.ca_bundle else True
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{where}: ca_bundle: {link.ca_bundle} cannot be used: {error}") from error
        connector = aiohttp.TCPConnector(limit=0, ssl=trusted)
    headers = {"Accept-Encoding": "identity"}
    if link.token is not None:
        headers["Authorization"] = f"Bearer {link.token}"
    session = aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        # The destination's own deadlines are told apart, and cover sending.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_READ_AHEAD,
    )
    session._retry_connection = False  # noqa: SLF001 - there is no other way to say it; a test notices if it is lost
    return session


def translated(error: Exception, link: Link, name: str, key: str) -> DestinationError:
    """Our error for one of ``FAILURES``."""
    where, who = f"{link.shown}: {key}" if key else link.shown, link.words.who
    match error:
        case Stalled():
            return DestinationUnreachable(f"{where}: {error}", name)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            advice = "the server's certificate was not accepted; set options = { ca_bundle = FILE } where it is one of your own"
            return DestinationUnreachable(f"{where}: {advice} ({_reason(error)})", name, retryable=False)
        case UnixClientConnectorError():
            return DestinationUnreachable(
                f"{where}: nothing listens at {link.socket} ({error.os_error.strerror or error.os_error}); does the module run?", name
            )
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return DestinationUnreachable(f"{where}: {who} does not answer: {_reason(error)}", name)
        case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | OSError():
            return DestinationUnreachable(f"{where}: {who} broke the connection off: {_reason(error)}", name)
    return DestinationUnreachable(f"{where}: {who} gives no sensible answer: {_reason(error)}", name)


def _reason(error: Exception) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)[:300]).split())
    return text or type(error).__name__
