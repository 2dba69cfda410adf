"""A value of a section is the flag's, else the environment's, else the file's; and where it came from is remembered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from snapferry.config.places import join, nearest, not_offered
from snapferry.config.tables import check_table
from snapferry.config.units import format_size, parse_rate, parse_size
from snapferry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

SECTIONS: dict[str, tuple[str, ...]] = {
    "repository": ("id", "key_file", "passphrase_file", "passphrase_command", "cache_dir", "catalog", "state_dir"),
    "placement": ("policy", "min_copies", "copies", "operators", "regions", "months", "restores_per_month"),
    "engine": ("memory", "check_built", "codec", "level", "threads", "limit_rate", "spool_size", "spool_dir"),
}

TABLES: dict[str, tuple[str, ...]] = {"placement": ("rule", "volume")}
"""What of a section is written as tables; only in the file."""


def check_environment(environment: Mapping[str, str]) -> None:
    """``ConfigurationError`` for a variable that means to override a key that does not exist."""
    for section, keys in SECTIONS.items():
        prefix = f"SNAPFERRY_{section.upper()}_"
        known = [prefix + key.upper() for key in keys]
        for variable in environment:
            if variable.startswith(prefix) and variable not in known:
                raise ConfigurationError(f"unknown variable {variable} in the environment{nearest(variable, known)}")


class Layers:
    """One section seen through its layers: a flag, the environment, the file. Remembers where each value came from."""

    def __init__(self, name: str, table: object, file: Path, environment: Mapping[str, str], flags: Mapping[str, str | int]) -> None:
        self.name = name
        self.table = check_table(table, f"[{name}]", (*SECTIONS[name], *TABLES.get(name, ())), file)
        self.file, self.environment, self.flags = file, environment, flags
        self.origins: dict[str, str] = {}

    def raw(self, key: str) -> Any:
        """The value as it was written, or None where nobody gave one."""
        variable = f"SNAPFERRY_{self.name}_{key}".upper()
        for value, origin in (
            (self.flags.get(f"{self.name}.{key}"), "flag"),
            (self.environment.get(variable), f"environment {variable}"),
            (self.table.get(key), f"file:{self.file}"),
        ):
            if value is not None:
                self.origins[f"{self.name}.{key}"] = origin
                return value
        return None

    def rank(self, key: str) -> int:
        """Which layer gave the value that ``raw`` returned: 0 a flag, 1 the environment, 2 the file."""
        origin = self.origins[f"{self.name}.{key}"]
        return 0 if origin == "flag" else 1 if origin.startswith("environment ") else 2

    def fail(self, key: str, message: str) -> ConfigurationError:
        """An error naming the key and where its value came from."""
        return ConfigurationError(f"{self.name}.{key} ({self.origins[f'{self.name}.{key}']}): {message}")

    def text(self, key: str) -> str | None:
        """Text, or None."""
        value = self.raw(key)
        if value is not None and not isinstance(value, str):
            raise self.fail(key, f"{value!r} must be text in quotes")
        return value

    def choice(self, key: str, default: str, offered: Sequence[str], later: Sequence[str] = ()) -> str:
        """One of the words offered; ``later`` ones are refused as not offered yet."""
        value = self.text(key)
        if value is not None and value not in offered:
            raise self.fail(key, not_offered(value, offered, later))
        return default if value is None else value

    def integer(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number from ``least`` to ``most``."""
        value = self.raw(key)
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value):
            value = int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
            raise self.fail(key, f"{value!r} must be a whole number from {least} to {most}")
        return default if value is None else value

    def checked(self, key: str, default: T, check: Callable[[str, object, str], T]) -> T:
        """What ``check`` makes of the key, its value, and words that say where it came from."""
        value = self.raw(key)
        return default if value is None else check(key, value, f"{self.name}.{key} ({self.origins[f'{self.name}.{key}']})")

    def size(self, key: str, default: int, least: int) -> int:
        """A size of at least ``least`` bytes."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, (str, int)):
            raise self.fail(key, f"{value!r} is not a size")
        size = parse_size(value, f"{self.name}.{key}")
        if size < least:
            raise self.fail(key, f"{value!r} is too small; at least {format_size(least)} is needed")
        return size

    def rate(self, key: str) -> int | None:
        """Bytes a second, or None for no limit."""
        value = self.raw(key)
        if value is not None and (not isinstance(value, (str, int)) or isinstance(value, bool)):
            raise self.fail(key, f"{value!r} is not a rate")
        return None if value is None else parse_rate(value, f"{self.name}.{key}")

    def path(self, key: str, default: Path) -> Path:
        """A path; a relative one is seen from the directory of the file."""
        value = self.text(key)
        return default if value is None else join(self.file.parent, value)
