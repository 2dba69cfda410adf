"""A proxy before a real HTTP server, for whole restores: bodies pass through it in the kernel, and its faults come again and again.

What ``http_faults`` does to one request, with its body in memory, this does to every so-many-th of very many, at next to no cost: each connection
has a thread, and a body that is not altered never enters the process (``splice``). Linux only. Signatures stay valid: the head of a request
goes on as it came, but for ``Expect``, which is answered here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from snapferry.testing.http_wire import Request, header, with_header

_PIECE = 1 << 20
_HEAD = 64 << 10
_LACKS = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>'


class StreamFault:
    """Lets everything pass; what goes wrong with the requests that read an object whose path contains ``touches``.

    Attributes:
        met: how many requests met it.
        delay: seconds that the answer to those comes late. lacks: it is that there is no such object. flips: a bit of its body is wrong.
    """

    delay = 0.0
    lacks = False
    flips = False

    def __init__(self, touches: str = "/packs/") -> None:
        self.touches = touches
        self.met = 0
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def meets(self, request: Request) -> bool:
        """Whether this request meets it; counts."""
        with self._lock:
            met = request.method in ("GET", "HEAD") and self.touches in request.target and self.takes(request, self._numbers)
            self.met += met
        return met

    def takes(self, request: Request, numbers: itertools.count[int]) -> bool:
        """Whether it is this one's turn; ``numbers`` counts those that are touched."""
        return False


class StallsEveryNth(StreamFault):
    """Every ``nth`` of them is answered ``seconds`` late."""

    def __init__(self, nth: int, seconds: float, touches: str = "/packs/") -> None:
        super().__init__(touches)
        self._nth = nth
        self.delay = seconds

    def takes(self, request: Request, numbers: itertools.count[int]) -> bool:
        """By number."""
        return next(numbers) % self._nth == 0


class FlipsBitInEveryNth(StreamFault):
    """One bit in the middle of every ``nth`` body is wrong."""

    flips = True

    def __init__(self, nth: int, touches: str = "/packs/") -> None:
        super().__init__(touches)
        self._nth = nth

    def takes(self, request: Request, numbers: itertools.count[int]) -> bool:
        """By number, of those with a body."""
        return request.method == "GET" and next(numbers) % self._nth == 0


class LacksOneIn(StreamFault):
    """One in ``count`` objects is not there, the same ones each time: 404, as S3 says it."""

    lacks = True

    def __init__(self, count: int, touches: str = "/packs/") -> None:
        super().__init__(touches)
        self._count = count

    def takes(self, request: Request, numbers: itertools.count[int]) -> bool:
        """By name."""
        del numbers
        return zlib.crc32(request.target.partition("?")[0].encode()) % self._count == 0


class StreamProxy:
    """A context in which it runs.

    Arguments:
        listener: where it listens.
        connect: makes a connection to the server.
        fault: what goes wrong.

    Attributes:
        endpoint: its URL.
        fault: may be exchanged at any time.
    """

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket], fault: StreamFault | None = None) -> None:
        self.fault = fault or StreamFault()
        self._listener = listener
        self.endpoint = "http://{}:{}".format(*listener.getsockname()[:2])
        self._connect = connect
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._dead = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.die()
        self._thread.join()

    def die(self) -> None:
        """Resets all connections and takes no more, as a server does whose process is killed."""
        if self._dead.is_set():
            return
        self._dead.set()
        with self._lock:
            for connection in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    if connection is not self._listener:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, EOFError):
            client = self._keep(stack, client)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = self._keep(stack, self._connect())
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pipe = Pipe(stack)
            while self._serve_one(client, server, pipe):
                pass

    def _keep(self, stack: contextlib.ExitStack, connection: socket.socket) -> socket.socket:
        stack.enter_context(connection)
        with self._lock:
            self._open.add(connection)

        def forget() -> None:
            with self._lock:
                self._open.discard(connection)

        stack.callback(forget)
        if self._dead.is_set():
            raise EOFError
        return connection

    def _serve_one(self, client: socket.socket, server: socket.socket, pipe: Pipe) -> bool:
        """One request and its answer; whether another may follow."""
        head, rest = read_head(client)
        request = Request(head)
        if (header(head, "expect") or "").lower() == "100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = with_header(head, "Expect", None)
        fault = self.fault
        met = fault.meets(request)
        if met and fault.lacks:
            body = b"" if request.method == "HEAD" else _LACKS
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(_LACKS) + body)
            return True
        if met and self._dead.wait(fault.delay):
            return False
        server.sendall(head + rest)
        pipe.pass_on(client, server, request.length - len(rest))
        answer, rest = read_head(server)
        empty = request.method == "HEAD" or answer.split(b" ", 2)[1] in (b"204", b"304")
        length = 0 if empty else header(answer, "content-length")
        if length is None:
            # It ends with the connection, or in chunks that are not looked into: then this is the connection's last.
            client.sendall(with_header(answer, "Connection", "close") + rest)
            if header(answer, "transfer-encoding") is not None:
                _pass_chunks(server, client, rest)
            else:
                pipe.pass_on(server, client, 1 << 62)
            return False
        left = int(length) - len(rest)
        client.sendall(answer)
        if met and fault.flips:
            whole = bytearray(rest)
            while len(whole) < int(length):
                whole += received(server, min(_PIECE, int(length) - len(whole)))
            if whole:
                whole[len(whole) // 2] ^= 1
            client.sendall(whole)
            return True
        client.sendall(rest)
        pipe.pass_on(server, client, left)
        return (header(answer, "connection") or "").lower() != "close"


class HasFileno(Protocol):
    """A socket or an open file."""

    def fileno(self) -> int:
        """Its descriptor."""


class Pipe:
    """Bytes from one socket or file to another without a copy in this process; ``stack`` closes it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._out, self._in = os.pipe()
        stack.callback(os.close, self._out)
        stack.callback(os.close, self._in)
        with contextlib.suppress(OSError):
            import fcntl

            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIECE)

    def pass_on(self, source: HasFileno, target: HasFileno, count: int) -> None:
        """``count`` bytes; ``EOFError`` if the source ends before."""
        while count > 0:
            came = os.splice(source.fileno(), self._in, min(count, _PIECE))
            if not came:
                raise EOFError
            count -= came
            while came:
                came -= os.splice(self._out, target.fileno(), came)


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The next head, and what came with it of what follows."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > _HEAD:
            raise EOFError
        data += received(connection, _HEAD)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def received(connection: socket.socket, size: int) -> bytes:
    """Up to ``size`` bytes; ``EOFError`` at the end."""
    data = connection.recv(size)
    if not data:
        raise EOFError
    return data


def _pass_chunks(source: socket.socket, target: socket.socket, seen: bytes) -> None:
    """Until the last chunk: of no bytes, and with no trailers."""
    while not seen.endswith(b"0\r\n\r\n"):
        piece = received(source, _PIECE)
        target.sendall(piece)
        seen = (seen + piece)[-16:]
