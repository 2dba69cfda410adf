"""``cat``: a volume's bytes on standard output, so that all else goes to standard error."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import Any

import click

from snapferry.cli.invocation import Invocation, to_stdout
from snapferry.cli.options import Range, common_options, limit_rate_option, rate_flag
from snapferry.cli.running import run_async

logger = logging.getLogger(__name__)


class VolumeCommand(click.Command):
    """A command whose standard output is a volume: its JSON, usage errors too, goes to standard error."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """Notes it before anything is parsed."""
        invocation = parent.find_object(Invocation) if parent is not None else None
        if invocation is not None:
            invocation.volume_on_stdout = True
        return super().make_context(info_name, args, parent, **extra)


@click.command("cat", cls=VolumeCommand)
@click.argument("snapshot")
@click.option("--range", "extent", type=Range(), metavar="A-B", help="Only the bytes from A up to, not including, B.")
@limit_rate_option
@common_options
@click.pass_obj
def cat_command(invocation: Invocation, *, snapshot: str, extent: tuple[int, int | None] | None, limit_rate: int | None) -> int:
    """Write the bytes of SNAPSHOT to standard output.

    Extents that the source could not supply come as zeros, with a warning and exit code 3.
    """
    config = invocation.load_config(rate_flag(limit_rate))
    from snapferry.engine import open_repository

    if sys.stdout.isatty():
        raise click.UsageError("a volume's bytes are not for a terminal; send them to a file or a pipe")
    output = sys.stdout.fileno()

    async def work() -> dict[str, Any]:
        began, written = time.monotonic(), 0
        async with open_repository(config) as repository, repository.open_snapshot(snapshot, allow_unreadable=True) as reader:
            start, end = extent or (0, None)
            async for data in reader.stream(start, end):
                await asyncio.to_thread(_write_all, output, data)
                written += len(data)
            last = reader.size if end is None else end
            unreadable = [list(extent) for extent in reader.snapshot.unreadable if extent[0] < last and sum(extent) > start]
            seconds = round(time.monotonic() - began, 3)
            return {"snapshot": reader.snapshot.id, "bytes_written": written, "unreadable": unreadable, "seconds": seconds}

    document = run_async(invocation, work())
    unreadable = document["unreadable"]
    if unreadable:
        logger.warning(
            "the source could not supply %d extents when the snapshot was made; zeros stand for them: %s", len(unreadable), unreadable
        )
    if invocation.json_lines:
        invocation.emit("cat", document)
    return 3 if unreadable else 0


def _write_all(output: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    with to_stdout():
        while view:
            view = view[os.write(output, view) :]
