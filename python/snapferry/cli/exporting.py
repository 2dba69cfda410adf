"""``export``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from snapferry.cli.exported import say_snapshot, snapshot_line
from snapferry.cli.invocation import Invocation
from snapferry.cli.opening import opened
from snapferry.cli.options import BlockSize, LimitRates, Size, common_options, limit_rate_option, rate_flags
from snapferry.cli.progress import progress
from snapferry.cli.running import run_async
from snapferry.cli.sources import check_source, open_stream

if TYPE_CHECKING:
    from snapferry.types import ExportResult


@click.command("export")
@click.argument("sources", metavar="SOURCE...", nargs=-1)
@click.option("--volume", metavar="NAME", help="The volume's name; by default the source's file name.")
@click.option("--to", metavar="NAME", multiple=True, help="Only to these destinations; by default to all.")
@click.option("--placement", metavar="POLICY", help="Where it goes: a policy, as in spread:copies=2; by default as configured.")
@click.option("--min-copies", type=click.IntRange(min=1), metavar="N", help="How many destinations must acknowledge.")
@click.option("--block-size", type=BlockSize(), metavar="SIZE", help="For a new volume: 64KiB to 4MiB, 256KiB by default.")
@click.option("--parent", default="auto", metavar="auto|none|ID", help="What to compare with: the latest snapshot, nothing, or this one.")
@click.option("--changed", metavar="FILE", help="Read only what changed since the parent, by this map (rbd diff --format json), audited.")
@click.option("--stream-size", type=Size(), metavar="SIZE", help="How much comes from standard input or a FIFO; fail if it is not that.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="A tag to keep with the snapshot.")
@click.option("--skip-unreadable", is_flag=True, help="Record extents that cannot be read (exit code 3) instead of failing.")
@click.option("-j", "--parallel", type=click.IntRange(min=1), metavar="N", help="How many sources at once; up to 4 by default.")
@click.option("--jobs", "jobs_file", metavar="FILE", help="Export what this file describes, instead of SOURCE.")
@click.option("--dry-run", is_flag=True, help="Read and compare, but write nothing.")
@limit_rate_option
@common_options
@click.pass_obj
def export_command(
    invocation: Invocation,
    *,
    sources: tuple[str, ...],
    volume: str | None,
    to: tuple[str, ...],
    placement: str | None,
    min_copies: int | None,
    block_size: int | None,
    parent: str,
    changed: str | None,
    stream_size: int | None,
    tags: tuple[str, ...],
    skip_unreadable: bool,
    parallel: int | None,
    jobs_file: str | None,
    dry_run: bool,
    limit_rates: LimitRates,
) -> int:
    """Back up each SOURCE, a file, block device or FIFO, or - for standard input, to every destination at once.

    What did not change since the volume's latest snapshot is read and compared, but not sent. Several sources are exported side
    by side: what becomes of one changes nothing for the others (exit code 0 if all are done, 3 if some are, 1 if none is).
    """
    if jobs_file is not None or len(sources) > 1:
        from snapferry.cli.bulk import bulk_command

        return bulk_command(invocation, parallel, _tags(tags))
    if not sources:
        raise click.UsageError("a SOURCE is missing, or --jobs")
    (source,) = sources
    check_source(source, volume, changed)
    flags = {"placement.policy": placement} if placement is not None else {}
    config = invocation.load_config(flags | rate_flags(limit_rates))
    config.placing(config.names_of(to or None), volume or os.path.basename(source), None, min_copies)

    async def work() -> ExportResult:
        with progress(invocation) as on_progress:
            async with opened(invocation, config) as repository:
                return await repository.export(
                    open_stream(source, stream_size),
                    volume=volume,
                    to=to or None,
                    min_copies=min_copies,
                    block_size=block_size,
                    parent=parent,
                    changed=changed,
                    tags=_tags(tags),
                    skip_unreadable=skip_unreadable,
                    dry_run=dry_run,
                    on_progress=on_progress,
                )

    result = run_async(invocation, work())
    if invocation.json_lines:
        invocation.emit("snapshot", snapshot_line(result))
    else:
        say_snapshot(invocation, result)
    return result.exit_code


def _tags(texts: tuple[str, ...]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--tag")
        if key in tags:
            raise click.BadParameter(f"{key!r} is given twice", param_hint="--tag")
        tags[key] = value
    return tags
