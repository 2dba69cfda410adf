"""Changes the destinations in a configuration file that people write too: comments, order and layout stay as they are.

A change is checked as if it had been read before anything is written, and the file is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit
import tomlkit.items
from tomlkit.exceptions import TOMLKitError

from snapferry.config.reading import check_document
from snapferry.config.tables import read_toml
from snapferry.config.values import Config, DestinationConfig
from snapferry.config.writing import destination_table
from snapferry.errors import AccessDenied, ConfigurationError, SnapferryError

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_SPACE = (28, 122)


def check_added(config: Config, destination: DestinationConfig) -> Config:
    """The configuration with one more destination; nothing is written.

    Raises:
        ConfigurationError: its name is taken, or another destination is the same place.
    """
    return _changed(config, lambda document: _append(document, destination))[1]


def add_destination(config: Config, destination: DestinationConfig) -> Config:
    """Appends a ``[[destination]]`` to the file of ``config``, as it is by now; returns what the file says then.

    Raises:
        As ``check_added``; SnapferryError, AccessDenied: the file cannot be written, and is as it was (14: there is no space).
    """
    return _edit(config, lambda document: _append(document, destination))


def remove_destination(config: Config, name: str) -> Config:
    """Takes the ``[[destination]]`` of that name out of the file of ``config``; returns what the file says then.

    Raises:
        ConfigurationError: without it the configuration makes no sense (it is the last one, or more copies are asked for than are left).
        Else as ``add_destination``.
    """
    return _edit(config, lambda document: _remove(document, name))


def check_removed(config: Config, name: str) -> Config:
    """What ``remove_destination`` would return; nothing is written."""
    return _changed(config, lambda document: _remove(document, name))[1]


def _edit(config: Config, change: Callable[[tomlkit.TOMLDocument], None]) -> Config:
    with _alone(config.path):
        text, changed = _changed(config, change)
        _replace(config.path, text)
    return changed


def _changed(config: Config, change: Callable[[tomlkit.TOMLDocument], None]) -> tuple[str, Config]:
    """The file's new text, and what it says."""
    before, _ = read_toml(config.path)
    with _explained(config.path):
        document = tomlkit.parse(config.path.read_bytes().decode())
        if document.unwrap() != before:
            raise ConfigurationError(f"{config.path} is laid out in a way that cannot be changed without losing something; edit it by hand")
        change(document)
        text = tomlkit.dumps(document)
        # As whoever reads it next will: what was asked for is there, and nothing else has changed.
        after = tomlkit.parse(text).unwrap()
    if {key: value for key, value in after.items() if key != "destination"} != {k: v for k, v in before.items() if k != "destination"}:
        raise ConfigurationError(f"{config.path} is laid out in a way that cannot be changed without losing something; edit it by hand")
    return text, check_document(after, config.path)


def _append(document: tomlkit.TOMLDocument, destination: DestinationConfig) -> None:
    values = destination_table(destination)
    entries = document.get("destination")
    if isinstance(entries, tomlkit.items.Array):  # destination = [{ name = … }, …]
        inline = tomlkit.inline_table()
        inline.update(values)
        entries.append(inline)
        return
    table = tomlkit.table()
    for key, value in values.items():
        table.append(key, _inline(value))
    if entries is None:
        entries = tomlkit.aot()
        document.append("destination", entries)
    tail = _cut_tail(entries[-1]) if len(entries) else []
    if len(entries) and not entries[-1].as_string().endswith("\n\n"):
        entries[-1].add(tomlkit.nl())
    for item in tail or ([tomlkit.nl()] if list(document)[-1] != "destination" else []):
        table.add(item)
    entries.append(table)


def _remove(document: tomlkit.TOMLDocument, name: str) -> None:
    entries: Any = document.get("destination", [])
    number = next((number for number, entry in enumerate(entries) if entry.get("name") == name), None)
    if number is None:
        raise ConfigurationError(f"no destination is named {name!r} any more")
    if isinstance(entries, tomlkit.items.AoT) and number + 1 < len(entries):
        _put_before(entries[number + 1], _cut_tail(entries[number]))
    elif isinstance(entries, tomlkit.items.AoT) and number:
        for item in _cut_tail(entries[number]):
            entries[number - 1].add(item)
    del entries[number]


def _cut_tail(table: tomlkit.items.Table) -> list[Any]:
    """What stands below a table from its first blank line on, taken out of it: comments there are about what follows."""
    body = table.value.body
    begin = max((number for number, (key, _) in enumerate(body) if key is not None), default=-1) + 1
    while begin < len(body) and isinstance(body[begin][1], tomlkit.items.Comment):
        begin += 1
    tail = [item for _, item in body[begin:]]
    del body[begin:]
    return tail


def _put_before(table: tomlkit.items.Table, items: list[Any]) -> None:
    text = "".join(item.as_string() for item in items).lstrip("\n")
    table.trivia.indent = text + table.trivia.indent


def _inline(value: object) -> Any:
    if not isinstance(value, Mapping):
        return value
    table = tomlkit.inline_table()
    table.update({key: _inline(item) for key, item in value.items()})
    return table


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except TOMLKitError as error:
        raise ConfigurationError(f"{path} cannot be changed: {error}; edit it by hand") from error
    except PermissionError as error:
        raise AccessDenied(f"{path} cannot be changed: {error.strerror}") from error
    except OSError as error:
        failed = SnapferryError(f"{path} cannot be changed, and is as it was: {error.strerror}")
        if error.errno in _NO_SPACE:
            failed.exit_code = 14
        raise failed from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One change at a time: a lock on the file's directory, which a kill lets go of."""
    with _explained(path):
        directory = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)


def _replace(path: Path, text: str) -> None:
    """Whole or not at all: a new file of the same mode and owner, synced, that takes the name, which is synced then. A link stays one."""
    file = path.resolve()
    old = file.stat()
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8", newline="") as new:
            new.write(text)
            if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(new.fileno(), old.st_uid, old.st_gid)
            os.fchmod(new.fileno(), old.st_mode & 0o7777)
            new.flush()
            os.fsync(new.fileno())
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
