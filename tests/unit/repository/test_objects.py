"""Commits and the other small objects: there and back, and hostile values refused."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from snapferry.errors import NotARepository, ObjectDamaged
from snapferry.repository import objects
from snapferry.types import Place, Root, Roots, Snapshot

ID = "ab" * 16
ROOT = Root(b"r" * 32, Place(b"p" * 32, 112, 99))
SNAPSHOT = Snapshot(
    id=ID,
    volume="vm-42/root",
    generation=3,
    created=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    size=1 << 40,
    block_size=1 << 18,
    roots=Roots(3, ROOT, ROOT),
    parent="cd" * 16,
    tags={"b": "2", "a": "1"},
    unreadable=((0, 1 << 18), (1 << 30, 1 << 18)),
    bytes_new=12345,
)


def test_a_commit_there_and_back() -> None:
    assert objects.parse_commit(objects.commit_payload(SNAPSHOT), ID) == SNAPSHOT
    empty = dataclasses.replace(SNAPSHOT, size=0, roots=Roots(0, None, None), unreadable=(), parent=None)
    assert objects.parse_commit(objects.commit_payload(empty), ID) == empty


def test_times_are_utc() -> None:
    elsewhere = dataclasses.replace(SNAPSHOT, created=SNAPSHOT.created.astimezone(timezone(timedelta(hours=5))))
    assert objects.commit_payload(elsewhere) == objects.commit_payload(SNAPSHOT)


def test_later_versions_may_add_fields() -> None:
    payload = json.loads(objects.commit_payload(SNAPSHOT)) | {"news": [1, 2]}
    assert objects.parse_commit(json.dumps(payload).encode(), ID) == SNAPSHOT


@pytest.mark.parametrize(
    "change",
    [
        {"snapshot": "ef" * 16},
        {"size": -1},
        {"size": 1 << 80},
        {"size": 0},
        {"size": "1"},
        {"block_size": 100_000},
        {"block_size": 1},
        {"height": 99},
        {"ids": None},
        {"places": None},
        {"generation": None},
        {"created": "2026-01-02T03:04:05"},
        {"created": "yesterday"},
        {"parent": "x"},
        {"unreadable": [[0, 1 << 41]]},
        {"unreadable": [[0]]},
        {"ids": {"page": "00", "place": {"pack": "00", "offset": 0, "length": 0}}},
        {"volume": "v" * 5000},
        {"tags": {"a": 1}},
    ],
)
def test_commits_that_make_no_sense(change: dict[str, Any]) -> None:
    payload = json.loads(objects.commit_payload(SNAPSHOT)) | change
    with pytest.raises(ObjectDamaged, match="snapshots/"):
        objects.parse_commit(json.dumps(payload).encode(), ID)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}"])
def test_what_is_no_commit_at_all(payload: bytes) -> None:
    with pytest.raises(ObjectDamaged):
        objects.parse_commit(payload, ID)


def test_another_version_is_refused_by_name() -> None:
    config = objects.ConfigObject(7, ID, objects.now())
    with pytest.raises(NotARepository, match="version 7") as caught:
        objects.check_version(config, "near")
    assert caught.value.exit_code == 10


def test_a_commit_inside_an_end() -> None:
    assert objects.unpack_commit(objects.pack_commit(b"\0\xff"), "end") == b"\0\xff"
    with pytest.raises(ObjectDamaged):
        objects.unpack_commit("***", "end")
