"""A server that dies, and whole commands against one that lives."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from snapferry.destination import open_destination
from snapferry.errors import DestinationUnreachable
from tests.support.object_server import object_server
from tests.support.place import Place

SIZE = 16 << 20


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2])
async def test_a_killed_server_has_whole_objects_or_none(tmp_path: Path, after: float) -> None:
    data = os.urandom(SIZE)
    with object_server(tmp_path) as server:
        far = await open_destination("far", server.url(), server.options())
        creating = [asyncio.create_task(far.create(f"packs/aa/{number}", data)) for number in range(3)]
        await asyncio.wait(creating, timeout=after)
        server.process.send_signal(signal.SIGKILL)
        await asyncio.wait(creating)
        await far.close()
        server.process.wait(20)
    acknowledged = [number for number, task in enumerate(creating) if task.exception() is None]
    assert all(isinstance(task.exception(), DestinationUnreachable | None) for task in creating)
    there = sorted(int(path.name) for path in (tmp_path / "main").glob("packs/aa/*"))
    assert set(acknowledged) <= set(there)
    assert all((tmp_path / f"main/packs/aa/{number}").read_bytes() == data for number in there)


def test_commands_with_a_server_as_destination(tmp_path: Path) -> None:
    place = Place(tmp_path)
    volume = os.urandom(3 << 20) + bytes(1 << 20) + b"end" * 70_000
    (tmp_path / "volume").write_bytes(volume)
    with object_server(tmp_path) as server:
        token = server.tokens["full"]
        made = place.run("init", "--to", f"{server.url()}?token_file=full.token", "--to", tmp_path / "near")
        assert "full.token" in (tmp_path / "snapferry.toml").read_text()
        done = place.json("export", tmp_path / "volume")
        assert sorted(done["acknowledged"]) == ["far", "near"]
        place.run("verify", "--read-data", "100", "--destination", "far")
        shown = place.run("config", "show", "--origin", "-v")
        place.run("restore", "volume", tmp_path / "back", "--from", "far")
        assert (tmp_path / "back").read_bytes() == volume
        # One that may only add is enough for exports; it may not collect.
        config = tmp_path / "snapferry.toml"
        config.write_text(config.read_text().replace("full.token", "append.token"))
        (tmp_path / "volume").write_bytes(volume + os.urandom(1 << 20))
        assert sorted(place.json("export", tmp_path / "volume")["acknowledged"]) == ["far", "near"]
        config.write_text(config.read_text().replace("append.token", "read.token"))
        denied = place.run("export", tmp_path / "volume", "--to", "far", code=12, last_line_is_ours=False)
        for said in (made, shown, denied):
            assert token not in said.stdout + said.stderr
    assert token not in config.read_text()


def test_new_tokens_and_what_is_not_set_up(tmp_path: Path) -> None:
    place = Place(tmp_path)
    token, line = place.run("serve", "--new-token").stdout.splitlines()
    assert line.startswith('token_sha256 = "')
    assert token not in line
    (tmp_path / "snapferry.toml").write_text(f'[[store]]\nname = "a"\npath = "a"\n[[access]]\n{line}\nrole = "full"\nstores = ["a"]\n')
    # A directory that is missing may be a disk that is not mounted: it is not made.
    assert "mounted" in place.run("serve", code=13).stderr
    assert not (tmp_path / "a").exists()
