"""What a repository knows of one snapshot: where it lies, how well, and what that costs."""

from __future__ import annotations

from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.values import ReplicaDetails, SnapshotDetails
from snapferry.pipeline.extent_reader import index_opener
from snapferry.pipeline.inspect import Inspection, inspect
from snapferry.placement import described, monthly_cost, restore_cost
from snapferry.repository import names
from snapferry.types import Damage, ListedSnapshot


async def details(membership: Membership, memory: Memory, listed: ListedSnapshot) -> SnapshotDetails:
    """The snapshot, and which destinations hold its commit and packs; errors as ``Repository.show``."""
    opener = index_opener(membership.cache, membership.replicas)
    found = await inspect(listed.snapshot, membership.replicas, listed.destinations, membership.tools, opener)
    await memory.note_damage(found.damage)
    needed = {names.pack(pack) for packs in found.needed.values() for pack in packs.pages | packs.data} | {
        names.snapshot(listed.snapshot.id)
    }
    damage = [item for item in await memory.damage() if item.object in needed]
    sites = {destination.name: destination.site for destination in membership.config.destinations}
    copies = described(listed.snapshot.placement).copies
    replicas = [_replica(name, listed, found, damage, in_parts=copies is not None) for name in membership.replicas]
    costs = {item.destination: monthly_cost(sites[item.destination], item.bytes) for item in replicas if item.committed}
    where = _where(listed, found)
    asked = len(listed.destinations) if copies is None else copies
    return SnapshotDetails(
        listed.snapshot,
        tuple(replicas),
        packs_short=0 if copies is None else sum(0 < len(holders) < copies for holders in where.values()),
        packs_lost=0 if copies is None else sum(not holders for holders in where.values()),
        copies=asked,
        monthly_costs=costs if any(site.store_gb_month for site in sites.values()) else {},
        restore_cost=restore_cost(where.values(), sites) if any(site.egress_gb or site.request_1k for site in sites.values()) else None,
    )


def _replica(name: str, listed: ListedSnapshot, found: Inspection, damage: list[Damage], *, in_parts: bool) -> ReplicaDetails:
    needed, here = found.needed[name], found.listed.get(name, {})
    pages, data = needed.pages & here.keys(), needed.data & here.keys()
    due = needed.pages if in_parts else needed.pages | needed.data
    return ReplicaDetails(
        name,
        name in listed.destinations,
        len(pages | data),
        len(due - here.keys()),
        tuple(item for item in damage if item.destination == name),
        manifest_packs=len(pages),
        data_packs=len(data),
        bytes=sum(here[pack] for pack in pages | data),
    )


def _where(listed: ListedSnapshot, found: Inspection) -> dict[bytes, dict[str, int]]:
    """By data pack that the snapshot needs, who of those that hold it has the pack, and its size."""
    where: dict[bytes, dict[str, int]] = {}
    for name in listed.destinations:
        for pack in found.needed[name].data if name in found.needed else ():
            holders = where.setdefault(pack, {})
            if pack in found.listed.get(name, {}):
                holders[name] = found.listed[name][pack]
    return where
