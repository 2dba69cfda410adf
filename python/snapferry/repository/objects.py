"""What the small objects hold, as JSON: the repository's configuration, sessions, their ends, and commits.

Whoever reads one has authenticated it already; still every field is typed and bounded here. Fields that this version does not
know are passed over, so that a later one may add some.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from snapferry import types
from snapferry.errors import NotARepository, ObjectDamaged

FORMAT_VERSION = 1
SUITES = ("blake3-keyed", "aes-256-gcm")

# No reader takes more than this into memory for one small object.
SMALL_OBJECT_LIMIT = 1 << 20
COMMIT_LIMIT = 8 << 20
END_LIMIT = 16 << 20
# 32 bytes for each of some two million packs, in base64.
CONDEMNED_LIMIT = 96 << 20

Hex16 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Utc = Annotated[datetime, msgspec.Meta(tz=True)]


class DestinationObject(msgspec.Struct, frozen=True):
    """``destination``: the only object that differs from place to place."""

    id: Hex16


class ConfigObject(msgspec.Struct, frozen=True):
    """``config``: what this repository is."""

    format_version: Count
    repository_id: Hex16
    created: Utc
    suites: list[Text] = []


class PlaceObject(msgspec.Struct, frozen=True):
    """Where a record lies."""

    pack: Hex32
    offset: Count
    length: Count


class RootObject(msgspec.Struct, frozen=True):
    """A root page and where it lies."""

    page: Hex32
    place: PlaceObject


class CommitObject(msgspec.Struct, frozen=True):
    """``snapshots/<id>``: the only thing that makes data count."""

    snapshot: Hex16
    volume: Text
    generation: Count
    created: Utc
    size: Count
    block_size: Annotated[int, msgspec.Meta(ge=types.MIN_BLOCK_SIZE, le=types.MAX_BLOCK_SIZE)]
    height: Annotated[int, msgspec.Meta(ge=0, le=16)]
    ids: RootObject | None
    places: RootObject | None
    parent: Hex16 | None = None
    tags: dict[Text, Text] = {}
    unreadable: list[tuple[Count, Count]] = []
    bytes_new: Count = 0
    placement: Text = "mirror"


class PinObject(msgspec.Struct, frozen=True):
    """The trees of a snapshot that a session builds on, with all that it takes to walk them."""

    snapshot: Hex16
    size: Count
    block_size: Annotated[int, msgspec.Meta(ge=types.MIN_BLOCK_SIZE, le=types.MAX_BLOCK_SIZE)]
    height: Annotated[int, msgspec.Meta(ge=0, le=16)]
    ids: RootObject | None
    places: RootObject | None
    placement: Text = "mirror"


class SessionObject(msgspec.Struct, frozen=True):
    """``sessions/<id>/<beat>``: a sign of life, which pins what the session builds on.

    Attributes:
        collection: the newest collection at that destination that this session has accepted: it relies on nothing that was condemned.
        nonce: drawn for each beat, so that a cloned writer's beat is never taken for one's own.
    """

    session: Hex16
    beat: Count
    volume: Text
    at: Utc
    nonce: Text
    parent: PinObject | None = None
    collection: Count = 0


class EndObject(msgspec.Struct, frozen=True):
    """``sessions/<id>/end``: how a session ended; who created it has decided.

    Attributes:
        commit: the whole commit object, base64.
        snapshot: whose commit it is, if not that of the session's own snapshot: a session may bring one that others have made.
        beat: the number of the session's last beat, if it ended itself.
    """

    session: Hex16
    outcome: Literal["committed", "abandoned", "fenced"]
    at: Utc
    commit: str | None = None
    beat: Count = 0
    snapshot: Hex16 | None = None


class ForgottenObject(msgspec.Struct, frozen=True):
    """``forgotten/<id>``: a snapshot was let go."""

    snapshot: Hex16
    at: Utc


class DamagedObject(msgspec.Struct, frozen=True):
    """``damaged/<pack id>``: this place's copy of a pack is broken. Readers go by the name alone."""

    pack: Hex32
    at: Utc


class CondemnedObject(msgspec.Struct, frozen=True):
    """``collect/<n>/condemned``: what a collection may delete.

    Attributes:
        packs: ids of 32 bytes, one after another.
        ended: the sessions that had ended when this was published. Their objects are deleted by the collection after this one.
    """

    collection: Count
    at: Utc
    packs: bytes
    ended: list[Hex16] = []


class DeleteObject(msgspec.Struct, frozen=True):
    """``collect/<n>/delete``: what of it is deleted; ``packs`` as in ``condemned``."""

    collection: Count
    at: Utc
    packs: bytes


class DoneObject(msgspec.Struct, frozen=True):
    """``collect/<n>/done``: it is deleted."""

    collection: Count
    at: Utc


S = TypeVar("S", bound=msgspec.Struct)


def encode(value: msgspec.Struct) -> bytes:
    """As JSON."""
    return msgspec.json.encode(value)


def decode(kind: type[S], payload: bytes, what: str) -> S:
    """From JSON; ``ObjectDamaged`` naming ``what`` where a field is missing or out of bounds."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ObjectDamaged(f"{what}: {error}") from error


def check_version(config: ConfigObject, where: str) -> None:
    """Refuses a repository of another format version by name."""
    if config.format_version != FORMAT_VERSION:
        raise NotARepository(
            f"{where}: repository format version {config.format_version}; this program knows version {FORMAT_VERSION} only"
        )


def commit_payload(snapshot: types.Snapshot) -> bytes:
    """The JSON of a commit, to be sealed."""
    return encode(
        CommitObject(
            snapshot=snapshot.id,
            volume=snapshot.volume,
            generation=snapshot.generation,
            created=snapshot.created.astimezone(UTC),
            size=snapshot.size,
            block_size=snapshot.block_size,
            height=snapshot.roots.height,
            ids=root_object(snapshot.roots.ids),
            places=root_object(snapshot.roots.places),
            parent=snapshot.parent,
            tags=dict(sorted(snapshot.tags.items())),
            unreadable=list(snapshot.unreadable),
            bytes_new=snapshot.bytes_new,
            placement=snapshot.placement,
        )
    )


def parse_commit(payload: bytes, snapshot_id: str) -> types.Snapshot:
    """The snapshot that a commit's JSON describes; ``ObjectDamaged`` if it makes no sense."""
    commit = decode(CommitObject, payload, f"snapshots/{snapshot_id}")
    problem = _nonsense(commit, snapshot_id)
    if problem:
        raise ObjectDamaged(f"snapshots/{snapshot_id}: {problem}")
    return types.Snapshot(
        id=commit.snapshot,
        volume=commit.volume,
        generation=commit.generation,
        created=commit.created.astimezone(UTC),
        size=commit.size,
        block_size=commit.block_size,
        roots=types.Roots(commit.height, _root(commit.ids), _root(commit.places)),
        parent=commit.parent,
        tags=commit.tags,
        unreadable=tuple(commit.unreadable),
        bytes_new=commit.bytes_new,
        placement=commit.placement,
    )


def _nonsense(commit: CommitObject, snapshot_id: str) -> str | None:
    if commit.snapshot != snapshot_id:
        return f"it is the commit of {commit.snapshot}"
    if commit.block_size & (commit.block_size - 1):
        return f"block size {commit.block_size} is not a power of two"
    if (commit.ids is None) != (commit.places is None):
        return "one of the two trees is missing"
    if commit.ids is not None and commit.size == 0:
        return "a volume of size 0 has no blocks"
    if any(offset + length > commit.size for offset, length in commit.unreadable):
        return "an unreadable extent lies past the end"
    return None


def pin_object(snapshot: types.Snapshot) -> PinObject:
    """What a session pins of the snapshot that it builds on."""
    roots = snapshot.roots
    ids, places = root_object(roots.ids), root_object(roots.places)
    return PinObject(snapshot.id, snapshot.size, snapshot.block_size, roots.height, ids, places, snapshot.placement)


def pinned_roots(pin: PinObject) -> types.Roots:
    """The trees that a session has pinned."""
    return types.Roots(pin.height, _root(pin.ids), _root(pin.places))


def root_object(root: types.Root | None) -> RootObject | None:
    """As it is written in commits and pins."""
    if root is None:
        return None
    place = root.place
    return RootObject(root.page.hex(), PlaceObject(place.pack.hex(), place.offset, place.length))


def _root(root: RootObject | None) -> types.Root | None:
    if root is None:
        return None
    place = root.place
    return types.Root(bytes.fromhex(root.page), types.Place(bytes.fromhex(place.pack), place.offset, place.length))


def pack_commit(commit: bytes) -> str:
    """A whole commit object as it stands in ``EndObject.commit``."""
    return base64.b64encode(commit).decode()


def unpack_commit(text: str, what: str) -> bytes:
    """The commit object out of an end object."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ObjectDamaged(f"{what}: the commit in it is not base64") from error


def now() -> datetime:
    """This moment in UTC."""
    return datetime.now(UTC)
