"""A jobs file: a bulk export described in TOML, checked whole before anything starts.

parallel = 4                       # how many at once; -j beats it

[defaults]                         # for every job that does not say otherwise; any key of a job but source, volume and changed
to = ["near", "far"]
tags = { by = "nightly" }          # a job's own tags are added to these

[[job]]
source = "/dev/vg0/root-snap"      # seen from the directory of this file
volume = "vm-42/root"              # the source's file name unless given
min_copies = 2
block_size = "512KiB"              # for a new volume
parent = "auto"                    # auto, none, or a snapshot of this volume
changed = "root.changes.json"      # a map of what changed since the parent, as rbd diff --format json prints it
skip_unreadable = true
limit_rate = "50MiB"               # a second, of this job
placement = "spread:copies=2"      # a policy, as [placement] writes it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapferry.config.places import join
from snapferry.config.tables import check_table, read_toml
from snapferry.config.units import parse_rate, parse_size
from snapferry.errors import ConfigurationError

_TOP = ("parallel", "defaults", "job")


@dataclass(frozen=True, slots=True)
class JobConfig:
    """One ``[[job]]``, defaults applied. ``source`` is an absolute path, or ``-``; sizes in bytes; None where nothing was said."""

    source: str
    volume: str | None = None
    to: tuple[str, ...] | None = None
    min_copies: int | None = None
    block_size: int | None = None
    parent: str = "auto"
    tags: Mapping[str, str] = field(default_factory=dict)
    skip_unreadable: bool = False
    limit_rate: int | None = None
    changed: str | None = None
    placement: str | None = None


@dataclass(frozen=True, slots=True)
class JobsFile:
    """A checked jobs file. ``parallel`` is None where it does not say."""

    jobs: tuple[JobConfig, ...]
    parallel: int | None = None


def load_jobs(path: str | Path) -> JobsFile:
    """Reads and checks a jobs file.

    Raises:
        ConfigurationError: no TOML, an unknown key (the nearest known one is named), a value of the wrong type, a missing source.
        SnapferryError, AccessDenied: the file is missing, or cannot be read.
    """
    file = Path(path).absolute()
    document, _ = read_toml(file)
    check_table(document, "the file", _TOP, file)
    parallel = document.get("parallel")
    if parallel is not None:
        parallel = _checked("parallel", _count, parallel, str(file))
    defaults = _values(
        document.get("defaults", {}), "[defaults]", [key for key in _CHECKS if key not in ("source", "volume", "changed")], file
    )
    entries = document.get("job", [])
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{file}: at least one [[job]] with a source is needed")
    return JobsFile(tuple(_job(entry, number, defaults, file) for number, entry in enumerate(entries, 1)), parallel)


def _job(entry: object, number: int, defaults: Mapping[str, Any], file: Path) -> JobConfig:
    where = f"[[job]] {number}"
    values = _values(entry, where, list(_CHECKS), file)
    source = values.pop("source", None)
    if source is None:
        raise ConfigurationError(f"{file}: {where} has no source")
    if "changed" in values:
        values["changed"] = str(join(file.parent, values["changed"]))
    tags = {**defaults.get("tags", {}), **values.get("tags", {})}
    return JobConfig(source if source == "-" else str(join(file.parent, source)), **{**defaults, **values, "tags": tags})


def _values(table: object, where: str, known: list[str], file: Path) -> dict[str, Any]:
    checked = check_table(table, where, known, file)
    return {key: _checked(key, _CHECKS[key], value, f"{file}: {where}") for key, value in checked.items()}


def _checked(key: str, check: Callable[[object], object], value: object, where: str) -> Any:
    try:
        return check(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {key}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigurationError(f"{value!r} must be text in quotes")
    return value


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ConfigurationError("an empty list names nothing")
    return tuple(_text(item) for item in values)


def _tags(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ConfigurationError(f'{value!r} must be a table of texts, as in {{ why = "nightly" }}')
    return dict(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{value!r} must be a whole number of 1 or more")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{value!r} must be true or false")
    return value


def _size(value: object) -> int:
    if not isinstance(value, (str, int)):
        raise ConfigurationError(f"{value!r} is not a size")
    return parse_size(value)


def _rate(value: object) -> int | None:
    if not isinstance(value, (str, int)):
        raise ConfigurationError(f"{value!r} is not a rate")
    return parse_rate(value)


_CHECKS: dict[str, Callable[[object], object]] = {
    "source": _text,
    "volume": _text,
    "to": _texts,
    "min_copies": _count,
    "block_size": _size,
    "parent": _text,
    "tags": _tags,
    "skip_unreadable": _flag,
    "changed": _text,
    "limit_rate": _rate,
    "placement": _text,
}
