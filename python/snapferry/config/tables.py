"""TOML files and their tables: read, and checked for unknown keys."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snapferry.config.places import nearest
from snapferry.errors import AccessDenied, ConfigurationError, SnapferryError

if TYPE_CHECKING:
    from pathlib import Path


def read_toml(file: Path) -> tuple[dict[str, Any], os.stat_result]:
    """The document, and whose file it was read from.

    Raises:
        ConfigurationError: it is no TOML. SnapferryError, AccessDenied: it is missing, or cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return tomllib.loads(opened.read().decode()), os.fstat(opened.fileno())
    except PermissionError as error:
        raise AccessDenied(f"{file} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise SnapferryError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: not TOML: {error}") from error


def check_table(table: object, where: str, known: Sequence[str], file: Path) -> Mapping[str, Any]:
    """``table`` if it is one and has only known keys; ``ConfigurationError`` naming the key and the nearest known one."""
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{file}: {where} must be a table, not {table!r}")
    for key in table:
        if key not in known:
            raise ConfigurationError(f"{file}: unknown key {key!r} in {where}{nearest(key, known)}; known are {', '.join(known)}")
    return table
