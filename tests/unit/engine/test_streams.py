"""Volumes whose size only their end tells: the same snapshots, in the same memory, or none."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from snapferry.destination import Destination
from snapferry.errors import ConfigurationError, SourceChanged, SourceReadError
from snapferry.source import StreamSource
from snapferry.testing.faults import Hangs
from snapferry.testing.sources import BreaksOff, MemorySource, MemoryStream
from snapferry.types import MiB, Progress
from tests.support.lab import BLOCK, MakeLab, changed, volume


@pytest.mark.parametrize(
    ("blocks", "tail"), [(0, 0), (0, 1), (1, 0), (24, 1000), (24, 0), (127, 0), (128, 0), (128, 1), (256, 0), (600, 7)]
)
async def test_the_same_snapshot_as_of_a_source_of_known_size(make_lab: MakeLab, blocks: int, tail: int) -> None:
    lab = await make_lab("only")
    data = volume(1, blocks=blocks, tail=tail)
    async with lab.repository() as repository:
        known = await repository.export(MemorySource(data), volume="known", block_size=BLOCK)
        stream = await repository.export(MemoryStream(data, piece=50_000), volume="stream", block_size=BLOCK)
        assert stream.snapshot.size == len(data)
        assert (stream.blocks_total, stream.blocks_zero, stream.bytes_read) == (known.blocks_total, known.blocks_zero, len(data))
        assert stream.blocks_new == 0
        ours, theirs = stream.snapshot.roots, known.snapshot.roots
        assert (ours.height, ours.ids and ours.ids.page) == (theirs.height, theirs.ids and theirs.ids.page)
    await lab.assert_restores_alone({known.id: data, stream.id: data})


async def test_it_is_compared_with_the_snapshot_before(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    data = volume(2, blocks=300)
    expected = {}
    async with lab.repository() as repository:
        for size in (len(data), len(data), 5 * BLOCK + 7, 290 * BLOCK, 0, len(data)):
            result = await repository.export(MemoryStream(data[:size]), volume="v", block_size=BLOCK)
            expected[result.id] = data[:size]
        again = changed(data, 3, [7, 200])
        result = await repository.export(MemoryStream(again), volume="v")
        expected[result.id] = again
        assert result.blocks_new == 2
        unchanged = await repository.export(MemoryStream(again), volume="v")
        expected[unchanged.id] = again
        assert unchanged.snapshot.roots == result.snapshot.roots
    await lab.assert_restores_alone(expected)


async def test_one_that_breaks_off_leaves_nothing(make_lab: MakeLab) -> None:
    lab = await make_lab()
    data = volume(4)
    async with lab.repository() as repository:
        with pytest.raises(SourceReadError, match="cannot read on after byte") as caught:
            await repository.export(BreaksOff(data), volume="v", block_size=BLOCK)
        assert caught.value.exit_code == 1
        with pytest.raises(SourceReadError):
            await repository.export(BreaksOff(data), volume="v", block_size=BLOCK, skip_unreadable=True)
        assert await repository.list() == []
        result = await repository.export(MemoryStream(data), volume="v", block_size=BLOCK)
    assert not [key for store in lab.stores.values() for key in store if key.startswith("snapshots/") and result.id not in key]
    await lab.assert_restores_alone({result.id: data})


async def test_its_writer_waits_while_destinations_are_slow(make_lab: MakeLab) -> None:
    """What was taken from the stream never runs ahead of what was sent by more than the budget."""
    lab = await make_lab("only")
    data = os.urandom(96 * MiB)
    opened: list[Hangs] = []

    def hanging(inner: Destination) -> Destination:
        opened.append(Hangs(inner, "create", lambda key: key.startswith("packs/")))
        return opened[-1]

    lab.wrappers["only"] = hanging
    async with lab.repository(memory=32 * MiB) as repository:
        budget = repository._membership.tools.budget
        stream = MemoryStream(data, piece=1 * MiB)
        running = asyncio.create_task(repository.export(stream, volume="v", block_size=BLOCK))
        before = -1
        while before != stream.taken or not stream.taken:
            before = stream.taken
            await asyncio.sleep(0.3)
        assert stream.taken <= 40 * MiB
        for destination in opened:
            destination.released.set()
        result = await running
        assert budget.available == budget.total
        assert budget.peak <= 32 * MiB
    await lab.assert_restores_alone({result.id: data})


async def test_waiting_for_a_stream_can_be_cancelled(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    reading, writing = os.pipe()
    os.write(writing, b"the beginning")
    async with lab.repository() as repository:
        export = asyncio.create_task(repository.export(StreamSource(reading, "pipe", owned=True), volume="v"))
        while not any(key.startswith("sessions/") for key in lab.stores["only"]):
            await asyncio.sleep(0.01)
        export.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(10):
                await export
        assert await repository.list() == []
    os.close(writing)
    os.close(reading)


async def test_a_real_pipe_while_it_is_written(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    data = volume(6, blocks=200)
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    source = StreamSource(reading, "pipe", owned=True)
    async with lab.repository() as repository:
        result = await repository.export(source, volume="v", block_size=BLOCK)
        known = await repository.export(MemorySource(data), volume="w", block_size=BLOCK)
    writer.join()
    source.close()
    assert result.snapshot.roots.ids
    assert known.snapshot.roots.ids
    assert result.snapshot.roots.ids.page == known.snapshot.roots.ids.page
    await lab.assert_restores_alone({result.id: data, known.id: data})


async def test_another_length_than_announced_is_no_snapshot(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = await make_lab("only")
    (tmp_path / "file").write_bytes(volume(7))
    async with lab.repository() as repository:
        for announced in (len(volume(7)) - 1, len(volume(7)) + 1):
            with (tmp_path / "file").open("rb") as file, pytest.raises(SourceChanged, match="were announced"):
                stream = StreamSource(file.fileno(), "standard input")
                stream.expect(announced)
                await repository.export(stream, volume="v")
        assert await repository.list() == []


async def test_progress_and_a_dry_run_of_a_stream(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    data = volume(8, blocks=200)
    told: list[Progress] = []
    async with lab.repository() as repository:
        dry = await repository.export(MemoryStream(data), volume="v", block_size=BLOCK, dry_run=True, on_progress=told.append)
        assert (dry.snapshot.size, dry.dry_run, dry.blocks_new > 0) == (len(data), True, True)
        await repository.export(MemoryStream(data), volume="v", block_size=BLOCK, on_progress=told.append)
        assert len(await repository.list()) == 1
    assert all(event.total is None for event in told)
    assert told[-1].done == len(data)


async def test_standard_input_needs_a_name(make_lab: MakeLab) -> None:
    lab = await make_lab("only")
    async with lab.repository() as repository:
        with pytest.raises(ConfigurationError, match="give one with --volume"):
            await repository.export(MemoryStream(b"x", name="standard input"))
        assert (await repository.export(MemoryStream(b"x", name="fifo"))).snapshot.volume == "fifo"
