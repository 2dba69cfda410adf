"""The catalog over SQLAlchemy Core: short transactions, callable from any thread, safe beside other processes.

SQLite is asked for write-ahead logging, so that readers never wait, and for a busy timeout, so that writers take turns.
Its file is a cache: it is synced at checkpoints only, and a power loss may cost its latest rows but not its integrity.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, Table, create_engine, delete, event, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import StaticPool

from snapferry.catalog.schema import MIGRATIONS, VERSION, damage, metadata, replica_speed, replicas, schema_version, snapshots
from snapferry.catalog.values import KnownCommit, RecordedDamage, ReplicaSpeed
from snapferry.errors import CatalogError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BUSY_SECONDS = 10.0
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Catalog:
    """What this machine has seen of its repositories.

    Every method is one transaction. Repositories, destinations and snapshots are named by id (32 hex digits).

    Raises:
        CatalogError: from any method, when the database is damaged, locked, of a newer version or cannot be written.
    """

    def __init__(self, url: str = "sqlite://", *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Opens the catalog at ``url`` and makes its tables if there are none; ``sqlite://`` lives in memory."""
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise ConfigurationError(f"repository.catalog: {url!r} is not a database URL (write sqlite:///PATH)") from error
        if parsed.get_backend_name() != "sqlite":
            raise ConfigurationError(
                f"repository.catalog: {parsed.get_backend_name()} is not offered by this version; write sqlite:///PATH"
            )
        self._path = parsed.database or ""
        self._lock = threading.RLock()
        if self._path:
            _make_private(self._path)
            self._engine = create_engine(parsed, connect_args={"timeout": busy_seconds})
        else:
            self._engine = create_engine(parsed, connect_args={"check_same_thread": False}, poolclass=StaticPool)
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        try:
            self._migrate()
        except BaseException:
            self._engine.dispose()
            raise

    @classmethod
    def rebuild(cls, url: str, repository: str) -> Catalog:
        """The catalog at ``url`` with all that the destinations can tell of ``repository`` removed.

        A damaged database is set aside (``PATH.damaged``, ``PATH.damaged-2`` and so on), never deleted, and a new one is made.
        """
        try:
            catalog = cls(url)
        except CatalogError as error:
            path = make_url(url).database
            if not path or not isinstance(error.__cause__, DBAPIError) or _code(error.__cause__) not in _DAMAGED:
                raise
            _set_aside(path)
            return cls(url)
        try:
            catalog.clear(repository)
        except CatalogError as error:
            catalog.close()
            if not isinstance(error.__cause__, DBAPIError) or _code(error.__cause__) not in _DAMAGED:
                raise
            _set_aside(catalog._path)
            return cls(url)
        return catalog

    def close(self) -> None:
        """Releases the connections. Closing twice is no error."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def commits(self, repository: str) -> dict[str, bytes]:
        """Snapshot id to the opened payload of its commit, for every snapshot ever remembered."""
        with self._reading() as connection:
            rows = connection.execute(select(snapshots.c.id, snapshots.c.payload).where(snapshots.c.repository == repository))
            return {row.id: row.payload for row in rows}

    def remember_commits(self, repository: str, commits: Iterable[KnownCommit]) -> None:
        """Adds commits; one that is there already stays as it is, since a commit never changes."""
        self._add(
            snapshots,
            [
                {
                    "repository": repository,
                    "id": commit.snapshot.id,
                    "volume": commit.snapshot.volume,
                    "generation": commit.snapshot.generation,
                    "created": _rfc3339(commit.snapshot.created),
                    "size": commit.snapshot.size,
                    "block_size": commit.snapshot.block_size,
                    "bytes_new": commit.snapshot.bytes_new,
                    "parent": commit.snapshot.parent,
                    "payload": commit.payload,
                }
                for commit in commits
            ],
        )

    def drop_commits(self, repository: str, ids: Iterable[str]) -> None:
        """Drops commits, and where they were seen: of snapshots that were forgotten on purpose."""
        with self._writing() as connection:
            for snapshot in ids:
                connection.execute(delete(snapshots).where(snapshots.c.repository == repository, snapshots.c.id == snapshot))
                connection.execute(delete(replicas).where(replicas.c.repository == repository, replicas.c.snapshot == snapshot))

    def seen(self, repository: str, destination: str) -> frozenset[str]:
        """Ids of the snapshots that were ever seen at this destination."""
        with self._reading() as connection:
            query = select(replicas.c.snapshot).where(replicas.c.repository == repository, replicas.c.destination == destination)
            return frozenset(connection.scalars(query))

    def remember_seen(self, repository: str, destination: str, ids: Iterable[str]) -> None:
        """These snapshots are at this destination now; the time of the first sight is kept."""
        now = _rfc3339(datetime.now(UTC))
        self._add(
            replicas,
            [{"repository": repository, "destination": destination, "snapshot": snapshot, "first_seen": now} for snapshot in ids],
        )

    def damage(self, repository: str, destination: str | None = None) -> tuple[RecordedDamage, ...]:
        """The damage known, at one destination or at all, oldest first."""
        query = select(damage).where(damage.c.repository == repository).order_by(damage.c.found, damage.c.object)
        if destination is not None:
            query = query.where(damage.c.destination == destination)
        with self._reading() as connection:
            rows = connection.execute(query)
            return tuple(RecordedDamage(row.destination, row.object, row.reason, datetime.fromisoformat(row.found)) for row in rows)

    def record_damage(self, repository: str, destination: str, objects: Iterable[tuple[str, str]]) -> None:
        """These (key, reason) pairs are broken or missing at this destination; the time of the first finding is kept."""
        now = _rfc3339(datetime.now(UTC))
        rows = [
            {"repository": repository, "destination": destination, "object": key, "reason": reason, "found": now} for key, reason in objects
        ]
        if rows:
            statement = insert(damage)
            with self._writing() as connection:
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=["repository", "destination", "object"], set_={"reason": statement.excluded.reason}
                    ),
                    rows,
                )

    def clear_damage(self, repository: str, destination: str, objects: Iterable[str] | None = None) -> None:
        """These objects (all, if None) were found in good order, or are gone on purpose."""
        at = (damage.c.repository == repository, damage.c.destination == destination)
        with self._writing() as connection:
            if objects is None:
                connection.execute(delete(damage).where(*at))
                return
            for key in objects:
                connection.execute(delete(damage).where(*at, damage.c.object == key))

    def speeds(self, repository: str) -> dict[str, ReplicaSpeed]:
        """Destination id to what reading from it was like when last measured."""
        with self._reading() as connection:
            rows = connection.execute(select(replica_speed).where(replica_speed.c.repository == repository))
            return {row.destination: ReplicaSpeed(row.first_byte, row.goodput) for row in rows}

    def remember_speeds(self, repository: str, speeds: dict[str, ReplicaSpeed]) -> None:
        """Replaces what is known of these destinations."""
        rows = [
            {"repository": repository, "destination": destination, "first_byte": speed.first_byte, "goodput": speed.goodput}
            for destination, speed in speeds.items()
        ]
        if rows:
            statement = insert(replica_speed)
            with self._writing() as connection:
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=["repository", "destination"],
                        set_={"first_byte": statement.excluded.first_byte, "goodput": statement.excluded.goodput},
                    ),
                    rows,
                )

    def clear(self, repository: str) -> None:
        """Removes all that the destinations can tell again. What was seen where is kept: only this machine knows it."""
        with self._writing() as connection:
            for table in (snapshots, damage, replica_speed):
                connection.execute(delete(table).where(table.c.repository == repository))

    def _add(self, table: Table, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._writing() as connection:
                connection.execute(insert(table).on_conflict_do_nothing(), rows)

    def _migrate(self) -> None:
        with self._reading() as connection:
            version = _version(connection)
        if version == VERSION:
            return
        with self._writing() as connection:
            version = _version(connection)  # another process may have been first
            if version > VERSION:
                raise CatalogError(
                    f"the catalog {self._path} is of version {version}, made by a newer snapferry; "
                    "use that one, or name another file with repository.catalog and run `snapferry rebuild`"
                )
            if version == 0:
                metadata.create_all(connection)
            for step in range(version, VERSION):
                if step in MIGRATIONS:
                    MIGRATIONS[step](connection)
            connection.execute(delete(schema_version))
            connection.execute(insert(schema_version).values(version=VERSION))

    def _reading(self) -> contextlib.AbstractContextManager[Connection]:
        return self._transaction(write=False)

    def _writing(self) -> contextlib.AbstractContextManager[Connection]:
        return self._transaction(write=True)

    @contextlib.contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        # The database in memory has one connection, which threads must take in turns.
        with contextlib.nullcontext() if self._path else self._lock:
            try:
                with self._engine.connect().execution_options(snapferry_write=write) as connection, connection.begin():
                    yield connection
            except DBAPIError as error:
                raise CatalogError(_explain(error, self._path or "in memory")) from error


def _version(connection: Connection) -> int:
    """0 where there are no tables yet."""
    there = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'").first()
    return 0 if there is None else int(connection.scalar(select(schema_version.c.version)) or 0)


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    # SQLAlchemy's documentation, "Transactions with SQLite": the driver begins nothing itself, `_begin` does.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin(connection: Connection) -> None:
    # A writer takes its turn at the beginning: a reader that turns writer cannot wait for another one.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("snapferry_write") else "BEGIN")


def _code(error: DBAPIError) -> int:
    """SQLite's primary result code; 0 where there is none."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF


def _explain(error: DBAPIError, path: str) -> str:
    code = _code(error)
    if code in _DAMAGED:
        return f"the catalog {path} is damaged ({error.orig}); no backup is lost: `snapferry rebuild` sets it aside and makes it anew"
    if code in _LOCKED:
        return f"the catalog {path} is locked by another process; wait for it to end, or stop it and run `snapferry rebuild`; no backup is lost"
    return f"the catalog {path} cannot be used ({error.orig}); no backup is lost: mend that, then run `snapferry rebuild`"


def _make_private(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise CatalogError(
            f"the catalog {path} cannot be opened ({error.strerror}); no backup is lost: mend that, then run `snapferry rebuild`"
        ) from error


def _set_aside(path: str) -> None:
    aside, count = f"{path}.damaged", 1
    while os.path.lexists(aside):
        count += 1
        aside = f"{path}.damaged-{count}"
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()
