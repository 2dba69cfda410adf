"""The public conformance suite on every destination of ours, and on wrappers, which must not change what a destination does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.config import PluginConfig
from snapferry.destination import Destination, durable, open_destination, prepare_destination
from snapferry.destination import file as file_module
from snapferry.testing.conformance import CASES, Case, run_case
from snapferry.transport import Meter, Metered, with_retry
from tests.support import sftp_servers
from tests.support.modules import Workshop
from tests.support.object_server import ObjectServer, object_server
from tests.support.s3_servers import Server


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_memory(case: Case) -> None:
    await run_case(case, lambda place: open_destination("memory", f"memory://{place}"))


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_file(case: Case, tmp_path: Path) -> None:
    async def make(place: str) -> Destination:
        await prepare_destination("file", str(tmp_path / place))
        return await open_destination("file", str(tmp_path / place))

    await run_case(case, make)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_file_without_renameat2(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "rename_exclusive", durable.link_exclusive)

    async def make(place: str) -> Destination:
        await prepare_destination("file", str(tmp_path / place))
        return await open_destination("file", str(tmp_path / place))

    await run_case(case, make)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_wrapped(case: Case) -> None:
    async def make(place: str) -> Destination:
        return Metered(with_retry(await open_destination("memory", f"memory://{place}")), Meter("memory"))

    await run_case(case, make)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_s3(case: Case, s3_server: Server) -> None:
    has_conditional_put = {"moto": True, "rclone": False}[s3_server.name]

    async def make(place: str) -> Destination:
        url, options = s3_server.url(f"some/{place}"), s3_server.options(conditional_put=has_conditional_put)
        opened = await open_destination("cloud", url, options)
        # rclone answers 500, now and then, to one of several first puts that make the same directory; the next attempt succeeds.
        return with_retry(opened) if s3_server.name == "rclone" else opened

    await run_case(case, make)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_sftp(case: Case, sftp_server: sftp_servers.Server) -> None:
    async def make(place: str) -> Destination:
        url = sftp_server.url(place)
        await prepare_destination("far", url, sftp_server.options)
        return await open_destination("far", url, sftp_server.options)

    await run_case(case, make)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    stores = tuple(case.name.replace("_", "-") for case in CASES)
    with object_server(tmp_path_factory.mktemp("served"), stores=stores) as server:
        yield server


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_http(case: Case, served: ObjectServer) -> None:
    await run_case(case, lambda place: _far(served, place))


async def test_https(tmp_path: Path) -> None:
    cases = [case for case in CASES if case.name in ("takes_a_full_pack", "reads_ranges_of_every_shape", "works_side_by_side")]
    with object_server(tmp_path, stores=tuple(case.name.replace("_", "-") for case in cases), tls=True) as server:
        for case in cases:
            await run_case(case, lambda place: _far(server, place))


async def _far(server: ObjectServer, place: str) -> Destination:
    """A store of the case's own: its name is the place's without the random end."""
    return await open_destination("far", server.url(place.rpartition("-")[0]), server.options())


@pytest.fixture(scope="session")
def module_in_rust(shared_workshop: Workshop) -> PluginConfig:
    return shared_workshop.example("rs")


@pytest.fixture(scope="session")
def module_in_python(shared_workshop: Workshop) -> PluginConfig:
    return shared_workshop.example("py")


@pytest.mark.parametrize("language", ["python", "rust"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_module(case: Case, language: str, request: pytest.FixtureRequest) -> None:
    plugin: PluginConfig = request.getfixturevalue(f"module_in_{language}")

    async def make(place: str) -> Destination:
        await prepare_destination("far", "plugin:tape", plugin=plugin)
        return await open_destination("far", "plugin:tape", {"store": f"{language}/{place}"}, plugin=plugin)

    await run_case(case, make)
