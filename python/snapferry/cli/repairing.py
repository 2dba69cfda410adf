"""``repair``: what ``verify`` finds is healed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.opening import opened
from snapferry.cli.options import LimitRates, Percentage, common_options, limit_rate_option, rate_flags
from snapferry.cli.progress import progress
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from snapferry.types import RepairResult


@click.command("repair")
@click.argument("snapshots", metavar="[SNAPSHOT]...", nargs=-1)
@click.option("--destination", "destinations", metavar="NAME", multiple=True, help="Only at these destinations; by default at all.")
@click.option(
    "--read-data", type=Percentage(), default=0.0, metavar="PERCENT",
    help="Read and check this share of the packs too; 100: all. Those known to be broken are read in any case.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Tell what is broken and could be healed, but heal nothing.")
@limit_rate_option
@common_options
@click.pass_obj
def repair_command(
    invocation: Invocation,
    *,
    snapshots: tuple[str, ...],
    destinations: tuple[str, ...],
    read_data: float,
    dry_run: bool,
    limit_rates: LimitRates,
) -> int:
    """Heal what verify finds broken or missing, of the SNAPSHOTs (all by default), from other destinations that have it whole.

    Exit code 4 if something is left that cannot be healed: the line says what, why, and which bytes of which snapshot it hits; 3 if a
    destination could not be looked at.
    """
    config = invocation.load_config(rate_flags(limit_rates))
    for name in destinations:
        config.destination(name)

    async def work() -> RepairResult:
        with progress(invocation) as on_progress:
            async with opened(invocation, config) as repository:
                return await repository.repair(
                    snapshots or None, destinations=destinations or None, read_data=read_data, dry_run=dry_run, on_progress=on_progress
                )

    _tell(invocation, result := run_async(invocation, work()))
    return result.exit_code


def _tell(invocation: Invocation, result: RepairResult) -> None:
    from snapferry.cli.verifying import damage_document, damage_lines
    from snapferry.config import format_size

    if invocation.json_lines:
        document = {
            "healed": [damage_document(item) for item in result.healed],
            "left": [damage_document(item) for item in result.left],
            "unverified": result.unverified,
            "bytes_copied": result.bytes_copied,
            "seconds": round(result.seconds, 3),
        }
        invocation.emit("repair", document | ({"dry_run": True} if result.dry_run else {}))
        return
    healed, left = damage_lines(result.healed), damage_lines(result.left)
    for text in healed:
        invocation.result(f"{'could be healed' if result.dry_run else 'healed'}  {text}")
    for text in left:
        invocation.write(f"{'not to be healed' if result.dry_run else 'NOT HEALED'}  {text}")
    for where, reason in result.unverified.items():
        invocation.write(f"{where}: not looked at, or not to the end: {reason.removeprefix(f'{where}: ')}")
    verb = "could be healed" if result.dry_run else "healed"
    copied = "" if result.dry_run else f", {format_size(result.bytes_copied)} copied in {result.seconds:.1f} s"
    nothing = "nothing to heal" if not healed and not left else f"{len(healed)} objects {verb}, {len(left)} left"
    invocation.result(f"{nothing}{copied}")
