from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from snapferry.catalog import Catalog, ReplicaSpeed
from snapferry.catalog.schema import statements
from snapferry.errors import CatalogError, ConfigurationError

REPOSITORY = "ab" * 16
FAR = "cd" * 16
NOW = datetime.now(UTC)
SPEED = ReplicaSpeed(0.5, 2e6, 1.25, 0.0, NOW)


def snapshot(number: int) -> str:
    return f"{number:032x}"


def run(number: int) -> tuple[str, bytes]:
    """A run's name, and what stands for its sealed bytes."""
    return f"{number:032x}", b"sealed %d" % number


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/deep/catalog.sqlite"


def test_what_is_remembered_comes_back_after_reopening(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.remember_seen(REPOSITORY, FAR, [snapshot(1), snapshot(2)])
        catalog.remember_seen(REPOSITORY, FAR, [snapshot(2)])
        catalog.record_damage(REPOSITORY, FAR, [("packs/aa/aabb", "truncated"), ("config", "missing")])
        catalog.record_damage(REPOSITORY, FAR, [("config", "altered")])
        catalog.remember_speeds(REPOSITORY, {FAR: ReplicaSpeed(0.25, 1e6, 1.5, 0.1, NOW - timedelta(days=1))})
        catalog.remember_speeds(REPOSITORY, {FAR: SPEED})
    with Catalog(url) as catalog:
        assert catalog.seen(REPOSITORY, FAR) == {snapshot(n) for n in (1, 2)}
        assert catalog.seen(REPOSITORY, "ef" * 16) == frozenset()
        assert {(d.object, d.reason, d.destination) for d in catalog.damage(REPOSITORY)} == {
            ("packs/aa/aabb", "truncated", FAR),
            ("config", "altered", FAR),
        }
        assert catalog.speeds(REPOSITORY) == {FAR: SPEED}
        catalog.clear_damage(REPOSITORY, FAR, ["config"])
        assert [d.object for d in catalog.damage(REPOSITORY, FAR)] == ["packs/aa/aabb"]
        catalog.clear_damage(REPOSITORY, FAR)
        assert catalog.damage(REPOSITORY) == ()


def test_runs_are_replaced_and_given_once(url: str) -> None:
    with Catalog(url) as catalog:
        for number in (1, 2, 3):
            catalog.replace_runs(REPOSITORY, [], *run(number))
        catalog.replace_runs("00" * 16, [], *run(1))
        assert catalog.runs(REPOSITORY) == dict(map(run, (1, 2, 3)))
        assert catalog.runs(REPOSITORY, [run(2)[0], run(9)[0]]) == dict(map(run, (1, 2, 3))) | {run(2)[0]: None}
        # Another process may have replaced one of them already.
        catalog.replace_runs(REPOSITORY, [run(1)[0], run(2)[0], run(8)[0]], *run(4))
    with Catalog(url) as catalog:
        assert catalog.runs(REPOSITORY) == dict(map(run, (3, 4)))
        catalog.remove_runs(REPOSITORY, [run(3)[0]])
        assert catalog.runs(REPOSITORY) == dict([run(4)])
        assert catalog.runs("00" * 16) == dict([run(1)])


def test_a_generation_only_grows(url: str) -> None:
    with Catalog(url) as catalog:
        assert catalog.generation(REPOSITORY, "v") == 0
        catalog.remember_generations(REPOSITORY, {"v": 3, "w": 1})
        catalog.remember_generations(REPOSITORY, {"v": 2, "w": 2})
        catalog.remember_generations("00" * 16, {"v": 9})
        assert [catalog.generation(REPOSITORY, volume) for volume in "vwx"] == [3, 2, 0]


def test_what_was_let_go_was_never_seen(url: str) -> None:
    with Catalog(url) as catalog:
        for where in (FAR, "ef" * 16):
            catalog.remember_seen(REPOSITORY, where, [snapshot(1), snapshot(2)])
        catalog.forget_seen(REPOSITORY, FAR, [snapshot(1), snapshot(9)])
        assert catalog.seen(REPOSITORY, FAR) == {snapshot(2)}
        assert not catalog.was_seen(REPOSITORY, FAR, snapshot(1))
        assert catalog.was_seen(REPOSITORY, "ef" * 16, snapshot(1))


def test_nothing_to_remember_is_no_error(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.remember_generations(REPOSITORY, {})
        catalog.remember_seen(REPOSITORY, FAR, [])
        catalog.record_damage(REPOSITORY, FAR, [])
        catalog.remember_speeds(REPOSITORY, {})
        assert catalog.runs(REPOSITORY) == {}


def test_clearing_keeps_what_only_this_machine_knows(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.replace_runs(REPOSITORY, [], *run(1))
        catalog.remember_generations(REPOSITORY, {"v": 5})
        catalog.remember_seen(REPOSITORY, FAR, [snapshot(1)])
        catalog.record_damage(REPOSITORY, FAR, [("config", "missing")])
    with Catalog.rebuild(url, REPOSITORY) as catalog:
        assert catalog.runs(REPOSITORY) == {}
        assert catalog.damage(REPOSITORY) == ()
        assert catalog.seen(REPOSITORY, FAR) == {snapshot(1)}
        assert catalog.generation(REPOSITORY, "v") == 5


def test_version_1_is_brought_to_this_one(url: str, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "catalog.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"")
    with sqlite3.connect(path) as connection:
        connection.executescript((Path(__file__).parent / "version-1.sql").read_text())
    connection.close()
    with Catalog(url) as catalog:
        assert catalog.runs(REPOSITORY) == {}
        assert [catalog.generation(REPOSITORY, volume) for volume in ("vm/root", "vm/data", "x")] == [7, 2, 0]
        assert catalog.seen(REPOSITORY, FAR) == {snapshot(1), snapshot(2)}
        assert [(found.object, found.reason) for found in catalog.damage(REPOSITORY, FAR)] == [("config", "missing")]
        assert catalog.speeds(REPOSITORY) == {FAR: ReplicaSpeed(0.25, 1e6, 0.0, 0.0, datetime.fromtimestamp(0, UTC))}
        catalog.remember_speeds(REPOSITORY, {FAR: SPEED})
        catalog.replace_runs(REPOSITORY, [], *run(1))
        catalog.remember_generations(REPOSITORY, {"vm/root": 8})
    with sqlite3.connect(path) as migrated, sqlite3.connect(":memory:") as fresh:
        for statement in statements(0):
            fresh.execute(statement)
        assert _columns(migrated) == _columns(fresh)
        assert migrated.execute("SELECT version FROM schema_version").fetchall() == [(3,)]
    migrated.close()
    fresh.close()


def _columns(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """By table: name, type, not null, default and place in the primary key of each column."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
    return {name: [row[1:] for row in connection.execute(f"PRAGMA table_info({name})")] for name in sorted(tables)}


def test_the_file_is_private_and_logs_ahead(url: str, tmp_path: Path) -> None:
    with Catalog(url):
        path = tmp_path / "deep" / "catalog.sqlite"
        assert path.stat().st_mode & 0o777 == 0o600
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 400, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_damaged_file_says_how_to_mend_it_and_is_set_aside(url: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deep" / "catalog.sqlite"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"damaged.*no backup is lost.*snapferry rebuild"):
        Catalog(url)
    with Catalog.rebuild(url, REPOSITORY) as catalog:
        catalog.replace_runs(REPOSITORY, [], *run(1))
    assert (tmp_path / "deep" / "catalog.sqlite.damaged").read_bytes() == content


def test_damage_within_the_file_is_set_aside_too(url: str, tmp_path: Path) -> None:
    with Catalog(url) as catalog:
        catalog.replace_runs(REPOSITORY, [], snapshot(1), bytes(1 << 20))
    path = tmp_path / "deep" / "catalog.sqlite"
    with path.open("r+b") as file:
        for page in range(24, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with Catalog(url) as catalog, pytest.raises(CatalogError, match="snapferry rebuild"):
        catalog.runs(REPOSITORY)
    with Catalog.rebuild(url, REPOSITORY) as catalog:
        assert catalog.runs(REPOSITORY) == {}
    assert path.with_name("catalog.sqlite.damaged").exists()


def test_a_locked_file_is_an_error_that_says_so(url: str, tmp_path: Path) -> None:
    Catalog(url).close()
    other = sqlite3.connect(tmp_path / "deep" / "catalog.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Catalog(url, busy_seconds=0.05) as catalog:
        assert catalog.runs(REPOSITORY) == {}  # readers go on
        with pytest.raises(CatalogError, match=r"locked by another process.*snapferry rebuild"):
            catalog.replace_runs(REPOSITORY, [], *run(1))
    other.execute("ROLLBACK")
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CatalogError, match="locked"):
        Catalog(url, busy_seconds=0.05)
    other.close()


def test_a_newer_version_is_refused(url: str, tmp_path: Path) -> None:
    Catalog(url).close()
    with sqlite3.connect(tmp_path / "deep" / "catalog.sqlite") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    with pytest.raises(CatalogError, match="version 99"):
        Catalog(url)


def test_a_place_that_cannot_be_written_is_a_catalog_error() -> None:
    with pytest.raises(CatalogError, match="cannot be opened"):
        Catalog("sqlite:////proc/none/catalog.sqlite")


@pytest.mark.parametrize("url", ["nonsense", "postgresql://host/db", "mysql://host/db"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Catalog(url)


@pytest.mark.parametrize("memory", [False, True])
def test_many_threads_at_once(url: str, memory: bool) -> None:
    failures: list[BaseException] = []
    with Catalog("sqlite://" if memory else url) as catalog:

        def work(first: int) -> None:
            try:
                for number in range(first, first + 25):
                    catalog.replace_runs(REPOSITORY, [], *run(number))
                    catalog.remember_seen(REPOSITORY, FAR, [snapshot(number)])
                    assert run(number)[0] in catalog.runs(REPOSITORY)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n * 1000,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(catalog.runs(REPOSITORY)) == 150


def test_two_openers_at_once_make_one_schema(url: str) -> None:
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def open_it() -> None:
        barrier.wait()
        try:
            Catalog(url).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Catalog(url) as catalog:
        assert catalog.runs(REPOSITORY) == {}
