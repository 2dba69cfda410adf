"""The options that every command takes, before or after its name, and the types of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from snapferry.cli.invocation import Invocation

LimitRates = tuple[tuple[str | None, int], ...]
"""``--limit-rate`` as commands get it: name or None, and bytes a second."""

F = TypeVar("F", bound=Callable[..., Any])


def common_options(function: F) -> F:
    """Adds ``--config --json -q -v``; they are noted in the ``Invocation`` and not passed on."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_note, help="Say more; errors come with a traceback."),
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_note, help="Say nothing but data, warnings and errors."),
        click.option("--json", "json_lines", is_flag=True, expose_value=False, callback=_note, help="JSON, one object a line."),
        click.option("--config", "config_path", metavar="FILE", expose_value=False, callback=_note, help="The configuration file."),
    ):
        function = option(function)
    return function


def limit_rate_option(function: F) -> F:
    """Adds ``--limit-rate``, the flags over ``engine.limit_rate`` and the destinations' own."""
    text = (
        "At most so many bytes a second to all destinations together, and from them, as in 50MiB; with NAME= to and from that one;"
        " 0 is no limit. May be given more than once."
    )
    return click.option("--limit-rate", "limit_rates", type=NamedRate(), multiple=True, metavar="[NAME=]RATE", help=text)(function)


def prefer_option(function: F) -> F:
    """Adds ``--prefer``."""
    text = "fast: from all that hold it, whichever brings it first; cheap: from the cheapest by its configured price, the others only for what that one cannot supply."
    return click.option("--prefer", type=click.Choice(["fast", "cheap"]), default="fast", help=text)(function)


def rate_flags(limit_rates: LimitRates) -> dict[str, str | int]:
    """The flags for ``Invocation.load_config``."""
    return {"engine.limit_rate" if name is None else f"destination.{name}.limit_rate": rate for name, rate in limit_rates}


def _note(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    invocation = ctx.find_object(Invocation)
    if invocation is None or not value:
        return
    setattr(invocation, str(parameter.name), value)
    if invocation.quiet and invocation.verbose:
        raise click.UsageError("-q and -v exclude each other", ctx)


if TYPE_CHECKING:
    _Integer = click.ParamType[int]
    _Extent = click.ParamType[tuple[int, int | None]]
    _Number = click.ParamType[float]
    _NamedRate = click.ParamType[tuple[str | None, int]]
else:  # older versions of click have no parameter here
    _Integer = _Extent = _Number = _NamedRate = click.ParamType


class Size(_Integer):
    """Bytes, or IEC units as in 64KiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text to bytes."""
        from snapferry.config import parse_size
        from snapferry.errors import ConfigurationError

        try:
            return parse_size(value)
        except ConfigurationError as error:
            self.fail(str(error).removeprefix("size: "), param, ctx)


class BlockSize(Size):
    """A power of two from 64 KiB to 4 MiB."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text to bytes."""
        from snapferry.types import MAX_BLOCK_SIZE, MIN_BLOCK_SIZE

        size = super().convert(value, param, ctx)
        if not MIN_BLOCK_SIZE <= size <= MAX_BLOCK_SIZE or size & (size - 1):
            self.fail(f"{value!r} is not a power of two from 64KiB to 4MiB", param, ctx)
        return size


class Rate(_Integer):
    """Bytes a second, in IEC units as in 50MiB; 0 is no limit, and stays 0."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text to bytes a second."""
        from snapferry.config import parse_rate
        from snapferry.errors import ConfigurationError

        try:
            return parse_rate(value) or 0
        except ConfigurationError as error:
            self.fail(str(error).removeprefix("rate: "), param, ctx)


class NamedRate(_NamedRate):
    """``RATE`` of all destinations together, or ``NAME=RATE`` of one."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, int]:
        """Text to (name or None, bytes a second)."""
        if isinstance(value, tuple):
            return value
        name, equals, rate = str(value).rpartition("=")
        if equals and not name:
            self.fail(f"{value!r} names no destination; write NAME=RATE, as in cloud=20MiB", param, ctx)
        return name or None, Rate().convert(rate, param, ctx)


class Range(_Extent):
    """``A-B``: bytes from A up to, not including, B; an empty B is the end."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        """Text to (start, end or None)."""
        if isinstance(value, tuple):
            return value
        first, dash, last = str(value).partition("-")
        if not dash:
            self.fail(f"{value!r} is not a range; write A-B, as in 0-1MiB or 4096-", param, ctx)
        size = Size()
        start = size.convert(first, param, ctx) if first.strip() else 0
        end = size.convert(last, param, ctx) if last.strip() else None
        if end is not None and end < start:
            self.fail(f"{value!r} ends before it begins", param, ctx)
        return start, end


class Percentage(_Number):
    """0 to 100, with or without a percent sign."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Text to a number from 0 to 100."""
        try:
            number = float(str(value).removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number <= 100:
            self.fail(f"{value!r} is not a percentage from 0 to 100", param, ctx)
        return number
