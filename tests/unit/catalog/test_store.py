from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from snapferry.catalog import Catalog, KnownCommit, ReplicaSpeed
from snapferry.errors import CatalogError, ConfigurationError
from snapferry.types import Roots, Snapshot

REPOSITORY = "ab" * 16
FAR = "cd" * 16


def commit(number: int, volume: str = "vol") -> KnownCommit:
    snapshot = Snapshot(
        id=f"{number:032x}",
        volume=volume,
        generation=number,
        created=datetime(2026, 11, 22, tzinfo=UTC),
        size=1 << 50,
        block_size=1 << 18,
        roots=Roots(0, None, None),
        bytes_new=5 << 40,
    )
    return KnownCommit(snapshot, b"payload %d" % number)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/deep/catalog.sqlite"


def test_what_is_remembered_comes_back_after_reopening(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.remember_commits(REPOSITORY, [commit(1), commit(2)])
        catalog.remember_commits(REPOSITORY, [commit(2), commit(3)])
        catalog.remember_commits("00" * 16, [commit(9)])
        catalog.remember_seen(REPOSITORY, FAR, [commit(1).snapshot.id, commit(2).snapshot.id])
        catalog.remember_seen(REPOSITORY, FAR, [commit(2).snapshot.id])
        catalog.record_damage(REPOSITORY, FAR, [("packs/aa/aabb", "truncated"), ("config", "missing")])
        catalog.record_damage(REPOSITORY, FAR, [("config", "altered")])
        catalog.remember_speeds(REPOSITORY, {FAR: ReplicaSpeed(0.25, 1e6)})
        catalog.remember_speeds(REPOSITORY, {FAR: ReplicaSpeed(0.5, 2e6)})
    with Catalog(url) as catalog:
        assert catalog.commits(REPOSITORY) == {f"{n:032x}": b"payload %d" % n for n in (1, 2, 3)}
        assert catalog.seen(REPOSITORY, FAR) == {f"{n:032x}" for n in (1, 2)}
        assert catalog.seen(REPOSITORY, "ef" * 16) == frozenset()
        assert {(d.object, d.reason, d.destination) for d in catalog.damage(REPOSITORY)} == {
            ("packs/aa/aabb", "truncated", FAR),
            ("config", "altered", FAR),
        }
        assert catalog.speeds(REPOSITORY) == {FAR: ReplicaSpeed(0.5, 2e6)}
        catalog.clear_damage(REPOSITORY, FAR, ["config"])
        assert [d.object for d in catalog.damage(REPOSITORY, FAR)] == ["packs/aa/aabb"]
        catalog.clear_damage(REPOSITORY, FAR)
        assert catalog.damage(REPOSITORY) == ()


def test_nothing_to_remember_is_no_error(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.remember_commits(REPOSITORY, [])
        catalog.remember_seen(REPOSITORY, FAR, [])
        catalog.record_damage(REPOSITORY, FAR, [])
        catalog.remember_speeds(REPOSITORY, {})
        assert catalog.commits(REPOSITORY) == {}


def test_clearing_keeps_what_only_this_machine_knows(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.remember_commits(REPOSITORY, [commit(1)])
        catalog.remember_seen(REPOSITORY, FAR, [commit(1).snapshot.id])
        catalog.record_damage(REPOSITORY, FAR, [("config", "missing")])
    with Catalog.rebuild(url, REPOSITORY) as catalog:
        assert catalog.commits(REPOSITORY) == {}
        assert catalog.damage(REPOSITORY) == ()
        assert catalog.seen(REPOSITORY, FAR) == {commit(1).snapshot.id}
        catalog.drop_seen(REPOSITORY, commit(1).snapshot.id, [FAR])
        assert catalog.seen(REPOSITORY, FAR) == frozenset()


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
        catalog.remember_commits(REPOSITORY, [commit(1)])
    assert (tmp_path / "deep" / "catalog.sqlite.damaged").read_bytes() == content


def test_damage_within_the_file_is_set_aside_too(url: str, tmp_path: Path) -> None:
    with Catalog(url) as catalog:
        catalog.remember_commits(REPOSITORY, [commit(n) for n in range(2000)])
    path = tmp_path / "deep" / "catalog.sqlite"
    with path.open("r+b") as file:
        for page in range(8, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with Catalog(url) as catalog, pytest.raises(CatalogError, match="snapferry rebuild"):
        catalog.commits(REPOSITORY)
    with Catalog.rebuild(url, REPOSITORY) as catalog:
        assert catalog.commits(REPOSITORY) == {}
    assert path.with_name("catalog.sqlite.damaged").exists()


def test_a_locked_file_is_an_error_that_says_so(url: str, tmp_path: Path) -> None:
    Catalog(url).close()
    other = sqlite3.connect(tmp_path / "deep" / "catalog.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Catalog(url, busy_seconds=0.05) as catalog:
        assert catalog.commits(REPOSITORY) == {}  # readers go on
        with pytest.raises(CatalogError, match=r"locked by another process.*snapferry rebuild"):
            catalog.remember_commits(REPOSITORY, [commit(1)])
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
                    catalog.remember_commits(REPOSITORY, [commit(number)])
                    catalog.remember_seen(REPOSITORY, FAR, [commit(number).snapshot.id])
                    assert commit(number).snapshot.id in catalog.commits(REPOSITORY)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n * 1000,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(catalog.commits(REPOSITORY)) == 150


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
        assert catalog.commits(REPOSITORY) == {}
