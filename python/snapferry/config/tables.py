"""What every TOML table must be: a table, of known keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snapferry.config.places import nearest
from snapferry.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def check_table(table: object, where: str, known: Sequence[str], file: Path) -> Mapping[str, Any]:
    """``table`` if it is one and has only known keys; ``ConfigurationError`` naming the key and the nearest known one."""
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{file}: {where} must be a table, not {table!r}")
    for key in table:
        if key not in known:
            raise ConfigurationError(f"{file}: unknown key {key!r} in {where}{nearest(key, known)}; known are {', '.join(known)}")
    return table
