"""The values of a destination's options: checked words, among its options or in its URL's query."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from snapferry.errors import ConfigurationError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def with_query(url: str, options: Mapping[str, object], where: str) -> dict[str, object]:
    """The options, and those that stand in the URL's query instead, as ``?endpoint=…&region=…``. ``ConfigurationError``: one is given twice."""
    given = dict(options)
    for key, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if key in given:
            raise ConfigurationError(f"{where}: {key} is given twice, in the URL or among the options")
        given[key] = value
    return given


def without_query(url: str) -> str:
    """``url`` up to its ``?``: what may be shown of one that was refused."""
    return url.split("?", 1)[0]


def text_of(given: Mapping[str, object], key: str, where: str) -> str | None:
    """Text that is not empty, or None."""
    value = given.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{where}: {key}: {value!r} must be text in quotes")
    return value


def truth_of(given: Mapping[str, object], key: str, where: str) -> bool | None:
    """True or false, also in words; or None."""
    value = given.get(key)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in (*_TRUE, *_FALSE):
        return value.lower() in _TRUE
    raise ConfigurationError(f"{where}: {key}: {value!r} must be true or false")


def seconds_of(given: Mapping[str, object], key: str, where: str) -> float:
    """Seconds, 30 if nothing is said."""
    value = given.get(key, 30.0)
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0.0
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ConfigurationError(f"{where}: {key}: {value!r} must be seconds, from 0.1 to 3600")
    return seconds
