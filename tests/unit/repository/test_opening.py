"""Opening: what one destination's trouble does, and that it never stops the others."""

from __future__ import annotations

import secrets

import pytest

from snapferry import _core
from snapferry.destination import Destination
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import AccessDenied, ConfigurationError, DestinationUnreachable, NotARepository, SnapferryError
from snapferry.repository import names, objects
from snapferry.repository.creating import create_repository
from snapferry.repository.opening import Members, open_members
from snapferry.testing.faults import FailsNth

SECRET = secrets.token_bytes(32)


class _Places:
    def __init__(self) -> None:
        self.stores: dict[str, dict[str, bytes]] = {"a": {}, "b": {}}
        self.id = ""

    def open(self, *which: str) -> dict[str, Destination]:
        return {name: MemoryDestination(name, self.stores[name]) for name in which or ("a", "b")}

    async def members(self, *which: str) -> Members:
        return await open_members(self.open(*which), SECRET, expected_id=self.id)


@pytest.fixture
async def places() -> _Places:
    made = _Places()
    made.id = await create_repository(made.open(), SECRET)
    return made


@pytest.mark.parametrize("key", ["config", "destination", "keys"])
async def test_one_broken_object_at_one_place(places: _Places, key: str) -> None:
    (found,) = [name for name in places.stores["a"] if name.startswith(key)]
    places.stores["a"][found] = places.stores["a"][found][:-1] + b"?"
    members = await places.members()
    assert "b" in members.replicas
    if key == "config":
        assert members.failures["a"].exit_code == 10
    elif key == "destination":
        assert members.unwritable["a"].exit_code == 10
        assert [damage.object for damage in members.damage] == ["destination"]
    else:
        assert [damage.object for damage in members.damage] == [found]


async def test_alone_each_has_its_code(places: _Places) -> None:
    (slot,) = [key for key in places.stores["a"] if key.startswith("keys/")]
    for key, kind, code in (("config", NotARepository, 10), (slot, AccessDenied, 12)):
        for data in (None, b"", b"garbage", places.stores["a"][key] + b"x"):
            good = places.stores["a"].pop(key)
            if data is not None:
                places.stores["a"][key] = data
            with pytest.raises(kind) as caught:
                await places.members("a")
            assert caught.value.exit_code == code
            places.stores["a"][key] = good


async def test_another_version_is_refused_by_name(places: _Places) -> None:
    (slot,) = [data for key, data in places.stores["a"].items() if key.startswith("keys/")]
    key = _core.Slot(slot).unlock(key_file=SECRET)
    assert key is not None
    keyring = _core.Keyring.unlock(_core.Slot(slot), key)
    config = objects.ConfigObject(9, places.id, objects.now())
    places.stores["a"]["config"] = keyring.seal("config", names.CONFIG, objects.encode(config))
    with pytest.raises(NotARepository, match="version 9"):
        await places.members("a")
    assert list((await places.members()).replicas) == ["b"]


async def test_a_config_of_the_same_id_sealed_with_another_key_is_refused(places: _Places) -> None:
    stranger = _core.Keyring.generate()
    config = objects.ConfigObject(0, places.id, objects.now())
    places.stores["a"]["config"] = stranger.seal("config", names.CONFIG, objects.encode(config))
    members = await places.members()
    assert list(members.replicas) == ["b"]
    assert members.failures["a"].exit_code == 10


async def test_the_first_that_the_key_opens_gives_the_id_when_none_is_known(places: _Places) -> None:
    members = await open_members(places.open(), SECRET, expected_id=None)
    assert members.repository_id == places.id


async def test_the_same_place_twice(places: _Places) -> None:
    places.stores["b"] = places.stores["a"]
    with pytest.raises(ConfigurationError, match="'a' and 'b' are the same place"):
        await places.members()


async def test_a_destination_that_does_not_answer(places: _Places) -> None:
    down: dict[str, Destination] = {
        name: FailsNth(destination, "any", 1, lambda: DestinationUnreachable("down"), times=99)
        for name, destination in places.open().items()
    }
    members = await open_members(places.open("a") | {"b": down["b"]}, SECRET, expected_id=places.id)
    assert members.failures["b"].exit_code == 13
    with pytest.raises(SnapferryError) as caught:
        await open_members(down, SECRET, expected_id=places.id)
    assert caught.value.exit_code == 13
