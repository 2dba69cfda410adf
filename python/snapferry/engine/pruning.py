"""From what a caller asks of a prune to what the pipeline does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from dataclasses import replace

from snapferry.destination import Destination
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.errors import ConfigurationError, SnapferryError
from snapferry.lifecycle.prune import Prune, PrunePlan
from snapferry.repository.failures import combined
from snapferry.repository.gathering import together
from snapferry.repository.sessions import finish_commits
from snapferry.repository.slot_keeping import bring
from snapferry.types import PruneResult


async def prune(membership: Membership, memory: Memory, wanted: Sequence[str], plan: PrunePlan, *, exclusive: bool) -> PruneResult:
    """Prunes at the destinations of the names ``wanted``; see ``Repository.prune``."""
    if not 0 <= plan.max_unused <= 1:
        raise ConfigurationError(f"{plan.max_unused:.0%} unused is no share of what stays")
    async with AsyncExitStack() as stack:
        opened, failures = await _open(membership, wanted, plan, stack)
        for name, destination in list(opened.items()):
            can = destination.capabilities
            if not exclusive and not plan.dry_run and not (can.exclusive_create and can.consistent_list):
                failures[name] = SnapferryError(
                    f"{name}: this store does not refuse a second create, or lists late, so that a prune beside exports could lose data;"
                    " see that nothing else uses the repository, and say --exclusive"
                )
                del opened[name]
        tools = membership.tools
        if not plan.dry_run:
            # The epoch of packs that are made is fixed here: the destinations that take part hold the slots of this one.
            keyring, refused = await bring(membership.members, opened)
            failures.update(refused)
            opened = {name: destination for name, destination in opened.items() if name not in refused}
            tools = replace(tools, keyring=keyring)
        if not opened:
            raise combined("nothing can be pruned", failures)
        plan = replace(plan, complete=plan.complete and not failures)
        others = {name: replica for name, replica in membership.replicas.items() if name not in opened}
        bad = await memory.bad_packs()
        result = await Prune(plan, opened, membership.cache, tools, known_bad=bad, others=others).run()
    return PruneResult(result.destinations, {**failures, **result.failures}, result.seconds, result.dry_run)


async def freed_without(membership: Membership, without: Mapping[str, AbstractSet[str]]) -> dict[str, int]:
    """By destination, the bytes that a prune would give back if these snapshots (ids) were forgotten there."""
    destinations = {name: membership.replicas[name] for name in without if name in membership.replicas}
    plan = PrunePlan(dry_run=True, complete=len(destinations) == len(membership.config.destinations))
    others = {name: replica for name, replica in membership.replicas.items() if name not in destinations}
    result = await Prune(plan, destinations, membership.cache, membership.tools, others=others, without=without).run()
    return {item.destination: item.bytes_freed for item in result.destinations}


async def _open(
    membership: Membership, wanted: Sequence[str], plan: PrunePlan, stack: AsyncExitStack
) -> tuple[dict[str, Destination], dict[str, BaseException]]:
    """The destinations that can take part; a dry run only reads them."""
    if plan.dry_run:
        failures: dict[str, BaseException] = {name: error for name, error in membership.members.failures.items() if name in wanted}
        return {name: membership.replicas[name] for name in wanted if name not in failures}, failures
    return await open_finished(membership, wanted, stack)


async def open_finished(
    membership: Membership, wanted: Sequence[str], stack: AsyncExitStack
) -> tuple[dict[str, Destination], dict[str, BaseException]]:
    """Those of the ``wanted`` names that can be written to, where every commit that was decided has its copy; and why not the others."""
    opened, failures = await membership.writable(wanted, stack)

    async def finish(destination: Destination) -> SnapferryError | None:
        try:
            await finish_commits(membership.members.keyring, destination, notes_read=True)
        except SnapferryError as error:
            return error
        return None

    for name, problem in zip(list(opened), await together(finish(destination) for destination in opened.values()), strict=True):
        if problem is not None:
            failures[name] = problem
            del opened[name]
    return opened, failures
