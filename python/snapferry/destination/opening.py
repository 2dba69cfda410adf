"""From a URL of the configuration to a destination. The one place that knows which kinds of store there are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from snapferry.destination.contract import Destination
from snapferry.destination.file import FileDestination
from snapferry.destination.memory import MemoryDestination, MemoryStore
from snapferry.errors import ConfigurationError

SCHEMES = ("file", "memory")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

# `memory://NAME` names a place of this process, so that a repository made there can be opened again. That is what the scheme means.
_memory_places: dict[str, MemoryStore] = {}


async def open_destination(name: str, url: str, options: Mapping[str, object] | None = None, *, writable: bool = True) -> Destination:
    """Opens the place that ``url`` names; it must exist.

    Arguments:
        name: of the destination in the configuration.
        url: ``file:///path``, a path alone, or ``memory://NAME``.
        options: of the store; neither ``file`` nor ``memory`` has any.
        writable: whether objects are going to be created or deleted: asks for the permission now, and clears away what a killed writer left.

    Raises:
        ConfigurationError: an unknown scheme or option, or a URL that names no place.
        DestinationUnreachable: it is not there. DestinationDenied: it may not be read, or written.
    """
    scheme, place = _split(name, url)
    _check_options(name, scheme, options)
    if scheme == "memory":
        return MemoryDestination(name, _memory_places.setdefault(place, {}), url=f"memory://{place}")
    return await FileDestination.open(name, place, writable=writable)


async def prepare_destination(name: str, url: str, options: Mapping[str, object] | None = None) -> None:
    """Makes the place that ``url`` names if it can be made: a directory, durably. For ``init`` and ``destination add`` alone.

    Raises as ``open_destination``, and ``DestinationDenied`` or ``DestinationFull`` where it cannot be made.
    """
    scheme, place = _split(name, url)
    _check_options(name, scheme, options)
    if scheme == "file":
        await FileDestination.make_root(name, place)


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
            f"destination {name}: unknown scheme {scheme!r} in {url!r}; known are {', '.join(SCHEMES)}, or a path alone"
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
