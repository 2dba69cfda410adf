"""Wires the commands, loading each only when it is called, and turns whatever ends one into its exit code.

Nothing heavy is imported here: ``snapferry --help`` must answer at once.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import click

from snapferry.cli.failing import Interrupted, report
from snapferry.cli.invocation import Invocation
from snapferry.cli.options import common_options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROGRAM = "snapferry"
COMPLETE_VARIABLE = "_SNAPFERRY_COMPLETE"
"""In the environment, by the script of ``completion``: a shell asks for the words that may follow."""

EXIT_CODES = {
    "0": "done",
    "1": "failed",
    "2": "usage",
    "3": "done in part",
    "4": "damage",
    "10": "no repository there",
    "11": "fenced",
    "12": "key or permission",
    "13": "no destination reachable",
    "14": "no space",
    "130/143": "interrupted",
}

# Name -> the module it is in, and what the overview says of it, so that the overview imports none of them.
COMMANDS = {
    "init": ("creating", "Create a repository on every destination, its configuration and its key."),
    "connect": ("creating", "Attach an existing repository on a blank machine."),
    "export": ("exporting", "Back up a volume to every destination at once."),
    "restore": ("restoring", "Bring a snapshot back to a file, a device or standard output."),
    "cat": ("reading", "Write a snapshot's bytes to standard output."),
    "list": ("listing", "List snapshots."),
    "show": ("listing", "Show one snapshot, its replicas and their health."),
    "diff": ("listing", "List the extents in which two snapshots differ."),
    "verify": ("verifying", "Check structure, presence and data of snapshots."),
    "repair": ("repairing", "Heal what verify finds, from good replicas."),
    "forget": ("forgetting", "Let snapshots go by rules, or by name."),
    "prune": ("forgetting", "Delete what no snapshot needs any more."),
    "rebuild": ("verifying", "Rebuild catalog, index and cache from the destinations."),
    "destination": ("destinations", "List, add, test, bring up to date, and remove destinations."),
    "key": ("keys", "List, add, remove and rotate the keys that open the repository."),
    "serve": ("serving", "Offer directories to other snapferries as destinations, over HTTP."),
    "config": ("configuration", "Show the configuration."),
    "demo": ("demo", "Back up, damage and restore a real file system image, and compare."),
    "completion": ("completing", "Print the script that completes the command line in bash, zsh or fish."),
    "man": ("manual", "Print or write the manual pages."),
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the order of a first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the module of the command of that name."""
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:
                return None
            from difflib import get_close_matches

            near = get_close_matches(cmd_name, COMMANDS, 1)
            ctx.fail(f"there is no command {cmd_name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        module = importlib.import_module(f"snapferry.cli.{COMMANDS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        if ctx.resilient_parsing:
            from snapferry.cli.completing import with_words

            return with_words(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, without importing any."""
        from click.shell_completion import CompletionItem

        named = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The overview, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}. "
    "A snapshot is named by VOLUME (its latest), VOLUME~2 (two before the latest), or its id (8 hex digits or more).",
)
@click.version_option(package_name="snapferry", message="%(prog)s %(version)s")
@common_options
def cli() -> None:
    """Back up block volumes to several stores in one pass, and bring them back from whichever answers."""


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code. Everything said about an error has been said."""
    invocation = Invocation(json_lines="--json" in arguments)
    signal.signal(signal.SIGTERM, partial(_terminate, invocation))
    try:
        code = cli.main(list(arguments), prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False, obj=invocation)
        invocation.flush()
    except BaseException as error:  # noqa: BLE001 - the one place where every error ends
        return report(invocation, error)
    return code if isinstance(code, int) else 0


def _open_standard_streams() -> None:
    """A standard stream that the caller closed is given a file (of no use for data), lest the next one opened take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one, since those below are open.
            os.open(os.devnull, (os.O_WRONLY, os.O_RDONLY, os.O_RDWR)[number])
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _terminate(invocation: Invocation, number: int, frame: object) -> NoReturn:
    """SIGTERM outside of a command's own handling: while it is being imported, or says what it did."""
    del frame
    invocation.ended_by = number
    raise Interrupted(number)


def main() -> NoReturn:
    """The entry point ``snapferry``."""
    # What is imported stays until the end; collecting garbage among it takes a tenth of the start-up.
    gc.set_threshold(100_000)
    _open_standard_streams()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
