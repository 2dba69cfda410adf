"""Sizes and rates as people write them: IEC units."""

from __future__ import annotations

import re

from snapferry.errors import ConfigurationError
from snapferry.types import GiB, KiB, MiB

_UNITS = {"": 1, "B": 1, "KIB": KiB, "MIB": MiB, "GIB": GiB, "TIB": GiB << 10, "PIB": GiB << 20}

_LEAST_RATE = 1024


def parse_size(text: str | int, what: str = "size") -> int:
    """Bytes of ``65536``, ``64KiB``, ``1.5 GiB``; ``ConfigurationError`` for anything else."""
    match = re.fullmatch(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]*)\s*", str(text)) if not isinstance(text, bool) else None
    if match is None or match[2].upper() not in _UNITS:
        raise ConfigurationError(f"{what}: {text!r} is not a size; write bytes or IEC units, as in 65536, 64KiB or 1GiB")
    number, unit = match[1], _UNITS[match[2].upper()]
    size = int(number) * unit if "." not in number else int(float(number) * unit)
    if size >= 1 << 63:
        raise ConfigurationError(f"{what}: {text!r} is larger than any volume can be")
    return size


def parse_rate(text: str | int, what: str = "rate") -> int | None:
    """Bytes a second of ``50MiB`` or ``50MiB/s``; None, no limit, for 0. ``ConfigurationError`` for anything else."""
    try:
        rate = parse_size(re.sub(r"\s*/\s*s\s*$", "", text) if isinstance(text, str) else text, what)
    except ConfigurationError:
        raise ConfigurationError(
            f"{what}: {text!r} is not a rate; write bytes or IEC units a second, as in 50MiB, or 0 for no limit"
        ) from None
    if 0 < rate < _LEAST_RATE:
        raise ConfigurationError(f"{what}: {text} is {rate} bytes a second; give it a unit, as in 50MiB")
    return rate or None


def format_size(size: float) -> str:
    """``size`` bytes in the largest IEC unit below it: exact where it divides evenly, else with one decimal."""
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while abs(size) >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    unit = units[0]
    return f"{size:.0f}{unit}" if size == int(size) else f"{size:.1f}{unit}"
