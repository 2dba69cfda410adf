"""The configuration as frozen values, checked already."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snapferry.config.places import nearest, without_secrets, xdg
from snapferry.config.placing import PlacementConfig
from snapferry.config.plugins import PluginConfig
from snapferry.config.units import format_size
from snapferry.errors import ConfigurationError
from snapferry.placement import Policy, Site, check_policy
from snapferry.types import GiB, MiB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from _typeshed import DataclassInstance

PATIENCE = 60.0
SPOOL_SIZE = 16 * GiB

_SECRET = re.compile(r"secret|password|passphrase|token|credential|access_key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Price:
    """What a destination costs, in one currency of the owner's choice; decides nothing where all is zero."""

    store_gb_month: float = 0.0
    egress_gb: float = 0.0
    request_1k: float = 0.0


@dataclass(frozen=True, slots=True)
class DestinationConfig:
    """One ``[[destination]]``: its name, where it is (a bare path is absolute here), and what is special about it.

    ``slow`` is ``block``, ``spool`` or ``detach``; ``patience`` the seconds that it may go on failing with what may pass by itself.
    ``limit_rate``: bytes a second to it, and as many from it, beside what ``[engine]`` allows all together; None for no limit.
    ``plugin`` is what a URL of ``plugin:NAME`` names, else None.
    ``weight``, ``operator`` and ``region`` are for placement: how much of what is spread it gets, whose it is, and where.
    """

    name: str
    url: str
    slow: Literal["block", "spool", "detach"] = "block"
    patience: float = PATIENCE
    price: Price = Price()
    options: Mapping[str, Any] = field(default_factory=dict)
    limit_rate: int | None = None
    plugin: PluginConfig | None = None
    weight: float = 1.0
    operator: str | None = None
    region: str | None = None

    @property
    def shown_url(self) -> str:
        """The URL, a password in it hidden."""
        return without_secrets(self.url)

    @property
    def site(self) -> Site:
        """As placement sees it."""
        return Site(self.name, self.weight, self.operator, self.region, **_plain(self.price))


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """``[repository]``. ``id`` is 32 hex digits, or None before the repository is made or while it is not known yet.

    One of ``key_file``, ``passphrase_file`` and ``passphrase_command`` is what opens the repository; the others are None.
    ``catalog`` is a database URL, or None for the default, which depends on the id (see ``Config.catalog_url``).
    """

    id: str | None
    key_file: Path | None
    cache_dir: Path
    state_dir: Path
    catalog: str | None = None
    passphrase_file: Path | None = None
    passphrase_command: str | None = None


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """``[engine]``. ``memory`` is the byte budget; ``check_built`` is ``full`` or ``sample``; ``codec`` is zstd, lz4 or none.

    ``limit_rate``: bytes a second to all destinations together, and as many from them; None for no limit.
    ``spool_size``: bytes that may lie in ``spool_dir`` (None: below ``repository.state_dir``) for destinations that are spooled for.
    """

    memory: int = 256 * MiB
    check_built: str = "full"
    codec: str = "zstd"
    level: int = 1
    threads: int = 1
    limit_rate: int | None = None
    spool_size: int = SPOOL_SIZE
    spool_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One value as ``config show`` prints it, secrets hidden, and where it came from."""

    key: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, checked configuration.

    Attributes:
        path: the file it was read from, or will be written to; absolute.
        origins: ``section.key`` to ``file:PATH``, ``environment NAME``, ``flag`` or ``default``.
    """

    path: Path
    repository: RepositoryConfig
    destinations: tuple[DestinationConfig, ...]
    placement: PlacementConfig
    engine: EngineConfig
    origins: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[PluginConfig, ...] = ()

    def destination(self, name: str) -> DestinationConfig:
        """The destination of that name; ``ConfigurationError`` naming the nearest if there is none."""
        for destination in self.destinations:
            if destination.name == name:
                return destination
        names = [destination.name for destination in self.destinations]
        raise ConfigurationError(f"no destination is named {name!r}{nearest(name, names)}; {self.path} has: {', '.join(names)}")

    def names_of(self, wanted: Iterable[str] | None) -> tuple[str, ...]:
        """Names of destinations in the order of the configuration, all if None; ``ConfigurationError`` for an unknown one."""
        chosen = None if wanted is None else {self.destination(name).name for name in wanted}
        return tuple(destination.name for destination in self.destinations if chosen is None or destination.name in chosen)

    def sites(self, names: Sequence[str]) -> tuple[Site, ...]:
        """The destinations of these names, in the order of the configuration, as placement sees them."""
        return tuple(destination.site for destination in self.destinations if destination.name in names)

    def placing(self, names: Sequence[str], volume: str, placement: str | None, min_copies: int | None) -> tuple[Policy, int]:
        """How a volume is placed on the destinations of these names, and how many copies must be acknowledged: as asked for, else as configured.

        Arguments:
            placement: a policy as ``[placement]`` writes it.

        Raises:
            ConfigurationError: it is none, or cannot be had there, or makes fewer copies than must be acknowledged.
        """
        policy, copies = self.placement.of_volume(volume, placement)
        copies = copies if min_copies is None else min_copies
        if copies < 1:
            raise ConfigurationError(f"min_copies is {copies}; at least one copy must be acknowledged")
        check_policy(policy, self.sites(names), copies)
        return policy, copies

    def with_id(self, repository_id: str) -> Config:
        """The same configuration for the repository of that id (32 hex digits)."""
        return dataclasses.replace(self, repository=dataclasses.replace(self.repository, id=repository_id))

    def rates(self) -> dict[str, float | None]:
        """By destination its own limit of bytes a second, or None."""
        return {destination.name: destination.limit_rate for destination in self.destinations}

    def catalog_url(self, repository_id: str | None = None) -> str:
        """The catalog's database URL for this repository: as configured, else an SQLite file of its own below XDG's data home."""
        if self.repository.catalog is not None:
            return self.repository.catalog
        return f"sqlite:///{xdg('XDG_DATA_HOME', '.local/share', os.environ)}/catalog-{repository_id or self.repository.id or 'unknown'}.sqlite"

    @property
    def spool_dir(self) -> Path:
        """Where what is spooled lies, unless said otherwise below the state of this machine."""
        return self.engine.spool_dir or self.repository.state_dir / "spool"

    def settings(self) -> list[Setting]:
        """Every value with its origin, in the order of the file, secrets hidden."""
        values: dict[str, object] = {}
        for section in ("repository", "placement", "engine"):
            for key, value in _plain(getattr(self, section)).items():
                values[f"{section}.{key}"] = str(value) if isinstance(value, Path) else value
        tables: dict[str, Sequence[DataclassInstance]] = {"rule": self.placement.rules, "volume": self.placement.volumes}
        for name, items in tables.items():
            del values[f"placement.{name}s"]
            for number, item in enumerate(items, 1):
                values[f"placement.{name}.{number}"] = {at: _shown(said) for at, said in _plain(item).items() if said}
        if self.placement.copies is None:
            del values["placement.copies"]
        for key in ("key_file", "passphrase_file", "passphrase_command"):
            if values[f"repository.{key}"] is None:
                del values[f"repository.{key}"]
        values["repository.catalog"] = self.catalog_url()
        values["engine.memory"] = format_size(self.engine.memory)
        values["engine.spool_size"] = format_size(self.engine.spool_size)
        values["engine.spool_dir"] = str(self.spool_dir)
        values["engine.limit_rate"] = _rate(self.engine.limit_rate)
        for destination in self.destinations:
            at = f"destination.{destination.name}"
            values[f"{at}.url"] = destination.shown_url
            values[f"{at}.slow"] = destination.slow
            values[f"{at}.patience"] = destination.patience
            values[f"{at}.limit_rate"] = _rate(destination.limit_rate)
            values[f"{at}.price"] = _plain(destination.price)
            for key in ("weight", "operator", "region"):
                if f"{at}.{key}" in self.origins:
                    values[f"{at}.{key}"] = getattr(destination, key)
            values[f"{at}.options"] = {k: "(hidden)" if _SECRET.search(k) else v for k, v in destination.options.items()}
        for plugin in self.plugins:
            values |= {f"plugin.{plugin.name}.{key}": value for key, value in plugin.shown().items()}
        return [Setting(key, value, self.origins.get(key, "default")) for key, value in values.items()]


def _rate(rate: int | None) -> str:
    return f"{format_size(rate)}/s" if rate else "none"


def _shown(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _plain(value: DataclassInstance) -> dict[str, Any]:
    return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
