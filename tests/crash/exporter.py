"""Run by the crash tests as a process of its own: exports a file, and kills itself at the Nth change of a destination.

Usage: exporter.py CONFIG SOURCE [before|after|never N]
"""

from __future__ import annotations

import asyncio
import sys

import snapferry
from tests.crash.dying import Dies, arm


async def main(config: str, source: str) -> None:
    """Exports, and prints how many changes there were and the bytes sent."""
    async with snapferry.open_repository(config) as repository:
        result = await repository.export(source, volume="v", block_size=64 << 10)
        print(Dies.changes, sum(result.bytes_sent.values()), result.exit_code)


if __name__ == "__main__":
    arm(sys.argv[3:])
    asyncio.run(main(sys.argv[1], sys.argv[2]))
