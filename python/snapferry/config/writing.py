"""Writes a new configuration file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from snapferry.config.places import xdg
from snapferry.config.units import format_size, parse_size
from snapferry.config.values import PATIENCE, Config, DestinationConfig, EngineConfig, Price
from snapferry.errors import ConfigurationError, SnapferryError


def write_config(config: Config) -> None:
    """Writes ``config`` to ``config.path``: mode 0600, synced with its directory, never over an existing file.

    Raises:
        SnapferryError: the file exists (1), or cannot be written.
    """
    lines = ["[repository]", f"id = {_toml(config.repository.id or '')}", *_opener(config)]
    if config.repository.cache_dir != xdg("XDG_CACHE_HOME", ".cache", os.environ):
        lines.append(f"cache_dir = {_toml(str(config.repository.cache_dir))}")
    if config.repository.state_dir != xdg("XDG_STATE_HOME", ".local/state", os.environ):
        lines.append(f"state_dir = {_toml(str(config.repository.state_dir))}")
    if config.repository.catalog is not None:
        lines.append(f"catalog = {_toml(config.repository.catalog)}")
    for d in config.destinations:
        lines += ["", "[[destination]]", *(f"{key} = {_toml(value)}" for key, value in destination_table(d).items())]
    for plugin in config.plugins:
        lines += ["", "[[plugin]]", f"name = {_toml(plugin.name)}", *(f"{key} = {_toml(value)}" for key, value in plugin.table().items())]
    lines += ["", "[placement]", f"policy = {_toml(config.placement.policy)}", f"min_copies = {config.placement.min_copies}"]
    lines += ["", "[engine]", f"memory = {_toml(_size(config.engine.memory))}"]
    usual = EngineConfig(threads=os.cpu_count() or 1)
    changed = [
        key for key in ("check_built", "codec", "level", "threads", "limit_rate") if getattr(config.engine, key) != getattr(usual, key)
    ]
    lines += [f"{key} = {_toml(getattr(config.engine, key))}" for key in changed]
    if config.engine.spool_size != usual.spool_size:
        lines.append(f"spool_size = {_toml(_size(config.engine.spool_size))}")
    if config.engine.spool_dir is not None:
        lines.append(f"spool_dir = {_toml(str(config.engine.spool_dir))}")
    lines.append("")
    try:
        config.path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(config.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(config.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError as error:
        raise SnapferryError(f"{config.path} exists already; nothing was overwritten") from error
    except OSError as error:
        raise SnapferryError(f"{config.path}: {error.strerror}") from error


def destination_table(destination: DestinationConfig) -> dict[str, object]:
    """What its ``[[destination]]`` holds: all that is not as usual."""
    table: dict[str, object] = {"name": destination.name, "url": destination.url, "slow": destination.slow}
    if destination.patience != PATIENCE:
        table["patience"] = destination.patience
    if destination.limit_rate is not None:
        table["limit_rate"] = _size(destination.limit_rate)
    if destination.price != Price():
        table["price"] = dataclasses.asdict(destination.price)
    if destination.options:
        table["options"] = dict(destination.options)
    return table


def _opener(config: Config) -> list[str]:
    """What opens the repository; a file beside the configuration by its name alone."""
    lines = []
    for key in ("key_file", "passphrase_file"):
        path: Path | None = getattr(config.repository, key)
        if path is not None:
            lines.append(f"{key} = {_toml(path.name if path.parent == config.path.parent else str(path))}")
    if config.repository.passphrase_command is not None:
        lines.append(f"passphrase_command = {_toml(config.repository.passphrase_command)}")
    return lines


def _size(size: int) -> str:
    """Exact, in the largest unit that allows it."""
    text = format_size(size)
    return text if parse_size(text) == size else str(size)


def _toml(value: object) -> str:
    """One TOML value; text as a basic string, every control character escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if not isinstance(value, str):
        raise ConfigurationError(f"{value!r} cannot be written into a configuration file")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
