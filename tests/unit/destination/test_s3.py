"""The S3 destination by itself: what it finds out of a server, whose credentials it takes, and what it says of itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from snapferry.destination import Destination, learn_options, open_destination, prepare_destination
from snapferry.destination.s3_checksums import contradicts, sums_of
from snapferry.errors import ConfigurationError, DestinationDenied, DestinationUnreachable
from snapferry.testing.conformance import keys_of
from snapferry.testing.http_faults import Answers, FaultProxy, RewritesHead, s3_error
from tests.support import s3_servers
from tests.support.s3_servers import Server


@pytest.fixture
def prefix() -> str:
    return f"unit/{os.urandom(4).hex()}"


@pytest.fixture
def server(moto_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    s3_servers.use(monkeypatch, moto_server)
    return moto_server


@pytest.fixture
async def destination(server: Server, prefix: str) -> AsyncIterator[Destination]:
    opened = await open_destination("cloud", server.url(prefix), server.options(conditional_put=True))
    yield opened
    await opened.close()


async def test_a_server_with_conditional_puts_is_found_out(s3_server: Server, prefix: str) -> None:
    has = s3_server.name == "moto"
    learned = await prepare_destination("cloud", s3_server.url(prefix), s3_server.options())
    assert learned == s3_server.options(conditional_put=has)
    destination = await open_destination("cloud", s3_server.url(prefix), learned)
    assert destination.capabilities.exclusive_create is has
    assert destination.capabilities.durable
    assert await keys_of(destination) == {}
    assert await destination.create("config", b"first") is True
    assert await destination.create("config", b"second") is False
    await destination.close()
    # Where a repository is, its config is what it is found out by, and stays as it is.
    assert await learn_options("cloud", s3_server.url(prefix), s3_server.options()) == learned
    again = await open_destination("cloud", s3_server.url(prefix), s3_server.options())
    assert again.capabilities.exclusive_create is has
    assert await again.read("config", 100) == b"first"
    assert await keys_of(again) == {"config": 5}
    await again.close()


async def test_what_is_noted_is_not_found_out_again(server: Server, prefix: str) -> None:
    with FaultProxy(server.endpoint) as proxy:
        for noted in (True, False):
            options = {"endpoint": proxy.endpoint, "conditional_put": noted}
            assert await learn_options("cloud", server.url(prefix), options) == options
            opened = await open_destination("cloud", server.url(prefix), options)
            assert opened.capabilities.exclusive_create is noted
            await opened.close()
        assert proxy.requests == []


@pytest.mark.parametrize(
    "refusal",
    [Answers(501, s3_error("NotImplemented")), Answers(400, s3_error("InvalidArgument")), Answers(501)],
    ids=["501", "400", "bare"],
)
@pytest.mark.parametrize("repository", [False, True])
async def test_a_server_that_refuses_conditional_puts_is_found_out(server: Server, prefix: str, refusal: Answers, repository: bool) -> None:
    if repository:
        opened = await open_destination("cloud", server.url(prefix), server.options(conditional_put=True))
        await opened.create("config", b"x")
        await opened.close()
    with FaultProxy(server.endpoint) as proxy:
        refusal.left = 1
        proxy.add(refusal)
        refusal.method = "PUT"
        learned = await learn_options("cloud", server.url(prefix), {"endpoint": proxy.endpoint})
    assert learned["conditional_put"] is False


async def test_a_server_that_is_busy_while_it_is_found_out_is_asked_again(server: Server, prefix: str) -> None:
    with FaultProxy(server.endpoint) as proxy:
        proxy.add(Answers(503, s3_error("SlowDown"), method="PUT"))
        learned = await learn_options("cloud", server.url(prefix), {"endpoint": proxy.endpoint})
    assert learned["conditional_put"] is True


async def test_a_host_that_may_not_delete_finds_out_all_the_same(server: Server, prefix: str) -> None:
    with FaultProxy(server.endpoint) as proxy:
        proxy.add(Answers(403, s3_error("AccessDenied"), method="DELETE", times=9))
        options = await learn_options("cloud", server.url(prefix), {"endpoint": proxy.endpoint})
        opened = await open_destination("cloud", server.url(prefix), options)
        assert await keys_of(opened) == {}  # what was left is no object of ours
        await opened.close()


async def test_md5_goes_along_until_the_server_shows_that_it_knows_crc32(server: Server, prefix: str) -> None:
    heads: list[bytes] = []

    class Watches(RewritesHead):
        async def serve(self, exchange):  # type: ignore[no-untyped-def]
            heads.append(exchange.request.head.lower())
            return await super().serve(exchange)

    with FaultProxy(server.endpoint) as proxy:
        proxy.add(Watches(lambda head: head, method="PUT", times=9))
        for checksum, md5, crc32 in (
            ("auto", [True, False], [True] * 2),
            ("md5", [True] * 2, [False] * 2),
            ("crc32", [False] * 2, [True] * 2),
        ):
            options = {"endpoint": proxy.endpoint, "conditional_put": True, "checksum": checksum}
            opened = await open_destination("cloud", server.url(f"{prefix}/{checksum}"), options)
            heads.clear()
            await opened.create("packs/aa/one", b"1" * 1000)
            await opened.create("packs/aa/two", b"2" * (1 << 20))
            await opened.close()
            assert [b"content-md5:" in head for head in heads] == md5
            assert [b"x-amz-checksum-crc32:" in head for head in heads] == crc32
            assert not any(b"\r\nexpect:" in head for head in heads)
            assert all(b"\r\nif-none-match: *\r\n" in head for head in heads)


async def test_sums() -> None:
    for size in (0, 9, 1 << 20):
        found = await sums_of(memoryview(b"123456789"[:size] or b"" if size < 10 else bytes(size)), crc32=True, md5=True)
        if size == 9:
            assert found.arguments() == {
                "ChecksumAlgorithm": "CRC32",
                "ChecksumCRC32": "y/Q5Jg==",
                "ContentMD5": "JfnnlDI7RTiF9RgfG2JNCw==",
            }
    assert contradicts({"x-amz-checksum-crc32": "y/Q5Jg=="}, b"123456789") == ""
    assert contradicts({"x-amz-checksum-crc32": "y/Q5Jg=="}, b"123456780") == "CRC32"
    assert contradicts({"x-amz-checksum-crc32": "AAAAAA==-3"}, b"123456780") == ""
    assert contradicts({"x-amz-checksum-sha256": "AAAA"}, b"1") == "SHA-256"
    assert contradicts({}, b"1") == ""


async def test_without_credentials_it_says_where_they_are_looked_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DestinationDenied, match=r"cloud: s3://backups: no AWS credentials were found; set AWS_ACCESS_KEY_ID") as caught:
        await open_destination("cloud", server.url("x"), server.options())
    assert caught.value.exit_code == 12
    with pytest.raises(DestinationDenied, match=r"no AWS credentials were found.*\(nobody\)"):
        await open_destination("cloud", server.url("x"), server.options(profile="nobody"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    with pytest.raises(DestinationDenied, match="no AWS credentials were found"):
        await open_destination("cloud", server.url("x"), server.options())


async def test_a_profile_brings_credentials_and_endpoint(
    server: Server, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f"[profile backup]\nregion = eu-west-1\nendpoint_url = {server.endpoint}\n")
    (tmp_path / "credentials").write_text("[backup]\naws_access_key_id = someone\naws_secret_access_key = hush\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    opened = await open_destination("cloud", server.url(prefix), {"profile": "backup"})
    assert await opened.create("config", b"x") is True
    await opened.close()


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
async def test_the_endpoint_may_come_from_the_environment(
    server: Server, prefix: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, server.endpoint)
    opened = await open_destination("cloud", server.url(prefix))
    assert await opened.create("config", b"x") is True
    assert opened.url == f"s3://backups/{prefix}"
    await opened.close()


async def test_the_endpoint_may_stand_in_the_url(server: Server, prefix: str) -> None:
    opened = await open_destination("cloud", f"{server.url(prefix)}?endpoint={server.endpoint}&region=us-east-1")
    assert await opened.create("config", b"x") is True
    assert opened.url == f"s3://backups/{prefix}?endpoint={server.endpoint}"
    await opened.close()


async def test_a_bucket_without_a_prefix(server: Server, destination: Destination) -> None:
    opened = await open_destination("cloud", "s3://backups", server.options(conditional_put=True))
    await destination.create("packs/aa/one", b"1")
    found = await keys_of(opened, "unit/")
    assert any(key.endswith("packs/aa/one") for key in found)
    await opened.close()


async def test_only_keys_of_ours_are_listed(server: Server, destination: Destination, prefix: str) -> None:
    above = await open_destination("cloud", server.url(prefix.rsplit("/", 1)[0]), server.options(conditional_put=True))
    below = prefix.rsplit("/", 1)[1]
    await destination.create("packs/aa/one", b"1")
    await above.create(f"{below}x/packs/aa/other", b"2")
    await above.create(f"{below}/tmp/left", b"3")
    assert await keys_of(destination) == {"packs/aa/one": 1}
    await above.close()


async def test_a_bucket_that_is_not_there(server: Server) -> None:
    with pytest.raises(DestinationUnreachable, match="there is no such bucket; make it") as caught:
        await prepare_destination("cloud", "s3://no-such-bucket/x", server.options())
    assert not caught.value.retryable


async def test_unknown_options_are_named(server: Server) -> None:
    with pytest.raises(ConfigurationError, match=r"destination cloud: s3 has no option 'endpont' \(did you mean 'endpoint'\?\)"):
        await open_destination("cloud", "s3://bucket/x", {"endpont": "x"})


async def test_many_at_once_wait_for_their_turn_and_not_for_their_deadline(server: Server, prefix: str) -> None:
    with FaultProxy(server.endpoint, latency=0.2) as proxy:
        options = {"endpoint": proxy.endpoint, "conditional_put": True, "first_byte_timeout": 1.0}
        opened = await open_destination("cloud", server.url(prefix), options)
        await opened.create("config", b"x")
        assert await asyncio.gather(*(opened.read("config", 1) for _ in range(120))) == [b"x"] * 120
        await opened.close()


async def test_a_certificate_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = s3_servers.make_certificate(tmp_path)
    with s3_servers.rclone(tmp_path / "served", certificate, key) as server:
        s3_servers.use(monkeypatch, server)
        opened = await open_destination("cloud", server.url("x"), server.options(conditional_put=False))
        with pytest.raises(DestinationUnreachable, match="certificate was not accepted; set options = { ca_bundle = FILE }") as caught:
            await opened.create("config", b"x")
        assert not caught.value.retryable
        await opened.close()
        opened = await open_destination("cloud", server.url("x"), server.options(conditional_put=False, ca_bundle=str(certificate)))
        data = os.urandom(1 << 20)
        assert await opened.create("packs/aa/one", data) is True
        assert await opened.read("packs/aa/one", len(data)) == data
        await opened.close()
        with pytest.raises(ConfigurationError, match=r"ca_bundle: .*gone\.pem cannot be read"):
            await open_destination("cloud", server.url("x"), server.options(ca_bundle=str(tmp_path / "gone.pem")))


def test_the_sdk_is_imported_for_buckets_alone() -> None:
    code = (
        "import asyncio, sys, tempfile\n"
        "import snapferry.engine.facade, snapferry.cli.main\n"
        "from snapferry.destination import open_destination\n"
        "asyncio.run(open_destination('near', tempfile.gettempdir(), writable=False))\n"
        "assert not {'aiobotocore', 'botocore', 'aiohttp'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
