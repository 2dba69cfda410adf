"""SFTP servers that keep to the protocol in their own way, or not at all: nothing is overwritten, no wait is without end, no listing says less."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncssh
import pytest

from snapferry.destination import Destination, learn_options, open_destination, prepare_destination
from snapferry.errors import DestinationDenied, DestinationFull, DestinationUnreachable, ObjectNotFound
from snapferry.testing.conformance import keys_of
from tests.support import sftp_servers
from tests.support.sftp_servers import Server
from tests.support.tmpfs import tmpfs

PACK = os.urandom(1 << 20) * 4
Start = Callable[[str], Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts asyncssh's server with a fault."""
    with ExitStack() as stack:
        yield lambda fault: stack.enter_context(sftp_servers.asyncssh_server(tmp_path / (fault or "plain"), fault))


async def opened(server: Server, place: str = "place", **options: object) -> Destination:
    url, options = server.url(place), {**server.options, **options}
    options = dict(await prepare_destination("far", url, options))
    return await open_destination("far", url, options)


@pytest.mark.parametrize(
    ("fault", "naming", "exclusive"),
    [("", "link", True), ("KnowsNoLinks", "rename", True), ("RefusesLinks", "rename", False), ("RenameReplaces", "rename", False)],
)
async def test_what_a_server_does_with_a_name_that_is_taken_is_noted_and_nothing_is_overwritten(
    start: Start, fault: str, naming: str, exclusive: bool
) -> None:
    server = start(fault)
    options = await prepare_destination("far", server.url("place"), server.options)
    assert (options["naming"], options["conditional_put"]) == (naming, exclusive)
    assert await learn_options("far", server.url("place"), server.options) == options
    destination = await open_destination("far", server.url("place"), options)
    assert destination.capabilities.exclusive_create is exclusive
    assert await destination.create("config", b"first") is True
    assert await destination.create("config", b"second") is False
    assert await destination.read("config", 100) == b"first"
    await destination.close()
    assert [path.name for path in server.root.rglob("*") if path.is_file()] == ["config"]


async def test_nothing_is_tried_out_where_it_is_noted_so_that_a_full_place_opens(openssh_server: Server) -> None:
    destination = await opened(openssh_server, "noted")
    await destination.close()
    tmp = openssh_server.root / "noted/tmp"
    before = tmp.stat().st_mtime_ns
    noted = {**openssh_server.options, "naming": "link", "conditional_put": True}
    await (await open_destination("far", openssh_server.url("noted"), noted)).close()
    assert tmp.stat().st_mtime_ns == before


async def test_a_server_that_cannot_sync_is_not_called_durable(start: Start) -> None:
    destination = await opened(start("CannotSync"))
    assert await destination.create("config", b"x") is True
    assert not destination.capabilities.durable
    await destination.close()


async def test_a_server_that_hangs_in_the_middle_of_a_create_is_not_waited_for_without_end(start: Start) -> None:
    server = start("HangsInWrite")
    destination = await opened(server, stall_timeout=1)
    begun = time.monotonic()
    with pytest.raises(DestinationUnreachable, match="no answer for 1 s") as caught:
        await destination.create("packs/aa/x", PACK)
    assert caught.value.retryable
    creating = asyncio.create_task(destination.create("packs/aa/y", PACK))
    while len([path for path in (server.root / "place/tmp").iterdir() if path.stat().st_size]) < 2:
        await asyncio.sleep(0)
    creating.cancel()
    await asyncio.wait([creating])
    assert creating.cancelled()
    assert time.monotonic() - begun < 10
    assert not (server.root / "place/packs/aa").exists() or not list((server.root / "place/packs/aa").iterdir())
    await destination.close()
    assert time.monotonic() - begun < 30


async def test_short_answers_are_put_together(start: Start) -> None:
    destination = await opened(start("ReadsLittle"))
    data = os.urandom(123_457)
    await destination.create("packs/aa/x", data)
    assert await destination.read("packs/aa/x", len(data)) == data
    buffer = bytearray(50_000)
    await destination.read_into("packs/aa/x", 70_001, memoryview(buffer))
    assert buffer == data[70_001:120_001]
    await destination.close()


async def test_an_sftp_session_that_ends_while_its_connection_stays_is_made_anew(start: Start) -> None:
    destination = await opened(start("EndsTheSession"))
    await destination.create("config", b"x")
    with pytest.raises(DestinationUnreachable):
        await destination.read("packs/end", 1)
    assert await destination.read("config", 1) == b"x"
    await destination.close()


async def test_many_calls_share_one_attempt_to_connect(start: Start) -> None:
    server = start("")
    destination = await opened(server, stall_timeout=1)
    await destination.create("config", b"x")
    server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(DestinationUnreachable):
            await destination.read("config", 1)
        begun = time.monotonic()
        outcomes = await asyncio.gather(*(destination.read("config", 1) for _ in range(12)), return_exceptions=True)
        assert all(isinstance(outcome, DestinationUnreachable) for outcome in outcomes)
        assert time.monotonic() - begun < 5
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert await destination.read("config", 1) == b"x"
    await destination.close()


async def test_a_directory_that_somebody_removed_is_made_again(sftp_server: Server) -> None:
    destination = await opened(sftp_server, "removed")
    await destination.create("packs/aa/x", b"x")
    (sftp_server.root / "removed/packs/aa/x").unlink()
    (sftp_server.root / "removed/packs/aa").rmdir()
    with pytest.raises(DestinationUnreachable, match="vanished while it was written") as caught:
        await destination.create("packs/aa/y", b"y")
    assert caught.value.retryable
    assert await destination.create("packs/aa/y", b"y") is True
    await destination.close()


async def test_foreign_names_and_links_are_no_objects(sftp_server: Server) -> None:
    destination = await opened(sftp_server, "foreign")
    await destination.create("packs/aa/x", b"x")
    root = os.fsencode(sftp_server.root / "foreign/packs/aa")
    with open(root + b"/\xff\xfe", "wb"):
        pass
    os.symlink("x", root + b"/link")
    os.mkfifo(root + b"/fifo")
    assert await keys_of(destination) == {"packs/aa/x": 1}
    for key in ("packs/aa/link", "packs/aa/fifo"):
        with pytest.raises(ObjectNotFound):
            await destination.read(key, 10)
    await destination.close()


@pytest.mark.root
async def test_a_root_that_is_unmounted_and_one_that_is_mounted_over_are_noticed(openssh_server: Server) -> None:
    destination = await opened(openssh_server, "over")
    await destination.create("packs/aa/x", b"x")
    root = openssh_server.root / "over"
    with tmpfs(root):
        for call in (destination.read("packs/aa/x", 1), keys_of(destination, "packs/"), destination.delete("packs/aa/x")):
            with pytest.raises(DestinationUnreachable, match="another file system"):
                await call
        with pytest.raises(DestinationUnreachable):
            await destination.create("packs/aa/y", b"y")
    assert await keys_of(destination) == {"packs/aa/x": 1}
    await destination.close()


@pytest.mark.root
async def test_a_place_with_no_room_for_another_name_is_full(openssh_server: Server) -> None:
    with tmpfs(openssh_server.root / "inodes", "nr_inodes=12"):
        destination = await opened(openssh_server, "inodes/place")
        with pytest.raises(DestinationFull, match="no space left"):
            for number in range(20):
                await destination.create(f"packs/{number:02x}/x", b"x")
        await destination.delete("packs/00/x")
        await destination.close()


async def test_a_place_that_may_only_be_read(tmp_path: Path) -> None:
    with sftp_servers.openssh_server(tmp_path / "server", "internal-sftp -R") as server:
        (server.root / "place/packs").mkdir(parents=True)
        (server.root / "place/packs/x").write_bytes(b"x")
        reading = await open_destination("far", server.url("place"), server.options, writable=False)
        assert await reading.read("packs/x", 1) == b"x"
        with pytest.raises(DestinationDenied):
            await reading.delete("packs/x")
        await reading.close()
        with pytest.raises(DestinationDenied):
            await open_destination("far", server.url("place"), server.options)


async def test_the_account_of_the_manual_may_do_enough(tmp_path: Path) -> None:
    refused = "posix-rename,setstat,fsetstat,lsetstat,symlink,copy-data"
    assert f"ForceCommand internal-sftp -P {refused}`" in Path("docs/operations.md").read_text()
    with sftp_servers.openssh_server(tmp_path / "server", f"internal-sftp -P {refused}") as server:
        destination = await opened(server)
        assert destination.capabilities.exclusive_create
        assert await destination.create("packs/aa/x", b"x") is True
        assert await destination.create("packs/aa/x", b"y") is False
        assert await keys_of(destination) == {"packs/aa/x": 1}
        await destination.delete("packs/aa/x")
        assert destination.capabilities.durable
        await destination.close()
        assert not list((server.root / "place/tmp").iterdir())


@pytest.mark.parametrize("clock", [-3 * 86400, 0])
async def test_age_is_told_by_the_servers_clock(openssh_server: Server, clock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = await opened(openssh_server, f"clock{clock}")
    await destination.close()
    young = openssh_server.root / f"clock{clock}/tmp" / ("a" * 32)
    young.write_bytes(b"half")
    real = time.time
    # What this machine takes for the time is three days ahead of the server.
    monkeypatch.setattr(time, "time", lambda: real() - clock)
    await (await opened(openssh_server, f"clock{clock}")).close()
    assert young.exists()


async def test_known_hosts_none_does_not_mean_any_host(openssh_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "config").write_text("Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    (openssh_server.root / "hosts").mkdir(exist_ok=True)
    options = {"identity_file": openssh_server.options["identity_file"]}
    with pytest.raises(DestinationDenied, match="ssh-keyscan"):
        await open_destination("far", openssh_server.url("hosts"), options)
    key = (openssh_server.directory / "host.pub").read_text()
    await (await open_destination("far", openssh_server.url("hosts"), {**options, "host_key": key})).close()
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with pytest.raises(DestinationDenied, match="not the one of host_key"):
        await open_destination("far", openssh_server.url("hosts"), {**options, "host_key": other})


async def test_a_key_with_a_passphrase_is_used_through_the_agent_that_has_it(
    openssh_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (openssh_server.root / "agent").mkdir(exist_ok=True)
    key = tmp_path / "locked"
    for end in ("", ".pub"):
        (tmp_path / f"locked{end}").write_bytes((openssh_server.directory / f"client{end}").read_bytes())
    key.chmod(0o600)
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            agent.stdout.readline()
            monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
            subprocess.run(["ssh-add", "-q", str(key)], check=True)
            subprocess.run(["ssh-keygen", "-q", "-p", "-N", "hush-hush", "-f", str(key)], check=True, stdout=subprocess.DEVNULL)
            options = {**openssh_server.options, "identity_file": str(key)}
            await (await open_destination("far", openssh_server.url("agent"), options)).close()
            (tmp_path / "locked.pub").unlink()
            with pytest.raises(DestinationDenied, match="through ssh-agent"):
                await open_destination("far", openssh_server.url("agent"), options)
        finally:
            agent.kill()
