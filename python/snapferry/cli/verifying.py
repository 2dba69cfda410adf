"""``verify`` and ``rebuild``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.opening import opened
from snapferry.cli.options import LimitRates, Percentage, common_options, limit_rate_option, rate_flags
from snapferry.cli.progress import progress
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from snapferry.types import Damage, VerifyResult


@click.command("verify")
@click.argument("snapshots", metavar="[SNAPSHOT]...", nargs=-1)
@click.option(
    "--read-data", type=Percentage(), default=0.0, metavar="PERCENT", help="Read and check this share of the packs too; 100: all."
)
@click.option("--destination", metavar="NAME", help="Only this destination.")
@limit_rate_option
@common_options
@click.pass_obj
def verify_command(
    invocation: Invocation, snapshots: tuple[str, ...], read_data: float, destination: str | None, limit_rates: LimitRates
) -> int:
    """Check that the snapshots (all by default) are whole at every destination that holds them.

    Structure and presence are always checked. Exit code 4 if anything is damaged, healable or not; 3 if a destination
    could not be looked at, or a snapshot in parts has fewer copies than asked for.
    """
    config = invocation.load_config(rate_flags(limit_rates))
    if destination is not None:
        config.destination(destination)

    async def work() -> VerifyResult:
        with progress(invocation) as on_progress:
            async with opened(invocation, config) as repository:
                return await repository.verify(snapshots or None, read_data=read_data, destination=destination, on_progress=on_progress)

    result = run_async(invocation, work())
    if invocation.json_lines:
        document = {
            "snapshots": result.snapshots,
            "packs": result.packs,
            "bytes_read": result.bytes_read,
            "damage": [damage_document(damage) for damage in result.damage],
            "unverified": result.unverified,
            "short": [
                {
                    "snapshot": item.snapshot,
                    "destinations": list(item.destinations),
                    "packs": item.packs,
                    "copies": item.copies,
                    "least": item.least,
                }
                for item in result.short
            ],
            "seconds": round(result.seconds, 3),
        }
        invocation.emit("verify", document)
        return result.exit_code
    from snapferry.config import format_size

    for text in damage_lines(result.damage):
        invocation.write(text)
    for where, reason in result.unverified.items():
        invocation.write(f"{where}: not verified: {reason.removeprefix(f'{where}: ')}")
    count = len({(item.destination, item.object) for item in result.damage})
    for item in result.short:
        invocation.write(
            f"snapshot {item.snapshot}, in parts at {', '.join(item.destinations)}: {item.packs} packs have fewer than {item.copies} copies"
            f" (the worst {item.least or 'none that could be asked for'})"
        )
    doubts = "not all verified" if result.unverified else "too few copies" if result.short else "all well"
    found = f"{count} damaged or missing" if count else doubts
    invocation.result(
        f"{found}: {result.snapshots} snapshots, {result.packs} packs, {format_size(result.bytes_read)} read in {result.seconds:.1f} s"
    )
    if result.damage:
        invocation.say("`snapferry repair` heals what other destinations have whole, and what can be made again")
    return result.exit_code


@click.command("rebuild")
@common_options
@click.pass_obj
def rebuild_command(invocation: Invocation) -> int:
    """Rebuild catalog, index and cache from the destinations. A damaged catalog is set aside, not deleted."""
    config = invocation.load_config()
    from snapferry.engine import open_repository

    async def work() -> int:
        with progress(invocation) as on_progress:
            async with open_repository(config) as repository:
                await repository.rebuild(on_progress=on_progress)
                return len(await repository.list())

    snapshots = run_async(invocation, work())
    if invocation.json_lines:
        invocation.emit("rebuild", {"snapshots": snapshots})
    else:
        invocation.result(f"rebuilt: {snapshots} snapshots")
    return 0


def damage_lines(damage: Iterable[Damage]) -> list[str]:
    """One line for each object that is broken or missing, however many snapshots need it."""
    by_object: dict[tuple[str, str], list[Damage]] = {}
    for item in damage:
        by_object.setdefault((item.destination, item.object), []).append(item)
    return [_line(where, name, found) for (where, name), found in by_object.items()]


def _line(where: str, name: str, found: Sequence[Damage]) -> str:
    reasons = "; ".join(dict.fromkeys(item.reason.removeprefix(f"{where}: ") for item in found))
    text = f"{where}: {name}: {reasons}" if name else f"{where}: {reasons}"
    hit = [item for item in found if item.extents]
    if hit:
        worst = max(hit, key=lambda item: sum(length for _, length in item.extents))
        more = f", and {len(hit) - 1} snapshots more" if len(hit) > 1 else ""
        text += f"; needed by {worst.snapshot}: bytes {extents_text(worst.extents)}{more}"
    whole_at = list(dict.fromkeys(name for item in found for name in item.whole_at))
    return text + (f"; whole at {', '.join(whole_at)}" if whole_at else "")


def extents_text(extents: tuple[tuple[int, int], ...], most: int = 8) -> str:
    """``offset+length`` of the first extents, and how many more there are."""
    text = ", ".join(f"{offset}+{length}" for offset, length in extents[:most])
    return text if len(extents) <= most else f"{text} and {len(extents) - most} more"


def damage_document(damage: Damage) -> dict[str, Any]:
    """One finding, as JSON shows it."""
    document: dict[str, Any] = {"destination": damage.destination, "object": damage.object, "reason": damage.reason}
    if damage.snapshot is not None:
        document["snapshot"] = damage.snapshot
    if damage.extents:
        document["extents"] = [list(extent) for extent in damage.extents]
    if damage.whole_at:
        document["whole_at"] = list(damage.whole_at)
    return document
