"""The catalog in SQLite: short transactions, callable from any thread, safe beside other processes.

SQLite is asked for write-ahead logging, so that readers never wait, and for a busy timeout, so that writers take turns.
Its file is a cache: it is synced at checkpoints only, and a power loss may cost its latest rows but not its integrity.

The statements are plain SQL with named parameters, in the part that SQLite and PostgreSQL share. They are run by the standard
library: every command asks the catalog, and importing SQLAlchemy (0.12 s) would be a third of the start-up. SQLAlchemy makes the tables.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from snapferry.catalog.values import VERSION, RecordedDamage, ReplicaSpeed
from snapferry.errors import CatalogError, ConfigurationError

BUSY_SECONDS = 10.0
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_HINT = "no backup is lost: `snapferry rebuild`"
_SCHEME = "sqlite://"
_TURN_SECONDS = 0.01
_ID = 32
_REMOVE_RUN = "DELETE FROM summaries WHERE repository = :repository AND run = :run"


class Catalog:
    """What this machine has seen of its repositories.

    Every method is one transaction. Repositories, destinations and snapshots are named by id (32 hex digits).

    Raises:
        CatalogError: from any method, when the database is damaged, locked, of a newer version or cannot be written.
    """

    def __init__(self, url: str = _SCHEME, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Opens the catalog at ``url`` (``sqlite:///PATH``) and makes its tables if there are none; ``sqlite://`` lives in memory."""
        self._path = _path_of(url)
        self._lock = threading.RLock()
        if self._path:
            _make_private(self._path)
        with self._explained():
            # One connection in turns: nothing here takes long enough for a second one to be of use.
            self._connection = sqlite3.connect(
                self._path or ":memory:", timeout=busy_seconds, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained():
                _use_write_ahead_log(self._connection, busy_seconds)
                self._connection.execute("PRAGMA synchronous = NORMAL")
            self._migrate()
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def rebuild(cls, url: str, repository: str) -> Catalog:
        """The catalog at ``url`` with all that the destinations can tell of ``repository`` removed.

        A damaged database is set aside (``PATH.damaged``, ``PATH.damaged-2`` and so on), never deleted, and a new one is made.
        """
        catalog: Catalog | None = None
        try:
            catalog = cls(url)
            catalog.clear(repository)
        except CatalogError as error:
            if catalog is not None:
                catalog.close()
            path = _path_of(url)
            if not path or not isinstance(error.__cause__, sqlite3.Error) or _code(error.__cause__) not in _DAMAGED:
                raise
            _set_aside(path)
            return cls(url)
        return catalog

    def close(self) -> None:
        """Releases the connection. Closing twice is no error."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def runs(self, repository: str, but: Iterable[str] = ()) -> dict[str, bytes | None]:
        """By name, every sealed run of summaries; None stands for those named in ``but``, whose bytes the caller has."""
        had = set(but)
        with self._transaction(write=False) as connection:
            at = {"repository": repository}
            found = [name for (name,) in connection.execute("SELECT run FROM summaries WHERE repository = :repository", at)]
            query = "SELECT sealed FROM summaries WHERE repository = :repository AND run = :run"
            return {name: None if name in had else connection.execute(query, at | {"run": name}).fetchone()[0] for name in found}

    def replace_runs(self, repository: str, gone: Iterable[str], run: str, sealed: bytes) -> None:
        """Adds a sealed run of summaries in place of those in ``gone``."""
        at = {"repository": repository}
        with self._transaction(write=True) as connection:
            connection.executemany(_REMOVE_RUN, [at | {"run": name} for name in gone])
            insert = "INSERT INTO summaries (repository, run, sealed) VALUES (:repository, :run, :sealed)"
            connection.execute(insert, {**at, "run": run, "sealed": sealed})

    def remove_runs(self, repository: str, gone: Iterable[str]) -> None:
        """Removes runs that cannot be used."""
        self._write(_REMOVE_RUN, [{"repository": repository, "run": name} for name in gone])

    def generation(self, repository: str, volume: str) -> int:
        """The greatest generation of the volume in any snapshot ever remembered; 0 if there is none."""
        query = "SELECT generation FROM generations WHERE repository = :repository AND volume = :volume"
        rows = self._select(query, repository=repository, volume=volume)
        return int(rows[0][0]) if rows else 0

    def remember_generations(self, repository: str, generations: Mapping[str, int]) -> None:
        """By volume, a generation that was seen; greater ones are kept."""
        self._write(
            "INSERT INTO generations (repository, volume, generation) VALUES (:repository, :volume, :generation) "
            "ON CONFLICT (repository, volume) DO UPDATE SET generation = excluded.generation "
            "WHERE excluded.generation > generations.generation",
            [{"repository": repository, "volume": volume, "generation": number} for volume, number in generations.items()],
        )

    def seen(self, repository: str, destination: str) -> set[str]:
        """Ids of the snapshots that were ever seen at this destination."""
        # As one text, in a third of the time of a row each. PostgreSQL calls it string_agg.
        query = "SELECT group_concat(snapshot, '') FROM replicas WHERE repository = :repository AND destination = :destination"
        ((ids,),) = self._select(query, repository=repository, destination=destination)
        return {ids[at : at + _ID] for at in range(0, len(ids), _ID)} if ids else set()

    def was_seen(self, repository: str, destination: str, snapshot: str) -> bool:
        """Whether this snapshot was ever seen at this destination."""
        query = "SELECT 1 FROM replicas WHERE repository = :repository AND destination = :destination AND snapshot = :snapshot"
        return bool(self._select(query, repository=repository, destination=destination, snapshot=snapshot))

    def remember_seen(self, repository: str, destination: str, ids: Iterable[str]) -> None:
        """These snapshots are at this destination now; the time of the first sight is kept."""
        now = _rfc3339(datetime.now(UTC))
        self._write(
            "INSERT INTO replicas (repository, destination, snapshot, first_seen) "
            "VALUES (:repository, :destination, :snapshot, :first_seen) ON CONFLICT DO NOTHING",
            [{"repository": repository, "destination": destination, "snapshot": snapshot, "first_seen": now} for snapshot in ids],
        )

    def forget_seen(self, repository: str, destination: str, ids: Iterable[str]) -> None:
        """These snapshots were let go at this destination on purpose: that they are gone says nothing any more."""
        self._write(
            "DELETE FROM replicas WHERE repository = :repository AND destination = :destination AND snapshot = :snapshot",
            [{"repository": repository, "destination": destination, "snapshot": snapshot} for snapshot in ids],
        )

    def damage(self, repository: str, destination: str | None = None) -> tuple[RecordedDamage, ...]:
        """The damage known, at one destination or at all, oldest first."""
        query = (
            "SELECT destination, object, reason, found FROM damage "
            "WHERE repository = :repository AND (:destination IS NULL OR destination = :destination) ORDER BY found, object"
        )
        rows = self._select(query, repository=repository, destination=destination)
        return tuple(RecordedDamage(where, key, reason, datetime.fromisoformat(found)) for where, key, reason, found in rows)

    def record_damage(self, repository: str, destination: str, objects: Iterable[tuple[str, str]]) -> None:
        """These (key, reason) pairs are broken or missing at this destination; the time of the first finding is kept."""
        now = _rfc3339(datetime.now(UTC))
        self._write(
            "INSERT INTO damage (repository, destination, object, reason, found) "
            "VALUES (:repository, :destination, :object, :reason, :found) "
            "ON CONFLICT (repository, destination, object) DO UPDATE SET reason = excluded.reason",
            [
                {"repository": repository, "destination": destination, "object": key, "reason": reason, "found": now}
                for key, reason in objects
            ],
        )

    def clear_damage(self, repository: str, destination: str, objects: Iterable[str] | None = None) -> None:
        """These objects (all, if None) were found in good order, or are gone on purpose."""
        at = {"repository": repository, "destination": destination}
        statement = "DELETE FROM damage WHERE repository = :repository AND destination = :destination"
        if objects is None:
            self._write(statement, [at])
        else:
            self._write(statement + " AND object = :object", [at | {"object": key} for key in objects])

    def speeds(self, repository: str) -> dict[str, ReplicaSpeed]:
        """Destination id to what reading from it was like when last measured."""
        query = "SELECT destination, first_byte, goodput, tail, errors, measured FROM replica_speed WHERE repository = :repository"
        return {
            where: ReplicaSpeed(first_byte, goodput, tail, errors, datetime.fromisoformat(measured))
            for where, first_byte, goodput, tail, errors, measured in self._select(query, repository=repository)
        }

    def remember_speeds(self, repository: str, speeds: Mapping[str, ReplicaSpeed]) -> None:
        """Replaces what is known of these destinations."""
        self._write(
            "INSERT INTO replica_speed (repository, destination, first_byte, goodput, tail, errors, measured) "
            "VALUES (:repository, :destination, :first_byte, :goodput, :tail, :errors, :measured) "
            "ON CONFLICT (repository, destination) DO UPDATE SET first_byte = excluded.first_byte, goodput = excluded.goodput, "
            "tail = excluded.tail, errors = excluded.errors, measured = excluded.measured",
            [
                {
                    "repository": repository,
                    "destination": destination,
                    "first_byte": speed.first_byte,
                    "goodput": speed.goodput,
                    "tail": speed.tail,
                    "errors": speed.errors,
                    "measured": _rfc3339(speed.measured),
                }
                for destination, speed in speeds.items()
            ],
        )

    def clear(self, repository: str) -> None:
        """Removes all that the destinations can tell again. What was seen where is kept: only this machine knows it."""
        with self._transaction(write=True) as connection:
            connection.execute("DELETE FROM summaries WHERE repository = :repository", {"repository": repository})
            connection.execute("DELETE FROM damage WHERE repository = :repository", {"repository": repository})
            connection.execute("DELETE FROM replica_speed WHERE repository = :repository", {"repository": repository})

    def _select(self, query: str, **values: str | None) -> list[Any]:
        with self._transaction(write=False) as connection:
            return connection.execute(query, values).fetchall()

    def _write(self, statement: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._transaction(write=True) as connection:
                connection.executemany(statement, rows)

    def _migrate(self) -> None:
        with self._transaction(write=False) as connection:
            version = _version(connection)
        if version == VERSION:
            return
        with self._transaction(write=True) as connection:
            version = _version(connection)  # another process may have been first
            if version > VERSION:
                raise CatalogError(
                    f"the catalog {self._path} is of version {version}, made by a newer snapferry; "
                    "use that one, or name another file with repository.catalog and run `snapferry rebuild`"
                )
            if version == VERSION:
                return
            from snapferry.catalog.schema import statements

            for statement in statements(version):
                connection.execute(statement)
            connection.execute("DELETE FROM schema_version")
            connection.execute("INSERT INTO schema_version (version) VALUES (:version)", {"version": VERSION})

    @contextlib.contextmanager
    def _transaction(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        # A writer takes its turn at the beginning: a reader that turns writer could not wait for another one.
        with self._lock, self._explained():
            self._connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CatalogError(_explain(error, self._path or "in memory")) from error


def _use_write_ahead_log(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Switches the journal mode, once in a database's life. SQLite does not wait for others there, whatever the busy timeout is."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _code(error) not in _LOCKED or time.monotonic() >= deadline:
                raise
            time.sleep(_TURN_SECONDS)
        else:
            return


def _path_of(url: str) -> str:
    """The file that ``url`` names; empty for the database in memory."""
    if url == _SCHEME:
        return ""
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        raise ConfigurationError(f"repository.catalog: {url!r} is not what this version offers; write sqlite:///PATH")
    return path


def _version(connection: sqlite3.Connection) -> int:
    """0 where there are no tables yet."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'").fetchone() is None:
        return 0
    row = connection.execute("SELECT version FROM schema_version").fetchone()
    return int(row[0]) if row else 0


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where there is none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _explain(error: sqlite3.Error, path: str) -> str:
    code = _code(error)
    if code in _DAMAGED:
        return f"the catalog {path} is damaged ({error}); {_HINT} sets it aside and makes it anew"
    if code in _LOCKED:
        return f"the catalog {path} is locked by another process; wait for it to end, or stop it; {_HINT} helps if it stays so"
    return f"the catalog {path} cannot be used ({error}); mend that; {_HINT} fills it again"


def _make_private(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise CatalogError(f"the catalog {path} cannot be opened ({error.strerror}); mend that; {_HINT} fills it again") from error


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
