"""``list``, ``show`` and ``diff``: what there is, told without changing it."""

from __future__ import annotations

from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.options import common_options
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from snapferry.engine import SnapshotDetails
    from snapferry.types import ListedSummary


@click.command("list")
@click.argument("volume", required=False)
@common_options
@click.pass_obj
def list_command(invocation: Invocation, volume: str | None) -> int:
    """List the snapshots of VOLUME, or of all volumes."""
    config = invocation.load_config()
    from snapferry.engine import open_repository

    async def work() -> list[ListedSummary]:
        async with open_repository(config) as repository:
            return await repository.list(volume)

    listed = run_async(invocation, work())
    if invocation.json_lines:
        from snapferry.cli.lines import snapshot_lines

        invocation.emit_many("list", {"snapshots": snapshot_lines(listed)})
        return 0
    if not listed:
        invocation.say(f"no snapshots of {volume}" if volume else "no snapshots yet")
        return 0
    invocation.write("\n".join(table([("SNAPSHOT", "VOLUME", "CREATED", "SIZE", "NEW", "DESTINATIONS"), *_rows(listed)])))
    return 0


def _rows(listed: Sequence[ListedSummary]) -> list[tuple[str, ...]]:
    from snapferry.config import format_size

    size = lru_cache(format_size)  # There may be a hundred thousand lines, and few different sizes.
    rows: list[tuple[str, ...]] = []
    for item in listed:
        found = item.snapshot
        created = f"{str(found.created)[:19]}Z"
        rows.append((found.id, found.volume, created, size(found.size), size(found.bytes_new), ",".join(item.destinations)))
    return rows


@click.command("show")
@click.argument("snapshot")
@common_options
@click.pass_obj
def show_command(invocation: Invocation, snapshot: str) -> int:
    """Show one snapshot: what it is, which destinations hold it, and how well."""
    config = invocation.load_config()
    from snapferry.engine import open_repository

    async def work() -> SnapshotDetails:
        async with open_repository(config) as repository:
            return await repository.show(snapshot)

    details = run_async(invocation, work())
    if invocation.json_lines:
        invocation.emit("show", _details(details))
        return 0
    from snapferry.config import format_size

    found = details.snapshot
    pairs: list[tuple[str, str]] = [
        ("snapshot", found.id),
        ("volume", found.volume),
        ("created", timestamp(found.created)),
        ("size", f"{found.size} ({format_size(found.size)})"),
        ("block size", format_size(found.block_size)),
        ("new", format_size(found.bytes_new)),
        ("parent", found.parent or "none"),
        ("generation", str(found.generation)),
        ("placement", found.placement),
        *((f"tag {key}", value) for key, value in sorted(found.tags.items())),
        *(("unreadable", f"{length} bytes at {offset}") for offset, length in found.unreadable),
    ]
    for replica in details.replicas:
        missing = f", {replica.packs_missing} MISSING" if replica.packs_missing else ""
        packs = f"{replica.data_packs} data packs, {replica.manifest_packs} manifest packs, {format_size(replica.bytes)}{missing}"
        cost = f", {details.monthly_costs[replica.destination]:.4g} a month" if replica.destination in details.monthly_costs else ""
        state = f"{packs}{cost}" if replica.committed else "does not hold this snapshot"
        pairs.append((f"at {replica.destination}", state))
        pairs += [("  damaged", f"{damage.object}: {damage.reason}") for damage in replica.damage]
    if details.monthly_costs:
        pairs.append(("cost", f"{sum(details.monthly_costs.values()):.4g} a month, what other snapshots share counted whole"))
    if details.restore_cost is not None:
        pairs.append(("restore", f"{details.restore_cost:.4g} to read all of it once, where that costs least"))
    if details.packs_short:
        pairs.append(("short", f"{details.packs_short} data packs have fewer than {details.copies} copies"))
    if details.packs_lost:
        pairs.append(("incomplete", f"{details.packs_lost} data packs are at none of the destinations that answer"))
    for line in table(pairs):
        invocation.write(line)
    return 0


@click.command("diff")
@click.argument("snapshot_a", metavar="SNAPSHOT")
@click.argument("snapshot_b", metavar="SNAPSHOT")
@common_options
@click.pass_obj
def diff_command(invocation: Invocation, snapshot_a: str, snapshot_b: str) -> int:
    """List the extents in which two snapshots differ: offset and length in bytes, a line each."""
    config = invocation.load_config()
    from snapferry.engine import open_repository

    async def work() -> None:
        async with open_repository(config) as repository:
            if not invocation.json_lines:
                async for offset, length in repository.diff(snapshot_a, snapshot_b):
                    invocation.write(f"{offset} {length}")
                return
            extents = [[offset, length] async for offset, length in repository.diff(snapshot_a, snapshot_b)]
            block_size = (await repository.show(snapshot_b)).snapshot.block_size
            invocation.emit("diff", {"block_size": block_size, "extents": extents})

    run_async(invocation, work())
    return 0


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond where there is any."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns side by side, two spaces apart."""
    line = "  ".join(f"{{:<{max(map(len, column))}}}" for column in zip(*rows, strict=True)).format
    return [line(*row).rstrip() for row in rows]


def _details(details: SnapshotDetails) -> dict[str, Any]:
    from snapferry.cli.verifying import damage_document

    snapshot = details.snapshot
    return {
        "snapshot": snapshot.id,
        "volume": snapshot.volume,
        "created": timestamp(snapshot.created),
        "size": snapshot.size,
        "block_size": snapshot.block_size,
        "bytes_new": snapshot.bytes_new,
        "parent": snapshot.parent,
        "generation": snapshot.generation,
        "tags": snapshot.tags,
        "placement": snapshot.placement,
        "unreadable": [list(extent) for extent in snapshot.unreadable],
        "replicas": [
            {
                "destination": replica.destination,
                "committed": replica.committed,
                "packs_present": replica.packs_present,
                "packs_missing": replica.packs_missing,
                "manifest_packs": replica.manifest_packs,
                "data_packs": replica.data_packs,
                "bytes": replica.bytes,
                "month_cost": details.monthly_costs.get(replica.destination),
                "damage": [damage_document(damage) for damage in replica.damage],
            }
            for replica in details.replicas
        ],
        "copies": details.copies,
        "packs_short": details.packs_short,
        "packs_lost": details.packs_lost,
        "month_cost": sum(details.monthly_costs.values()) if details.monthly_costs else None,
        "restore_cost": details.restore_cost,
    }
