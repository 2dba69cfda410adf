"""TOML, environment and flags in, a checked ``Config`` out."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from snapferry.config.destinations import check_destinations
from snapferry.config.layers import SECTIONS, Layers, check_environment
from snapferry.config.places import KEY_FILE_NAME, find_config, join, not_offered, xdg
from snapferry.config.placing import PlacementConfig, check_number, check_rules, check_volumes
from snapferry.config.plugins import PluginConfig, check_commands_owner, check_plugins
from snapferry.config.service import SECTIONS as SERVICE_SECTIONS
from snapferry.config.tables import check_table, read_toml
from snapferry.config.values import SPOOL_SIZE, Config, DestinationConfig, EngineConfig, RepositoryConfig
from snapferry.errors import ConfigurationError
from snapferry.types import MiB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIN_MEMORY = 64 * MiB


def load_config(
    path: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str | int] = MappingProxyType({}),
) -> Config:
    """Reads and checks the configuration.

    Args:
        path: the file; without it the usual places are searched (``find_config``).
        environment: instead of ``os.environ``; ``SNAPFERRY_<SECTION>_<KEY>`` overrides the file.
        flags: ``section.key`` or ``destination.NAME.limit_rate`` to value; they override both.

    Raises:
        ConfigurationError: an unknown key (the nearest known one is named), or a value that is not usable.
        NotARepository: there is no configuration file.
    """
    environment = os.environ if environment is None else environment
    file = find_config(path, environment)
    document, owner = read_toml(file)
    check_commands_owner(document, file, owner)
    return _build(document, file, environment, flags)


def check_document(document: Mapping[str, Any], file: Path) -> Config:
    """What ``document`` says if it stands in ``file``, the environment over it. Raises as ``load_config``."""
    return _build(document, file, os.environ, {})


def _by_name(tables: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(table["name"], table) for table in tables]


def new_config(
    path: str | os.PathLike[str],
    destinations: Sequence[DestinationConfig],
    *,
    key_file: str | os.PathLike[str] | None = None,
    passphrase_file: str | os.PathLike[str] | None = None,
    repository_id: str | None = None,
    min_copies: int = 1,
    plugins: Sequence[PluginConfig] = (),
    environment: Mapping[str, str] | None = None,
) -> Config:
    """A configuration with default values that is in no file yet (``write_config`` puts it at ``path``).

    ``key_file`` is by default ``snapferry.key`` beside ``path``, unless there is a ``passphrase_file``. Checked as if it had been read.
    ``plugins`` are those that destinations of ``plugin:NAME`` name.
    """
    if key_file and passphrase_file:
        raise ConfigurationError("either a key file or a passphrase file opens a repository: give one of them")
    repository = (
        {"passphrase_file": os.path.abspath(passphrase_file)}
        if passphrase_file
        else {"key_file": os.path.abspath(key_file) if key_file else KEY_FILE_NAME}
    )
    if repository_id is not None:
        repository["id"] = repository_id
    entries = [
        {"name": d.name, "url": d.url, "slow": d.slow, "patience": d.patience, "options": dict(d.options), "limit_rate": d.limit_rate or 0}
        for d in destinations
    ]
    document: dict[str, Any] = {"repository": repository, "destination": entries, "placement": {"min_copies": min_copies}}
    document |= {"plugin": [{"name": plugin.name, **plugin.table()} for plugin in plugins]}
    return _build(document, Path(path).absolute(), os.environ if environment is None else environment, {})


def _opener(repository: Layers) -> str:
    """The key that says what opens the repository. One of a higher layer (flag, environment, file) stands for those of the lower ones."""
    given = {key: repository.rank(key) for key in ("key_file", "passphrase_file", "passphrase_command") if repository.raw(key) is not None}
    highest = [key for key, rank in given.items() if rank == min(given.values())]
    if len(highest) > 1:
        raise repository.fail(highest[-1], f"{highest[0]} is given too; one of them opens the repository: give one")
    for key in given.keys() - set(highest):
        del repository.origins[f"repository.{key}"]
    return highest[0] if highest else "key_file"


def _placement(layers: Layers, names: Sequence[str]) -> PlacementConfig:
    usual = PlacementConfig()
    numbers = {key: layers.checked(key, getattr(usual, key), check_number) for key in SECTIONS["placement"] if key != "policy"}
    rules = check_rules(layers.table.get("rule", []), names, layers.file)
    placement = PlacementConfig(layers.text("policy") or usual.policy, rules=rules, **numbers)
    try:
        placement.parse(placement.policy)
    except ConfigurationError as error:
        raise layers.fail("policy", str(error)) from error
    volumes = check_volumes(layers.table.get("volume", []), placement, layers.file)
    for key, tables in (("rule", rules), ("volume", volumes)):
        layers.origins |= {f"placement.{key}.{number}": f"file:{layers.file}" for number in range(1, len(tables) + 1)}
    # A policy that a flag or the environment asks for is meant for every volume.
    asked = layers.raw("policy") is not None and layers.rank("policy") < 2
    return replace(placement, volumes=() if asked else volumes)


def _build(document: Mapping[str, Any], file: Path, environment: Mapping[str, str], flags: Mapping[str, str | int]) -> Config:
    check_table(document, "the file", (*SECTIONS, "destination", "plugin", *SERVICE_SECTIONS), file)
    check_environment(environment)
    sections = {name: Layers(name, document.get(name, {}), file, environment, flags) for name in SECTIONS}
    repository, placement, engine = sections["repository"], sections["placement"], sections["engine"]
    opener = _opener(repository)
    identity = repository.text("id")
    if identity and not re.fullmatch(r"[0-9a-f]{32}", identity):
        raise repository.fail("id", f"{identity!r} is not a repository's id (32 hex digits)")
    catalog = repository.text("catalog")
    if catalog is not None:
        scheme, _, rest = catalog.partition(":///")
        if scheme != "sqlite" or not rest:
            raise repository.fail("catalog", not_offered(catalog.split(":")[0], ("sqlite",), ("postgresql",)) + " (write sqlite:///PATH)")
        catalog = f"sqlite:///{join(file.parent, rest)}"
    plugins = check_plugins(document.get("plugin", []), file)
    destinations, origins = check_destinations(document.get("destination", []), file, plugins, flags)
    origins |= {f"plugin.{name}.{key}": f"file:{file}" for name, table in _by_name(document.get("plugin", [])) for key in table}
    config = Config(
        path=file,
        repository=RepositoryConfig(
            id=identity or None,
            key_file=repository.path("key_file", file.parent / KEY_FILE_NAME) if opener == "key_file" else None,
            cache_dir=repository.path("cache_dir", xdg("XDG_CACHE_HOME", ".cache", environment)),
            state_dir=repository.path("state_dir", xdg("XDG_STATE_HOME", ".local/state", environment)),
            catalog=catalog,
            passphrase_file=repository.path("passphrase_file", file.parent) if opener == "passphrase_file" else None,
            passphrase_command=repository.text("passphrase_command") if opener == "passphrase_command" else None,
        ),
        destinations=destinations,
        placement=_placement(placement, [destination.name for destination in destinations]),
        engine=EngineConfig(
            memory=engine.size("memory", 256 * MiB, MIN_MEMORY),
            check_built=engine.choice("check_built", "full", ("full", "sample")),
            codec=engine.choice("codec", "zstd", ("zstd", "lz4", "none")),
            level=engine.integer("level", 1, -7, 22),
            threads=engine.integer("threads", os.cpu_count() or 1, 1, 1 << 10),
            limit_rate=engine.rate("limit_rate"),
            spool_size=engine.size("spool_size", SPOOL_SIZE, 0),
            spool_dir=engine.path("spool_dir", file.parent) if engine.raw("spool_dir") is not None else None,
        ),
        origins={key: origin for layers in sections.values() for key, origin in layers.origins.items()} | origins,
        plugins=tuple(plugins.values()),
    )
    if config.placement.min_copies > len(destinations):
        raise placement.fail(
            "min_copies", f"{config.placement.min_copies} copies are asked for, but there are only {len(destinations)} destinations"
        )
    return config
