"""What a repository knows of one snapshot at each of its destinations."""

from __future__ import annotations

from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.values import ReplicaDetails, SnapshotDetails
from snapferry.pipeline.extent_reader import index_opener
from snapferry.pipeline.inspect import inspect
from snapferry.repository import names
from snapferry.types import ListedSnapshot


async def details(membership: Membership, memory: Memory, listed: ListedSnapshot) -> SnapshotDetails:
    """The snapshot, and which destinations hold its commit and packs; errors as ``Repository.show``."""
    opener = index_opener(membership.cache, membership.replicas)
    found = await inspect(listed.snapshot, membership.replicas, listed.destinations, membership.tools, opener)
    await memory.note_damage(found.damage)
    needed = {names.pack(pack) for packs in found.needed.values() for pack in packs} | {names.snapshot(listed.snapshot.id)}
    damage = [item for item in await memory.damage() if item.object in needed]
    replicas = [
        ReplicaDetails(
            name,
            name in listed.destinations,
            len(found.present.get(name, ())),
            len(found.needed.get(name, ())) - len(found.present.get(name, ())),
            tuple(item for item in damage if item.destination == name),
        )
        for name in membership.replicas
    ]
    return SnapshotDetails(listed.snapshot, tuple(replicas))
