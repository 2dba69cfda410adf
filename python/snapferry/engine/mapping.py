"""A map of changes as it is given, and which snapshot it was made against: only with that parent may it be used."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from snapferry.errors import ConfigurationError, SourceError
from snapferry.source import AnySource, ChangeMap, Source, read_change_map
from snapferry.types import ListedSnapshot, Snapshot

Find = Callable[[str], Awaitable[ListedSnapshot]]


def given_map(changed: str | os.PathLike[str] | ChangeMap | None) -> ChangeMap | None:
    """The map that is given itself, or by its path. Raises as ``read_change_map``."""
    return changed if changed is None or isinstance(changed, ChangeMap) else read_change_map(changed)


async def parent_of_map(changes: ChangeMap, find: Find, volume: str, parent: str) -> Snapshot:
    """The snapshot that the map names, or that ``parent`` names for it; ``find`` tells which snapshot a name means.

    Raises:
        ConfigurationError: nobody says which. SnapshotNotFound: there is none of that name.
        SourceError: the map was made against another one than ``parent``, or against another volume's.
    """
    if parent == "none":
        raise ConfigurationError(f"{changes.name}: a map of changes needs a parent, and the parent is to be none")
    if parent == "auto" and changes.parent is None:
        raise ConfigurationError(f"{changes.name}: it does not say which snapshot it was made against; give that with --parent ID")
    found = (await find(parent if changes.parent is None else changes.parent)).snapshot
    if parent != "auto" and (await find(parent)).snapshot.id != found.id:
        raise SourceError(
            f"{changes.name}: it was made against {changes.parent}, which is snapshot {found.id}, and the parent given is {parent}"
        )
    if found.volume != volume:
        raise SourceError(f"{changes.name}: snapshot {found.id}, which it was made against, is of volume {found.volume}, not of {volume}")
    return found


def check_map(changes: ChangeMap, source: AnySource, parent: Snapshot) -> None:
    """``ConfigurationError`` if the map cannot be one of this source."""
    if not isinstance(source, Source):
        raise ConfigurationError(f"{changes.name}: a map of changes needs a source that can be read anywhere, not {source.name}")
    changes.check_within(source.size, parent.size)
