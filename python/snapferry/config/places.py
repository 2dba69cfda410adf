"""Where things are: the configuration file itself, destinations' URLs, XDG directories."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from snapferry.errors import ConfigurationError, NotARepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILE_NAME = "snapferry.toml"
KEY_FILE_NAME = "snapferry.key"
PLUGIN_GROUP = "snapferry.destinations"
_OFFERED_SCHEMES = ("file", "memory", "plugin", "s3", "sftp", "http", "https")
_LATER_SCHEMES = ("gs", "az")


def without_secrets(url: str) -> str:
    """``url`` with a password in it hidden."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:(hidden)@", url)


def find_config(path: str | os.PathLike[str] | None = None, environment: Mapping[str, str] | None = None) -> Path:
    """The configuration file: ``path``, ``$SNAPFERRY_CONFIG``, ``./snapferry.toml``, XDG's, ``/etc``'s; ``NotARepository`` if there is none."""
    environment = os.environ if environment is None else environment
    named = path or environment.get("SNAPFERRY_CONFIG")
    if named:
        file = Path(named).absolute()
        if not file.is_file():
            raise NotARepository(f"no configuration file at {file}; `snapferry init` or `snapferry connect` writes one")
        return file
    places = [Path(FILE_NAME).absolute(), xdg("XDG_CONFIG_HOME", ".config", environment) / FILE_NAME, Path("/etc/snapferry") / FILE_NAME]
    for file in places:
        if file.is_file():
            return file
    raise NotARepository(
        f"no configuration file: none of {', '.join(map(str, places))} exists; name one with --config, or make one with `snapferry init` or `snapferry connect`"
    )


def new_config_path(path: str | os.PathLike[str] | None = None, environment: Mapping[str, str] | None = None) -> Path:
    """Where ``init`` and ``connect`` write: ``path``, ``$SNAPFERRY_CONFIG``, ``./snapferry.toml``."""
    environment = os.environ if environment is None else environment
    return Path(path or environment.get("SNAPFERRY_CONFIG") or FILE_NAME).absolute()


def xdg(variable: str, fallback: str, environment: Mapping[str, str]) -> Path:
    """The directory of snapferry below an XDG base directory; a relative value of the variable is ignored, as the specification says."""
    base = environment.get(variable, "")
    root = Path(base) if os.path.isabs(base) else Path(environment.get("HOME") or os.path.expanduser("~")) / fallback
    return root / "snapferry"


def join(base: Path, path: str) -> Path:
    """``path`` (``~`` is the home directory) seen from the directory ``base``, normalized."""
    return Path(os.path.normpath(base / os.path.expanduser(path)))


def nearest(word: object, known: Sequence[str]) -> str:
    """`` (did you mean 'x'?)``, or nothing where no known word is near."""
    import difflib

    found = difflib.get_close_matches(str(word), known, 1, 0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def not_offered(value: object, offered: Sequence[str], later: Sequence[str] = ()) -> str:
    """Why ``value`` is refused: a known word that comes in a later version, or an unknown one."""
    if value in later:
        return f"{value!r} is not offered by this version yet; it offers {', '.join(offered)}"
    return f"{value!r} is unknown{nearest(value, (*offered, *later))}; this version offers {', '.join(offered)}"


def check_url(url: str, base: Path, where: str) -> str:
    """``url`` if this version can open it; a bare path becomes absolute, seen from ``base``."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
    if scheme is None:
        return str(join(base, url))
    if scheme[1] == "plugin" and not re.fullmatch(r"plugin:[A-Za-z0-9][A-Za-z0-9._-]*", url):
        raise ConfigurationError(f"{where}: url {url!r} should read plugin:NAME, of a [[plugin]]")
    if scheme[1] not in _OFFERED_SCHEMES and scheme[1] not in installed_schemes():
        reason = not_offered(scheme[1], ("bare paths", *_OFFERED_SCHEMES, *installed_schemes()), _LATER_SCHEMES)
        raise ConfigurationError(f"{where}: url {without_secrets(url)!r}: scheme {reason}")
    parts = urlsplit(url)
    if scheme[1] == "file" and (parts.netloc not in ("", "localhost") or not parts.path.startswith("/")):
        raise ConfigurationError(f"{where}: url {url!r}: a file URL has three slashes and an absolute path, as in file:///srv/backup")
    return url


def installed_schemes() -> tuple[str, ...]:
    """The schemes of destinations that installed Python packages offer (entry points of ``snapferry.destinations``). None is loaded."""
    from importlib.metadata import entry_points

    return tuple(sorted(entry.name for entry in entry_points(group=PLUGIN_GROUP)))


def place_of(url: str) -> str:
    """What two URLs of the same place have in common, as far as it shows without opening it."""
    if url.startswith("file:"):
        return os.path.realpath(unquote(urlsplit(url).path))
    return os.path.realpath(url) if url.startswith("/") else url.rstrip("/")
