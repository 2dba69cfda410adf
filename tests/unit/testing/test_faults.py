"""A double that does not fail as it says would let a test pass that should not."""

from __future__ import annotations

import asyncio

import pytest

from snapferry.destination.contract import Destination
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationFull, DestinationUnreachable, ObjectDamaged
from snapferry.testing.conformance import CASES, Case, keys_of, run_case, run_conformance
from snapferry.testing.faults import FailsNth, FlipsByte, FullAfter, Hangs, LosesReply, Trickles, Truncates, Vanishes


def packs() -> MemoryDestination:
    return MemoryDestination("near", {"packs/ab/x": bytes(range(100)), "config": b"config"})


def of_packs(key: str) -> bool:
    return key.startswith("packs/")


async def test_fails_nth() -> None:
    failing = FailsNth(packs(), "read", 2, lambda: DestinationUnreachable("no"), times=2)
    fired = []
    for _ in range(5):
        try:
            await failing.read("config", 6)
            fired.append(False)
        except DestinationUnreachable:
            fired.append(True)
    assert fired == [False, True, True, False, False]
    await failing.read_tail("config", 1)
    assert (failing.calls, failing.fired) == (5, 2)


async def test_truncates() -> None:
    short = Truncates(packs(), 40, of_packs)
    buffer = memoryview(bytearray(10))
    await short.read_into("packs/ab/x", 30, buffer)
    assert bytes(buffer) == bytes(range(30, 40))
    with pytest.raises(ObjectDamaged):
        await short.read_into("packs/ab/x", 31, buffer)
    assert await short.read_tail("packs/ab/x", 2) == (bytes([38, 39]), 40)
    assert await keys_of(short) == {"packs/ab/x": 40, "config": 6}
    assert await short.read("config", 6) == b"config"


@pytest.mark.parametrize(("position", "expected"), [(0, 0), (50, 50), (-1, 99), (100, 0)])
async def test_flips_byte(position: int, expected: int) -> None:
    flipping = FlipsByte(packs(), position, of_packs)
    wrong = await flipping.read("packs/ab/x", 100)
    assert [at for at, (byte, right) in enumerate(zip(wrong, range(100), strict=True)) if byte != right] == [expected]
    buffer = memoryview(bytearray(100))
    await flipping.read_into("packs/ab/x", 0, buffer)
    assert bytes(buffer) == wrong == (await flipping.read_tail("packs/ab/x", 100))[0]
    assert await flipping.read("config", 6) == b"config"


async def test_hangs() -> None:
    hanging = Hangs(packs(), "read", of_packs)
    assert await hanging.read("config", 6) == b"config"
    reading = asyncio.create_task(hanging.read("packs/ab/x", 100))
    await hanging.hanging.wait()
    assert not reading.done()
    hanging.released.set()
    assert len(await reading) == 100


async def test_trickles() -> None:
    slept: list[float] = []
    slow = Trickles(packs(), 50.0, slept.append)
    await slow.read("packs/ab/x", 100)
    await slow.read_into("packs/ab/x", 0, memoryview(bytearray(25)))
    await slow.create("new", bytes(5))
    await slow.read_tail("config", 2)
    assert slept == [2.0, 0.5, 0.1, 0.04]


async def test_vanishes() -> None:
    vanishing = Vanishes(packs(), 120)
    await vanishing.read("packs/ab/x", 100)
    with pytest.raises(DestinationUnreachable):
        await vanishing.read("packs/ab/x", 100)
    assert vanishing.gone
    with pytest.raises(DestinationUnreachable):
        await keys_of(vanishing)
    with pytest.raises(DestinationUnreachable):
        await vanishing.create("new", b"")


async def test_full_after() -> None:
    inner = MemoryDestination("near")
    filling = FullAfter(inner, 10)
    assert await filling.create("a", bytes(6))
    assert not await filling.create("a", bytes(4))
    with pytest.raises(DestinationFull):
        await filling.create("b", bytes(5))
    with pytest.raises(DestinationFull):
        await filling.create("c", bytes(1))
    assert set(inner.store) == {"a"}


async def test_loses_reply() -> None:
    inner = MemoryDestination("near")
    losing = LosesReply(inner)
    with pytest.raises(DestinationUnreachable):
        await losing.create("a", b"x")
    assert inner.store == {"a": b"x"}
    assert await losing.create("b", b"x")


class Broken(MemoryDestination):
    """Each subclass breaks one rule of the contract; the suite must notice every one."""


class Overwrites(Broken):
    async def create(self, key, data):  # type: ignore[no-untyped-def]
        self.store.pop(key, None)
        return await super().create(key, data)


class RacesItself(Broken):
    async def create(self, key, data):  # type: ignore[no-untyped-def]
        taken = key in self.store
        await asyncio.sleep(0)
        if not taken:
            self.store.pop(key, None)
            return await super().create(key, data)
        return False


class LeavesHalf(Broken):
    async def create(self, key, data):  # type: ignore[no-untyped-def]
        if key in self.store or len(bytes(data)) < 1 << 20:
            return await super().create(key, data)
        self.store[key] = bytes(data)[:100]
        await asyncio.sleep(0.002)
        self.store[key] = bytes(data)
        return True


class ReadsShort(Broken):
    async def read_into(self, key, offset, buffer):  # type: ignore[no-untyped-def]
        data = (await self.read(key, 1 << 30))[offset : offset + len(buffer)]
        buffer[: len(data)] = data


class IgnoresTheLimit(Broken):
    async def read(self, key, limit):  # type: ignore[no-untyped-def]
        return await super().read(key, 1 << 40)


class ForgetsToDelete(Broken):
    async def delete(self, key):  # type: ignore[no-untyped-def]
        pass


class ListsByText(Broken):
    async def list(self, prefix):  # type: ignore[no-untyped-def]
        for key, data in self.store.items():
            if key.startswith(prefix.rstrip("/")):
                async for item in MemoryDestination("x", {key: data}).list(""):
                    yield item


class WritesLate(Broken):
    async def read_into(self, key, offset, buffer):  # type: ignore[no-untyped-def]
        data = (await super().read(key, 1 << 30))[offset : offset + len(buffer)]
        if len(data) < len(buffer):
            raise ObjectDamaged("short")

        def late() -> None:
            buffer[:] = data

        asyncio.get_running_loop().call_soon(late)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def read_tail(self, key, length):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0)
        return await super().read_tail(key, length)


@pytest.mark.parametrize("kind", Broken.__subclasses__(), ids=lambda kind: kind.__name__)
async def test_the_conformance_suite_notices(kind: type[Broken]) -> None:
    places: dict[str, dict[str, bytes]] = {}

    async def make(place: str) -> Destination:
        return kind("broken", places.setdefault(place, {}))

    failed = []
    for case in CASES:
        try:
            await run_case(case, make)
        except (AssertionError, ObjectDamaged):
            failed.append(str(case))
    assert failed


async def test_the_conformance_suite_runs_as_a_whole() -> None:
    places: dict[str, dict[str, bytes]] = {}

    async def make(place: str) -> Destination:
        return MemoryDestination("good", places.setdefault(place, {}))

    await run_conformance(make)
    assert len(places) == len(CASES)
    assert isinstance(CASES[0], Case)
