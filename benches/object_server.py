"""MiB/s of packs put into and got from a real ``snapferry serve`` on this machine, one and several at a time.

    python -m benches.object_server [--tls] [DIRECTORY]

The store is below DIRECTORY (a temporary one by default); each object is synced before it is acknowledged. Prints the median of the rounds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from snapferry.destination import open_destination
from tests.support.object_server import ObjectServer, object_server

SIZE = 32 << 20
OBJECTS = 12
ROUNDS = 3


async def main(server: ObjectServer) -> None:
    destination = await open_destination("far", server.url(), server.options())
    pack = os.urandom(SIZE)
    spaces = [bytearray(SIZE) for _ in range(4)]
    for together in (1, 4):
        puts, gets = [], []
        for turn in range(ROUNDS):
            keys = [f"packs/{together}{turn}/{number}" for number in range(OBJECTS)]

            async def put(key: str, lane: int) -> None:
                assert await destination.create(key, pack)

            async def get(key: str, lane: int) -> None:
                await destination.read_into(key, 0, memoryview(spaces[lane]))

            puts.append(await _rate(put, keys, together))
            gets.append(await _rate(get, keys, together))
            for key in keys:
                await destination.delete(key)
        for what, rates in (("PUT", puts), ("GET", gets)):
            print(f"{what} {together} at a time: {statistics.median(rates):.0f} MiB/s ({min(rates):.0f} to {max(rates):.0f})", flush=True)
    assert all(space == pack for space in spaces)
    await destination.close()


async def _rate(work: Callable[[str, int], Awaitable[None]], keys: list[str], together: int) -> float:
    left = iter(keys)

    async def lane(number: int) -> None:
        for key in left:
            await work(key, number)

    begun = time.perf_counter()
    await asyncio.gather(*(lane(number) for number in range(together)))
    return len(keys) * (SIZE >> 20) / (time.perf_counter() - begun)


if __name__ == "__main__":
    places = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    with (
        tempfile.TemporaryDirectory(dir=places[0] if places else None) as root,
        object_server(Path(root), tls="--tls" in sys.argv) as running,
    ):
        uvloop.run(main(running))
