"""``destination``: the places that hold the repository."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.opening import opened
from snapferry.cli.options import LimitRates, common_options, limit_rate_option, rate_flags
from snapferry.cli.progress import progress
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from snapferry.config import Config
    from snapferry.destination.proof import Proof
    from snapferry.engine import Added, DestinationState, Removed
    from snapferry.types import SyncResult


@click.group("destination")
@common_options
def destination_command() -> None:
    """List, add, test, bring up to date, and remove the places that hold the repository.

    Those that add and remove change the configuration file; its comments and its order stay.
    """


@destination_command.command("list")
@common_options
@click.pass_obj
def list_command(invocation: Invocation) -> int:
    """List the destinations: whether they answer, what they hold, and what they lack. Exit code 3 if one does not answer."""
    config = invocation.load_config()

    async def work() -> tuple[DestinationState, ...]:
        async with opened(invocation, config) as repository:
            return await repository.destinations.list()

    states = run_async(invocation, work())
    code = 3 if any(state.error is not None for state in states) else 0
    if invocation.json_lines:
        invocation.emit("destinations", {"destinations": [_state_document(state) for state in states]})
        return code
    from snapferry.cli.listing import table

    priced = any(state.price_month for state in states)
    rows = [("NAME", "URL", "SLOW", "LIMIT", "SNAPSHOTS", "BEHIND", "STORED", "FREE", *(["A MONTH"] if priced else []), "STATE")]
    rows += [_row(state, priced=priced) for state in states]
    for line in table(rows):
        invocation.write(line)
    return code


@destination_command.command("add")
@click.argument("destination", metavar="[NAME=]URL")
@click.option("--sync", "and_sync", is_flag=True, help="Then copy there what the others hold, as `snapferry destination sync` does.")
@click.option("--dry-run", is_flag=True, help="Check the arguments and say what would be made.")
@limit_rate_option
@common_options
@click.pass_obj
def add_command(invocation: Invocation, *, destination: str, and_sync: bool, dry_run: bool, limit_rates: LimitRates) -> int:
    """Add a destination: make the place hold this repository, or attach one that does, and write it into the configuration.

    A place that holds another repository is refused. Snapshots are copied there by `snapferry destination sync`, or with --sync.
    """
    config = invocation.load_config(rate_flags(limit_rates))
    from snapferry.config import parse_destination
    from snapferry.engine import open_repository

    wanted = parse_destination(destination, [known.name for known in config.destinations])

    async def work() -> tuple[Added, SyncResult | None]:
        async with opened(invocation, config) as repository:
            added = await repository.destinations.add(wanted, dry_run=dry_run)
        if dry_run or not and_sync:
            return added, None
        with progress(invocation) as on_progress:
            async with open_repository(invocation.load_config_again()) as repository:
                return added, await repository.sync([wanted.name], on_progress=on_progress)

    added, synced = run_async(invocation, work())
    if invocation.json_lines:
        document = {"name": wanted.name, "url": wanted.shown_url, "config": str(config.path), "attached": added.attached}
        invocation.emit("destination", document | ({"dry_run": True} if dry_run else {}))
    elif dry_run:
        invocation.result(f"would add {wanted.name} ({wanted.shown_url}) to {config.path}")
    else:
        held = "held the repository already" if added.attached else "holds the repository now"
        invocation.result(f"{wanted.name} ({wanted.shown_url}) {held}, and is in {config.path}")
        if synced is None:
            invocation.say(f"`snapferry destination sync {wanted.name}` copies there what the others hold")
    if synced is None:
        return 0
    _tell(invocation, synced, config)
    return synced.exit_code


@destination_command.command("test")
@click.argument("name", metavar="NAME")
@common_options
@click.pass_obj
def test_command(invocation: Invocation, name: str) -> int:
    """Try a destination out: create, read, list and delete objects there, one of them as large as a pack, and time it.

    They belong to no repository, and are deleted in the end. Exit code 1 if something does not hold that must; else that of the error.
    """
    config = invocation.load_config()
    config.destination(name)

    async def work() -> Proof:
        async with opened(invocation, config) as repository:
            return await repository.destinations.test(name)

    proof = run_async(invocation, work())
    if invocation.json_lines:
        from dataclasses import asdict

        document = {
            "name": name,
            "checks": [asdict(check) for check in proof.checks],
            "first_byte": round(proof.first_byte, 6),
            "create_rate": round(proof.create_rate),
            "read_rate": round(proof.read_rate),
        }
        invocation.emit("destination_test", document)
        return proof.exit_code
    from snapferry.config import format_size

    for check in proof.checks:
        mark = "ok" if check.holds else "NOT SO" if check.needed else "no"
        invocation.write(f"{check.what:18}{mark:8}{check.detail}")
    limit = config.destination(name).limit_rate or config.engine.limit_rate
    held_back = f" (limited to {format_size(limit)}/s)" if limit else ""
    invocation.write(
        f"{'speed':18}{'':8}creates {format_size(proof.create_rate)}/s, reads {format_size(proof.read_rate)}/s, one object at a time{held_back}"
    )
    return proof.exit_code


@destination_command.command("sync")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--from", "sources", metavar="NAME", multiple=True, help="Copy from this one only; may be given more than once.")
@click.option("--snapshot", "snapshots", metavar="SNAPSHOT", multiple=True, help="Only this one; may be given more than once.")
@click.option("--volume", metavar="VOLUME", multiple=True, help="Only the snapshots of this volume; may be given more than once.")
@click.option("--dry-run", is_flag=True, help="Tell what would be copied and what that costs, but copy nothing.")
@limit_rate_option
@common_options
@click.pass_obj
def sync_command(
    invocation: Invocation,
    *,
    names: tuple[str, ...],
    sources: tuple[str, ...],
    snapshots: tuple[str, ...],
    volume: tuple[str, ...],
    dry_run: bool,
    limit_rates: LimitRates,
) -> int:
    """Bring the destinations NAME (all by default) up to date: copy what others hold and they lack, and packs that they have lost.

    What was forgotten at a destination is not brought back. Interrupted, it goes on where it was when it is run again. Exit code 3 if
    something could not be brought.
    """
    config = invocation.load_config(rate_flags(limit_rates))
    for name in (*names, *sources):
        config.destination(name)

    async def work() -> SyncResult:
        with progress(invocation) as on_progress:
            async with opened(invocation, config) as repository:
                return await repository.sync(
                    names or None, sources=sources or None, snapshots=snapshots, volumes=volume, dry_run=dry_run, on_progress=on_progress
                )

    result = run_async(invocation, work())
    _tell(invocation, result, config)
    return result.exit_code


@destination_command.command("remove")
@click.argument("name", metavar="NAME")
@click.option("--force", is_flag=True, help="Also if it alone holds some snapshots, or does not answer.")
@click.option("--delete-objects", is_flag=True, help="Delete everything that the repository has there, for good.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, but do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@click.pass_obj
def remove_command(invocation: Invocation, *, name: str, force: bool, delete_objects: bool, dry_run: bool, yes: bool) -> int:
    """Take a destination out of the configuration. What lies there stays, unless --delete-objects is given.

    Refused for the last one, and, without --force, for the only one that holds some snapshot.
    """
    config = invocation.load_config()
    config.destination(name)
    asks = sys.stdin.isatty() and not invocation.json_lines
    if delete_objects and not (yes or dry_run or asks):
        raise click.UsageError("deleting a destination's objects cannot be undone: add --yes")

    async def work() -> Removed:
        async with opened(invocation, config) as repository:
            if dry_run:
                return await repository.destinations.check_removal(name)
            if asks and not yes:
                what = "and delete everything that this repository has there for good" if delete_objects else "and leave what lies there"
                if not click.confirm(f"Take {name} ({config.destination(name).shown_url}) out of {config.path}, {what}?", err=True):
                    raise click.ClickException("nothing was removed")
            return await repository.destinations.remove(name, force=force, delete_objects=delete_objects)

    removed = run_async(invocation, work())
    if invocation.json_lines:
        document: dict[str, Any] = {
            "name": name,
            "config": str(config.path),
            "only_here": [item.id for item in removed.only_here],
            "objects_deleted": removed.deleted,
        }
        invocation.emit("destination", document | ({"dry_run": True} if dry_run else {}))
        return 0
    for item in removed.only_here:
        invocation.warn(f"  held nowhere else: {item.volume} {item.id}")
    deleted = f", {removed.deleted} objects deleted" if delete_objects and not dry_run else ""
    invocation.result(f"{name} {'would be' if dry_run else 'was'} taken out of {config.path}{deleted}")
    return 0


def _tell(invocation: Invocation, result: SyncResult, config: Config) -> None:
    from snapferry.config import format_size

    def line(error: BaseException) -> str:
        return " ".join(str(error).split())

    if invocation.json_lines:
        documents = []
        for item in result.destinations:
            document: dict[str, Any] = {
                "destination": item.destination,
                "snapshots": list(item.snapshots),
                "packs": item.packs,
                "bytes_copied": item.bytes_copied,
                "failures": {key: line(error) for key, error in item.failures.items()},
            }
            documents.append(document | ({"price_once": item.price_once, "price_month": item.price_month} if result.dry_run else {}))
        failures = {name: line(error) for name, error in result.failures.items()}
        more = {"dry_run": True} if result.dry_run else {}
        invocation.emit("sync", {"destinations": documents, "failures": failures, "seconds": round(result.seconds, 3)} | more)
        return
    for item in result.destinations:
        verb = "would get" if result.dry_run else "got"
        price = f", for {item.price_once:.2f} once and {item.price_month:.2f} a month" if item.price_once or item.price_month else ""
        lost = f" and {item.packs} packs that it had lost" if item.packs else ""
        slow = "" if item.snapshots or item.packs or item.failures else ": it lacks nothing"
        invocation.result(
            f"{item.destination}: {verb} {len(item.snapshots)} snapshots{lost}, {format_size(item.bytes_copied)}{price}{slow}"
        )
        for key, error in item.failures.items():
            what = "" if key == item.destination else f"{key}: "
            invocation.warn(f"  {item.destination}: {what}not brought: {line(error).removeprefix(f'{item.destination}: ')}")
    for name, error in result.failures.items():
        target = name in config.rates() and not any(item.destination == name for item in result.destinations)
        invocation.warn(f"  {name}: {'not reached' if target else 'not asked'}: {line(error).removeprefix(f'{name}: ')}")


def _row(state: DestinationState, *, priced: bool) -> tuple[str, ...]:
    from snapferry.config import format_size

    def size(count: float | None) -> str:
        return "" if count is None else format_size(count)

    limit = "" if state.limit_rate is None else f"{format_size(state.limit_rate)}/s"
    problem = state.error or state.unwritable
    told = "ok" if problem is None else " ".join(str(problem).split()).removeprefix(f"{state.name}: ")
    counts = ["" if count is None else str(count) for count in (state.snapshots, state.behind)]
    cost = [f"{state.price_month:.2f}"] if priced else []
    return (state.name, state.url, state.slow, limit, *counts, size(state.bytes_stored), size(state.bytes_free), *cost, told)


def _state_document(state: DestinationState) -> dict[str, Any]:
    from dataclasses import asdict

    def line(error: BaseException | None) -> str | None:
        return None if error is None else " ".join(str(error).split())

    return {
        "name": state.name,
        "url": state.url,
        "slow": state.slow,
        "limit_rate": state.limit_rate,
        "price": asdict(state.price),
        "error": line(state.error),
        "unwritable": line(state.unwritable),
        "snapshots": state.snapshots,
        "behind": state.behind,
        "bytes_stored": state.bytes_stored,
        "bytes_free": state.bytes_free,
        "price_month": state.price_month,
    }
