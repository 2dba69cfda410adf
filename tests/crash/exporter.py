"""Run by the crash tests as a process of its own: exports a file, and kills itself (kill -9) at the Nth create, before or after it is done.

Usage: exporter.py CONFIG SOURCE [before|after|never N]
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import snapferry
from snapferry.destination import Destination, open_destination
from snapferry.engine import membership
from snapferry.transport.wrapper import Wrapper


class Dies(Wrapper):
    """Kills the process at the nth create at all destinations together."""

    when = "never"
    nth = 0
    creates = 0

    async def create(self, key: str, data: Any) -> bool:
        """Creates, and may not live to tell."""
        Dies.creates += 1
        mine = Dies.creates == Dies.nth
        if mine and Dies.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        created = await self.inner.create(key, data)
        if mine and Dies.when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return created


async def _open(name: str, url: str, options: Any = None, *, writable: bool = True) -> Destination:
    return Dies(await open_destination(name, url, options, writable=writable))


async def main(config: str, source: str) -> None:
    """Exports, and prints how many creates there were and the bytes sent."""
    vars(membership)["open_destination"] = _open
    async with snapferry.open_repository(config) as repository:
        result = await repository.export(source, volume="v", block_size=64 << 10)
        print(Dies.creates, sum(result.bytes_sent.values()), result.exit_code)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        Dies.when, Dies.nth = sys.argv[3], int(sys.argv[4])
    asyncio.run(main(sys.argv[1], sys.argv[2]))
