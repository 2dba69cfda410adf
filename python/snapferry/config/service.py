"""What ``serve`` reads of the configuration: ``[service]``, the ``[[store]]`` and the ``[[access]]`` tables. It holds no token, only hashes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapferry.config.places import find_config, join, not_offered
from snapferry.config.tables import check_table, read_toml
from snapferry.config.units import parse_size
from snapferry.errors import ConfigurationError
from snapferry.types import MiB

ROLES = ("read", "append", "full")
LARGEST_BODY = 129 * MiB
"""Of an object that is put: the largest pack, and some slack."""

SECTIONS = ("service", "store", "access")
"""Tables of the file that are read here, and by nobody else."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})", re.ASCII)
_MIN_MEMORY = 2 * LARGEST_BODY


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """A directory that is offered under a name."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """Who knows a token may do what its role says in these stores. One of ``token_sha256`` (hex) and ``token_file`` says which token."""

    token_sha256: str | None
    token_file: Path | None
    role: str
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """A whole, checked configuration of the service.

    Attributes:
        host, port: to listen on; port 0 takes a free one.
        memory: bytes of objects on their way in that are held at once; more wait.
        stall_timeout: seconds in which some bytes of a body must move, either way.
    """

    path: Path
    host: str
    port: int
    tls_cert: Path | None
    tls_key: Path | None
    memory: int
    stall_timeout: float
    stores: tuple[StoreConfig, ...]
    access: tuple[AccessConfig, ...]


def load_service_config(path: str | os.PathLike[str] | None = None) -> ServiceConfig:
    """Reads and checks it; the file may hold a repository's configuration too, which is not looked at.

    Raises:
        ConfigurationError: an unknown key (the nearest known one is named), or a value that is not usable.
        NotARepository: there is no configuration file.
    """
    file = find_config(path)
    document, _ = read_toml(file)
    table = check_table(document.get("service", {}), "[service]", ("listen", "tls_cert", "tls_key", "memory", "stall_timeout"), file)
    host, port = _listen(table.get("listen", "127.0.0.1:8480"), file)
    cert, key = _path(table, "tls_cert", "[service]", file), _path(table, "tls_key", "[service]", file)
    if (cert is None) != (key is None):
        raise ConfigurationError(f"{file}: [service]: tls_cert and tls_key go together; one of them is missing")
    memory = parse_size(table.get("memory", "512MiB"), f"{file}: [service]: memory")
    if memory < _MIN_MEMORY:
        raise ConfigurationError(f"{file}: [service]: memory: at least {_MIN_MEMORY // MiB}MiB are needed, for two of the largest objects")
    stall = table.get("stall_timeout", 30.0)
    if not isinstance(stall, (int, float)) or isinstance(stall, bool) or not 0.1 <= stall <= 3600:
        raise ConfigurationError(f"{file}: [service]: stall_timeout: {stall!r} must be seconds, from 0.1 to 3600")
    stores = tuple(_store(entry, number, file) for number, entry in enumerate(_entries(document, "store", file), 1))
    names = [store.name for store in stores]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"{file}: two stores are named {name!r}")
    access = tuple(_access(entry, number, names, file) for number, entry in enumerate(_entries(document, "access", file), 1))
    return ServiceConfig(file, host, port, cert, key, memory, float(stall), stores, access)


def _entries(document: Mapping[str, Any], name: str, file: Path) -> list[object]:
    entries = document.get(name)
    if not isinstance(entries, list) or not entries:
        what = {"store": "a name and a path", "access": "a token_sha256, a role and stores (see `snapferry serve --new-token`)"}[name]
        raise ConfigurationError(f"{file}: to serve, at least one [[{name}]] with {what} is needed")
    return entries


def _store(entry: object, number: int, file: Path) -> StoreConfig:
    where = f"[[store]] {number}"
    table = check_table(entry, where, ("name", "path"), file)
    name, path = table.get("name"), _path(table, "path", where, file)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{file}: {where}: name must be of letters, digits, '.', '_' and '-', not {name!r}")
    if path is None:
        raise ConfigurationError(f"{file}: {where} has no path")
    return StoreConfig(name, path)


def _access(entry: object, number: int, known: list[str], file: Path) -> AccessConfig:
    where = f"[[access]] {number}"
    table = check_table(entry, where, ("token_sha256", "token_file", "role", "stores"), file)
    digest, token_file = table.get("token_sha256"), _path(table, "token_file", where, file)
    if (digest is None) == (token_file is None):
        raise ConfigurationError(f"{file}: {where}: one of token_sha256 and token_file says which token: give one")
    if digest is not None and (not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest)):
        # It may be the token itself, so it is not shown.
        raise ConfigurationError(
            f"{file}: {where}: token_sha256 must be 64 hex digits; `snapferry serve --new-token` makes a token and its hash"
        )
    role, stores = table.get("role"), table.get("stores")
    if role not in ROLES:
        raise ConfigurationError(f"{file}: {where}: role: {not_offered(role, ROLES)}")
    if not isinstance(stores, list) or not stores or not all(isinstance(name, str) for name in stores):
        raise ConfigurationError(f"{file}: {where}: stores must be a list of names")
    for name in stores:
        if name not in known:
            raise ConfigurationError(f"{file}: {where}: stores: {not_offered(name, known)}")
    return AccessConfig(digest, token_file, role, tuple(stores))


def _path(table: Mapping[str, Any], key: str, where: str, file: Path) -> Path | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigurationError(f"{file}: {where}: {key}: {value!r} must be a path in quotes")
    return join(file.parent, value)


def _listen(value: object, file: Path) -> tuple[str, int]:
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[3]) > 65535:
        raise ConfigurationError(f"{file}: [service]: listen: {value!r} should read HOST:PORT, as in 127.0.0.1:8480 or [::1]:8480")
    return match[1] or match[2], int(match[3])
