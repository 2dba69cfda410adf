"""The names of a repository's objects: how they are made and, strictly, how they are read back.

What does not parse is no object of ours: a listing passes over it, and nobody deletes it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

DESTINATION = "destination"
CONFIG = "config"

KEYS = "keys/"
PACKS = "packs/"
INDEX = "index/"
SESSIONS = "sessions/"
SNAPSHOTS = "snapshots/"
FORGOTTEN = "forgotten/"
DAMAGED = "damaged/"
COLLECT = "collect/"

END = "end"
CONDEMNED = "condemned"
DELETE = "delete"
DONE = "done"

_HEX32 = re.compile(r"[0-9a-f]{32}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_BEAT = re.compile(r"0|[1-9][0-9]{0,8}")
_COLLECTION = re.compile(rf"{COLLECT}([0-9]{{10}})/({CONDEMNED}|{DELETE}|{DONE})")


def new_id() -> str:
    """32 hex digits at random: a session's id, which is its snapshot's too."""
    return secrets.token_hex(16)


def key_slot(slot: str) -> str:
    """Of a key slot by its 32 hex digits."""
    return KEYS + slot


def pack(pack_id: bytes) -> str:
    """Of a pack by its 32-byte id: below 256 directories, so that none grows large."""
    digits = pack_id.hex()
    return f"{PACKS}{digits[:2]}/{digits}"


def segment(segment_id: str) -> str:
    """Of an index segment by its 64 hex digits."""
    return INDEX + segment_id


def beat(session: str, number: int) -> str:
    """Of a session's sign of life; number 0 opens the session."""
    return f"{SESSIONS}{session}/{number}"


def session_end(session: str) -> str:
    """Of the one object that says how a session ended."""
    return f"{SESSIONS}{session}/{END}"


def snapshot(snapshot_id: str) -> str:
    """Of a commit by its 32 hex digits."""
    return SNAPSHOTS + snapshot_id


def forgotten(snapshot_id: str) -> str:
    """Of the note that a snapshot was let go."""
    return FORGOTTEN + snapshot_id


def damaged(pack_id: bytes) -> str:
    """Of the note that a copy of a pack is bad."""
    return DAMAGED + pack_id.hex()


def collection(number: int, part: str) -> str:
    """Of a part (``condemned``, ``delete``, ``done``) of the collection of that number, from 1 on. Ten digits: listed in order, the newest comes last."""
    return f"{COLLECT}{number:010d}/{part}"


def parse_key_slot(key: str) -> str | None:
    """The slot's id, or None."""
    return _suffix(key, KEYS, _HEX32)


def parse_pack(key: str) -> bytes | None:
    """The pack's id, or None."""
    directory, _, digits = key.removeprefix(PACKS).partition("/")
    if key.startswith(PACKS) and _HEX64.fullmatch(digits) and digits[:2] == directory:
        return bytes.fromhex(digits)
    return None


def parse_segment(key: str) -> str | None:
    """The segment's id, or None."""
    return _suffix(key, INDEX, _HEX64)


def parse_snapshot(key: str) -> str | None:
    """The snapshot's id, or None."""
    return _suffix(key, SNAPSHOTS, _HEX32)


def parse_forgotten(key: str) -> str | None:
    """The id of the snapshot that was let go, or None."""
    return _suffix(key, FORGOTTEN, _HEX32)


def ids_below(prefix: str, keys: Iterable[str]) -> set[str]:
    """The ids of 32 hex digits that follow ``prefix`` in ``keys``, which all begin with it; what is no such name is passed over."""
    ids = [key[len(prefix) :] for key in keys]
    # All at once, since there are many and as good as never a strange one.
    if set(map(len, ids)) <= {32} and not "".join(ids).encode().translate(None, b"0123456789abcdef"):
        return set(ids)
    return {item for item in ids if _HEX32.fullmatch(item)}


def parse_damaged(key: str) -> bytes | None:
    """The id of the pack whose copy there is bad, or None."""
    digits = _suffix(key, DAMAGED, _HEX64)
    return bytes.fromhex(digits) if digits else None


def parse_session(key: str) -> tuple[str, str] | None:
    """(session id, beat number or ``end``), or None."""
    session, _, rest = key.removeprefix(SESSIONS).partition("/")
    if key.startswith(SESSIONS) and _HEX32.fullmatch(session) and (rest == END or _BEAT.fullmatch(rest)):
        return session, rest
    return None


def parse_collection(key: str) -> tuple[int, str] | None:
    """(number of a collection, which part of it), or None."""
    match = _COLLECTION.fullmatch(key)
    return (int(match[1]), match[2]) if match else None


def _suffix(key: str, prefix: str, pattern: re.Pattern[str]) -> str | None:
    rest = key.removeprefix(prefix)
    return rest if key.startswith(prefix) and pattern.fullmatch(rest) else None
