"""Destinations that installed Python packages bring along: entry points of the group ``snapferry.destinations``, one for each URL scheme.

Such a package runs in this process with all its rights and sees whatever it likes: it is trusted as snapferry is. It is loaded only when a URL
has its scheme. Whoever does not want to trust a store's code writes a module instead (``module``).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from snapferry.config.places import PLUGIN_GROUP
from snapferry.destination.contract import Destination
from snapferry.errors import ConfigurationError, DestinationError, SnapferryError


class Factory(Protocol):
    """What an entry point names: opens the place of a URL. Errors are those of ``snapferry.errors``, as the contract of ``Destination`` says."""

    def __call__(self, name: str, url: str, options: Mapping[str, object], *, writable: bool) -> Awaitable[Destination]: ...


async def open_installed(name: str, scheme: str, url: str, options: Mapping[str, object], *, writable: bool) -> Destination | None:
    """The destination that the package for ``scheme`` makes of ``url``; None if there is no such package.

    Raises:
        ConfigurationError: the package is broken, or two offer the scheme. DestinationError: what it raised, if it is none of our errors.
    """
    found = sorted({entry.value: entry for entry in entry_points(group=PLUGIN_GROUP, name=scheme)}.items())
    if not found:
        return None
    if len(found) > 1:
        raise ConfigurationError(f"destination {name}: {scheme}: more than one package offers it: {', '.join(value for value, _ in found)}")
    entry = found[0][1]
    broken = f"destination {name}: the Python plug-in for {scheme}:// ({_origin(entry)})"
    try:
        factory: Factory = entry.load()
    except Exception as error:
        raise ConfigurationError(f"{broken} cannot be loaded: {type(error).__name__}: {error}") from error
    try:
        opening: object = factory(name, url, options, writable=writable)
        if not inspect.isawaitable(opening):
            raise ConfigurationError(f"{broken} should be an async function, and gave a {type(opening).__name__}")
        destination: object = await opening
    except SnapferryError:
        raise
    except Exception as error:
        raise DestinationError(
            f"the Python plug-in for {scheme}:// ({_origin(entry)}) failed: {type(error).__name__}: {error}", name
        ) from error
    if not isinstance(destination, Destination):
        missing = [word for word in sorted(_WORDS) if not hasattr(destination, word)]
        raise ConfigurationError(f"{broken} gave a {type(destination).__name__}, which is no destination: it has no {', '.join(missing)}")
    return destination


_WORDS = {"name", "url", "capabilities", "create", "read", "read_into", "read_tail", "list", "delete", "close"}


def _origin(entry: EntryPoint) -> str:
    package = f"{entry.dist.name} {entry.dist.version}: " if entry.dist is not None else ""
    return f"{package}{entry.value}"
