"""Two hosts with one repository: one stops before each of its operations in turn, and the other makes a whole export meanwhile.

Each has its own catalog and cache. Whatever the moment, both snapshots are exact at every place, and nothing is left that a verification of
everything would find.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass, field
from functools import partial

import pytest

from snapferry.config import Config
from snapferry.destination import Destination
from snapferry.engine import open_repository
from snapferry.errors import SnapferryError
from snapferry.testing.faults import Hangs
from snapferry.testing.sources import MemorySource
from snapferry.types import ExportResult
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

BEFORE = volume(1, blocks=6, zeros=[2])
ONE = changed(BEFORE, 2, [0, 4])
# Both bring block 4 as it is new, each one of its own besides.
OTHER = changed(ONE, 3, [0, 5])


@dataclass
class Pause:
    """Before the ``nth`` of these operations, through whichever handle: ``reached``, then waiting for ``over``."""

    nth: int
    operations: frozenset[str] = frozenset({"create", "list"})
    count: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Paused(Hangs):
    """Waits where ``pause`` says."""

    def __init__(self, pause: Pause, inner: Destination) -> None:
        super().__init__(inner)
        self._pause = pause

    async def before(self, operation: str, key: str) -> None:
        if operation not in self._pause.operations:
            return
        self._pause.count += 1
        if self._pause.count == self._pause.nth:
            self._pause.reached.set()
            await self._pause.over.wait()


class Hosts:
    """Two machines that have both seen the repository with one snapshot; each trial begins from there."""

    def __init__(self, lab: Lab, machines: tuple[Config, Config]) -> None:
        self.lab = lab
        self.machines = machines
        self._stores = lab.saved()
        self._homes = [machine.repository.cache_dir.parent for machine in machines]
        for home in self._homes:
            shutil.copytree(home, home.with_suffix(".before"))

    def begin_anew(self) -> None:
        self.lab.go_back(self._stores)
        for home in self._homes:
            shutil.rmtree(home)
            shutil.copytree(home.with_suffix(".before"), home)

    async def export(self, machine: Config, data: bytes, name: str) -> ExportResult:
        async with open_repository(machine) as repository:
            return await repository.export(MemorySource(data), volume=name, block_size=BLOCK)

    async def export_until(self, pause: Pause, machine: Config, data: bytes) -> asyncio.Task[ExportResult]:
        """An export of the volume ``v`` that stands where ``pause`` says, or that is done because it has fewer operations."""
        self.lab.wrappers["near"] = partial(Paused, pause)
        exporting = asyncio.create_task(self.export(machine, data, "v"))
        waiting = asyncio.create_task(pause.reached.wait())
        await asyncio.wait([exporting, waiting], return_when=asyncio.FIRST_COMPLETED)
        self.lab.wrappers.clear()
        waiting.cancel()
        return exporting

    async def check(self, expected: dict[str, bytes]) -> None:
        await self.lab.assert_restores_alone(expected)
        async with self.lab.repository(*self.lab.names) as blank:
            assert {item.snapshot.id for item in await blank.list()} == expected.keys()
            result = await blank.verify(read_data=100)
            assert (result.damage, result.unverified) == ((), {})


async def make_hosts(lab: Lab) -> tuple[Hosts, str]:
    machines = lab.machine(), lab.machine()
    async with open_repository(machines[0]) as repository:
        first = await repository.export(MemorySource(BEFORE), volume="v", block_size=BLOCK)
    async with open_repository(machines[1]) as repository:
        # It has seen everything, and has the segments.
        await repository.export(MemorySource(BEFORE), volume="v", dry_run=True)
        await repository.list()
    return Hosts(lab, machines), first.id


@pytest.mark.parametrize(
    ("names", "second"), [(("near",), "v"), (("near",), "w"), (("near", "far"), "v")], ids=["same", "different", "mirrored"]
)
async def test_one_host_exports_whole_while_another_stands_at_any_step(make_lab: MakeLab, names: tuple[str, ...], second: str) -> None:
    lab = await make_lab(*names)
    hosts, first = await make_hosts(lab)
    one, other = hosts.machines
    trial = 0
    while True:
        trial += 1
        hosts.begin_anew()
        pause = Pause(trial)
        standing = await hosts.export_until(pause, one, ONE)
        if standing.done():
            await standing
            break
        results = [await hosts.export(other, OTHER, second)]
        pause.over.set()
        results.append(await standing)
        assert [result.exit_code for result in results] == [0, 0], trial
        expected = {first: BEFORE, results[0].id: OTHER, results[1].id: ONE}
        await hosts.check(expected)
        if second == "v":
            generations = sorted(result.snapshot.generation for result in results)
            assert generations in ([2, 2], [2, 3]), trial
            async with lab.repository(*names) as blank:
                latest = max((result.snapshot for result in results), key=lambda it: (it.generation, it.id))
                assert await lab.contents(blank, "v") == expected[latest.id]
    assert trial > 15


async def test_a_host_that_dies_while_another_exports_breaks_nothing_and_goes_on(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    hosts, first = await make_hosts(lab)
    one, other = hosts.machines
    trial = 0
    while True:
        trial += 1
        hosts.begin_anew()
        pause = Pause(trial, frozenset({"create"}))
        dying = await hosts.export_until(pause, one, ONE)
        if dying.done():
            await dying
            break
        result = await hosts.export(other, OTHER, "v")
        dying.cancel()
        with contextlib.suppress(asyncio.CancelledError, SnapferryError):
            await dying
        again = await hosts.export(one, ONE, "v")
        async with lab.repository("near") as blank:
            # The dead one's own counts too if it had decided.
            listed = {item.snapshot.id for item in await blank.list()}
        expected = {first: BEFORE, result.id: OTHER, again.id: ONE}
        assert expected.keys() <= listed
        assert len(listed) <= 4
        await hosts.check({**dict.fromkeys(listed, ONE), **expected})
    assert trial > 5
