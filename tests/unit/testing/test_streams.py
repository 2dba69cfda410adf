"""The proxy for whole restores: what passes is whole, and each fault is what its name says, as often as it says."""

from __future__ import annotations

import http.client
import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from snapferry.testing.http_streams import FlipsBitInEveryNth, LacksOneIn, StallsEveryNth, StreamFault, StreamProxy

SIZE = 3 << 20


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_PUT(self) -> None:
        Path(self.translate_path(self.path)).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def do_POST(self) -> None:
        """An answer in chunks."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for size in (5, 1 << 17):
            self.wfile.write(b"%x\r\n%b\r\n" % (size, b"0" * size))
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "packs").mkdir()
    for number in range(30):
        (tmp_path / f"packs/{number}").write_bytes(os.urandom(SIZE if not number else 1000))
    return tmp_path


@pytest.fixture
def proxy(directory: Path) -> Iterator[StreamProxy]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        address = server.server_address[:2]
        with StreamProxy(
            socket.create_server(("127.0.0.1", 0)), lambda: socket.create_connection((str(address[0]), int(address[1])))
        ) as made:
            yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def client(proxy: StreamProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=30)
    yield connection
    connection.close()


def _ask(client: http.client.HTTPConnection, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    client.request(method, path, body)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_all_passes_both_ways(client: http.client.HTTPConnection, directory: Path) -> None:
    whole = (directory / "packs/0").read_bytes()
    for _ in range(2):
        assert _ask(client, "/packs/0") == (200, whole)
    assert _ask(client, "/packs/0", "HEAD") == (200, b"")
    assert _ask(client, "/packs/new", "PUT", whole) == (204, b"")
    assert (directory / "packs/new").read_bytes() == whole
    assert _ask(client, "/any", "POST", b"") == (200, b"0" * (5 + (1 << 17)))
    assert _ask(client, "/packs/1")[0] == 200


def test_every_nth_stalls(client: http.client.HTTPConnection, proxy: StreamProxy) -> None:
    proxy.fault = fault = StallsEveryNth(2, 0.3)
    seconds = []
    for _ in range(4):
        begun = time.monotonic()
        assert _ask(client, "/packs/1")[0] == 200
        seconds.append(time.monotonic() - begun >= 0.3)
    assert seconds[1::2] == [True, True]
    assert fault.met == 2


def test_one_bit_in_every_nth_body_is_wrong(client: http.client.HTTPConnection, proxy: StreamProxy, directory: Path) -> None:
    proxy.fault = fault = FlipsBitInEveryNth(3)
    whole = int.from_bytes((directory / "packs/0").read_bytes())
    wrong = [(int.from_bytes(_ask(client, "/packs/0")[1]) ^ whole).bit_count() for _ in range(6)]
    assert wrong == [0, 0, 1, 0, 0, 1]
    assert fault.met == 2


def test_the_same_objects_are_lacking_each_time(client: http.client.HTTPConnection, proxy: StreamProxy) -> None:
    proxy.fault = LacksOneIn(3)
    first, second = ([_ask(client, f"/packs/{number}", method)[0] for number in range(30)] for method in ("GET", "HEAD"))
    assert first == second
    assert 3 <= first.count(404) <= 17
    assert set(first) == {200, 404}


def test_only_what_is_touched_meets_a_fault(client: http.client.HTTPConnection, proxy: StreamProxy) -> None:
    proxy.fault = fault = LacksOneIn(1, touches="/elsewhere/")
    assert _ask(client, "/packs/1")[0] == 200
    assert fault.met == 0
    assert StreamFault().met == 0


def test_it_dies_in_the_middle_of_a_body_for_good(client: http.client.HTTPConnection, proxy: StreamProxy, directory: Path) -> None:
    (directory / "packs/large").write_bytes(bytes(64 << 20))  # more than lies in the buffers on the way
    client.request("GET", "/packs/large")
    answer = client.getresponse()
    assert len(answer.read(1000)) == 1000
    proxy.die()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    with pytest.raises(OSError, match="refused"):
        _ask(http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=30), "/packs/1")
