"""Completion in the shell: ``completion`` prints the script, which asks this program again at each tab.

What a word may be follows from what the parameter is called in the help, so that every command completes. Names of volumes and snapshots
are those that the local catalog knows: a tab asks no destination.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem, get_completion_class

from snapferry.cli.invocation import Invocation
from snapferry.cli.options import common_options

_MOST_IDS = 100
_ID_BEGUN = re.compile(r"[0-9a-f]{2,32}")

Words = Callable[[click.Context, str], list[CompletionItem]]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common_options
@click.pass_obj
def completion_command(invocation: Invocation, shell: str) -> int:
    """Print the script that completes snapferry's command line in SHELL.

    It completes commands, options, files, the destinations of the configuration, and the volumes and snapshots that this machine knows.
    """
    from snapferry.cli.main import COMPLETE_VARIABLE, PROGRAM, cli

    completion = get_completion_class(shell)
    assert completion is not None
    script = completion(cli, {}, PROGRAM, COMPLETE_VARIABLE)
    invocation.write((script.source_template % script.source_vars()).rstrip("\n"))
    return 0


def with_words(command: click.Command) -> click.Command:
    """``command``, whose parameters know which words they may be. For completion alone: it is changed."""
    for parameter in command.params:
        words = _words_of(parameter)
        if words is not None and isinstance(parameter.type, click.types.StringParamType):
            parameter.type = _Known(words)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_words(below)
    return command


class _Known(click.types.StringParamType):
    """Text, some of which is known."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words that begin so. Whatever goes wrong, a tab only finds nothing."""
        del param
        try:
            found = self._words(ctx, incomplete)
        except Exception:  # noqa: BLE001 - no configuration, or a broken one: the command itself will say so
            return []
        return [item for item in found if item.type != "plain" or item.value.startswith(incomplete)]


def _words_of(parameter: click.Parameter) -> Words | None:
    name, shown = parameter.name or "", parameter.metavar or ""
    if "SNAPSHOT" in shown or name.startswith("snapshot"):
        return _snapshots
    if name == "volume":
        return _volumes
    if shown.strip("[].") == "NAME":
        return _destinations
    if shown == "auto|none|ID":
        return _parents
    if shown == "DIR" or shown.endswith("URL"):
        return _directories
    if shown == "FILE" or name in ("source", "sources", "target"):
        return _files
    return None


def _destinations(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    del incomplete
    invocation = ctx.find_object(Invocation) or Invocation()
    return [CompletionItem(destination.name, help=destination.url) for destination in invocation.load_config().destinations]


def _volumes(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    del incomplete
    from snapferry.catalog.names import volumes

    return [CompletionItem(name) for name in volumes(*_catalog(ctx))]


def _snapshots(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    from snapferry.catalog.names import snapshots

    found = snapshots(*_catalog(ctx), incomplete, _MOST_IDS) if _ID_BEGUN.fullmatch(incomplete) else []
    return [*_volumes(ctx, incomplete), *(CompletionItem(name) for name in found)]


def _parents(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    from snapferry.catalog.names import snapshots

    found = snapshots(*_catalog(ctx), incomplete, _MOST_IDS) if _ID_BEGUN.fullmatch(incomplete) else []
    return [CompletionItem(name) for name in ("auto", "none", *found)]


def _catalog(ctx: click.Context) -> tuple[str, str]:
    config = (ctx.find_object(Invocation) or Invocation()).load_config()
    return config.catalog_url(), config.repository.id or ""


def _files(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    del ctx
    return [CompletionItem(incomplete, type="file")]


def _directories(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    del ctx
    return [CompletionItem(incomplete, type="dir")]
