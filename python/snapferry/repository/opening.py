"""Opening a repository: which of the configured destinations hold it, what opens it, and what is wrong with the others.

One destination's trouble never stops the others. Nothing is believed before the key has authenticated it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import (
    AccessDenied,
    ConfigurationError,
    DestinationError,
    DestinationNotARepository,
    NotARepository,
    ObjectDamaged,
    ObjectNotFound,
    SnapferryError,
)
from snapferry.repository import names, objects
from snapferry.repository.failures import combined
from snapferry.repository.gathering import together
from snapferry.repository.secret import Secret
from snapferry.repository.slots import KeySet, parse_slots, unlock
from snapferry.repository.small import open_object
from snapferry.types import Damage

SLOT_LIMIT = 64 << 10
_MOST_SLOTS = 1000


@dataclass(slots=True)
class Members:
    """An open repository: its keys, and its destinations.

    Attributes:
        repository_id: 32 hex digits.
        replicas: the destinations that can be read, by name, in the order of the configuration.
        ids: the random ids of the places, by destination name, where they are in good order.
        failures: why the other destinations cannot be used.
        unwritable: destinations among ``replicas`` that must not be written to, and why.
        damage: what was found broken on the way.
        keys: the key slots that were found.
        changing: held by whoever looks at the key slots to change them.
    """

    keyring: _core.Keyring
    repository_id: str
    replicas: dict[str, Destination]
    ids: dict[str, str]
    failures: dict[str, SnapferryError] = field(default_factory=dict)
    unwritable: dict[str, SnapferryError] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    keys: KeySet = field(default_factory=KeySet)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Look:
    """What one destination holds of what opens a repository, unverified."""

    config: bytes
    repository_id: str
    slots: dict[str, bytes]
    damage: list[Damage]


async def open_members(
    destinations: Mapping[str, Destination],
    secret: Secret,
    *,
    expected_id: str | None,
    failures: Mapping[str, SnapferryError] | None = None,
) -> Members:
    """Opens the repository on as many of ``destinations`` as hold it in good order.

    Arguments:
        destinations: open, by name, in the order of the configuration.
        secret: the key file's 32 bytes, or a passphrase.
        expected_id: the repository's id, or None to take the one of the first destination that the key opens.
        failures: destinations that could not even be opened.

    Raises:
        AccessDenied: the key opens none of the key slots, or none is left in good order. NotARepository: no destination holds the repository.
        ConfigurationError: one place goes by two names. Else the error of the destinations, if none answers.
    """
    failed: dict[str, SnapferryError] = dict(failures or {})
    looks: dict[str, Look] = {}
    damage: list[Damage] = []
    for name, found in zip(destinations, await together(look(destination) for destination in destinations.values()), strict=True):
        if isinstance(found, Look):
            looks[name] = found
            damage += found.damage
        else:
            failed[name] = found
    if expected_id is not None:
        for name in [name for name, found in looks.items() if found.repository_id != expected_id]:
            other = looks.pop(name).repository_id
            failed[name] = DestinationNotARepository(f"holds repository {other}, not {expected_id}", name)
    if not looks:
        raise combined("no destination holds the repository" if failed else "no destination is configured", failed)
    # In a thread, because a passphrase takes its time; one that is cancelled computes on and disturbs nobody.
    keyring, keys = await asyncio.to_thread(_unlock, looks, secret)
    damage += keys.damage
    members = Members(keyring, keyring.repository_id.hex(), {}, {}, failed, {}, damage, keys)
    for name, found in looks.items():
        problem = check_config(keyring, name, found)
        if problem is None:
            members.replicas[name] = destinations[name]
        else:
            failed[name] = problem
    if not members.replicas:
        raise combined("no destination holds the repository", failed)
    await _identify(members)
    return members


async def look(destination: Destination) -> Look | SnapferryError:
    """What a destination holds, or why it is none of a repository: an error is a result here, not raised."""
    name = destination.name
    try:
        config = await destination.read(names.CONFIG, objects.SMALL_OBJECT_LIMIT)
        described = objects.decode(objects.ConfigObject, _core.peek("config", config), "config")
        objects.check_version(described, name)
        slots, damage = await read_slots(destination)
        return Look(config, described.repository_id, slots, damage)
    except ObjectNotFound:
        return DestinationNotARepository(f"no repository at {destination.url}: it holds no config object", name)
    except (ObjectDamaged, _core.CoreError) as error:
        return DestinationNotARepository(f"the repository's config object is damaged or of an unknown version: {error}", name)
    except NotARepository as error:
        return DestinationNotARepository(str(error))
    except SnapferryError as error:
        return error


async def read_slots(destination: Destination, known: Mapping[str, bytes] | None = None) -> tuple[dict[str, bytes], list[Damage]]:
    """The key slots that a destination holds, unverified, by name; and those that cannot be read. What is ``known`` is not read again."""
    slots: dict[str, bytes] = {}
    damage: list[Damage] = []
    known = known or {}
    async for info in destination.list(names.KEYS):
        slot = names.parse_key_slot(info.key)
        if slot is None or len(slots) >= _MOST_SLOTS:
            continue
        data = known.get(slot, b"")
        if data and len(data) == info.size:
            slots[slot] = data
            continue
        try:
            slots[slot] = await destination.read(info.key, SLOT_LIMIT)
        except (ObjectDamaged, ObjectNotFound) as error:
            damage.append(Damage(destination.name, info.key, str(error)))
    return slots, damage


def _unlock(looks: Mapping[str, Look], secret: Secret) -> tuple[_core.Keyring, KeySet]:
    """The keys, from any slot of any destination that the secret opens, of the first repository of which it does; and that one's slots."""
    refusals: list[AccessDenied] = []
    for repository_id in dict.fromkeys(found.repository_id for found in looks.values()):
        own = {name: found for name, found in looks.items() if found.repository_id == repository_id}
        keys = parse_slots({name: found.slots for name, found in own.items()}, repository_id)
        try:
            return unlock(keys, secret, ", ".join(own)), keys
        except AccessDenied as error:
            refusals.append(error)
    raise refusals[0]


def check_config(keyring: _core.Keyring, name: str, found: Look) -> SnapferryError | None:
    """Why what was found is not the repository that these keys open; None if it is."""
    try:
        payload = open_object(keyring, "config", names.CONFIG, found.config, name)
        objects.check_version(objects.decode(objects.ConfigObject, payload, "config"), name)
    except SnapferryError as error:
        own = found.repository_id == keyring.repository_id.hex()
        return DestinationNotARepository(str(error) if own else f"holds another repository, {found.repository_id}", name)
    return None


async def _identify(members: Members) -> None:
    """Reads the places' own ids. A place without one in good order is read but not written to: it may be another one's copy."""
    found = await together(destination_id(members.keyring, destination) for destination in members.replicas.values())
    for name, identity in zip(members.replicas, found, strict=True):
        if isinstance(identity, str):
            for other, known in members.ids.items():
                if known == identity:
                    raise ConfigurationError(
                        f"destinations {other!r} and {name!r} are the same place (destination id {identity}); a copy there protects nothing"
                    )
            members.ids[name] = identity
        else:
            members.unwritable[name] = DestinationNotARepository(
                f"its destination object cannot be used, so nothing is written there: {identity}", name
            )
            if isinstance(identity, (ObjectDamaged, ObjectNotFound)):
                members.damage.append(Damage(name, names.DESTINATION, str(identity)))


async def admit(members: Members, destination: Destination) -> None:
    """Takes one more destination among those that can be read; raises why it is none of this repository."""
    found = await look(destination)
    if isinstance(found, SnapferryError):
        raise found
    problem = check_config(members.keyring, destination.name, found)
    if problem is not None:
        raise problem
    members.replicas[destination.name] = destination
    members.failures.pop(destination.name, None)


async def identify(members: Members, name: str) -> None:
    """Reads the id of a place again that had none in good order; raises why it still has none."""
    identity = await destination_id(members.keyring, members.replicas[name])
    if isinstance(identity, SnapferryError):
        raise identity
    members.ids[name] = identity
    members.unwritable.pop(name, None)
    members.damage = [item for item in members.damage if (item.destination, item.object) != (name, names.DESTINATION)]


async def check_place(members: Members, destination: Destination) -> SnapferryError | None:
    """Why a destination that was opened once more is not the place it was: its disk is no longer mounted, say. None if it is.

    What was written to such a place would be acknowledged, and nothing there would open it.
    """
    identity = await destination_id(members.keyring, destination)
    if isinstance(identity, ObjectNotFound):
        return DestinationNotARepository(
            f"the repository that was at {destination.url} is no longer there; is it mounted?", destination.name
        )
    if isinstance(identity, SnapferryError):
        return identity
    if identity != members.ids.get(destination.name):
        return DestinationNotARepository(f"{destination.url} is another place now, with the id {identity}", destination.name)
    return None


async def destination_id(keyring: _core.Keyring, destination: Destination) -> str | SnapferryError:
    """The random id of a place, or why it cannot be told."""
    try:
        data = await destination.read(names.DESTINATION, objects.SMALL_OBJECT_LIMIT)
        payload = open_object(keyring, "destination", names.DESTINATION, data, destination.name)
        return objects.decode(objects.DestinationObject, payload, names.DESTINATION).id
    except DestinationError as error:
        return error
