"""Between the package's values and the core's tuples."""

from __future__ import annotations

from snapferry import _core
from snapferry.errors import DamageError
from snapferry.types import Place, Root, Roots, Snapshot


def roots_to_core(roots: Roots) -> _core.RootsTuple:
    """As ``Manifest`` takes them."""
    return roots.height, _root_to_core(roots.ids), _root_to_core(roots.places)


def roots_from_core(roots: _core.RootsTuple) -> Roots:
    """As ``ManifestWriter.finish`` returns them."""
    height, ids, places = roots
    return Roots(height, _root_from_core(ids), _root_from_core(places))


def open_manifest(keyring: _core.Keyring, snapshot: Snapshot) -> _core.Manifest:
    """The snapshot's trees, nothing read yet; ``DamageError`` where its commit makes no sense."""
    try:
        return _core.Manifest(keyring, roots_to_core(snapshot.roots), snapshot.size, snapshot.block_size)
    except (_core.CoreError, ValueError, OverflowError) as error:
        raise DamageError(f"snapshot {snapshot.id}: {error}") from error


def split_ids(ids: bytes) -> set[bytes]:
    """Pack ids that stand one after another, 32 bytes each."""
    return {ids[at : at + 32] for at in range(0, len(ids), 32)}


def _root_to_core(root: Root | None) -> _core.RootTuple | None:
    return None if root is None else (root.page, (root.place.pack, root.place.offset, root.place.length))


def _root_from_core(root: _core.RootTuple | None) -> Root | None:
    return None if root is None else Root(root[0], Place(*root[1]))
