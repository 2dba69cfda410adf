"""``export`` of several sources: what is said of each as it comes, and of all at the end."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from snapferry.cli.bars import progress_of_many
from snapferry.cli.exported import say_snapshot, snapshot_line
from snapferry.cli.failing import exit_code, message_of
from snapferry.cli.invocation import Invocation
from snapferry.cli.opening import opened
from snapferry.cli.options import rate_flags
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from snapferry.config import JobsFile
    from snapferry.engine import BulkResult, ExportJob, JobOutcome

logger = logging.getLogger(__name__)

_SAID_IN_THE_FILE = ("volume", "to", "min_copies", "block_size", "parent", "tags", "skip_unreadable", "changed", "stream_size")


def bulk_command(invocation: Invocation, parallel: int | None, tags: Mapping[str, str]) -> int:
    """Exports what the current command line describes; returns the exit code.

    A source that cannot be opened is the failure of that one where sources are named on the command line, as with rsync and tar. A jobs
    file is checked whole before anything starts, sources too.
    """
    given = click.get_current_context()
    file = _load(given) if given.params["jobs_file"] is not None else None
    flags = {"placement.policy": given.params["placement"]} if given.params["placement"] is not None else {}
    config = invocation.load_config(flags | rate_flags(given.params["limit_rates"]))
    jobs = _described(file) if file is not None else _named(given, tags)
    from snapferry.engine.bulk import check_jobs, check_sources

    check_jobs(config, jobs)
    if file is not None:
        check_sources(jobs)
    at_once = parallel or (file.parallel if file is not None else None)

    async def work() -> BulkResult:
        with progress_of_many(invocation, len(jobs)) as (on_progress, on_end):

            def tell(outcome: JobOutcome) -> None:
                on_end(outcome.job.volume_name)
                _tell(invocation, outcome)

            async with opened(invocation, config) as repository:
                return await repository.export_many(
                    jobs, parallel=at_once, dry_run=given.params["dry_run"], on_progress=on_progress, on_result=tell
                )

    result = run_async(invocation, work())
    if invocation.json_lines:
        invocation.emit("summary", summary_line(result))
    else:
        _say_summary(invocation, result)
    return result.exit_code


def _load(given: click.Context) -> JobsFile:
    from snapferry.config import load_jobs

    if given.params["sources"]:
        raise click.UsageError("either SOURCE or --jobs, not both", given)
    for name in _SAID_IN_THE_FILE:
        if given.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            flag = next(option.opts[0] for option in given.command.params if option.name == name)
            raise click.UsageError(f"with --jobs, {flag} is said in the file, for each job or under [defaults]", given)
    return load_jobs(given.params["jobs_file"])


def _described(file: JobsFile) -> list[ExportJob]:
    from snapferry.engine import ExportJob

    return [
        ExportJob(
            job.source,
            job.volume,
            job.to,
            job.min_copies,
            job.block_size,
            job.parent,
            job.tags,
            job.skip_unreadable,
            job.limit_rate,
            job.changed,
            job.placement,
        )
        for job in file.jobs
    ]


def _named(given: click.Context, tags: Mapping[str, str]) -> list[ExportJob]:
    from snapferry.engine import ExportJob

    options = given.params
    if options["volume"] is not None:
        raise click.UsageError("--volume names one volume, and there are several sources; a file of --jobs names them", given)
    for name in ("changed", "stream_size"):
        if options[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is for one source, and there are several", given)
    if options["parent"] not in ("auto", "none"):
        raise click.UsageError("--parent with several sources is auto or none; a file of --jobs can say more", given)
    return [
        ExportJob(
            source,
            to=options["to"] or None,
            min_copies=options["min_copies"],
            block_size=options["block_size"],
            parent=options["parent"],
            tags=tags,
            skip_unreadable=options["skip_unreadable"],
        )
        for source in options["sources"]
    ]


def _tell(invocation: Invocation, outcome: JobOutcome) -> None:
    if outcome.error is not None:
        if invocation.verbose:
            logger.debug("%s", "".join(traceback.format_exception(outcome.error)))
        failure = failure_of(outcome)
        if invocation.json_lines:
            invocation.emit("failed", failure)
        else:
            invocation.warn(f"snapferry: {failure['volume']} failed: {failure['message']}")
    elif outcome.result is not None:
        if invocation.json_lines:
            invocation.emit("snapshot", snapshot_line(outcome.result))
        else:
            say_snapshot(invocation, outcome.result)
    invocation.flush()


def failure_of(outcome: JobOutcome) -> dict[str, Any]:
    """What is said of a source that was not exported; ``code`` is what the command would have ended with for it alone."""
    assert outcome.error is not None
    return {
        "volume": outcome.job.volume_name,
        "source": outcome.job.source_name,
        "code": exit_code(outcome.error),
        "message": message_of(outcome.error),
    }


def summary_line(result: BulkResult) -> dict[str, Any]:
    """The last line of all."""
    sent: dict[str, int] = {}
    for export in result.results:
        for name, count in export.bytes_sent.items():
            sent[name] = sent.get(name, 0) + count
    return {
        "sources": len(result.outcomes),
        "exported": len(result.results),
        "partial": len(result.partial),
        "failed": len(result.failed),
        "bytes_read": sum(export.bytes_read for export in result.results),
        "bytes_new": sum(export.bytes_new for export in result.results),
        "bytes_sent": sent,
        "seconds": round(result.seconds, 3),
        "failures": [failure_of(outcome) for outcome in result.failed],
        "code": result.exit_code,
    }


def _say_summary(invocation: Invocation, result: BulkResult) -> None:
    from snapferry.config import format_size

    line = summary_line(result)
    speed = f" ({format_size(line['bytes_read'] / result.seconds)}/s)" if line["bytes_read"] and result.seconds else ""
    parts = f", {line['partial']} of them in part" if line["partial"] else ""
    failed = f", {line['failed']} failed" if line["failed"] else ""
    invocation.result(
        f"{line['exported']} of {line['sources']} sources exported{parts}{failed}: "
        f"read {format_size(line['bytes_read'])} in {result.seconds:.1f} s{speed}, new {format_size(line['bytes_new'])}"
    )
    for failure in line["failures"]:
        invocation.warn(f"  failed: {failure['volume']} ({failure['source']}), code {failure['code']}")
