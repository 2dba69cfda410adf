"""``restore``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.opening import opened
from snapferry.cli.options import LimitRates, Range, common_options, limit_rate_option, prefer_option, rate_flags
from snapferry.cli.pouring import VolumeOnDash, pour, refuse_terminal, warn_of_zeros
from snapferry.cli.progress import progress
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from snapferry.types import Preference, RestoreResult


@click.command("restore", cls=VolumeOnDash)
@click.argument("snapshot")
@click.argument("target")
@click.option("--from", "sources", metavar="NAME", multiple=True, help="Only from these destinations; by default from the fastest.")
@prefer_option
@click.option("--range", "extent", type=Range(), metavar="A-B", help="Only the bytes from A up to, not including, B.")
@click.option("--force", is_flag=True, help="Write over a target that is not empty.")
@click.option("--best-effort", is_flag=True, help="Go on where no replica can supply a block, and list what is lost (exit code 4).")
@click.option("--dry-run", is_flag=True, help="Plan and check, but write nothing.")
@limit_rate_option
@common_options
@click.pass_obj
def restore_command(
    invocation: Invocation,
    *,
    snapshot: str,
    target: str,
    sources: tuple[str, ...],
    prefer: Preference,
    extent: tuple[int, int | None] | None,
    force: bool,
    best_effort: bool,
    dry_run: bool,
    limit_rates: LimitRates,
) -> int:
    """Bring SNAPSHOT back to TARGET, a file or block device, or - for standard output.

    Run again after an interruption it goes on where it was. An existing target is changed only where it differs.
    """
    config = invocation.load_config(rate_flags(limit_rates))
    for name in sources:
        config.destination(name)

    if target == "-":
        refuse_terminal()

    async def work() -> RestoreResult:
        with progress(invocation) as on_progress:
            async with opened(invocation, config) as repository:
                if target == "-":
                    return await pour(
                        repository,
                        snapshot,
                        extent,
                        sources=sources or None,
                        prefer=prefer,
                        best_effort=best_effort,
                        dry_run=dry_run,
                        on_progress=on_progress,
                    )
                return await repository.restore(
                    snapshot,
                    target,
                    sources=sources or None,
                    prefer=prefer,
                    range=extent,
                    force=force,
                    best_effort=best_effort,
                    dry_run=dry_run,
                    on_progress=on_progress,
                )

    result = run_async(invocation, work())
    if target == "-":
        warn_of_zeros(result)
    if invocation.json_lines:
        invocation.emit("restore", restore_line(result) | ({"dry_run": True} if dry_run else {}))
    else:
        _say(invocation, result, target, dry_run)
    return result.exit_code


def restore_line(result: RestoreResult) -> dict[str, Any]:
    """The contract's ``restore`` line; keys it does not name come last and only where there is something to say."""
    from snapferry.cli.verifying import damage_document

    line: dict[str, Any] = {
        "snapshot": result.snapshot,
        "size": result.size,
        "bytes_written": result.bytes_written,
        "bytes_fetched": result.bytes_fetched,
        "hedged": result.hedged,
        "failovers": result.failovers,
        "seconds": round(result.seconds, 3),
    }
    if result.hedged_bytes:
        line["hedged_bytes"] = result.hedged_bytes
    if result.damage:
        line["damage"] = [damage_document(damage) for damage in result.damage]
    if result.lost:
        line["lost"] = [list(extent) for extent in result.lost]
    if result.unreadable:
        line["unreadable"] = [list(extent) for extent in result.unreadable]
    return line


def _say(invocation: Invocation, result: RestoreResult, target: str, dry_run: bool) -> None:
    from snapferry.config import format_size

    # Standard output may carry the volume.
    tell = invocation.say if target == "-" else invocation.result
    target = "standard output" if target == "-" else target
    if dry_run:
        tell(f"dry run: {result.snapshot} ({format_size(result.size)}) may be restored to {target}; nothing was read or written")
        return
    speed = format_size(result.size / result.seconds) + "/s" if result.seconds else ""
    tell(
        f"restored {result.snapshot} to {target}: {format_size(result.size)} in {result.seconds:.1f} s ({speed}), wrote {format_size(result.bytes_written)}"
    )
    for name, count in result.bytes_fetched.items():
        invocation.say(f"  {name}: fetched {format_size(count)}")
    for damage in result.damage:
        reason = damage.reason.removeprefix(f"{damage.destination}: ").removeprefix(f"{damage.object}: ")
        invocation.warn(f"  damaged at {damage.destination}: {damage.object}: {reason}")
    if result.damage and not result.lost:
        invocation.warn("  all of it was healed from other replicas; `snapferry verify` lists what is damaged")
    for offset, length in result.lost:
        invocation.warn(f"  LOST: {length} bytes at {offset}: no replica can supply them")
    for offset, length in result.unreadable:
        invocation.warn(f"  unreadable at the source when it was exported: {length} bytes at {offset}")
