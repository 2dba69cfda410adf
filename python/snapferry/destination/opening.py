"""From a URL of the configuration to a destination. The one place that knows which kinds of store there are."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from snapferry.config.http_place import is_http, parse_http
from snapferry.config.option_values import without_query
from snapferry.config.places import installed_schemes
from snapferry.config.plugins import SCHEME, PluginConfig
from snapferry.config.s3_place import parse_s3
from snapferry.config.sftp_place import parse_sftp
from snapferry.destination.contract import Destination
from snapferry.destination.file import FileDestination
from snapferry.destination.memory import MemoryDestination, MemoryStore
from snapferry.errors import ConfigurationError

SCHEMES = ("file", "memory", "plugin", "s3", "sftp", "http", "https")

_log = logging.getLogger(__name__)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

# `memory://NAME` names a place of this process, so that a repository made there can be opened again. That is what the scheme means.
_memory_places: dict[str, MemoryStore] = {}


async def open_destination(
    name: str, url: str, options: Mapping[str, object] | None = None, *, writable: bool = True, plugin: PluginConfig | None = None
) -> Destination:
    """Opens the place that ``url`` names; it must exist.

    Arguments:
        name: of the destination in the configuration.
        url: ``file:///path``, a path alone, ``s3://BUCKET/PREFIX``, ``sftp://USER@HOST/PATH``, ``https://HOST/objects/NAME``, ``plugin:NAME``,
            ``memory://NAME``, or one whose scheme an installed Python package offers.
        options: of the store: those of ``snapferry.config.s3_place``, ``sftp_place`` and ``http_place``; neither ``file`` nor ``memory`` has any.
        plugin: what ``plugin:NAME`` names in the configuration.
        writable: whether objects are going to be created or deleted. Of a directory it asks for the permission now, and clears away what a
            killed writer left; of a bucket it finds out whether it has conditional puts, where the options do not say so.

    Raises:
        ConfigurationError: an unknown scheme or option, or a URL that names no place.
        DestinationUnreachable: it is not there. DestinationDenied: it may not be read, or written.
    """
    if _is_s3(url):
        return await _s3(name, url, options, writable=writable)
    if _is_sftp(url):
        return await _sftp(name, url, options, writable=writable)
    if is_http(url):
        return await _http(name, url, options)
    if url.startswith(SCHEME):
        from snapferry.destination.module import ModuleDestination

        return await ModuleDestination.open(name, _known(name, url, plugin), options or {})
    if (scheme := _foreign(url)) is not None:
        from snapferry.destination.installed import open_installed

        destination = await open_installed(name, scheme, url, options or {}, writable=writable)
        if destination is not None:
            return destination
    scheme, place = _split(name, url)
    _check_options(name, scheme, options)
    if scheme == "memory":
        return MemoryDestination(name, _memory_places.setdefault(place, {}), url=f"memory://{place}")
    return await FileDestination.open(name, place, writable=writable)


async def prepare_destination(
    name: str, url: str, options: Mapping[str, object] | None = None, *, plugin: PluginConfig | None = None
) -> Mapping[str, object]:
    """Makes the place that ``url`` names if it can be made: a directory, durably; a bucket or a server's store is never made. For ``init`` and ``destination add``.

    Returns:
        The options with what was learned of the store, to be kept in the configuration: whether a bucket has conditional puts, how names are given by SFTP.

    Raises as ``open_destination``, and ``DestinationDenied`` or ``DestinationFull`` where it cannot be made.
    """
    if _is_s3(url):
        return await learn_options(name, url, options)
    if _is_sftp(url):
        from snapferry.destination.sftp import SftpDestination

        await SftpDestination.make_root(name, parse_sftp(url, options or {}, f"destination {name}"))
        return await learn_options(name, url, options)
    if is_http(url):
        await (await _http(name, url, options)).close()
        return dict(options or {})
    if url.startswith(SCHEME):
        from snapferry.destination.module import ModuleDestination

        await ModuleDestination.prepare(name, _known(name, url, plugin))
        return dict(options or {})
    if _foreign(url) in installed_schemes():
        return dict(options or {})
    scheme, place = _split(name, url)
    _check_options(name, scheme, options)
    if scheme == "file":
        await FileDestination.make_root(name, place)
    return dict(options or {})


async def learn_options(name: str, url: str, options: Mapping[str, object] | None = None) -> Mapping[str, object]:
    """The options of a place that exists, with what can be learned of its store by trying it out. Raises as ``open_destination``."""
    known = dict(options or {})
    if _is_sftp(url):
        return await _learn_sftp(name, url, known)
    if not _is_s3(url) or parse_s3(url, known, f"destination {name}").conditional_put is not None:
        return known
    destination = await _s3(name, url, options, writable=True)
    learned = destination.capabilities
    await destination.close()
    known["conditional_put"] = learned.exclusive_create
    return known if learned.consistent_list else {**known, "consistent_list": False}


def _is_s3(url: str) -> bool:
    return url[:5].lower() == "s3://"


def _is_sftp(url: str) -> bool:
    return url[:7].lower() == "sftp://"


async def _s3(name: str, url: str, options: Mapping[str, object] | None, *, writable: bool) -> Destination:
    from snapferry.destination.s3 import S3Destination

    return await S3Destination.open(name, parse_s3(url, options or {}, f"destination {name}"), writable=writable)


async def _sftp(name: str, url: str, options: Mapping[str, object] | None, *, writable: bool) -> Destination:
    from snapferry.destination.sftp import SftpDestination

    return await SftpDestination.open(name, parse_sftp(url, options or {}, f"destination {name}"), writable=writable)


async def _learn_sftp(name: str, url: str, known: dict[str, object]) -> Mapping[str, object]:
    """How names are given there, and whether one that is taken is refused. Nothing is tried out where both are said."""
    from snapferry.destination.sftp import SftpDestination

    place = parse_sftp(url, known, f"destination {name}")
    if place.naming is not None and place.conditional_put is not None:
        return known
    destination = await SftpDestination.open(name, place, writable=False)
    try:
        return {**known, **await destination.prove()}
    finally:
        await destination.close()


async def _http(name: str, url: str, options: Mapping[str, object] | None) -> Destination:
    from snapferry.destination.http import HttpDestination
    from snapferry.destination.http_link import link_of

    where = f"destination {name}"
    place = parse_http(url, options or {}, where)
    if place.is_exposed and place.has_token:
        _log.warning("%s: the token goes to %s unencrypted, as allow_plain_http allows", where, place.url)
    return await HttpDestination.open(name, link_of(place, where))


def _foreign(url: str) -> str | None:
    """The scheme of a URL that is none of ours."""
    match = _SCHEME.match(url)
    return match[1].lower() if match is not None and match[1].lower() not in SCHEMES else None


def _known(name: str, url: str, plugin: PluginConfig | None) -> PluginConfig:
    if plugin is None or url != f"{SCHEME}{plugin.name}":
        raise ConfigurationError(f"destination {name}: no [[plugin]] is given for {url!r}")
    return plugin


def _split(name: str, url: str) -> tuple[str, str]:
    """(scheme, place): an absolute path for ``file``, a word for ``memory``."""
    match = _SCHEME.match(url)
    if match is None:
        if not url or "\0" in url:
            raise ConfigurationError(f"destination {name}: {url!r} names no place")
        return "file", os.path.abspath(url)
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        raise ConfigurationError(
            f"destination {name}: unknown scheme {scheme!r} in {without_query(url)!r}; known are {', '.join((*SCHEMES, *installed_schemes()))}, or a path alone"
        )
    parts = urlsplit(url)
    if scheme == "memory":
        if not parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigurationError(f"destination {name}: {url!r} should read memory://NAME")
        return scheme, parts.netloc
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path or parts.query or parts.fragment or "\0" in path:
        raise ConfigurationError(f"destination {name}: {url!r} should read file:///PATH")
    return scheme, os.path.abspath(path)


def _check_options(name: str, scheme: str, options: Mapping[str, object] | None) -> None:
    if options:
        raise ConfigurationError(f"destination {name}: {scheme} has no option {min(options)!r}")
