"""Checks the ``[[destination]]`` tables."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from snapferry.config import sftp_place
from snapferry.config.http_place import is_http, split_http
from snapferry.config.places import check_url, join, nearest, not_offered, place_of, without_secrets
from snapferry.config.plugins import SCHEME, PluginConfig, plugin_of, store_of
from snapferry.config.s3_place import parse_s3
from snapferry.config.tables import check_table
from snapferry.config.units import parse_rate
from snapferry.config.values import PATIENCE, DestinationConfig, Price
from snapferry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KEYS = ("name", "url", "slow", "patience", "limit_rate", "price", "options", "weight", "operator", "region")
_SLOW = ("block", "spool", "detach")
_PRICE_KEYS = ("store_gb_month", "egress_gb", "request_1k")
_LONGEST_PATIENCE = 24 * 3600
_HEAVIEST = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAMED_URL = re.compile(rf"({_NAME.pattern})=(.+)", re.DOTALL)


def parse_destination(text: str, taken: Sequence[str] = ()) -> DestinationConfig:
    """``[NAME=]URL`` as flags give it; a bare path is made absolute. Without a name it is ``near`` (``cloud`` in a bucket, ``far`` at a
    server, the plug-in's name of ``plugin:NAME[/STORE]``), ``near-2`` and so on.
    """
    match = _NAMED_URL.fullmatch(text)
    usual = "cloud" if text.startswith("s3:") else "far" if is_http(text) else "near"
    if re.match(rf"{SCHEME}\w", text):
        usual = re.split("[:/]", text)[1]
    name, url = (match[1], match[2]) if match else (usual, text)
    if match is None and re.fullmatch(rf"{_NAME.pattern}=", text):
        raise ConfigurationError(f"destination {text!r} has a name and no URL; write NAME=URL")
    count = 1
    while match is None and name in taken:
        count += 1
        name = f"{usual}-{count}"
    where = f"destination {name!r}"
    options: dict[str, object] = {}
    if is_http(url):
        url, options = split_http(url, {}, Path.cwd(), where)
        return DestinationConfig(name, url, options=MappingProxyType(options))
    if url.startswith(SCHEME) and "/" in url:
        url, options["store"] = url.split("/", 1)
    return DestinationConfig(name, check_url(url, Path.cwd(), where), options=options)


def check_destinations(
    entries: object, file: Path, plugins: Mapping[str, PluginConfig], flags: Mapping[str, str | int] = MappingProxyType({})
) -> tuple[tuple[DestinationConfig, ...], dict[str, str]]:
    """The checked destinations, and ``destination.NAME.key`` to the origin of each value. A flag ``destination.NAME.limit_rate`` beats the file."""
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{file}: at least one [[destination]] with a name and a url is needed")
    destinations: list[DestinationConfig] = []
    origins: dict[str, str] = {}
    places: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        where = f"[[destination]] {number}"
        table = check_table(entry, where, _KEYS, file)
        name, url, slow, options = table.get("name"), table.get("url"), table.get("slow", "block"), table.get("options", {})
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(f"{file}: {where}: name must be of letters, digits, '.', '_' and '-', not {name!r}")
        where = f"destination {name!r}"
        if not isinstance(url, str) or not url:
            raise ConfigurationError(f"{file}: {where} has no url")
        if slow not in _SLOW:
            raise ConfigurationError(f"{file}: {where}: slow: {not_offered(slow, _SLOW, ())}")
        patience = table.get("patience", PATIENCE)
        if not isinstance(patience, (int, float)) or isinstance(patience, bool) or not 0 <= patience <= _LONGEST_PATIENCE:
            raise ConfigurationError(f"{file}: {where}: patience is a number of seconds from 0 to {_LONGEST_PATIENCE}, not {patience!r}")
        if not isinstance(options, dict):
            raise ConfigurationError(f"{file}: {where}: options must be a table")
        price = check_table(table.get("price", {}), f"{where}: price", _PRICE_KEYS, file)
        if any(not isinstance(v, (int, float)) or isinstance(v, bool) or v < 0 for v in price.values()):
            raise ConfigurationError(f"{file}: {where}: prices must be numbers of 0 or more")
        limit = flags.get(f"destination.{name}.limit_rate", table.get("limit_rate", 0))
        if not isinstance(limit, (str, int)) or isinstance(limit, bool):
            raise ConfigurationError(f"{file}: {where}: limit_rate: {limit!r} is not a rate")
        weight = table.get("weight", 1.0)
        if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not 0 < weight <= _HEAVIEST:
            raise ConfigurationError(f"{file}: {where}: weight is a number above 0, up to {_HEAVIEST}, not {weight!r}")
        for key in ("operator", "region"):
            if key in table and (not isinstance(table[key], str) or not table[key]):
                raise ConfigurationError(f"{file}: {where}: {key} must be text in quotes, not {table[key]!r}")
        url = check_url(url, file.parent, f"{file}: {where}")
        plugin: PluginConfig | None = None
        if url.startswith("s3:"):
            options = _absolute(options, file, "ca_bundle")
            place = parse_s3(url, options, f"{file}: {where}").url
        elif url.startswith("sftp:"):
            options = _absolute(options, file, *sftp_place.PATHS)
            place = sftp_place.parse_sftp(url, options, f"{file}: {where}").url
        elif is_http(url):
            url, options = split_http(url, options, file.parent, f"{file}: {where}")
            place = url
        elif url.startswith(SCHEME):
            plugin = plugin_of(url, options, plugins, f"{file}: {where}")
            place = url + store_of(options, f"{file}: {where}")
        else:
            place = place_of(url)
        if name in origins or any(d.name == name for d in destinations):
            raise ConfigurationError(f"{file}: two destinations are named {name!r}")
        if place in places:
            raise ConfigurationError(f"{file}: destinations {places[place]!r} and {name!r} are the same place: {without_secrets(url)}")
        places[place] = name
        rate = parse_rate(limit, f"{file}: {where}: limit_rate")
        prices = Price(**{k: float(v) for k, v in price.items()})
        destinations.append(
            DestinationConfig(
                name, url, slow, float(patience), prices, MappingProxyType(options), rate, plugin,
                float(weight), table.get("operator"), table.get("region"),
            )
        )  # fmt: skip
        origins |= {f"destination.{name}.{key}": f"file:{file}" for key in table if key != "name"}
    for flag in flags:
        if flag.startswith("destination."):
            name = flag.removeprefix("destination.").rpartition(".")[0]
            known = [d.name for d in destinations]
            if name not in known:
                raise ConfigurationError(f"no destination is named {name!r}{nearest(name, known)}; {file} has: {', '.join(known)}")
            origins[flag] = "flag"
    return tuple(destinations), origins


def _absolute(options: Mapping[str, object], file: Path, *keys: str) -> dict[str, object]:
    """The options with those of these keys, which are paths, seen from the configuration file."""
    paths = {key: options[key] for key in keys if key in options}
    return {**options, **{key: str(join(file.parent, path)) for key, path in paths.items() if isinstance(path, str) and path}}
