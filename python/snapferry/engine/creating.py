"""Making a repository, and getting to know one that is there."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack

from snapferry.config import Config, write_config
from snapferry.destination import prepare_destination
from snapferry.engine.membership import Membership, open_all
from snapferry.errors import AccessDenied, CatalogError, SnapferryError
from snapferry.repository.creating import create_repository as create_on
from snapferry.repository.failures import combined
from snapferry.repository.keyfile import create_key_file, read_key_file
from snapferry.transport import Limits, ReplicaBoard

logger = logging.getLogger(__name__)


async def create_repository(config: Config) -> Config:
    """Makes a repository on all destinations of ``config``, and writes the configuration to ``config.path``.

    The key file is made if there is none. An interrupted call can be repeated.

    Returns:
        The configuration with the new repository's id.

    Raises:
        SnapferryError: the configuration file or a repository exists already. AccessDenied: the key file is no key file.
        DestinationError: a destination cannot be made or written; then nothing counts.
    """
    _refuse_existing(config)
    async with AsyncExitStack() as stack:
        for destination in config.destinations:
            await prepare_destination(destination.name, destination.url, destination.options)
        board = ReplicaBoard([destination.name for destination in config.destinations])
        opened, failures = await open_all(config.destinations, board, Limits(config.engine.limit_rate), stack, writable=True)
        if failures:
            raise combined("the repository cannot be made", failures)
        key_file = config.repository.key_file
        secret = read_key_file(key_file) if os.path.lexists(key_file) else create_key_file(key_file)
        created = config.with_id(await create_on(opened, secret))
    write_config(created)
    await asyncio.to_thread(_make_catalog, created)
    return created


async def connect(config: Config) -> Config:
    """Finds the repository at the destinations of ``config`` with its key file, and writes the configuration to ``config.path``.

    Returns:
        The configuration with the repository's id.

    Raises:
        NotARepository: there is none. AccessDenied: the key file does not open it. SnapferryError: the configuration file exists already.
        DestinationError: no destination answers.
    """
    _refuse_existing(config)
    if not os.path.lexists(config.repository.key_file):
        raise AccessDenied(f"there is no key file {config.repository.key_file}")
    membership = await Membership.open(config)
    try:
        if membership.members.failures:
            raise combined("not all of these destinations hold the repository", membership.members.failures)
        connected = config.with_id(membership.members.repository_id)
    finally:
        await membership.close()
    write_config(connected)
    await asyncio.to_thread(_make_catalog, connected)
    return connected


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
