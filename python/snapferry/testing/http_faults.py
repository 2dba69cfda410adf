"""A proxy before a real HTTP server that fails as networks and servers do. Each fault is a class, named by what it does.

```python
with FaultProxy("http://127.0.0.1:9000") as proxy:
    proxy.add(ResetsInBody(after=1000, method="GET", touches="packs/"))
    ...  # work with proxy.endpoint; the next matching request meets the fault, once
```

It runs in a thread of its own, so that it serves other processes too. Requests and answers are held in memory whole. Signatures stay valid:
the head of a request goes on as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from snapferry.testing.http_wire import Answer, Request, header, with_header

_MOST = 1 << 20


class Exchange:
    """A request that met a fault: what the fault does it with. ``reader`` has what is left of the request."""

    def __init__(self, proxy: FaultProxy, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self.reader = reader
        self._writer = writer
        self.request = request

    async def receive(self) -> None:
        """Reads the request's body."""
        self.request.body = await self.reader.readexactly(self.request.length)

    async def forward(self) -> Answer:
        """Reads the request's body, if that was not done, and asks the server."""
        if len(self.request.body) < self.request.length:
            await self.receive()
        return await self._proxy.ask(self.request)

    async def forward_part(self, count: int) -> None:
        """Passes on the head and ``count`` bytes of the body, and ends that connection."""
        await self._proxy.tell(self.request.head, await self.reader.readexactly(count))

    async def send(self, *parts: bytes) -> None:
        """Sends bytes to the client."""
        self._writer.writelines(parts)
        await self._writer.drain()

    async def hang(self) -> None:
        """Does nothing until the client gives up, or the proxy is stopped."""
        while await self.reader.read(1 << 16):
            pass

    async def hang_deaf(self) -> None:
        """The same without taking what the client sends."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    def reset(self) -> None:
        """Ends the connection with a reset instead of an end."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Fault:
    """What goes wrong with a request.

    Arguments:
        method: of the requests that it touches; empty: of any.
        touches: a part of the path or query of those requests.
        times: how many of them meet it.
    """

    def __init__(self, *, method: str = "", touches: str = "", times: int = 1) -> None:
        self.method = method
        self.touches = touches
        self.left = times
        self.met = 0

    def takes(self, request: Request) -> bool:
        """Whether this request meets it; counts those that do."""
        if not self.left or self.method not in ("", request.method) or self.touches not in request.target:
            return False
        self.left -= 1
        self.met += 1
        return True

    async def serve(self, exchange: Exchange) -> bool:
        """Serves the request; returns whether the connection can be used again."""
        raise NotImplementedError


class Answers(Fault):
    """The proxy answers by itself; the server hears nothing."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "",
        touches: str = "",
        times: int = 1,
    ) -> None:
        super().__init__(method=method, touches=touches, times=times)
        self._status = status
        self._body = body
        self._headers = dict(headers or {})

    async def serve(self, exchange: Exchange) -> bool:
        """Answers once the request is there."""
        await exchange.receive()
        lines = [f"HTTP/1.1 {self._status} Fault", *(f"{name}: {value}" for name, value in self._headers.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(self._body)}", "", ""])
        await exchange.send(head.encode(), b"" if exchange.request.method == "HEAD" else self._body)
        return True


def s3_error(code: str, message: str = "", **more: str) -> bytes:
    """The body of an error answer of S3."""
    extra = "".join(f"<{name}>{value}</{name}>" for name, value in more.items())
    return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>'.encode()


class HangsAfterAccept(Fault):
    """The request is read, and no answer ever comes."""

    async def serve(self, exchange: Exchange) -> bool:
        """Waits."""
        await exchange.hang()
        return False


class HangsWhileReceiving(Fault):
    """The request's body is not taken: what the client sends piles up."""

    async def serve(self, exchange: Exchange) -> bool:
        """Waits."""
        await exchange.hang_deaf()
        return False


class LosesReply(Fault):
    """The server does what it was asked for, and the connection ends before the client hears of it."""

    async def serve(self, exchange: Exchange) -> bool:
        """Asks and says nothing."""
        await exchange.forward()
        exchange.reset()
        return False


class _InBody(Fault):
    """Something happens after so many bytes of the answer's body."""

    def __init__(self, after: int, *, method: str = "", touches: str = "", times: int = 1) -> None:
        super().__init__(method=method, touches=touches, times=times)
        self.after = after

    async def begin(self, exchange: Exchange) -> Answer:
        """Sends the head and the beginning of the body."""
        answer = await exchange.forward()
        await exchange.send(answer.head, answer.body[: self.after])
        return answer


class ResetsInBody(_InBody):
    """The connection is reset in the middle of the answer's body."""

    async def serve(self, exchange: Exchange) -> bool:
        """Begins, and resets."""
        await self.begin(exchange)
        exchange.reset()
        return False


class ShortensBody(_InBody):
    """The connection ends, in good order, in the middle of the answer's body."""

    async def serve(self, exchange: Exchange) -> bool:
        """Begins, and ends."""
        await self.begin(exchange)
        return False


class HangsInBody(_InBody):
    """The answer's body stops in its middle, and the connection stays."""

    async def serve(self, exchange: Exchange) -> bool:
        """Begins, and waits."""
        await self.begin(exchange)
        await exchange.hang()
        return False


class LengthensBody(Fault):
    """The answer's body is ``by`` bytes longer than what was asked for, and its length says so; its range does not."""

    def __init__(self, by: int, *, method: str = "", touches: str = "", times: int = 1) -> None:
        super().__init__(method=method, touches=touches, times=times)
        self._by = by

    async def serve(self, exchange: Exchange) -> bool:
        """Adds bytes."""
        answer = await exchange.forward()
        body = answer.body + b"+" * self._by
        await exchange.send(with_header(answer.head, "Content-Length", str(len(body))), body)
        return True


class _Alters(Fault):
    """One byte is wrong."""

    def __init__(self, position: int, *, method: str = "", touches: str = "", times: int = 1) -> None:
        super().__init__(method=method, touches=touches, times=times)
        self.position = position


class AltersBody(_Alters):
    """One byte of the answer's body, at ``position`` modulo its length, is its complement."""

    async def serve(self, exchange: Exchange) -> bool:
        """Flips a byte on its way to the client."""
        answer = await exchange.forward()
        await exchange.send(answer.head, _flipped(answer.body, self.position))
        return True


class AltersUpload(_Alters):
    """One byte of the request's body, at ``position`` modulo its length, is its complement when it reaches the server."""

    async def serve(self, exchange: Exchange) -> bool:
        """Flips a byte on its way to the server."""
        await exchange.receive()
        exchange.request.body = _flipped(exchange.request.body, self.position)
        answer = await exchange.forward()
        await exchange.send(answer.head, answer.body)
        return True


class CutsUpload(Fault):
    """The connections break in the middle of the request's body; the server has got the first ``after`` bytes of it."""

    def __init__(self, after: int, *, method: str = "", touches: str = "", times: int = 1) -> None:
        super().__init__(method=method, touches=touches, times=times)
        self._after = after

    async def serve(self, exchange: Exchange) -> bool:
        """Passes on a part, and resets."""
        await exchange.forward_part(self._after)
        exchange.reset()
        return False


class RewritesHead(Fault):
    """The head of the answer is what ``rewritten`` makes of it."""

    def __init__(self, rewritten: Callable[[bytes], bytes], *, method: str = "", touches: str = "", times: int = 1) -> None:
        super().__init__(method=method, touches=touches, times=times)
        self._rewritten = rewritten

    async def serve(self, exchange: Exchange) -> bool:
        """Rewrites."""
        answer = await exchange.forward()
        await exchange.send(self._rewritten(answer.head), answer.body)
        return True


def _flipped(data: bytes, position: int) -> bytes:
    wrong = bytearray(data)
    if wrong:
        wrong[position % len(wrong)] ^= 0xFF
    return bytes(wrong)


class FaultProxy:
    """The proxy: a context in which it runs. ``endpoint`` is its URL.

    Arguments:
        upstream: the URL of the server, without a path.
        latency: seconds that each answer comes late.
    """

    def __init__(self, upstream: str, *, latency: float = 0.0) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        assert parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self._latency = latency
        self._faults: list[Fault] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self.endpoint = ""
        self.requests: list[tuple[str, str]] = []
        """Method and target of each request, in the order of their coming."""
        self.heads: list[bytes] = []
        """Their heads, as they came."""

    def add(self, fault: Fault) -> Fault:
        """From now on requests may meet ``fault``; the first that takes one serves it."""
        self._faults.append(fault)
        return fault

    def __enter__(self) -> Self:
        """Starts on a free port of the loopback."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends every connection."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def ask(self, request: Request) -> Answer:
        """The server's answer."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.writelines([with_header(request.head, "Connection", "close"), request.body])
            await writer.drain()
            everything = await reader.read()
        finally:
            writer.close()
        head, _, body = everything.partition(b"\r\n\r\n")
        return Answer(with_header(head + b"\r\n\r\n", "Connection", None), body)

    async def tell(self, *parts: bytes) -> None:
        """Sends bytes to the server, and hears nothing."""
        _, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.writelines(parts)
            await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=_MOST)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        connections = dict(self._connections)
        for connection, writer in connections.items():
            connection.cancel()
            writer.transport.abort()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the turn after the one in which they are told to

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            del self._connections[task]
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = Request(await reader.readuntil(b"\r\n\r\n"))
        self.requests.append((request.method, request.target))
        self.heads.append(request.head)
        exchange = Exchange(self, request, reader, writer)
        if self._latency:
            await asyncio.sleep(self._latency)
        for fault in self._faults:
            if fault.takes(request):
                return await fault.serve(exchange)
        answer = await exchange.forward()
        await exchange.send(answer.head, answer.body)
        bounded = header(answer.head, "content-length") is not None or header(answer.head, "transfer-encoding") is not None
        return bounded or answer.head.split(b" ", 2)[1] in (b"204", b"304")
