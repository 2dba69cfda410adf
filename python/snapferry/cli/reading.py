"""``cat``: a volume's bytes on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.opening import opened
from snapferry.cli.options import LimitRates, Range, common_options, limit_rate_option, prefer_option, rate_flags
from snapferry.cli.pouring import VolumeCommand, pour, refuse_terminal, warn_of_zeros
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from snapferry.types import Preference, RestoreResult


@click.command("cat", cls=VolumeCommand)
@click.argument("snapshot")
@click.option("--range", "extent", type=Range(), metavar="A-B", help="Only the bytes from A up to, not including, B.")
@prefer_option
@limit_rate_option
@common_options
@click.pass_obj
def cat_command(
    invocation: Invocation, *, snapshot: str, extent: tuple[int, int | None] | None, prefer: Preference, limit_rates: LimitRates
) -> int:
    """Write the bytes of SNAPSHOT to standard output.

    Extents that the source could not supply come as zeros, with a warning and exit code 3.
    """
    config = invocation.load_config(rate_flags(limit_rates))

    refuse_terminal()

    async def work() -> RestoreResult:
        async with opened(invocation, config) as repository:
            return await pour(repository, snapshot, extent, prefer=prefer)

    result = run_async(invocation, work())
    warn_of_zeros(result)
    if invocation.json_lines:
        document = {"snapshot": result.snapshot, "bytes_written": result.bytes_written}
        more = {"unreadable": [list(extent) for extent in result.unreadable], "seconds": round(result.seconds, 3)}
        invocation.emit("cat", document | more)
    return result.exit_code
