"""What every destination must do, as cases that any author can run on theirs.

```python
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_my_store(case: Case) -> None:
    await run_case(case, make)
```

``make(place)`` opens the place of that name: an empty one the first time, and the same one, through another handle, when it is called again.
A case fails with ``AssertionError``. Only what a destination declares of itself is asked of it.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from typing_extensions import Buffer

from snapferry.destination.contract import Destination, list_keys
from snapferry.errors import ObjectDamaged, ObjectNotFound

Make = Callable[[str], Awaitable[Destination]]

LARGE = 32 << 20
"""Bytes of a full pack."""

BAD_KEYS = (
    "", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/../b", "a/./b", ".hidden", "packs/.nfs01", "tmp", "tmp/a", "a b", "a\\b",
    "a\0b", "a\n", "é", "packs/\N{FULLWIDTH SOLIDUS}", "a%2fb", "x" * 201, "/".join(["part"] * 120),
)  # fmt: skip
BAD_PREFIXES = ("/", "a", "packs/ab", "../", "a//", "./", "tmp/", "é/")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that must hold. ``run`` gets an empty destination and ``again``, which opens the same place once more."""

    name: str
    run: Callable[[Destination, Callable[[], Awaitable[Destination]]], Awaitable[None]]

    def __str__(self) -> str:
        return self.name


async def run_case(case: Case, make: Make) -> None:
    """Runs one case on a place of its own. ``AssertionError`` if it does not hold."""
    place = f"{case.name.replace('_', '-')}-{uuid.uuid4().hex[:8]}"
    opened: list[Destination] = []

    async def again() -> Destination:
        opened.append(await make(place))
        return opened[-1]

    try:
        await case.run(await again(), again)
    finally:
        for destination in opened:
            await destination.close()


async def run_conformance(make: Make) -> None:
    """Runs every case, one after another."""
    for case in CASES:
        await run_case(case, make)


async def keys_of(destination: Destination, prefix: str = "") -> dict[str, int]:
    """Every object's size by key, as listed; ``AssertionError`` if one is listed twice."""
    found: dict[str, int] = {}
    async for item in destination.list(prefix):
        assert item.key not in found, f"{item.key} is listed twice"
        found[item.key] = item.size
    return found


@asynccontextmanager
async def _raises(*kinds: type[Exception]) -> AsyncIterator[None]:
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        yield
    except kinds:
        return
    except Exception as error:
        raise AssertionError(f"{names} expected, not {error!r}") from error
    raise AssertionError(f"{names} expected, and nothing was raised")


Again = Callable[[], Awaitable[Destination]]


async def _describes_itself(destination: Destination, again: Again) -> None:
    assert isinstance(destination, Destination)
    assert destination.name
    assert destination.url
    assert destination.capabilities.concurrency >= 1
    assert (await again()).url == destination.url


async def _creates_and_reads_back(destination: Destination, again: Again) -> None:
    assert await destination.create("config", b"some bytes") is True
    assert await destination.read("config", 10) == b"some bytes"
    assert await (await again()).read("config", 4096) == b"some bytes"


async def _refuses_a_second_create(destination: Destination, again: Again) -> None:
    if not destination.capabilities.exclusive_create:
        return
    assert await destination.create("packs/ab/abcd", b"first") is True
    assert await destination.create("packs/ab/abcd", b"second") is False
    assert await (await again()).create("packs/ab/abcd", b"third") is False
    assert await destination.read("packs/ab/abcd", 100) == b"first"


async def _lets_one_of_many_win(destination: Destination, again: Again) -> None:
    if not destination.capabilities.exclusive_create:
        return
    other = await again()
    for turn in range(8):
        key = f"sessions/{turn}/0"
        bodies = [os.urandom(100_000) for _ in range(6)]
        won = await asyncio.gather(*((destination, other)[number % 2].create(key, body) for number, body in enumerate(bodies)))
        assert won.count(True) == 1, f"{won.count(True)} of {len(won)} creates side by side say that they created the object"
        assert await other.read(key, 100_000) == bodies[won.index(True)]


async def _takes_empty_objects(destination: Destination, again: Again) -> None:
    assert await destination.create("index/empty", b"") is True
    assert await destination.create("index/empty", b"x") is False or not destination.capabilities.exclusive_create
    assert await (await again()).read("index/empty", 0) == b""
    assert await destination.read_tail("index/empty", 100) == (b"", 0)
    await destination.read_into("index/empty", 0, memoryview(bytearray()))
    assert await keys_of(destination) == {"index/empty": 0}
    async with _raises(ObjectDamaged):
        await destination.read_into("index/empty", 0, memoryview(bytearray(1)))


async def _takes_a_full_pack(destination: Destination, again: Again) -> None:
    data = bytearray(os.urandom(1 << 20) * (LARGE >> 20))
    data[-8:] = b"the end."
    assert await destination.create("packs/00/full", memoryview(data).toreadonly()) is True
    other = await again()
    buffer = bytearray(LARGE)
    await other.read_into("packs/00/full", 0, memoryview(buffer))
    assert buffer == data
    assert await other.read_tail("packs/00/full", 8) == (b"the end.", LARGE)
    assert await keys_of(other, "packs/") == {"packs/00/full": LARGE}


async def _takes_any_buffer(destination: Destination, again: Again) -> None:
    data = os.urandom(4096)
    bodies: tuple[Buffer, ...] = (data, bytearray(data), memoryview(data), memoryview(data).cast("I"), memoryview(data + b"..")[:4096])
    for number, body in enumerate(bodies):
        assert await destination.create(f"keys/{number}", body) is True
        assert await destination.read(f"keys/{number}", 4096) == data


async def _reads_ranges_of_every_shape(destination: Destination, again: Again) -> None:
    data = os.urandom(70_001)
    await destination.create("packs/aa/ranges", data)
    edges = (0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 65_536, 69_999, 70_000, 70_001)
    for begin in edges:
        for end in edges:
            if begin <= end:
                space = bytearray(b"\xee" * (end - begin + 2))
                await destination.read_into("packs/aa/ranges", begin, memoryview(space)[1:-1])
                assert space[1:-1] == data[begin:end], f"bytes {begin} to {end} differ"
                assert space[:1] + space[-1:] == b"\xee\xee", f"reading bytes {begin} to {end} wrote past the buffer"
    async with _raises(ValueError):
        await destination.read_into("packs/aa/ranges", -1, memoryview(bytearray(1)))


async def _says_when_an_object_is_short(destination: Destination, again: Again) -> None:
    await destination.create("packs/aa/short", b"x" * 1000)
    for offset, length in ((0, 1001), (999, 2), (1000, 1), (5000, 1)):
        async with _raises(ObjectDamaged):
            await destination.read_into("packs/aa/short", offset, memoryview(bytearray(length)))


async def _keeps_to_the_limit(destination: Destination, again: Again) -> None:
    await destination.create("config", b"x" * 1000)
    assert len(await destination.read("config", 1000)) == 1000
    for limit in (999, 1, 0):
        async with _raises(ObjectDamaged):
            await destination.read("config", limit)


async def _reads_tails(destination: Destination, again: Again) -> None:
    data = os.urandom(5000)
    await destination.create("packs/aa/tail", data)
    for length in (0, 1, 4999, 5000, 5001, 1 << 20):
        tail, size = await destination.read_tail("packs/aa/tail", length)
        assert size == 5000
        assert tail == data[max(0, 5000 - length) :]


async def _says_what_is_missing(destination: Destination, again: Again) -> None:
    await destination.create("packs/aa/there", b"x")
    for key in ("config", "packs/aa/gone", "packs/bb/gone", "packs/aa", "packs/aa/there/below"):
        async with _raises(ObjectNotFound):
            await destination.read(key, 100)
        async with _raises(ObjectNotFound):
            await destination.read_into(key, 0, memoryview(bytearray(1)))
        async with _raises(ObjectNotFound):
            await destination.read_tail(key, 1)


async def _lists_by_prefix(destination: Destination, again: Again) -> None:
    objects = {"config": 1, "packs/aa/one": 2, "packs/aa/two": 3, "packs/ab/three": 4, "packs-old/aa/four": 5, "sessions/x/y/z/0": 6}
    assert await keys_of(destination) == {}
    assert await keys_of(destination, "packs/") == {}
    for key, size in objects.items():
        await destination.create(key, b"x" * size)
    other = await again()
    for prefix in ("", "packs/", "packs/aa/", "packs/ac/", "sessions/", "sessions/x/y/", "config/"):
        below = {key: size for key, size in objects.items() if key.startswith(prefix)}
        assert await keys_of(other, prefix) == below, prefix
        assert sorted(await list_keys(other, prefix)) == sorted(below), prefix


async def _lists_many(destination: Destination, again: Again) -> None:
    if not destination.capabilities.consistent_list:
        return
    keys = [f"packs/{number % 7:02x}/{number:08x}" for number in range(2500)]
    for begin in range(0, len(keys), 50):
        await asyncio.gather(*(destination.create(key, b"") for key in keys[begin : begin + 50]))
    assert await keys_of(destination, "packs/") == dict.fromkeys(keys, 0)
    assert sorted(await list_keys(destination, "packs/")) == sorted(keys)
    listing = destination.list("packs/")
    assert (await anext(listing)).key in keys
    # A listing may be left before its end.
    close = getattr(listing, "aclose", None)
    if close is not None:
        await close()


async def _deletes(destination: Destination, again: Again) -> None:
    await destination.create("packs/aa/one", b"1")
    await destination.create("packs/aa/two", b"2")
    await destination.read_into("packs/aa/one", 0, memoryview(bytearray(1)))
    await destination.delete("packs/aa/one")
    await destination.delete("packs/aa/one")
    await destination.delete("packs/zz/never")
    assert await keys_of(await again()) == {"packs/aa/two": 1}
    async with _raises(ObjectNotFound):
        await destination.read_into("packs/aa/one", 0, memoryview(bytearray(1)))
    assert await destination.create("packs/aa/one", b"new") is True
    buffer = bytearray(3)
    await destination.read_into("packs/aa/one", 0, memoryview(buffer))
    assert buffer == b"new"


async def _refuses_bad_keys(destination: Destination, again: Again) -> None:
    for key in BAD_KEYS:
        async with _raises(ValueError):
            await destination.create(key, b"x")
        async with _raises(ValueError):
            await destination.read(key, 1)
        async with _raises(ValueError):
            await destination.read_into(key, 0, memoryview(bytearray(1)))
        async with _raises(ValueError):
            await destination.read_tail(key, 1)
        async with _raises(ValueError):
            await destination.delete(key)
    for prefix in BAD_PREFIXES:
        async with _raises(ValueError):
            await keys_of(destination, prefix)
    assert await keys_of(destination) == {}


async def _is_whole_or_absent_after_a_cancelled_create(destination: Destination, again: Again) -> None:
    data = os.urandom(6 << 20)
    other = await again()
    for turn in range(24):
        key = f"packs/cc/{turn:02d}"
        creating = asyncio.create_task(destination.create(key, data))
        for _ in range(turn % 4):
            await asyncio.sleep(0)
        if turn >= 4:
            await asyncio.sleep(turn * 0.0004)
        creating.cancel()
        await asyncio.wait([creating])
        # A store may finish what it could not stop, but what is there is whole.
        if key in await keys_of(other, "packs/"):
            assert await other.read(key, len(data)) == data, "a cancelled create left a part of its object"
        elif destination.capabilities.exclusive_create:
            await destination.create(key, data)
            assert await other.read(key, len(data)) == data


async def _leaves_the_buffer_alone_after_a_cancelled_read(destination: Destination, again: Again) -> None:
    data = b"\xff" * (8 << 20)
    await destination.create("packs/dd/read", data)
    for turn in range(12):
        buffer = bytearray(len(data))
        reading = asyncio.create_task(destination.read_into("packs/dd/read", 0, memoryview(buffer)))
        for _ in range(turn):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        # From here on the buffer is the caller's again: a late write would show.
        buffer[:] = bytes(len(data))
        await destination.read_tail("packs/dd/read", 1 << 20)
        assert not any(buffer), "a cancelled read wrote into the buffer after it had ended"


async def _works_side_by_side(destination: Destination, again: Again) -> None:
    async def one(number: int) -> None:
        data = bytes([number]) * (100_000 + number)
        key = f"packs/{number % 4:02x}/{number:04x}"
        assert await destination.create(key, data) is True
        buffer = bytearray(1000)
        await destination.read_into(key, 99_000, memoryview(buffer))
        assert buffer == data[:1000]
        assert await destination.read(key, len(data)) == data
        if number % 3 == 0:
            await destination.delete(key)

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(one(number))
    assert len(await keys_of(destination)) == 40


CASES: tuple[Case, ...] = tuple(
    Case(function.__name__.strip("_"), function)
    for function in (
        _describes_itself,
        _creates_and_reads_back,
        _refuses_a_second_create,
        _lets_one_of_many_win,
        _takes_empty_objects,
        _takes_a_full_pack,
        _takes_any_buffer,
        _reads_ranges_of_every_shape,
        _says_when_an_object_is_short,
        _keeps_to_the_limit,
        _reads_tails,
        _says_what_is_missing,
        _lists_by_prefix,
        _lists_many,
        _deletes,
        _refuses_bad_keys,
        _is_whole_or_absent_after_a_cancelled_create,
        _leaves_the_buffer_alone_after_a_cancelled_read,
        _works_side_by_side,
    )
)
