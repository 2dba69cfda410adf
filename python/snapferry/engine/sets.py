"""Reading a snapshot that lies in parts: who has which pack, and whether those that are to be read from have all of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from snapferry.destination import Destination
from snapferry.engine.membership import Membership
from snapferry.errors import DestinationUnreachable, SnapferryError
from snapferry.pipeline.extent_reader import index_opener
from snapferry.pipeline.inspect import missing_everywhere
from snapferry.placement import described
from snapferry.repository.presence import list_presence
from snapferry.types import ListedSnapshot


async def packs_by_replica(
    membership: Membership, listed: ListedSnapshot, replicas: Mapping[str, Destination], *, partly: bool
) -> Mapping[str, Collection[bytes]]:
    """By replica the packs that it lists, for a snapshot in parts; nothing for one that each destination holds whole.

    Where some of its destinations are not among ``replicas``, its trees are walked first, so that nobody begins what cannot be ended, unless what
    can be had ``partly`` is wanted too.

    Raises:
        DestinationUnreachable: packs that it needs are at none of ``replicas``, and a destination of its set does not answer.
        SnapferryError: the same, and none is silent: others were to be read from too.
    """
    placed = described(listed.snapshot.placement)
    if not placed.in_parts:
        return {}
    presence = await list_presence(replicas)
    absent = sorted({*placed.members, *listed.destinations} - presence.packs.keys())
    if absent and not partly:
        missing, total = await missing_everywhere(
            listed.snapshot, replicas, presence, membership.tools, index_opener(membership.cache, replicas)
        )
        if missing:
            text = (
                f"snapshot {listed.snapshot.id} lies in parts ({listed.snapshot.placement}): {missing} of its {total} packs are at none of"
                f" {', '.join(replicas)}; read from {', '.join(absent)} too"
            )
            silent = [name for name in absent if name in membership.members.failures or name in presence.failures]
            raise DestinationUnreachable(f"{text}, of which {', '.join(silent)} cannot be reached") if silent else SnapferryError(text)
    return presence.packs
