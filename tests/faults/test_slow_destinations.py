"""Whole exports to a destination that is slow or absent, in each manner: the other one is acknowledged, nothing is lost, and the next export mends it."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from snapferry.config import Config
from snapferry.destination import Destination
from snapferry.errors import DestinationDetached, DestinationUnreachable
from snapferry.testing.faults import Hangs, Trickles, Vanishes
from snapferry.testing.sources import MemorySource
from snapferry.transport.wrapper import Wrapper
from snapferry.types import MiB, Progress
from tests.support.lab import BLOCK, Lab, MakeLab

VOLUME = 96 * MiB
Slow = Literal["block", "spool", "detach"]


def how(lab: Lab, slow: Slow, patience: float = 1.0) -> Config:
    """The lab's machine, with ``far`` treated in that manner."""
    config = lab.config
    places = tuple(
        dataclasses.replace(place, slow=slow if place.name == "far" else "block", patience=patience) for place in config.destinations
    )
    return dataclasses.replace(config, destinations=places)


def data(seed: int) -> bytes:
    return random.Random(seed).randbytes(VOLUME)


class Faults:
    """What is wrong with ``far``."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hanging: list[Hangs] = []

    def dead_from_the_start(self) -> None:
        self.lab.missing.add("far")

    def dies_half_way(self) -> None:
        self.lab.wrappers["far"] = lambda inner: Vanishes(inner, 10 * MiB)

    def hangs(self) -> None:
        def wrap(inner: Destination) -> Destination:
            self.hanging.append(Hangs(inner, "create", lambda key: key.startswith("packs/")))
            return self.hanging[-1]

        self.lab.wrappers["far"] = wrap

    def trickles_at_packs(self) -> None:
        self.lab.wrappers["far"] = lambda inner: Trickles(inner, 1.0, touches=lambda key: key.startswith("packs/"))

    def trickles(self) -> None:
        self.lab.wrappers["far"] = lambda inner: Trickles(inner, 1.0)

    def mend(self) -> None:
        self.lab.missing.clear()
        self.lab.wrappers.clear()


@pytest.fixture
async def lab(make_lab: MakeLab) -> AsyncIterator[Lab]:
    lab = await make_lab()
    yield lab
    left = list(lab.directory.rglob("spool-*"))
    assert left == [], "spooled packs are left though everything was sent"


@pytest.mark.parametrize("fault", ["dead_from_the_start", "dies_half_way", "hangs", "trickles", "trickles_at_packs"])
@pytest.mark.parametrize("slow", ["spool", "detach"])
async def test_the_other_is_acknowledged_and_the_next_export_brings_this_one_up_to_date(lab: Lab, slow: Slow, fault: str) -> None:
    import snapferry

    volumes = {1: data(1), 2: data(2)[: 8 * MiB] + data(1)[8 * MiB :]}
    faults = Faults(lab)
    getattr(faults, fault)()
    acknowledged = asyncio.Event()

    def look(event: Progress) -> None:
        if "near" in event.channels and event.channels["near"].state == "acknowledged":
            acknowledged.set()

    async def export() -> Any:
        async with snapferry.open_repository(how(lab, slow)) as repository:
            return await repository.export(MemorySource(volumes[1]), volume="v", block_size=BLOCK, on_progress=look)

    exporting = asyncio.create_task(export())
    if slow == "spool" and fault in ("hangs", "trickles_at_packs"):
        # It is waited for, as is everything that is spooled; but nobody waits for its acknowledgement.
        async with asyncio.timeout(60):
            await acknowledged.wait()
        assert any(lab.directory.rglob("spool-*/packs/*/*"))
        exporting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exporting
    else:
        async with asyncio.timeout(60):
            result = await exporting
        assert result.acknowledged == ("near",)
        assert result.exit_code == 3
        expected = DestinationDetached if slow == "detach" and fault not in ("dead_from_the_start", "trickles") else DestinationUnreachable
        assert isinstance(result.failures["far"], expected)
        assert any(lab.directory.rglob("spool-*/packs/*/*")) == (slow == "spool")
    faults.mend()
    async with snapferry.open_repository(how(lab, slow)) as repository:
        first = (await repository.list("v"))[0].snapshot.id
        second = await repository.export(MemorySource(volumes[2]), volume="v")
        assert second.acknowledged == ("near", "far")
        assert {item.snapshot.id: item.destinations for item in await repository.list("v")} == {
            first: ("near", "far"),
            second.id: ("near", "far"),
        }
        assert not (await repository.verify(read_data=100)).damage
    await lab.assert_restores_alone({first: volumes[1], second.id: volumes[2]})


@pytest.mark.parametrize("fault", ["dies_half_way", "dead_from_the_start"])
async def test_one_that_makes_others_wait_is_given_up_in_the_end(lab: Lab, fault: str) -> None:
    import snapferry

    getattr(Faults(lab), fault)()
    async with snapferry.open_repository(how(lab, "block", patience=1.0)) as repository, asyncio.timeout(60):
        result = await repository.export(MemorySource(data(1)), volume="v", block_size=BLOCK)
    assert result.acknowledged == ("near",)
    assert isinstance(result.failures["far"], DestinationUnreachable)
    await lab.assert_restores_alone({result.id: data(1)}, "near")


async def test_what_is_spooled_is_sent_before_the_export_returns(lab: Lab) -> None:
    import snapferry

    lab.wrappers["far"] = lambda inner: Trickles(inner, 24.0 * MiB)
    seen: set[str] = set()
    lags: list[int] = []

    def look(event: Progress) -> None:
        if "far" in event.channels:
            seen.add(event.channels["far"].state)
            lags.append(event.channels["far"].lag)

    async with snapferry.open_repository(how(lab, "spool")) as repository:
        result = await repository.export(MemorySource(data(1)), volume="v", block_size=BLOCK, on_progress=look)
    assert result.acknowledged == ("near", "far")
    assert result.exit_code == 0
    assert {"spooling", "acknowledged"} <= seen
    assert max(lags) > 16 * MiB
    assert lags[-1] == 0
    await lab.assert_restores_alone({result.id: data(1)})


async def test_a_sync_takes_what_is_in_the_spool_before_it_asks_a_replica(lab: Lab) -> None:
    import snapferry

    faults = Faults(lab)
    faults.dead_from_the_start()
    async with snapferry.open_repository(how(lab, "spool")) as repository:
        result = await repository.export(MemorySource(data(1)), volume="v", block_size=BLOCK)
    assert result.acknowledged == ("near",)
    faults.mend()
    read: list[int] = []

    class Counted(Wrapper):
        async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
            read.append(buffer.nbytes)
            await self.inner.read_into(key, offset, buffer)

    lab.wrappers["near"] = Counted
    async with snapferry.open_repository(how(lab, "spool")) as repository:
        (synced,) = (await repository.sync(["far"])).destinations
    assert not synced.failures
    assert synced.bytes_copied > VOLUME
    assert sum(read) < 2 * MiB
    lab.wrappers.clear()
    await lab.assert_restores_alone({result.id: data(1)})
