"""One restore through the Python API, in a process of its own, that notes every range asked of every replica.

    python benches/traced_restore.py CONFIG SNAPSHOT TARGET      # prints one JSON document: the result, and what was asked

Below the product's own retries and hedges, so that these are seen as what they are.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import uvloop

from snapferry.destination import Destination, open_destination
from snapferry.engine import membership, open_repository
from snapferry.transport.wrapper import Wrapper


class _Traced(Wrapper):
    """Notes the reads of ranges of packs: name, key, offset, length, when it was asked for, when it ended, and whether all of it came."""

    def __init__(self, inner: Destination, reads: list[list[Any]]) -> None:
        super().__init__(inner)
        self._reads = reads

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        begun, came = time.perf_counter(), False
        try:
            await self.inner.read_into(key, offset, buffer)
            came = True
        finally:
            self._reads.append([self.name, key, offset, buffer.nbytes, begun, time.perf_counter(), came])


async def _restore(config: str, snapshot: str, target: str) -> dict[str, Any]:
    reads: list[list[Any]] = []

    async def opened(*arguments: Any, **options: Any) -> Destination:
        return _Traced(await open_destination(*arguments, **options), reads)

    membership.open_destination = opened  # type: ignore[attr-defined]
    async with open_repository(config) as repository:
        reads.clear()
        result = await repository.restore(snapshot, target)
    return {
        "seconds": result.seconds,
        "bytes_written": result.bytes_written,
        "bytes_fetched": result.bytes_fetched,
        "hedged": result.hedged,
        "failovers": result.failovers,
        "damage": len(result.damage),
        "reads": reads,
    }


def main() -> None:
    """See the module."""
    print(json.dumps(uvloop.run(_restore(*sys.argv[1:]))))


if __name__ == "__main__":
    main()
