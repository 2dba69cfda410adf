"""Run by the crash tests as a process of its own: forgets all but the latest snapshot, prunes, and kills itself at the Nth change of a destination.

Usage: pruner.py CONFIG [before|after|never N]
"""

from __future__ import annotations

import asyncio
import sys

import snapferry
from tests.crash.dying import Dies, arm


async def main(config: str) -> None:
    """Forgets and prunes, and prints how many changes there were."""
    async with snapferry.open_repository(config) as repository:
        await repository.forget(policy=snapferry.RetentionPolicy(keep_last=1))
        result = await repository.prune(lease=0.0)
        print(Dies.changes, result.exit_code)


if __name__ == "__main__":
    arm(sys.argv[2:])
    asyncio.run(main(sys.argv[1]))
