"""An SFTP server that is killed, stopped, full, not the one it was, or does not let us in: nothing is lost, all waiting ends, and it is said."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.destination import Destination, open_destination, prepare_destination
from snapferry.errors import ConfigurationError, DestinationDenied, DestinationFull, DestinationUnreachable
from tests.support import sftp_servers
from tests.support.place import Place
from tests.support.sftp_servers import Server
from tests.support.tmpfs import tmpfs

PACK = os.urandom(1 << 20) * 8


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """One that the test may kill."""
    with sftp_servers.asyncssh_server(tmp_path / "server") as server:
        yield server


async def opened(server: Server, place: str = "place", **options: object) -> Destination:
    url, options = server.url(place), {**server.options, **options}
    await prepare_destination("far", url, options)
    return await open_destination("far", url, options)


async def test_a_server_that_is_killed_in_the_middle_of_a_create_has_no_half_object(own_server: Server) -> None:
    destination = await opened(own_server)
    creating = [asyncio.create_task(destination.create(f"packs/aa/{number}", PACK)) for number in range(4)]
    while not any((own_server.root / "place/tmp").iterdir()):
        await asyncio.sleep(0)
    own_server.process.kill()
    outcomes = await asyncio.gather(*creating, return_exceptions=True)
    assert all(outcome is True or isinstance(outcome, DestinationUnreachable) for outcome in outcomes)
    assert any(isinstance(outcome, DestinationUnreachable) and outcome.retryable for outcome in outcomes)
    assert all(path.read_bytes() == PACK for path in own_server.root.glob("place/packs/*/*"))
    with pytest.raises(DestinationUnreachable, match="cannot be reached"):
        await destination.create("packs/aa/x", b"x")
    await destination.close()


async def test_a_connection_that_was_lost_is_made_again(sftp_server: Server) -> None:
    destination = await opened(sftp_server, "lost")
    await destination.create("packs/aa/x", b"x")
    connection = destination._connection._opened.connection  # type: ignore[attr-defined]
    connection.abort()
    await connection.wait_closed()
    assert await destination.read("packs/aa/x", 10) == b"x"
    await destination.close()


async def test_a_server_that_stops_answering_is_not_waited_for_long(own_server: Server) -> None:
    destination = await opened(own_server, stall_timeout=0.5)
    await destination.create("packs/aa/x", PACK)
    own_server.process.send_signal(signal.SIGSTOP)
    try:
        for call in (destination.read_tail("packs/aa/x", 8), destination.create("packs/aa/y", b"y"), destination.delete("packs/aa/x")):
            with pytest.raises(DestinationUnreachable) as caught:
                await call
            assert caught.value.retryable
    finally:
        own_server.process.send_signal(signal.SIGCONT)
    assert (await destination.read_tail("packs/aa/x", 8))[1] == len(PACK)
    await destination.close()


async def test_a_host_with_another_key_is_sent_nothing(sftp_server: Server, tmp_path: Path) -> None:
    sftp_servers.make_keys(tmp_path)
    public = (tmp_path / "host.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{sftp_server.port} {public}")
    for known in (str(tmp_path / "known_hosts"), str(tmp_path / "client.pub")):
        with pytest.raises(DestinationDenied, match=r"ssh-keyscan -p \d+ 127\.0\.0\.1"):
            await open_destination("far", sftp_server.url("place"), {**sftp_server.options, "known_hosts": known})


async def test_a_key_that_is_not_let_in_or_cannot_be_used(sftp_server: Server, tmp_path: Path) -> None:
    sftp_servers.make_keys(tmp_path)
    with pytest.raises(DestinationDenied, match="does not let .* in"):
        await opened(sftp_server, identity_file=str(tmp_path / "client"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "hush-hush", "-f", str(tmp_path / "locked")], check=True)
    with pytest.raises(DestinationDenied, match="used through ssh-agent"):
        await opened(sftp_server, identity_file=str(tmp_path / "locked"))
    with pytest.raises(ConfigurationError, match="there is no file"):
        await opened(sftp_server, identity_file=str(tmp_path / "none"))


async def test_a_directory_that_is_missing_or_goes_away(sftp_server: Server) -> None:
    with pytest.raises(DestinationUnreachable, match="is missing on 127"):
        await open_destination("far", sftp_server.url("nowhere"), sftp_server.options)
    with pytest.raises(DestinationUnreachable, match="the directory above it is missing"):
        await prepare_destination("far", sftp_server.url("nowhere/at/all"), sftp_server.options)
    destination = await opened(sftp_server, "going")
    (sftp_server.root / "going").rename(sftp_server.root / "gone")
    with pytest.raises(DestinationUnreachable, match="is it mounted"):
        await destination.create("packs/aa/x", b"x")
    with pytest.raises(DestinationUnreachable, match="is it mounted"):
        _ = [info async for info in destination.list("")]
    for call in (destination.read("config", 1), destination.read_tail("packs/aa/x", 1), destination.delete("config")):
        with pytest.raises(DestinationUnreachable, match="is it mounted"):
            await call
    with pytest.raises(DestinationUnreachable, match="is it mounted"):
        _ = [info async for info in destination.list("packs/")]
    await destination.close()


@pytest.mark.root
async def test_a_full_disk_leaves_no_half_object(openssh_server: Server) -> None:
    with tmpfs(openssh_server.root / "tiny", "size=4m") as mount:
        destination = await opened(openssh_server, "tiny/place")
        with pytest.raises(DestinationFull, match="no space left"):
            await destination.create("packs/aa/x", PACK)
        assert await destination.create("packs/aa/small", b"small")
        assert [path for path in mount.rglob("*") if path.is_file()] == [mount / "place/packs/aa/small"]
        await destination.close()


async def test_what_a_killed_writer_left_is_cleared_when_it_is_old(sftp_server: Server) -> None:
    destination = await opened(sftp_server, "stale")
    await destination.create("packs/aa/x", b"x")
    await destination.close()
    old, young = (sftp_server.root / f"stale/tmp/{digit * 32}" for digit in "ab")
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    await (await opened(sftp_server, "stale")).close()
    assert not old.exists()
    assert young.exists()


def test_the_whole_way_by_commands(openssh_server: Server, tmp_path: Path) -> None:
    place = Place(tmp_path)
    volume = tmp_path / "volume.img"
    volume.write_bytes(os.urandom(3 << 20) + bytes(2 << 20) + os.urandom(100))
    ssh = tmp_path / "home/.ssh"
    ssh.mkdir(parents=True, mode=0o700)
    (ssh / "config").write_text(
        f"Host 127.0.0.1\n  IdentityFile {openssh_server.directory}/client\n  UserKnownHostsFile {openssh_server.directory}/known_hosts\n"
    )
    place.run("init", "--to", f"far={openssh_server.url('commands')}", "--to", f"near={tmp_path}/near")
    assert place.json("export", volume, "--volume", "v")["acknowledged"] == ["far", "near"]
    place.run("restore", "v", tmp_path / "back.img", "--from", "far")
    assert (tmp_path / "back.img").read_bytes() == volume.read_bytes()
    place.run("verify", "--read-data", "100")
