"""Making a repository on one or more destinations, and finishing one whose making was interrupted.

Order at each destination: its own id, the key slot, and last ``config``, which makes it a repository. A repository that is there is
never touched: only what an interrupted run of the same command with the same key left behind is used again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import AccessDenied, DestinationError, ObjectNotFound, SnapferryError
from snapferry.repository import names, objects
from snapferry.repository.gathering import together
from snapferry.repository.key_changes import new_slot
from snapferry.repository.opening import Look, look, read_slots
from snapferry.repository.secret import Secret
from snapferry.repository.slots import FULL, SlotCopy, parse_slots, unlock
from snapferry.repository.small import open_object, read_object


async def create_repository(destinations: Mapping[str, Destination], secret: Secret) -> str:
    """Makes one new repository on all ``destinations`` (open for writing, by name); returns its id, 32 hex digits.

    Arguments:
        secret: the key file's 32 bytes, or a passphrase.

    Raises:
        SnapferryError: there is a repository, or a part of one that this key does not open; or a store that declares of itself what it
            does not do: refuse a second create, list what was just written. DestinationError: as the destinations raise it. Nothing counts before all are done.
    """
    begun = await _interrupted(destinations, secret)
    keyring, slot = begun if begun is not None else await asyncio.to_thread(_first_key, secret)
    repository_id = keyring.repository_id.hex()
    described = objects.ConfigObject(objects.FORMAT_VERSION, repository_id, objects.now(), list(objects.SUITES))
    config = keyring.seal("config", names.CONFIG, objects.encode(described))
    await together(create_identity(keyring, destination) for destination in destinations.values())
    await together(prove_store(destination, names.key_slot(slot.name), slot.slot.data) for destination in destinations.values())
    await together(destination.create(names.CONFIG, config) for destination in destinations.values())
    await together(_check_config(keyring, destination) for destination in destinations.values())
    return repository_id


def _first_key(secret: Secret) -> tuple[_core.Keyring, SlotCopy]:
    keyring = _core.Keyring.generate()
    return keyring, new_slot(keyring, FULL, "", secret, None)


async def _interrupted(destinations: Mapping[str, Destination], secret: Secret) -> tuple[_core.Keyring, SlotCopy] | None:
    """The keys that an interrupted run has begun to write down, and their slot; None if nothing is there; raises if it is anybody else's."""
    found = dict(zip(destinations, await together(_leftover(destination, secret) for destination in destinations.values()), strict=True))
    begun = {keys[0].repository_id: keys for keys, _ in found.values() if keys is not None}
    complete = [name for name, (_, has_config) in found.items() if has_config]
    if complete and len(complete) == len(found):
        raise SnapferryError(f"there is a repository already at {', '.join(complete)}; use connect to work with it")
    if len(begun) > 1:
        raise SnapferryError(f"different repositories have been begun at {', '.join(destinations)}; empty all but one of these places")
    return next(iter(begun.values()), None)


async def _leftover(destination: Destination, secret: Secret) -> tuple[tuple[_core.Keyring, SlotCopy] | None, bool]:
    """(keys found there, whether its config is there)."""
    name = destination.name
    for prefix in (names.PACKS, names.SNAPSHOTS, names.INDEX, names.SESSIONS):
        async for info in destination.list(prefix):
            raise SnapferryError(
                f"{name}: there is a repository already at {destination.url} (it holds {info.key}); init makes a new one only"
            )
    seen = await look(destination)
    if isinstance(seen, DestinationError) and seen.exit_code not in (1, 10):
        raise seen
    if not isinstance(seen, Look):
        await _refuse_broken_config(destination)
    keys = await _own_keys(destination, secret)
    if keys is None and isinstance(seen, Look):
        raise SnapferryError(f"{name}: there is a repository already at {destination.url}, and this key does not open it")
    return keys, isinstance(seen, Look)


async def _refuse_broken_config(destination: Destination) -> None:
    try:
        await destination.read(names.CONFIG, objects.SMALL_OBJECT_LIMIT)
    except ObjectNotFound:
        return
    raise SnapferryError(
        f"{destination.name}: there is a repository already at {destination.url}, with a config object that this program cannot read"
    )


async def _own_keys(destination: Destination, secret: Secret) -> tuple[_core.Keyring, SlotCopy] | None:
    """The keys in a slot that ``secret`` opens, and the slot; None if there is no slot; an error if there are only others'."""
    found, damage = await read_slots(destination)
    if not found and not damage:
        return None
    repositories = {repository: None for data in found.values() if (repository := _repository_of(data))}
    refusals = [f"{item.object}: {item.reason}" for item in damage]
    for repository in repositories:
        keys = parse_slots({destination.name: found}, repository)
        try:
            keyring = await asyncio.to_thread(unlock, keys, secret, destination.name)
        except AccessDenied as error:
            refusals.append(str(error))
        else:
            return keyring, next(copy for copy in keys.live() if copy.slot.id == keyring.slot_id)
    raise SnapferryError(
        f"{destination.name}: there is a repository already at {destination.url}, or a part of one, with key slots that this key does not open ({'; '.join(refusals) or 'all are damaged'}); choose an empty place"
    )


def _repository_of(data: bytes) -> str | None:
    try:
        return _core.Slot(data).repository_id.hex()
    except _core.CoreError:
        return None


async def create_identity(keyring: _core.Keyring, destination: Destination) -> None:
    """Gives a new place its random id; one that is there and opens with these keys stays."""
    described = objects.DestinationObject(secrets.token_hex(16))
    data = keyring.seal("destination", names.DESTINATION, objects.encode(described))
    if not await destination.create(names.DESTINATION, data):
        try:
            await read_object(keyring, destination, "destination", names.DESTINATION)
        except DestinationError:
            # Without a config, packs or keys that belong to it, it is what an interrupted run left before its key slot was written.
            await destination.delete(names.DESTINATION)
            if not await destination.create(names.DESTINATION, data):
                raise SnapferryError(f"{destination.name}: another init is at work at {destination.url}") from None


async def prove_store(destination: Destination, key: str, data: bytes) -> None:
    """Creates a key slot twice: a store that says so of itself must refuse the second, and list the first. ``SnapferryError`` if not."""
    declared = destination.capabilities
    await destination.create(key, data)
    if declared.exclusive_create and await destination.create(key, data):
        raise SnapferryError(
            f"{destination.name}: {destination.url} accepts a second create of one name, which it says that it refuses; a repository there would not be safe"
        )
    if not declared.consistent_list:
        return
    listed = [info async for info in destination.list(names.KEYS) if info.key == key and info.size == len(data)]
    if not listed:
        raise SnapferryError(
            f"{destination.name}: {destination.url} does not list what was just written; a repository there would not be safe"
        )


async def _check_config(keyring: _core.Keyring, destination: Destination) -> None:
    """Reads it back: a create that found the name taken may have met another init."""
    data = await destination.read(names.CONFIG, objects.SMALL_OBJECT_LIMIT)
    open_object(keyring, "config", names.CONFIG, data, destination.name)
