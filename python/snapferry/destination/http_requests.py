"""Single requests to an object server: each under a deadline that moves with the work, each answer checked, each failure one of our errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from snapferry.destination.body import Body
from snapferry.destination.deadline import Deadline, Stalled, deadline, expect_answer, expect_sending
from snapferry.destination.header_times import retry_after
from snapferry.destination.http_answers import LARGEST_ANSWER, NonsenseAnswer, number_of, problem_of, size_past
from snapferry.destination.http_errors import refused
from snapferry.destination.http_link import CONNECTIONS, FAILURES, Link, translated
from snapferry.errors import DestinationError


class PastTheEnd(Exception):
    """A range begins behind the object's end. ``size``: of the object, if the server says."""

    def __init__(self, size: int | None) -> None:
        super().__init__(size)
        self.size = size


@dataclass(slots=True)
class Filling:
    """A buffer that is filled from its beginning, and how far it is."""

    view: memoryview
    filled: int = 0


def broke_off(error: DestinationError) -> bool:
    """Whether it was the connection that failed, not the request."""
    return isinstance(error.__cause__, FAILURES)


class Answer:
    """The head of an answer, and its body as it comes."""

    def __init__(self, raw: aiohttp.ClientResponse, moving: Deadline, stall: float) -> None:
        self._raw = raw
        self._moving = moving
        self._stall = stall
        self.status = raw.status

    def header(self, name: str) -> str | None:
        """A header's value."""
        return self._raw.headers.get(name)

    def size(self) -> int:
        """Of the body, as the head tells it."""
        length = number_of(self.header("Content-Length"))
        if length is None:
            raise NonsenseAnswer("an object without a length")
        return length

    async def pour(self, filling: Filling) -> None:
        """Fills what is missing with the body, which must be just as long."""
        view = filling.view
        length, missing = self.size(), view.nbytes - filling.filled
        if length != missing:
            raise NonsenseAnswer(f"{length} bytes where {missing} were asked for")
        async for piece in self.pieces():
            end = filling.filled + len(piece)
            if end > view.nbytes:
                raise NonsenseAnswer("more than it was asked for")
            view[filling.filled : end] = piece
            filling.filled = end
        if filling.filled < view.nbytes:
            raise Stalled(f"the server sent {filling.filled} of {view.nbytes} bytes")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, each piece as it comes."""
        came = 0
        stall = self._stall
        while True:
            self._moving.expect(f"nothing came for {stall:g} s after {came} bytes (stall_timeout)", stall)
            piece = await self._raw.content.readany()
            if not piece:
                return
            came += len(piece)
            yield piece

    async def whole(self, limit: int) -> bytes:
        """The body of a document of at most ``limit`` bytes."""
        data = bytearray()
        async for piece in self.pieces():
            data += piece
            if len(data) > limit:
                raise NonsenseAnswer(f"a document of more than {limit} bytes")
        return bytes(data)


class Requests:
    """Requests over one link; ``CONNECTIONS`` at a time.

    Arguments:
        name: of the destination in the configuration.
        link: the way.
        session: over it; closed with this.
    """

    def __init__(self, name: str, link: Link, session: aiohttp.ClientSession) -> None:
        self._name = name
        self._link = link
        self._session = session
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        url: str,
        key: str,
        *,
        wanted: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        view: memoryview | None = None,
    ) -> AsyncIterator[Answer]:
        """Sends a request and gives its answer, whose status is one of ``wanted``. A body left before its end takes its connection with it.

        Raises:
            PastTheEnd: 416. DestinationError: any other status, an answer that makes no sense, or none.
        """
        async with self._turns:
            try:
                async with deadline() as moving:
                    expect_answer(moving, self._link)
                    raw = await self._send(method, url, headers or {}, view, moving)
                    try:
                        answer = Answer(raw, moving, self._link.stall_timeout)
                        if raw.status == 416:
                            raise PastTheEnd(size_past(answer.header("Content-Range")))
                        if raw.status not in wanted:
                            raise await self._refused(answer, method, key, sent=view is not None)
                        yield answer
                    finally:
                        # Of one read to its end this does nothing.
                        raw.close()
            except NonsenseAnswer as error:
                raise DestinationError(f"{self._where(key)}: {self._link.words.who} answers with {error}", self._name) from error
            except FAILURES as error:
                raise translated(error, self._link, self._name, key) from error

    async def store(self, method: str, url: str, key: str, view: memoryview, headers: Mapping[str, str]) -> int:
        """Sends the bytes in ``view`` from where they lie: 201, or 412 if the key is taken."""
        async with self.ask(method, url, key, wanted=(201, 412), headers=headers, view=view) as answer:
            return answer.status

    async def document(self, url: str, key: str, limit: int) -> bytes:
        """A document of at most ``limit`` bytes."""
        async with self.ask("GET", url, key, wanted=(200,)) as answer:
            return await answer.whole(limit)

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], view: memoryview | None, moving: Deadline
    ) -> aiohttp.ClientResponse:
        target = URL(url, encoded=True)
        if not view:
            length = {"Content-Length": "0"} if method in ("PUT", "PATCH") else {}
            return await self._session.request(method, target, headers={**headers, **length}, allow_redirects=False)
        body = Body(view, lambda sent: expect_sending(moving, self._link, sent=sent))
        sized = {**headers, "Content-Length": str(view.nbytes)}
        try:
            return await self._session.request(method, target, headers=sized, data=body, allow_redirects=False)
        except BaseException:
            body.abort()
            raise

    async def _refused(self, answer: Answer, method: str, key: str, *, sent: bool) -> DestinationError:
        said = "" if method == "HEAD" else problem_of(await answer.whole(LARGEST_ANSWER))
        wait = retry_after({"retry-after": answer.header("Retry-After") or ""})
        return refused(answer.status, said, self._where(key), self._name, key, self._link.words, sent=sent, wait=wait)

    def _where(self, key: str) -> str:
        return f"{self._link.shown}: {key}" if key else self._link.shown
