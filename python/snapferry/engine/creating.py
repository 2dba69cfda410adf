"""Making a repository, and getting to know one that is there."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType

from snapferry.config import Config, DestinationConfig, write_config
from snapferry.destination import learn_options, prepare_destination
from snapferry.engine.membership import Membership, open_all
from snapferry.engine.secret import read_or_create_secret
from snapferry.errors import AccessDenied, CatalogError, DestinationError, SnapferryError
from snapferry.repository.creating import create_repository as create_on
from snapferry.repository.failures import combined
from snapferry.transport import Limits, ReplicaBoard

logger = logging.getLogger(__name__)


async def create_repository(config: Config) -> Config:
    """Makes a repository on all destinations of ``config``, and writes the configuration to ``config.path``.

    The key file is made if there is none; a passphrase must be there. An interrupted call can be repeated.

    Returns:
        The configuration with the new repository's id.

    Raises:
        SnapferryError: the configuration file or a repository exists already. AccessDenied: the key file or passphrase cannot be used.
        DestinationError: a destination cannot be made or written; then nothing counts.
    """
    _refuse_existing(config)
    async with AsyncExitStack() as stack:
        config = await _learned(config, prepare)
        board = ReplicaBoard([destination.name for destination in config.destinations])
        opened, failures = await open_all(
            config.destinations, board, Limits(config.engine.limit_rate, config.rates()), stack, writable=True
        )
        if failures:
            raise combined("the repository cannot be made", failures)
        created = config.with_id(await create_on(opened, await read_or_create_secret(config.repository)))
    write_config(created)
    await asyncio.to_thread(_make_catalog, created)
    return created


async def connect(config: Config) -> Config:
    """Finds the repository at the destinations of ``config`` with its key file or passphrase, and writes the configuration to ``config.path``.

    Returns:
        The configuration with the repository's id.

    Raises:
        NotARepository: there is none. AccessDenied: the key does not open it. SnapferryError: the configuration file exists already.
        DestinationError: no destination answers.
    """
    _refuse_existing(config)
    key_file = config.repository.key_file
    if key_file is not None and not os.path.lexists(key_file):
        raise AccessDenied(f"there is no key file {key_file}")
    membership = await Membership.open(config)
    try:
        if membership.members.failures:
            raise combined("not all of these destinations hold the repository", membership.members.failures)
        connected = config.with_id(membership.members.repository_id)
        slot = membership.members.keys.slot(membership.members.keyring.slot_id)
        if config.repository.id is None and slot is not None and slot.kind == "public key":
            # Such a slot can be made by anybody who has seen the public key: only the id says that it is the right repository.
            logger.warning(
                "this key was added by its public half alone, which proves nothing of the repository: compare its id, %s, with what `key add` said, or give it with --id",
                connected.repository.id,
            )
    finally:
        await membership.close()
    connected = await _learned(connected, _learn_if_allowed)
    write_config(connected)
    await asyncio.to_thread(_make_catalog, connected)
    return connected


Learn = Callable[[DestinationConfig], Awaitable[Mapping[str, object]]]


async def _learned(config: Config, learn: Learn) -> Config:
    destinations = [await learned(destination, learn) for destination in config.destinations]
    return dataclasses.replace(config, destinations=tuple(destinations))


async def learned(destination: DestinationConfig, learn: Learn) -> DestinationConfig:
    """A destination with what ``learn`` finds out about its store among its options; a warning where that is sad."""
    options = await learn(destination)
    for option, meaning in _WEAK.items():
        if options.get(option) is False and option not in destination.options:
            logger.warning("%s: %s; noted as %s = false", destination.name, meaning, option)
    return dataclasses.replace(destination, options=MappingProxyType(dict(options)))


async def prepare(config: DestinationConfig) -> Mapping[str, object]:
    """Makes a destination's place as ``prepare_destination`` does; returns its options with what was learned."""
    return await prepare_destination(config.name, config.url, config.options, plugin=config.plugin)


async def _learn_if_allowed(config: DestinationConfig) -> Mapping[str, object]:
    """Nothing more than is known, where the store may only be read: whoever writes there finds out."""
    try:
        return await learn_options(config.name, config.url, config.options)
    except DestinationError as error:
        logger.debug("%s", error)
        return config.options


_WEAK = {
    "conditional_put": (
        "the server does not refuse a name that is taken (S3: If-None-Match), so two writers that create one name at the same moment cannot be told apart; "
        "backups and restores work, and prune will ask for --exclusive"
    ),
    "consistent_list": "the server's listings do not show what was just written; backups and restores work, and prune will ask for --exclusive",
}


def _make_catalog(config: Config) -> None:
    """Makes the catalog's tables now, because that takes longer than all the rest of a command's start. It is a cache: trouble is a warning."""
    from snapferry.catalog import Catalog

    try:
        Catalog(config.catalog_url()).close()
    except CatalogError as error:
        logger.warning("%s", error)


def _refuse_existing(config: Config) -> None:
    if os.path.lexists(config.path):
        raise SnapferryError(f"{config.path} exists already; nothing was overwritten")
