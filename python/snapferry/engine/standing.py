"""How the destinations stand to each other: who holds which snapshots, and who has let go of which."""

from __future__ import annotations

from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.repository.snapshots import list_names
from snapferry.repository.survey import Survey, take_survey


async def standing(membership: Membership, memory: Memory) -> Survey:
    """A survey of all destinations that can be read, with every note of what any of them still holds; which is remembered.

    A destination that was let alone (``failures``) holds nothing as far as anybody knows, and has let go of nothing.
    """
    recalled = await memory.recall()
    replicas = membership.replicas
    listed = await list_names(replicas)
    anywhere = set[str]().union(*listed.held.values())
    asked = {name: recalled.seen.get(name, set()) | anywhere for name in replicas}
    found = await take_survey(membership.members.keyring, replicas, listed, recalled.summaries, asked)
    await memory.note_survey(found, recalled.seen)
    await memory.note_damage(found.damage)
    return found
