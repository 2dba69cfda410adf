"""Uploads that wait to be taken up again: whose they are, how long they are kept, and who gets their memory."""

from __future__ import annotations

import asyncio

import pytest

from snapferry.service.access import Grant
from snapferry.service.problems import Problem
from snapferry.service.uploads import Uploads
from snapferry.transport import ByteBudget

MINE, OTHER = (Grant(bytes([number]) * 32, "append", frozenset({"main"})) for number in range(2))


async def test_another_client_does_not_find_it() -> None:
    budget = ByteBudget(100)
    uploads = Uploads(budget)
    upload = uploads.add(MINE, "main", "packs/a", b"", await budget.acquire(60))
    assert uploads.find(upload.identity, MINE, "main") is upload
    for grant, store in ((OTHER, "main"), (MINE, "second")):
        with pytest.raises(Problem) as caught:
            uploads.find(upload.identity, grant, store)
        assert caught.value.status == 404
    uploads.close()
    assert budget.available == 100


async def test_one_that_is_left_alone_goes() -> None:
    budget = ByteBudget(100)
    uploads = Uploads(budget, max_age=0.05)
    uploads.add(MINE, "main", "packs/a", b"", await budget.acquire(60))
    # Waits for just that: its bytes come back.
    await asyncio.wait_for(budget.acquire(100), 10)


async def test_the_oldest_gives_its_memory_to_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.service.uploads._UNTOUCHED", 0.0)
    budget = ByteBudget(100)
    uploads = Uploads(budget)
    first, second = [uploads.add(MINE, "main", key, b"", await budget.acquire(50)) for key in ("packs/a", "packs/b")]
    await uploads.settle(first)
    await asyncio.wait_for(budget.acquire(50), 10)
    assert uploads.find(first.identity, MINE, "main") is first
    with pytest.raises(Problem):
        uploads.find(second.identity, MINE, "main")
    uploads.close()


async def test_one_in_use_is_not_taken_and_a_newer_connection_ends_the_older() -> None:
    budget = ByteBudget(100)
    uploads = Uploads(budget)
    upload = uploads.add(MINE, "main", "packs/a", b"", await budget.acquire(100))
    begun = asyncio.Event()

    async def fill() -> None:
        begun.set()
        await asyncio.Event().wait()

    older = asyncio.create_task(uploads.occupy(upload, fill))
    await begun.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(budget.acquire(50), 0.05)
    await uploads.settle(upload)
    with pytest.raises(Problem) as caught:
        await older
    assert caught.value.status == 409
    uploads.close()
    assert budget.available == 100
