"""The http destination against a real server behind a proxy that breaks things, and against answers that no good server gives."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from snapferry.destination import Destination, open_destination
from snapferry.errors import (
    AccessDenied,
    ConfigurationError,
    DestinationDenied,
    DestinationError,
    DestinationUnreachable,
    ObjectNotFound,
)
from snapferry.testing.http_faults import (
    AltersUpload,
    Answers,
    CutsUpload,
    FaultProxy,
    HangsAfterAccept,
    HangsInBody,
    LengthensBody,
    LosesReply,
    ResetsInBody,
    RewritesHead,
    ShortensBody,
)
from snapferry.testing.http_wire import header, with_header
from snapferry.transport import with_retry
from tests.support.object_server import ObjectServer, object_server

PACK = "packs/ab/pack"
SIZE = 8 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with object_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def proxy(server: ObjectServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint) as running:
        yield running


@pytest.fixture
async def far(server: ObjectServer, proxy: FaultProxy) -> Destination:
    opened = await _open(server, proxy)
    for item in [item async for item in opened.list("")]:
        await opened.delete(item.key)
    proxy.requests.clear()
    proxy.heads.clear()
    return opened


async def _open(server: ObjectServer, proxy: FaultProxy | None = None, role: str = "full", **options: object) -> Destination:
    url = f"{(proxy or server).endpoint}/objects/main"
    return await open_destination("far", url, server.options(role) | {"stall_timeout": 1.0, "first_byte_timeout": 5.0} | options)


@pytest.mark.parametrize("kind", [ResetsInBody, ShortensBody, HangsInBody])
async def test_a_read_goes_on_where_it_broke(far: Destination, proxy: FaultProxy, kind: type[ResetsInBody]) -> None:
    data = os.urandom(SIZE)
    await far.create(PACK, data)
    proxy.add(kind(3 << 20, method="GET", touches=PACK))
    proxy.requests.clear()
    proxy.heads.clear()
    buffer = bytearray(SIZE - 10)
    await far.read_into(PACK, 10, memoryview(buffer))
    assert buffer == data[10:]
    assert [method for method, _ in proxy.requests] == ["GET", "GET"]
    # Just what was missing was asked for again.
    again = re.fullmatch(rf"bytes=(\d+)-{SIZE - 1}", header(proxy.heads[1], "Range") or "")
    assert again is not None
    assert 10 < int(again[1]) <= 10 + (3 << 20)
    assert await far.read(PACK, SIZE) == data
    await far.close()


async def test_a_read_that_gets_nowhere_ends(far: Destination, proxy: FaultProxy) -> None:
    await far.create(PACK, b"x" * 100_000)
    proxy.add(ResetsInBody(0, method="GET", touches=PACK, times=99))
    with pytest.raises(DestinationUnreachable) as caught:
        await far.read_into(PACK, 0, memoryview(bytearray(100_000)))
    assert caught.value.retryable
    assert len([1 for method, target in proxy.requests if method == "GET" and PACK in target]) == 1
    await far.close()


@pytest.mark.parametrize("cuts", [1, 3])
async def test_an_upload_goes_on_where_it_broke(far: Destination, proxy: FaultProxy, cuts: int) -> None:
    data = os.urandom(SIZE)
    for _ in range(cuts):
        proxy.add(CutsUpload(2 << 20, method="PATCH"))
    assert await far.create(PACK, data) is True
    sent = [(_number(head, "Upload-Offset"), _number(head, "Content-Length")) for head in proxy.heads if head.startswith(b"PATCH")]
    assert len(sent) == cuts + 1
    # Each goes on behind what had come, and sends nothing of that again.
    assert all(offset + length == SIZE for offset, length in sent)
    assert all(0 < later[0] - offset <= 2 << 20 for (offset, _), later in itertools.pairwise(sent))
    assert await far.read(PACK, SIZE) == data
    await far.close()


async def test_a_lost_answer_is_no_second_object(far: Destination, proxy: FaultProxy, server: ObjectServer) -> None:
    for size, method in ((1000, "PUT"), (SIZE, "PATCH")):
        proxy.add(LosesReply(method=method))
        key, data = f"packs/lost/{size}", os.urandom(size)
        created = await with_retry(far).create(key, data)
        # A small object is read back to tell; a large one is named by its content.
        assert created is (size == 1000)
        assert await far.read(key, size) == data
    await far.close()


@pytest.mark.parametrize("size", [1000, SIZE])
async def test_an_altered_upload_is_refused_and_leaves_nothing(far: Destination, proxy: FaultProxy, size: int) -> None:
    proxy.add(AltersUpload(500, method="PUT" if size < SIZE else "PATCH"))
    with pytest.raises(DestinationUnreachable, match="altered on its way") as caught:
        await far.create(PACK, os.urandom(size))
    assert caught.value.retryable
    assert [item async for item in far.list("")] == []
    await far.close()


async def test_what_hangs_is_given_up(server: ObjectServer, proxy: FaultProxy) -> None:
    far = await _open(server, proxy, first_byte_timeout=0.3)
    proxy.add(HangsAfterAccept(method="HEAD"))
    begun = time.monotonic()
    with pytest.raises(DestinationUnreachable, match="no answer within 0.3 s"):
        await far.read_tail("config", 0)
    assert time.monotonic() - begun < 5
    await far.close()


async def test_answers_that_make_no_sense(far: Destination, proxy: FaultProxy) -> None:
    await far.create(PACK, b"x" * 1000)
    space = memoryview(bytearray(100))
    for fault in (
        LengthensBody(7, method="GET", touches=PACK),
        RewritesHead(lambda head: with_header(head, "Content-Range", "bytes 1-100/1000"), method="GET", touches=PACK),
        RewritesHead(lambda head: with_header(head, "Content-Range", f"bytes 0-99/{'9' * 40}"), method="GET", touches=PACK),
        RewritesHead(lambda head: with_header(head, "Content-Range", None), method="GET", touches=PACK),
        Answers(200, b"y" * 100, method="GET", touches=PACK),
        Answers(206, b"y" * 100, {"Content-Range": "bytes 0-99/50"}, method="GET", touches=PACK),
    ):
        proxy.add(fault)
        with pytest.raises(DestinationError):
            await far.read_into(PACK, 0, space)
        assert fault.met == 1
    assert bytes(space) in (bytes(100), b"x" * 100)
    await far.close()


@pytest.mark.parametrize(
    "document",
    [
        b"{", b"[]", b'{"objects": [], "more": true}', b'{"objects": [{"key": "../x", "size": 1}], "more": false}',
        b'{"objects": [{"key": "index/x", "size": 1}], "more": false}', b'{"objects": [{"key": "packs/b", "size": -1}], "more": false}',
        b'{"objects": [{"key": "packs/b", "size": 1}, {"key": "packs/a", "size": 1}], "more": false}',
        b'{"objects": [{"key": "packs/b", "size": 1}, {"key": "packs/b", "size": 1}], "more": false}',
        b"[" * 10_000, b"\xff\xfe",
    ],
)  # fmt: skip
async def test_listings_that_make_no_sense(far: Destination, proxy: FaultProxy, document: bytes) -> None:
    proxy.add(Answers(200, document, method="GET", touches="prefix="))
    with pytest.raises(DestinationError, match="listing|page"):
        _ = [item async for item in far.list("packs/")]
    await far.close()


async def test_a_listing_without_end_ends(far: Destination, proxy: FaultProxy) -> None:
    page = json.dumps({"objects": [{"key": "packs/a", "size": 1}], "more": True}).encode()
    proxy.add(Answers(200, page, method="GET", touches="prefix=", times=99))
    with pytest.raises(DestinationError, match="not in order"):
        _ = [item async for item in far.list("packs/")]
    await far.close()


async def test_refusals_say_what_to_do(far: Destination, proxy: FaultProxy) -> None:
    problem = json.dumps({"title": "Oh", "detail": "\x1b[31mred\n" + "x" * 5000}).encode()
    for status, kind, words in (
        (401, DestinationDenied, "token_file"),
        (403, DestinationDenied, "role"),
        (404, ObjectNotFound, "does not exist"),
        (302, DestinationUnreachable, "not followed"),
        (503, DestinationUnreachable, "left alone for 7 s"),
        (400, DestinationError, "refuses"),
    ):
        proxy.add(Answers(status, problem, {"Retry-After": "7", "Location": "http://elsewhere.invalid/"}, method="GET", touches=PACK))
        with pytest.raises(kind, match=words) as caught:
            await far.read(PACK, 10)
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    await far.close()


async def test_an_upload_never_goes_elsewhere(far: Destination, proxy: FaultProxy) -> None:
    for location in ("http://elsewhere.invalid/objects/main/?upload=1", "//elsewhere.invalid/", "/v1/x", "/objects/main/../other/", ""):
        proxy.add(RewritesHead(lambda head, to=location: with_header(head, "Location", to or None), method="PUT"))  # type: ignore[misc]
        with pytest.raises(DestinationError, match="upload"):
            await far.create(PACK, bytes(SIZE))
    await far.close()


async def test_roles(server: ObjectServer) -> None:
    full, append, read = [await _open(server, role=role) for role in ("full", "append", "read")]
    assert await append.create("roles/one", b"1") is True
    assert await read.read("roles/one", 10) == b"1"
    for refused in (
        read.create("roles/two", b"2"),
        read.create("roles/two", bytes(SIZE)),
        read.delete("roles/one"),
        append.delete("roles/one"),
    ):
        with pytest.raises(DestinationDenied, match="role"):
            await refused
    await full.delete("roles/one")
    with pytest.raises(ObjectNotFound):
        await read.read("roles/one", 10)
    for destination in (full, append, read):
        await destination.close()


async def test_a_wrong_token_and_a_wrong_store(server: ObjectServer, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-token-of-anybody")
    with pytest.raises(DestinationDenied, match="token") as caught:
        await open_destination("far", server.url(), {"token_file": str(wrong)})
    assert "not-the-token" not in str(caught.value)
    # One that is not there looks like one that is not for this token.
    with pytest.raises(DestinationDenied, match="403"):
        await open_destination("far", server.url("other"), server.options())
    with pytest.raises(AccessDenied, match="cannot be read"):
        await open_destination("far", server.url(), {"token_file": str(tmp_path / "none")})


def test_what_the_server_refuses(server: ObjectServer) -> None:
    token = server.tokens["full"]
    for head, status in (
        ("PUT /objects/main/a HTTP/1.1\r\nContent-Length: 1\r\n", 428),
        ("PUT /objects/main/a HTTP/1.1\r\nContent-Length: 1\r\nIf-None-Match: *\r\n", 400),
        (
            f"PUT /objects/main/a HTTP/1.1\r\nContent-Length: 9999999999\r\nIf-None-Match: *\r\nContent-Digest: sha-256=:{'A' * 43}=:\r\n",
            413,
        ),
        ("GET /objects/main/..%2f..%2fetc HTTP/1.1\r\n", 400),
        ("GET /objects/main/tmp/x HTTP/1.1\r\n", 400),
        ("GET /objects/main/?prefix=a HTTP/1.1\r\n", 400),
        ("GET /objects/main/?limit=-1 HTTP/1.1\r\n", 400),
        ("HEAD /objects/main/?upload=1 HTTP/1.1\r\n", 404),
        ("POST /objects/main/a HTTP/1.1\r\nContent-Length: 0\r\n", 405),
        ("GET /elsewhere HTTP/1.1\r\n", 404),
        ("GET /healthz HTTP/1.1\r\n", 200),
    ):
        assert _raw(server, f"{head}Host: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n").startswith(
            f"HTTP/1.1 {status}"
        ), head
    for authorization in ("", "Authorization: Basic eDp5\r\n", f"Authorization: Bearer {token[:-1]}\r\n", "Authorization: Bearer\r\n"):
        answer = _raw(server, f"GET /objects/main/?about HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n")
        assert answer.startswith("HTTP/1.1 401")
        assert "application/problem+json" in answer


@pytest.mark.parametrize(
    "url",
    [
        "https://me:pw-5ecret@host/objects/a",
        "https://pw-5ecret@host/objects/a",
        "https://host/a?token=pw-5ecret",
        "https://host/a#pw-5ecret",
    ],
)
async def test_a_secret_in_the_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="token_file") as caught:
        await open_destination("far", url)
    assert "5ecret" not in str(caught.value)


async def test_a_token_is_not_sent_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="allow_plain_http"):
        await open_destination("far", "http://backup.example/objects/a", {"token_file": str(tmp_path / "t")})


def _number(head: bytes, name: str) -> int:
    return int(header(head, name) or -1)


def _raw(server: ObjectServer, text: str) -> str:
    where = urlsplit(server.endpoint)
    with socket.create_connection((where.hostname, where.port), 10) as connection:
        connection.sendall(text.encode())
        answer = b""
        # The server waits for the rest of a body that it refused, for a while; its answer is there before.
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(1 << 16)
            assert piece, answer
            answer += piece
    return answer.decode()
