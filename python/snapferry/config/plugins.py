"""Checks the ``[[plugin]]`` tables: the modules that destinations of ``plugin:NAME`` speak with, and what a started one may have and do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapferry.config.places import join, nearest
from snapferry.config.tables import check_table, read_toml
from snapferry.config.units import format_size, parse_size
from snapferry.errors import AccessDenied, ConfigurationError
from snapferry.types import MiB

SCHEME = "plugin:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STORE = re.compile(r"(?!tmp(?:/|$))[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,3}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PORT = re.compile(r"tcp:(\d{1,5})")


@dataclass(frozen=True, slots=True)
class PluginConfig:
    """One ``[[plugin]]``. Either ``socket`` is set, and whoever owns it runs the module, or ``command``, and snapferry does. Sizes in bytes.

    Attributes:
        directories: those it may write to; the first is where it starts, and is told to it. read_only: what else it may read.
        memory: of all its processes together. processes: how many, threads included. open_files: of each.
        start_seconds: until it must answer. ports: of TCP that it may connect to. datagrams: whether it may use UDP.
        user: that it runs as where snapferry is root; None: ``nobody``.
        max_object: no object is larger, nor, but for a little, any file of it.
        max_objects: a listing of more is taken for an endless one.
        environment: names and values that it gets; they may be secret.
        strict: whether it is not run at all where the kernel cannot confine it.
    """

    name: str
    socket: str | None = None
    command: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    memory: int = 256 * MiB
    processes: int = 64
    open_files: int = 256
    start_seconds: float = 10.0
    ports: tuple[int, ...] = ()
    datagrams: bool = False
    user: str | None = None
    max_object: int = 160 * MiB
    max_objects: int = 4_000_000
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    strict: bool = True

    def shown(self) -> dict[str, object]:
        """Its values as the configuration has them, secrets hidden."""
        table = self.table()
        return table | ({"environment": dict.fromkeys((key for key, _ in self.environment), "(hidden)")} if self.environment else {})

    def table(self) -> dict[str, object]:
        """The table that makes it, without what goes without saying."""
        if self.socket is not None:
            table: dict[str, object] = {"socket": self.socket, "max_object": _exact(self.max_object), "max_objects": self.max_objects}
        else:
            network = [f"tcp:{port}" for port in self.ports] + ["udp"] * self.datagrams
            table = {
                "command": list(self.command),
                "directory": list(self.directories),
                "read_only": list(self.read_only) or None,
                "memory": _exact(self.memory),
                "processes": self.processes,
                "open_files": self.open_files,
                "start_seconds": self.start_seconds,
                "network": network or False,
                "user": self.user,
                "max_object": _exact(self.max_object),
                "max_objects": self.max_objects,
                "environment": dict(self.environment) or None,
                "confine": "strict" if self.strict else "best-effort",
            }
        return {key: value for key, value in table.items() if value is not None}


def check_plugins(entries: object, file: Path) -> dict[str, PluginConfig]:
    """The checked plug-ins by name; ``ConfigurationError`` naming the table and the key."""
    if not isinstance(entries, list):
        raise ConfigurationError(f"{file}: plug-ins are written as [[plugin]] tables")
    plugins: dict[str, PluginConfig] = {}
    for number, entry in enumerate(entries, 1):
        table = check_table(entry, f"[[plugin]] {number}", ("name", *_CHECKS), file)
        name = table.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(f"{file}: [[plugin]] {number}: name must be of letters, digits, '.', '_' and '-', not {name!r}")
        if name in plugins:
            raise ConfigurationError(f"{file}: two plug-ins are named {name!r}")
        plugins[name] = _plugin(name, table, f"{file}: plugin {name!r}", file.parent)
    return plugins


def load_plugins(path: str | Path) -> tuple[PluginConfig, ...]:
    """The ``[[plugin]]`` tables of a file that holds nothing else, for a configuration that is to be made.

    Raises:
        ConfigurationError: no TOML, or not usable. AccessDenied: it names a command, and others may write it. SnapferryError: it is missing.
    """
    file = Path(path).absolute()
    document, owner = read_toml(file)
    check_table(document, "the file", ("plugin",), file)
    check_commands_owner(document, file, owner)
    return tuple(check_plugins(document.get("plugin", []), file).values())


def check_commands_owner(document: Mapping[str, Any], file: Path, owner: os.stat_result) -> None:
    """``AccessDenied`` for a file that names a command to run and belongs to, or can be written by, somebody else than its user or root."""
    if _names_a_command(document) and (owner.st_uid not in (0, os.geteuid()) or owner.st_mode & 0o022):
        raise AccessDenied(
            f"{file} names a command to run, so it must belong to you or to root, and no one else may write it; it was not read (chmod go-w it, or chown it)"
        )


def _names_a_command(document: Mapping[str, Any]) -> bool:
    repository, plugins = document.get("repository"), document.get("plugin")
    if isinstance(plugins, list) and any(isinstance(plugin, dict) and "command" in plugin for plugin in plugins):
        return True
    return isinstance(repository, dict) and "passphrase_command" in repository


def plugin_of(url: str, options: Mapping[str, object], plugins: Mapping[str, PluginConfig], where: str) -> PluginConfig | None:
    """The plug-in that a URL names, its options checked; None where the URL is none of a plug-in."""
    if not url.startswith(SCHEME):
        return None
    name = url.removeprefix(SCHEME)
    if name not in plugins:
        known = ", ".join(plugins) or "none"
        raise ConfigurationError(f"{where}: no [[plugin]] is named {name!r}{nearest(name, list(plugins))}; there is: {known}")
    store_of(options, where)
    return plugins[name]


def store_of(options: Mapping[str, object], where: str) -> str:
    """The path below which a destination's objects are asked for: ``/``, or ``/STORE/``."""
    for key in options:
        if key != "store":
            raise ConfigurationError(f"{where}: a plug-in's destination has no option {key!r}{nearest(key, ['store'])}; known is store")
    store = options.get("store")
    if store is None:
        return "/"
    if not isinstance(store, str) or not _STORE.fullmatch(store):
        raise ConfigurationError(
            f"{where}: store: {store!r} must be a name of letters, digits, '.', '_' and '-', or up to four with '/' between, "
            "and not 'tmp' in front, which is the module's own"
        )
    return f"/{store}/"


def _plugin(name: str, table: Mapping[str, Any], where: str, base: Path) -> PluginConfig:
    if ("socket" in table) == ("command" in table):
        raise ConfigurationError(f"{where} needs a socket, where you run the module, or a command, where snapferry does: one of them")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "name":
            continue
        if "socket" in table and key not in ("socket", "max_object", "max_objects"):
            raise ConfigurationError(
                f"{where}: {key} is for a module that snapferry runs; of one behind a socket you have to see to that yourself"
            )
        try:
            values |= _CHECKS[key](value, base)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {key}: {error}") from error
    if "command" in values and not values.get("directories"):
        raise ConfigurationError(f"{where} needs a directory of its own, which it may write to")
    return PluginConfig(name, **values)


def _exact(size: int) -> str:
    text = format_size(size)
    return text if parse_size(text) == size else str(size)


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str) and item and "\0" not in item for item in values):
        raise ConfigurationError(f"{value!r} must be text in quotes, or a list of such")
    return tuple(values)


def _paths(value: object, base: Path) -> tuple[str, ...]:
    return tuple(str(join(base, path)) for path in _texts(value))


def _socket(value: object, base: Path) -> dict[str, Any]:
    path, *more = _paths(value, base)
    if more or len(path.encode()) > 107:
        raise ConfigurationError(f"{value!r} must be one path of at most 107 bytes")
    return {"socket": path}


def _command(value: object, base: Path) -> dict[str, Any]:
    if not isinstance(value, list):
        raise ConfigurationError(f"{value!r} must be a list of the program and its arguments; no shell reads it")
    program, *arguments = _texts(value)
    if "/" not in program:
        raise ConfigurationError(f"{program!r} must be the path of a program; $PATH is not searched")
    return {"command": (str(join(base, program)), *arguments)}


def _number(least: float, most: float, key: str, kind: type[int | float] = int) -> Callable[[object, Path], dict[str, Any]]:
    def check(value: object, base: Path) -> dict[str, Any]:
        del base
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value != kind(value) or not least <= value <= most:
            raise ConfigurationError(f"{value!r} must be a number from {least:g} to {most:g}")
        return {key: kind(value)}

    return check


def _size(least: int, key: str) -> Callable[[object, Path], dict[str, Any]]:
    def check(value: object, base: Path) -> dict[str, Any]:
        del base
        size = parse_size(value) if isinstance(value, (str, int)) else 0
        if size < least:
            raise ConfigurationError(f"{value!r} is too small; at least {format_size(least)} is needed")
        return {key: size}

    return check


def _network(value: object, base: Path) -> dict[str, Any]:
    del base
    entries = [] if value is False else value
    matches = (
        [_PORT.fullmatch(entry) for entry in entries if entry != "udp"]
        if isinstance(entries, list) and all(isinstance(e, str) for e in entries)
        else [None]
    )
    ports = [int(match[1]) for match in matches if match]
    if len(ports) < len(matches) or not all(0 < port < 65536 for port in ports):
        raise ConfigurationError(
            f'{value!r} must be false, or a list of what it may connect to, as in ["tcp:443"]; "udp" lets datagrams through'
        )
    return {"ports": tuple(ports), "datagrams": isinstance(entries, list) and "udp" in entries}


def _user(value: object, base: Path) -> dict[str, Any]:
    del base
    if not isinstance(value, str) or not value or value in ("root", "0"):
        raise ConfigurationError(f"{value!r} must be the name of a user, and not root")
    return {"user": value}


def _environment(value: object, base: Path) -> dict[str, Any]:
    del base
    if not isinstance(value, dict) or not all(
        _VARIABLE.fullmatch(key) and isinstance(item, str) and "\0" not in item for key, item in value.items()
    ):
        raise ConfigurationError('it must be a table of texts, as in { REGION = "eu" }')  # its values may be secret
    return {"environment": tuple(sorted(value.items()))}


def _confine(value: object, base: Path) -> dict[str, Any]:
    del base
    if value not in ("strict", "best-effort"):
        raise ConfigurationError(f"{value!r} must be strict or best-effort")
    return {"strict": value == "strict"}


_CHECKS: dict[str, Callable[[object, Path], dict[str, Any]]] = {
    "socket": _socket,
    "command": _command,
    "directory": lambda value, base: {"directories": _paths(value, base)},
    "read_only": lambda value, base: {"read_only": _paths(value, base)},
    "memory": _size(16 * MiB, "memory"),
    "processes": _number(1, 4096, "processes"),
    "open_files": _number(16, 65536, "open_files"),
    "start_seconds": _number(0.1, 600, "start_seconds", float),
    "network": _network,
    "user": _user,
    "max_object": _size(33 * MiB, "max_object"),
    "max_objects": _number(1000, 1 << 32, "max_objects"),
    "environment": _environment,
    "confine": _confine,
}
