"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import modules, s3_servers, sftp_servers
from tests.support.lab import Lab, MakeLab
from tests.support.s3_servers import Server


@pytest.fixture
def make_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeLab:
    """Makes a repository in memory on places of the names given, ``near`` and ``far`` by default."""

    async def make(*names: str) -> Lab:
        lab = Lab(tmp_path, monkeypatch, names or ("near", "far"))
        await lab.create()
        return lab

    return make


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Server]:
    """A moto server with an empty bucket."""
    with s3_servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An rclone server with an empty bucket, which is a directory."""
    with s3_servers.rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(params=["moto", "rclone"])
def s3_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Each of the servers, with its credentials in the environment."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    s3_servers.use(monkeypatch, server)
    return server


@pytest.fixture(scope="session")
def asyncssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sftp_servers.Server]:
    """An SFTP server of asyncssh's own."""
    with sftp_servers.asyncssh_server(tmp_path_factory.mktemp("asyncssh")) as server:
        yield server


@pytest.fixture(scope="session")
def openssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sftp_servers.Server]:
    """OpenSSH's."""
    with sftp_servers.openssh_server(tmp_path_factory.mktemp("openssh")) as server:
        yield server


@pytest.fixture(params=["openssh", "asyncssh"])
def sftp_server(request: pytest.FixtureRequest) -> sftp_servers.Server:
    """Each of the servers."""
    server: sftp_servers.Server = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture
def workshop() -> Iterator[modules.Workshop]:
    """Where modules are run."""
    with modules.workshop() as found:
        yield found


@pytest.fixture(scope="session")
def shared_workshop() -> Iterator[modules.Workshop]:
    """The same for all tests, with what was built for one of them."""
    with modules.workshop() as found:
        yield found
