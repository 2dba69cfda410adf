"""Modules that lie, hang, crash, trickle and never end: nothing is lost, all waiting ends, and the error names the plug-in and the destination."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import snapferry
from snapferry.config import DestinationConfig, PluginConfig, new_config
from snapferry.destination import Destination, module, module_process, open_destination, prepare_destination
from snapferry.errors import DestinationError, DestinationUnreachable
from tests.support.modules import PYTHON, Workshop, processes_below

PACK = os.urandom(1 << 20) * 4
BLOCK = 64 << 10


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 1.5)
    monkeypatch.setattr(module, "_SLOWEST", 16 << 20)
    monkeypatch.setattr(module_process, "_PAUSE", 0.01)
    monkeypatch.setattr(module_process, "END_SECONDS", 0.3)


@asynccontextmanager
async def opened(workshop: Workshop, fault: str, *arguments: str, armed: bool = True, **how: Any) -> AsyncIterator[Destination]:
    plugin = workshop.faulty(fault, *arguments, **how)
    await prepare_destination("far", "plugin:tape", plugin=plugin)
    destination = await open_destination("far", "plugin:tape", plugin=plugin)
    if armed:
        workshop.arm()
    try:
        yield destination
    finally:
        await destination.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("KeepsNothing", "the module says that it stored it, and does not have it"),
        ("KeepsHalf", "the module says that it stored 4194304 bytes, and has 2097152"),
        ("SaysThatAllIsThere", "the module says that it has it already, and does not have it"),
        ("NeverAnswers", "the module was not done with it after"),
        ("DiesInAPut", r"the module exited with 3; its last words: the tape is \?\[31mtorn"),
        ("EatsMemory", "MiB of memory, and may use 128 MiB: killed"),
        ("AsksForMemory", "broke the connection off"),
    ],
)
async def test_a_create_that_did_not_happen_is_no_success(workshop: Workshop, fault: str, said: str) -> None:
    async with opened(workshop, fault, memory=128 << 20) as destination:
        with pytest.raises(DestinationError, match=said) as caught:
            await destination.create("packs/aa/x", PACK)
        assert str(caught.value).startswith("far: plugin:tape")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("NeverEndsABody", "the module answers with|sent"),
        ("Trickles", "the module was not done with it after"),
        ("NeverAnswers", "the module was not done with it after"),
    ],
)
async def test_a_read_comes_to_an_end(workshop: Workshop, fault: str, said: str) -> None:
    async with opened(workshop, fault, armed=False) as destination:
        await destination.create("packs/aa/x", PACK[:1000])
        workshop.arm()
        buffer = bytearray(100)
        for read in (destination.read("packs/aa/x", 1000), destination.read_into("packs/aa/x", 10, memoryview(buffer))):
            with pytest.raises(DestinationError, match=said) as caught:
                await read
            assert str(caught.value).startswith("far: plugin:tape")


async def test_a_listing_comes_to_an_end(workshop: Workshop) -> None:
    async with opened(workshop, "NeverEndsAListing", max_objects=5000) as destination:
        with pytest.raises(DestinationError, match=r"far: plugin:tape: it lists more than 5000 objects below 'packs/' \(max_objects\)"):
            async for _ in destination.list("packs/"):
                pass


async def test_an_object_that_is_too_large_is_not_sent(workshop: Workshop) -> None:
    async with opened(workshop, "Fault", max_object=33 << 20) as destination:
        with pytest.raises(DestinationError, match="max_object"):
            await destination.create("packs/aa/x", bytes((33 << 20) + 1))


async def test_a_module_that_died_is_started_again(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(workshop, "DiesOnce") as destination:
        with pytest.raises(DestinationUnreachable) as caught:
            await destination.create("packs/aa/x", PACK)
        assert caught.value.retryable
        assert await destination.create("packs/aa/x", PACK) is True
        assert await destination.read("packs/aa/x", len(PACK)) == PACK
    assert "plugin tape: the module exited with 3; it is started again" in caplog.text


async def test_a_module_that_goes_on_dying_is_given_up(workshop: Workshop) -> None:
    async with opened(workshop, "DiesInAPut") as destination:
        last: DestinationError = DestinationError("")
        for _ in range(8):
            with pytest.raises(DestinationUnreachable) as caught:
                await destination.create("packs/aa/x", PACK)
            last = caught.value
            if not last.retryable:
                break
        said = str(last)
        assert "far: plugin tape: the module exited with 3; its last words: the tape is" in said
        assert "is not started again for now" in said
        assert last.exit_code == 13


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("DiesAtOnce", "plugin tape: the module exited with 7; its last words: no tape in drive 0"),
        ("NeverListens", r"plugin tape: nothing listens at \$SNAPFERRY_SOCKET after 0.5 s"),
    ],
)
async def test_a_module_that_does_not_start(workshop: Workshop, fault: str, said: str) -> None:
    with pytest.raises(DestinationUnreachable, match=said) as caught:
        async with opened(workshop, fault, start_seconds=0.5 if fault == "NeverListens" else 10.0):
            pass
    assert str(caught.value).startswith("far: ")


ABOUT = '{"protocol":1,"exclusive_create":true,"consistent_list":true,"durable":true,"concurrency":1}'


@pytest.mark.parametrize(
    ("about", "status", "said"),
    [
        ("{}", 200, "it does not speak the object protocol: \\?about: Object missing required field `protocol`$"),
        (
            ABOUT.replace("true", "1"),
            200,
            "it does not speak the object protocol: \\?about: Expected `bool`, got `int` - at `\\$.exclusive_create`$",
        ),
        ("what?", 200, "it does not speak the object protocol: \\?about: JSON is malformed"),
        (ABOUT, 404, "the module does not know the store; one where nothing was put yet has an empty listing \\(404\\)"),
        (ABOUT, 403, "the module does not allow it \\(403\\)"),
    ],
)
async def test_what_is_wrong_with_its_answers_is_said(workshop: Workshop, about: str, status: int, said: str) -> None:
    with pytest.raises(DestinationError, match=f"^far: plugin:tape: {said}"):
        async with opened(workshop, "Misspeaks", about, str(status)) as destination:
            async for _ in destination.list("packs/"):
                pass


async def test_a_module_that_nobody_runs_is_asked_for(workshop: Workshop) -> None:
    plugin = PluginConfig("tape", socket=f"{workshop.path}/none")
    with pytest.raises(
        DestinationUnreachable, match=f"nothing listens at {workshop.path}/none .No such file or directory.; does the module run"
    ) as caught:
        await open_destination("far", "plugin:tape", plugin=plugin)
    assert caught.value.retryable


@pytest.mark.parametrize(("ends", "said"), [("exit 200", "exited with 200"), ("kill -SEGV $$", "was killed by signal 11")])
async def test_how_it_ended_is_said(workshop: Workshop, ends: str, said: str) -> None:
    plugin = workshop.plugin("/bin/sh", "-c", f"echo torn; {ends}")
    await prepare_destination("far", "plugin:tape", plugin=plugin)
    with pytest.raises(DestinationUnreachable, match=f"plugin tape: the module {said}; its last words: torn"):
        await open_destination("far", "plugin:tape", plugin=plugin)


async def test_what_it_leaves_behind_is_ended(workshop: Workshop) -> None:
    before = set(processes_below(os.getpid()))  # servers of other tests
    async with opened(workshop, "StaysBehind"):
        below = set(processes_below(os.getpid())) - before
        assert len(below) >= 3  # the launcher, the module, and who stays
    assert not [process for process in below if os.path.exists(f"/proc/{process}")]


async def test_all_of_it_ends_when_snapferry_is_killed(workshop: Workshop) -> None:
    program = workshop.faulty("StaysBehind").command[1]
    script = (
        "import asyncio, sys\n"
        "from snapferry.config import PluginConfig\n"
        "from snapferry.destination import module_process, open_destination, prepare_destination\n"
        "module_process.END_SECONDS = 0.3\n"
        "async def main():\n"
        f"    plugin = PluginConfig('tape', command=({PYTHON!r}, {program!r}, 'StaysBehind'), directories=({str(workshop.data)!r},))\n"
        "    await prepare_destination('far', 'plugin:tape', plugin=plugin)\n"
        "    await open_destination('far', 'plugin:tape', plugin=plugin)\n"
        "    print('open', flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert process.stdout is not None
    with process.stdout:
        assert await asyncio.to_thread(process.stdout.readline) == b"open\n"
    below = processes_below(process.pid)
    assert len(below) >= 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    async with asyncio.timeout(20):  # END_SECONDS for one that ignores SIGTERM
        while [one for one in below if os.path.exists(f"/proc/{one}")]:
            await asyncio.sleep(0.05)


async def test_it_may_talk_as_much_as_it_likes(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with opened(workshop, "TalksTooMuch") as destination:
        assert await destination.create("packs/aa/x", PACK) is True
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("plugin tape: ")]
    assert 10 < len(lines) < 400
    assert all(len(line) < 500 and line.isprintable() for line in lines)


async def test_one_process_serves_all_destinations_of_a_command(workshop: Workshop) -> None:
    plugin = workshop.example("py")
    before = set(processes_below(os.getpid()))  # servers of other tests
    await prepare_destination("a", "plugin:tape", plugin=plugin)
    one, two, again = await asyncio.gather(
        open_destination("a", "plugin:tape", {"store": "a"}, plugin=plugin, writable=False),
        open_destination("b", "plugin:tape", {"store": "b"}, plugin=plugin),
        open_destination("a", "plugin:tape", {"store": "a"}, plugin=plugin),
    )
    assert len(set(processes_below(os.getpid())) - before) == 2  # one launcher, one module
    await one.close()
    assert await again.create("config", b"a") is True
    assert await two.create("config", b"b") is True
    assert await again.read("config", 1) == b"a"
    assert (workshop.data / "a/config").read_bytes() == b"a"
    await again.close()
    await two.close()
    assert set(processes_below(os.getpid())) <= before


@pytest.mark.parametrize("fault", ["KeepsNothing", "DiesInAPut", "FlipsABit", "NeverEndsABody", "NeverEndsAListing", "SaysThatAllIsThere"])
async def test_a_whole_export_and_restore_beside_it(workshop: Workshop, tmp_path: Path, fault: str) -> None:
    plugin = workshop.faulty(fault, max_objects=5000)
    near = DestinationConfig("near", str(tmp_path / "near"))
    far = DestinationConfig("far", "plugin:tape", "detach", 1.0, plugin=plugin)
    config = await snapferry.create_repository(new_config(tmp_path / "snapferry.toml", [near, far], plugins=[plugin], environment={}))
    source = tmp_path / "source"
    source.write_bytes(os.urandom(40 * BLOCK))
    async with snapferry.open_repository(config) as repository:
        first = await repository.export(source, volume="v", block_size=BLOCK)
        assert set(first.acknowledged) == {"near", "far"}
    workshop.arm()
    source.write_bytes(source.read_bytes()[: 20 * BLOCK] + os.urandom(20 * BLOCK))
    async with snapferry.open_repository(config) as repository:
        second = await repository.export(source, volume="v", block_size=BLOCK)
        assert "near" in second.acknowledged
        if fault in ("KeepsNothing", "DiesInAPut", "SaysThatAllIsThere"):
            assert second.acknowledged == ("near",)
        await repository.restore(second.id, tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == source.read_bytes()


async def test_wrong_bytes_are_found_by_verify(workshop: Workshop, tmp_path: Path) -> None:
    plugin = workshop.faulty("FlipsABit")
    far = DestinationConfig("far", "plugin:tape", plugin=plugin)
    config = await snapferry.create_repository(new_config(tmp_path / "snapferry.toml", [far], plugins=[plugin], environment={}))
    source = tmp_path / "source"
    source.write_bytes(os.urandom(8 * BLOCK))
    async with snapferry.open_repository(config) as repository:
        await repository.export(source, volume="v", block_size=BLOCK)
        assert not (await repository.verify(read_data=100)).damage
        workshop.arm()
        damage = (await repository.verify(read_data=100)).damage
        assert damage
        assert {one.destination for one in damage} == {"far"}
        with pytest.raises(snapferry.SnapferryError):
            await repository.restore("v", tmp_path / "restored")
