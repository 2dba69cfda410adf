"""How a command's failure is said, and which exit code it has: the contract's list, in one place."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator

import click

from snapferry.cli.invocation import Invocation, StdoutClosed
from snapferry.errors import DamageError, SnapferryError, worst_of

CLOSED_PIPE = 141  # as if SIGPIPE had ended it, which is what shells expect


class Interrupted(BaseException):
    """A signal asked the command to end, and it has. No ``Exception``: what is being imported when it comes may suppress those."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted" if signal_number == 2 else "terminated")
        self.exit_code = 128 + signal_number


def report(invocation: Invocation, error: BaseException) -> int:
    """Says ``error`` on standard error, or as the last JSON line; returns the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, StdoutClosed):
        _drop_output()
        return CLOSED_PIPE
    error = root_of(error)
    code, message = exit_code(error), message_of(error)
    try:
        if invocation.json_lines:
            _say_in_json(invocation, error, code, message)
        else:
            _say(invocation, error, message)
    except (OSError, ValueError, StdoutClosed, SnapferryError):
        with contextlib.suppress(OSError, ValueError):
            print(f"snapferry: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _drop_output()
    return code


def _say_in_json(invocation: Invocation, error: BaseException, code: int, message: str) -> None:
    document: dict[str, object] = {"code": code, "message": message}
    if isinstance(error, DamageError) and error.extents:
        document["extents"] = [list(extent) for extent in error.extents]
    if invocation.verbose:
        document["traceback"] = "".join(traceback.format_exception(error))
    invocation.emit("error", document)
    invocation.flush()


def _say(invocation: Invocation, error: BaseException, message: str) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return
    _say_usage(error)
    if invocation.verbose and not isinstance(error, click.ClickException):
        traceback.print_exception(error)
    print(f"snapferry: {message}", file=sys.stderr)


def _drop_output() -> None:
    """What is still buffered has nowhere to go; without this the interpreter would complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_usage(error: BaseException) -> None:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        print(error.ctx.get_usage(), file=sys.stderr)


def root_of(error: BaseException) -> BaseException:
    """The error that tells most: of a group, the one whose exit code goes first."""
    leaves = list(_leaves(error))
    known = [leaf for leaf in leaves if isinstance(leaf, SnapferryError)]
    worst = worst_of(known)
    return next((leaf for leaf in known if leaf.exit_code == worst), known[0] if known else leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def exit_code(error: BaseException) -> int:
    """The contract's exit code for ``error``; 1 for all that nobody foresaw."""
    if isinstance(error, (SnapferryError, Interrupted)):
        return error.exit_code
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return 130
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 14
    return 1


def message_of(error: BaseException) -> str:
    """One line for people."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        text = "a command is missing (try `snapferry --help`)"
    elif isinstance(error, click.ClickException):
        text = error.format_message().rstrip(".")
        if isinstance(error, click.UsageError) and error.ctx is not None:
            text += f" (try `{error.ctx.command_path} --help`)"
    elif isinstance(error, (KeyboardInterrupt, click.Abort)):
        text = "interrupted"
    elif isinstance(error, (SnapferryError, Interrupted)):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = f"unexpected {type(error).__name__}: {error} (run again with -v for details)"
    return " ".join(text.split())
