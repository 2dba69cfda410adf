"""A map of the extents that changed since a snapshot, as storage systems print it (``rbd diff --format json``).

    [{"offset": 0, "length": 4194304, "exists": "true"}, {"offset": 8388608, "length": 4194304, "exists": "false"}]

or, where it says what it was made against, ``{"parent": "SNAPSHOT", "extents": [...]}``. ``"false"``: it became zeros. Nothing is guessed:
another tool's map has other keys, and is refused.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from snapferry.errors import ConfigurationError
from snapferry.types import MiB

LIMIT = 32 * MiB
"""A longer map is refused: it would not save anything."""

_Position = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Extent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    offset: _Position
    length: _Position
    exists: Literal["true", "false"] | bool = "true"


class _Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parent: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    extents: list[_Extent]


@dataclass(frozen=True, slots=True)
class ChangeMap:
    """What changed: (offset, length) pairs in bytes, ascending and apart.

    Attributes:
        name: where it comes from, for messages.
        parent: the snapshot that it was made against, as it says itself; None if it does not.
        changed: may hold anything now.
        zeros: hold zeros now.
    """

    name: str
    parent: str | None
    changed: tuple[tuple[int, int], ...]
    zeros: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        """Where the last extent ends, in bytes."""
        return max((sum(extents[-1]) for extents in (self.changed, self.zeros) if extents), default=0)

    def check_within(self, size: int, parent_size: int) -> None:
        """``ConfigurationError`` if it reaches past a source of ``size`` bytes; zeros may stand for what a larger parent had there."""
        end = sum(self.changed[-1]) if self.changed else 0
        if end > size or self.end > max(size, parent_size):
            raise ConfigurationError(
                f"{self.name}: it reaches to byte {max(end, self.end)}, and the source has {size} bytes; it is a map of something else"
            )


def read_change_map(path: str | os.PathLike[str]) -> ChangeMap:
    """Reads a map from a file, or from standard input if ``path`` is ``-``.

    Raises:
        ConfigurationError: it is missing, too long, no such JSON, or its extents are not in ascending order and apart.
    """
    name = "map of changes on standard input" if os.fspath(path) == "-" else f"map of changes {os.fspath(path)}"
    try:
        if os.fspath(path) == "-":
            text = sys.stdin.buffer.read(LIMIT + 1)
        else:
            with open(path, "rb") as file:
                text = file.read(LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from error
    if len(text) > LIMIT:
        raise ConfigurationError(f"{name}: it is longer than {LIMIT // MiB} MiB; with so many changes, export without it")
    return parse_change_map(text, name)


def parse_change_map(text: bytes, name: str = "map of changes") -> ChangeMap:
    """The map that ``text`` is; errors as ``read_change_map``."""
    parent: str | None = None
    try:
        if text.lstrip()[:1] == b"{":
            named = msgspec.json.decode(text, type=_Named)
            parent, extents = named.parent, named.extents
        else:
            extents = msgspec.json.decode(text, type=list[_Extent])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{name}: not what `rbd diff --format json` prints: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{name}: not what `rbd diff --format json` prints: nested too deep") from error
    changed: list[tuple[int, int]] = []
    zeros: list[tuple[int, int]] = []
    end = 0
    for number, extent in enumerate(extents):
        if extent.offset < end:
            raise ConfigurationError(
                f"{name}: extent {number} begins at byte {extent.offset}, before the one before it ends ({end}): "
                "extents must be in ascending order and apart"
            )
        end = extent.offset + extent.length
        if extent.length:
            (changed if extent.exists in ("true", True) else zeros).append((extent.offset, extent.length))
    return ChangeMap(name, parent, tuple(changed), tuple(zeros))
