"""Object names, there and back."""

from __future__ import annotations

import pytest

from snapferry.destination.keys import is_key
from snapferry.repository import names

PACK = bytes(range(32))
ID = "0123456789abcdef" * 2


def test_there_and_back() -> None:
    assert names.pack(PACK) == f"packs/00/{PACK.hex()}"
    assert names.parse_pack(names.pack(PACK)) == PACK
    assert names.parse_segment(names.segment(ID * 2)) == ID * 2
    assert names.parse_snapshot(names.snapshot(ID)) == ID
    assert names.parse_forgotten(names.forgotten(ID)) == ID
    assert names.parse_key_slot(names.key_slot(ID)) == ID
    assert names.parse_session(names.beat(ID, 12)) == (ID, "12")
    assert names.parse_session(names.session_end(ID)) == (ID, "end")
    assert names.parse_damaged(f"damaged/{PACK.hex()}") == PACK
    for key in (names.pack(PACK), names.segment(ID * 2), names.snapshot(ID), names.beat(ID, 0), names.session_end(ID), names.key_slot(ID)):
        assert is_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "packs/",
        f"packs/01/{PACK.hex()}",
        f"packs/00/{PACK.hex().upper()}",
        f"packs/00/{PACK.hex()}0",
        f"packs/00/{PACK.hex()}.tmp",
        f"x/packs/00/{PACK.hex()}",
        f"snapshots/{ID}\n",
        f"snapshots/{ID[:-1]}",
        f"sessions/{ID}/01",
        f"sessions/{ID}/-1",
        f"sessions/{ID}/ends",
        f"sessions/{ID}",
    ],
)
def test_anything_else_is_no_object_of_ours(key: str) -> None:
    parsers = (
        names.parse_pack,
        names.parse_segment,
        names.parse_snapshot,
        names.parse_forgotten,
        names.parse_key_slot,
        names.parse_session,
    )
    assert [parse(key) for parse in parsers] == [None] * 6


def test_new_ids_differ() -> None:
    assert len({names.new_id() for _ in range(100)}) == 100
