"""When commits are begun, where a destination fails between having everything and committing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from snapferry.errors import Fenced, SnapferryError
from snapferry.pipeline import committing
from snapferry.testing.sources import MemorySource
from snapferry.transport import FanOut
from tests.support.gates import Gates, until
from tests.support.lab import BLOCK, MakeLab, volume


async def test_one_that_failed_after_it_had_everything_does_not_count(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session was ended by a prune, say, while it waited for the other one: there will never be two copies, so none is committed."""
    opened: list[FanOut] = []
    made: list[committing.Committing] = []
    enter, run = FanOut.__aenter__, committing.Committing.run

    async def entered(fanout: FanOut) -> FanOut:
        opened.append(fanout)
        return await enter(fanout)

    async def running(self: committing.Committing, *how: Any) -> set[str]:
        made.append(self)
        return await run(self, *how)

    monkeypatch.setattr(FanOut, "__aenter__", entered)
    monkeypatch.setattr(committing.Committing, "run", running)
    lab, late = await make_lab(), Gates("create", "index/", 1)
    lab.wrappers["far"] = late
    async with lab.repository(min_copies=2) as repository:
        exporting = asyncio.create_task(repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK))
        await until(lambda: bool(made) and late.reached and "near" in made[0]._holding)
        opened[0].fail("near", Fenced("a prune has ended the session", "near"))
        late.release()
        with pytest.raises(SnapferryError, match="too few destinations are left to make 2 copies; nothing was committed"):
            await exporting
    assert not [key for store in lab.stores.values() for key in store if key.startswith("snapshots/")]
