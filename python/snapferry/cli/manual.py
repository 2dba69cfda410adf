"""``man``: the manual pages, made from the commands themselves and the texts beside (``manual_texts``).

The language is that of man(7), which every man program reads.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.main import COMMANDS, EXIT_CODES, PROGRAM, cli
from snapferry.cli.manual_texts import DATE, DESCRIPTION, ENVIRONMENT, EXAMPLES, FILES, MEANINGS, NAMES
from snapferry.cli.options import common_options

_COMMON = ("config_path", "json_lines", "quiet", "verbose", "help")


@click.command("man")
@click.argument("command", required=False)
@click.option("--directory", metavar="DIR", help="Write all pages into this directory.")
@common_options
@click.pass_obj
def man_command(invocation: Invocation, command: str | None, directory: str | None) -> int:
    """Print the manual page of COMMAND (by default the one of snapferry), or write all pages.

    To read one: snapferry man export | man -l -
    """
    if directory is not None:
        if command is not None:
            raise click.UsageError("either COMMAND or --directory, not both")
        os.makedirs(directory, exist_ok=True)
        for name, text in pages().items():
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(text)
        return 0
    if command is not None and command not in COMMANDS:
        raise click.BadParameter(f"there is no command {command!r}", param_hint="COMMAND")
    invocation.write(pages([command])[_file(command)].rstrip("\n"))
    return 0


def pages(names: list[str | None] | None = None) -> dict[str, str]:
    """File name to text of the pages of these commands (None: of the program itself); of all by default."""
    return {_file(name): _page(name) for name in names or [None, *COMMANDS]}


def _file(name: str | None) -> str:
    return f"{PROGRAM}-{name}.1" if name else f"{PROGRAM}.1"


def _page(name: str | None) -> str:
    top = click.Context(cli, info_name=PROGRAM, obj=Invocation(), **cli.context_settings)
    if name is None:
        lines = [*_head(PROGRAM, str(cli.help)), *_synopsis(top), *_about(DESCRIPTION), *_options(top), *_commands()]
    else:
        command = cli.get_command(top, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=top)
        lines = [*_head(f"{PROGRAM}-{name}", COMMANDS[name][1]), *_synopsis(context), *_about(command.help or ""), *_options(context)]
        lines += _jobs_file() if name == "export" else ()
    return "\n".join([*lines, *_exit_status(), *_files(), *_environment(), *_examples(name), *_see_also(name)]) + "\n"


def _head(title: str, text: str) -> Iterator[str]:
    from snapferry import __version__

    short = text.splitlines()[0].rstrip(".")
    yield '.\\" Made by `make man`; do not edit.'
    yield f'.TH {_plain(title.upper())} 1 {DATE} "{PROGRAM} {__version__}" "User Commands"'
    yield from (".SH NAME", f"{_plain(title)} \\- {_plain(short[:1].lower() + short[1:])}")


def _synopsis(context: click.Context) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    command = context.command
    below = [command.commands[name] for name in command.list_commands(context)] if _has_own(command) else [command]  # type: ignore[attr-defined]
    for number, one in enumerate(below):
        own = context if one is command else click.Context(one, info_name=one.name, parent=context)
        if number:
            yield ".br"
        yield f".B {_plain(own.command_path)}"
        yield _plain(" ".join(one.collect_usage_pieces(own)))


def _about(text: str) -> Iterator[str]:
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text))):
        if number:
            yield ".PP"
        yield _line(" ".join(paragraph.split()))


def _options(context: click.Context) -> Iterator[str]:
    yield ".SH OPTIONS"
    command = context.command
    if _has_own(command):
        for name in command.list_commands(context):  # type: ignore[attr-defined]
            one = command.commands[name]  # type: ignore[attr-defined]
            yield f".SS {_plain(f'{command.name} {name}')}"
            yield _line(" ".join((one.help or "").split()))
            yield from _records(click.Context(one, info_name=name, parent=context), (False,))
        yield ".SS All of them"
    yield from _records(context, (False, True))


def _records(context: click.Context, kinds: tuple[bool, ...]) -> Iterator[str]:
    """The command's own options (False), and those that every command takes (True)."""
    for common in kinds:
        for parameter in context.command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and record[1] and (parameter.name in _COMMON) is common:
                yield from _entry(*record)


def _jobs_file() -> Iterator[str]:
    """As the module that reads it describes it."""
    from snapferry.config import jobs

    yield ".SH JOBS FILE"
    first, _, example = inspect.cleandoc(jobs.__doc__ or "").partition("\n\n")
    yield from (_line(" ".join(first.split())), ".PP", ".nf", *map(_line, inspect.cleandoc(example).splitlines()), ".fi")


def _commands() -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, (_, text) in COMMANDS.items():
        yield from (".TP", f".BR {_plain(f'{PROGRAM}-{name}')} (1)", _line(text))


def _exit_status() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES.items():
        yield from _entry(code, MEANINGS.get(code, f"{meaning[:1].upper()}{meaning[1:]}."))


def _files() -> Iterator[str]:
    yield ".SH FILES"
    for path, text in FILES:
        yield from (".TP", f".I {_plain(path)}", _line(text))


def _environment() -> Iterator[str]:
    from snapferry.config.layers import SECTIONS

    yield ".SH ENVIRONMENT"
    for name, text in ENVIRONMENT:
        yield from _entry(name, text)
    for section, keys in SECTIONS.items():
        names = ", ".join(f"SNAPFERRY_{section}_{key}".upper() for key in keys)
        yield from _entry(f"SNAPFERRY_{section.upper()}_*", f"Over the keys of [{section}] in the configuration: {names}.")


def _examples(name: str | None) -> Iterator[str]:
    yield ".SH EXAMPLES"
    for number, (text, command) in enumerate(EXAMPLES.get(name or "", ((f"What {PROGRAM} {name} takes:", f"{PROGRAM} {name} --help"),))):
        if number:
            yield ".PP"
        yield from (_line(text), ".PP", ".RS 4", ".nf", _line(command), ".fi", ".RE")


def _see_also(name: str | None) -> Iterator[str]:
    yield ".SH SEE ALSO"
    others = [f"{PROGRAM}-{other}" for other in COMMANDS if other != name]
    if name is None:
        yield from (_line(NAMES), ".PP")
    else:
        others.insert(0, PROGRAM)
    for number, other in enumerate(others, 1):
        yield f".BR {_plain(other)} (1){',' if number < len(others) else ''}"


def _entry(term: str, text: str) -> tuple[str, str, str]:
    return ".TP", f".B {_plain(term)}", _line(" ".join(text.split()))


def _has_own(command: click.Command) -> bool:
    """Whether it has commands of its own, and is not the program."""
    return isinstance(command, click.Group) and command is not cli


def _plain(text: str) -> str:
    """Words as they are: a hyphen is typed as one, a backslash is none of roff's."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def _line(text: str) -> str:
    """A line of text, which must not look like a request."""
    text = _plain(text)
    return f"\\&{text}" if text[:1] in (".", "'") else text
