"""Making repositories: once, never over another, and again after an interruption."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from typing import Any

import pytest

from snapferry.destination import Capabilities, Destination
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import AccessDenied, DestinationFull, SnapferryError
from snapferry.repository.creating import create_repository
from snapferry.repository.opening import open_members
from snapferry.testing.faults import FailsNth
from snapferry.transport.wrapper import Wrapper

SECRET = secrets.token_bytes(32)


def _places(*names: str) -> dict[str, Destination]:
    return {name: MemoryDestination(name) for name in names}


async def test_made_and_opened() -> None:
    places = _places("a", "b")
    made = await create_repository(places, SECRET)
    members = await open_members(places, SECRET, expected_id=made)
    assert members.repository_id == made
    assert list(members.replicas) == ["a", "b"]
    assert len(set(members.ids.values())) == 2
    assert not members.damage
    with pytest.raises(AccessDenied, match="none of the key slots"):
        await open_members(places, secrets.token_bytes(32), expected_id=made)


async def test_never_over_another() -> None:
    places = _places("a")
    await create_repository(places, SECRET)
    for secret in (SECRET, secrets.token_bytes(32)):
        with pytest.raises(SnapferryError, match="already") as caught:
            await create_repository(places, secret)
        assert caught.value.exit_code == 1
    both = places | _places("b")
    with pytest.raises(SnapferryError):
        await create_repository(both, secrets.token_bytes(32))


async def test_never_where_data_lies_even_without_config() -> None:
    place = MemoryDestination("a")
    await create_repository({"a": place}, SECRET)
    place.store["packs/00/" + "0" * 64] = b"data"
    for key in ("config", "destination"):
        del place.store[key]
    before = dict(place.store)
    with pytest.raises(SnapferryError, match="already"):
        await create_repository({"a": place}, SECRET)
    assert place.store == before


async def test_key_slots_that_this_key_does_not_open_are_left_alone() -> None:
    place = MemoryDestination("a")
    await create_repository({"a": place}, SECRET)
    del place.store["config"]
    before = dict(place.store)
    with pytest.raises(SnapferryError, match="does not open"):
        await create_repository({"a": place}, secrets.token_bytes(32))
    assert place.store == before


@pytest.mark.parametrize("operation", ["create", "list", "read"])
async def test_interrupted_anywhere_the_same_again_finishes(operation: Any) -> None:
    for nth in range(1, 50):
        stores: dict[str, dict[str, bytes]] = {"a": {}, "b": {}}
        double = FailsNth(MemoryDestination("b", stores["b"]), operation, nth, lambda: DestinationFull("full"))
        try:
            await create_repository({"a": MemoryDestination("a", stores["a"]), "b": double}, SECRET)
        except DestinationFull:
            places: dict[str, Destination] = {name: MemoryDestination(name, store) for name, store in stores.items()}
            if not all("config" in store for store in stores.values()):
                made = await create_repository(places, SECRET)
                assert list((await open_members(places, SECRET, expected_id=made)).replicas) == ["a", "b"]
        if not double.fired:
            return
    pytest.fail("the faults never ended")


class Overwrites(Wrapper):
    async def create(self, key: str, data: Any) -> bool:
        await self.inner.delete(key)
        return await self.inner.create(key, data)


class Admits(Wrapper):
    """Declares that it is neither exclusive nor consistent."""

    @property
    def capabilities(self) -> Capabilities:
        return dataclasses.replace(self.inner.capabilities, exclusive_create=False, consistent_list=False)


async def test_a_store_that_overwrites_is_refused() -> None:
    with pytest.raises(SnapferryError, match="second create"):
        await create_repository({"a": Overwrites(MemoryDestination("a"))}, SECRET)


class Forgetful(Wrapper):
    async def list(self, prefix: str) -> Any:
        await asyncio.sleep(0)
        nothing: tuple[object, ...] = ()
        for item in nothing:
            yield item


@pytest.mark.parametrize("weak", [Overwrites, Forgetful])
async def test_a_store_that_says_so_of_itself_is_taken(weak: type[Wrapper]) -> None:
    place = MemoryDestination("a")
    made = await create_repository({"a": Admits(weak(place))}, SECRET)
    assert (await open_members({"a": place}, SECRET, expected_id=made)).repository_id == made


async def test_a_store_that_does_not_list_is_refused() -> None:
    with pytest.raises(SnapferryError, match="does not list"):
        await create_repository({"a": Forgetful(MemoryDestination("a"))}, SECRET)
