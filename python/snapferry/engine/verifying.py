"""A verification: what of which destination is to be checked, and what is remembered of the answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.errors import SnapshotNotFound
from snapferry.pipeline.verify import Verification
from snapferry.repository.failures import combined
from snapferry.repository.presence import list_presence
from snapferry.repository.snapshots import list_snapshots, ordered
from snapferry.types import Damage, ProgressCallback, VerifyResult

logger = logging.getLogger("snapferry")


async def verify(
    membership: Membership,
    memory: Memory,
    wanted: Sequence[str],
    snapshots: Sequence[str] | None,
    read_data: float,
    on_progress: ProgressCallback | None,
) -> VerifyResult:
    """Checks the destinations ``wanted``; the rest as ``Repository.verify``."""
    replicas = {name: membership.replicas[name] for name in wanted if name in membership.replicas}
    failures = {name: error for name, error in membership.members.failures.items() if name in wanted}
    if not replicas:
        raise combined("nothing can be verified", failures)
    await membership.tools.renew_keys()
    if read_data and not membership.members.keyring.reads_data:
        logger.warning("this key can write and not read: the bytes of packs are compared with what their names promise, and not opened")
    recalled = await memory.recall()
    listing = await list_snapshots(membership.members.keyring, membership.replicas)
    gone = await memory.note_listing(listing, recalled)
    chosen = {item.snapshot.id for item in ([listing.resolve(ref) for ref in snapshots] if snapshots else listing.snapshots.values())}
    held = {
        name: [item.snapshot for item in ordered(listing.snapshots.values()) if item.snapshot.id in chosen and name in item.destinations]
        for name in replicas
    }
    if snapshots is not None and not any(held.values()):
        raise SnapshotNotFound(f"none of {', '.join(held)} holds what is to be verified")
    presence = await list_presence(replicas)
    loaded = await membership.cache.load(replicas, presence, complete=True)
    loaded.index.declare_usable(b"".join({pack for packs in presence.packs.values() for pack in packs}))
    verification = Verification(
        replicas, held, presence, loaded, membership.tools, read_data=read_data, everything=snapshots is None, on_progress=on_progress
    )
    result = await verification.run(
        [Damage(name, "config", str(error)) for name, error in failures.items() if error.exit_code == 10]
        + [item for item in gone if item.destination in replicas],
        {name: str(error) for name, error in failures.items() if error.exit_code != 10},
    )
    if snapshots is None and read_data >= 100:
        await memory.replace_damage(replicas, result.damage)
    else:
        await memory.note_damage(result.damage)
    return result
