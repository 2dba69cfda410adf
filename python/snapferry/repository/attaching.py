"""Makes one more place hold a repository that is open elsewhere. Run again, it goes on where it was interrupted.

Order, as where a repository is made: the place's own id, the key slots, and last ``config``, which makes it a place of the repository.
What is there and is not this repository's is never touched.
"""

from __future__ import annotations

from snapferry.destination import Destination, is_there
from snapferry.errors import ConfigurationError, DamageError, DestinationError, ObjectDamaged, ObjectNotFound, SnapferryError
from snapferry.repository import names, objects
from snapferry.repository.creating import create_identity, prove_store
from snapferry.repository.failures import combined
from snapferry.repository.opening import Look, Members, check_config, destination_id, look
from snapferry.repository.sessions import create_checked
from snapferry.repository.slot_keeping import bring
from snapferry.repository.small import open_object


async def attach(members: Members, destination: Destination) -> bool:
    """Makes ``destination`` (open for writing) hold the repository; returns whether it did before.

    Raises:
        SnapferryError: another repository is there, or a part of one; or a store that declares of itself what it does not do.
        ConfigurationError: it is a place of this repository that goes by another name. DestinationError: as the destination raises it.
    """
    held = await _holds(members, destination)
    identity = await destination_id(members.keyring, destination)
    if isinstance(identity, ObjectNotFound) or (held and isinstance(identity, ObjectDamaged)):
        await renew_identity(members, destination)
    elif isinstance(identity, SnapferryError):
        raise identity
    else:
        _refuse_twin(members, destination, identity)
    _, failures = await bring(members, {destination.name: destination})
    for error in failures.values():
        raise error
    slot = members.keys.live()[0]
    await prove_store(destination, names.key_slot(slot.name), slot.slot.data)
    await put_config(members, destination)
    return held


async def put_config(members: Members, destination: Destination) -> None:
    """Creates the repository's ``config`` there, as other places have it; a broken one is replaced, another repository's is not."""
    config = await _config(members)
    await create_checked(destination, names.CONFIG, config)
    open_object(members.keyring, "config", names.CONFIG, await destination.read(names.CONFIG, objects.SMALL_OBJECT_LIMIT), destination.name)


async def renew_identity(members: Members, destination: Destination) -> str:
    """Gives a place an id of its own, in place of one that is missing or broken; returns it. Only where the place is known to be ours."""
    try:
        data = await destination.read(names.DESTINATION, objects.SMALL_OBJECT_LIMIT)
        open_object(members.keyring, "destination", names.DESTINATION, data, destination.name)
    except (ObjectNotFound, ObjectDamaged):
        await destination.delete(names.DESTINATION)
        await create_identity(members.keyring, destination)
    identity = await destination_id(members.keyring, destination)
    if isinstance(identity, SnapferryError):
        raise identity
    _refuse_twin(members, destination, identity)
    return identity


async def is_ours(members: Members, destination: Destination) -> bool:
    """Whether the place's own id was made with this repository's keys: proof enough where ``config`` is missing or broken."""
    return isinstance(await destination_id(members.keyring, destination), str)


async def _holds(members: Members, destination: Destination) -> bool:
    """Whether the repository is there; raises where something is there that is not its own."""
    found = await look(destination)
    if isinstance(found, Look):
        if found.repository_id != members.repository_id:
            raise SnapferryError(
                f"{destination.name}: there is another repository at {destination.url}, {found.repository_id}; choose an empty place"
            )
        problem = check_config(members.keyring, destination.name, found)
        if problem is not None:
            raise problem
        return True
    if isinstance(found, DestinationError) and found.exit_code != 10:
        raise found
    if await is_ours(members, destination):
        return False  # Begun before, or its config was lost.
    for prefix in (names.KEYS, names.PACKS, names.SNAPSHOTS, names.INDEX, names.SESSIONS):
        async for info in destination.list(prefix):
            raise SnapferryError(
                f"{destination.name}: there is a repository at {destination.url}, or a part of one (it holds {info.key}), that is not this one; choose an empty place"
            )
    for key in (names.CONFIG, names.DESTINATION):
        if await is_there(destination, key):
            raise SnapferryError(
                f"{destination.name}: there is a part of another repository at {destination.url} ({key}); choose an empty place, or remove it"
            )
    return False


async def _config(members: Members) -> bytes:
    """From the first place that has it in good order."""
    failures: dict[str, DestinationError] = {}
    for name, replica in members.replicas.items():
        try:
            data = await replica.read(names.CONFIG, objects.SMALL_OBJECT_LIMIT)
            open_object(members.keyring, "config", names.CONFIG, data, name)
        except DestinationError as error:
            failures[name] = error
        else:
            return data
    if any(isinstance(error, ObjectDamaged) for error in failures.values()):
        raise DamageError("config is in good order nowhere")
    raise combined("config cannot be read", failures)


def _refuse_twin(members: Members, destination: Destination, identity: str) -> None:
    for name, known in members.ids.items():
        if known == identity and name != destination.name:
            raise ConfigurationError(
                f"destinations {name!r} and {destination.name!r} are the same place (destination id {identity}); a copy there protects nothing"
            )
