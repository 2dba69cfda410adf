"""Objects at a server that speaks the object protocol: another snapferry, or a module behind a Unix socket.

Objects never change, so that a body which breaks off is taken up where it broke, both ways: a read with ``Range``, a large create, where the
server has resumable uploads, as draft-ietf-httpbis-resumable-upload says (made first, then filled by ``PATCH``). That is repeated as long as
it gets on, a bounded number of times; all else, but for pages of a listing, is for wrappers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator

from typing_extensions import Buffer

from snapferry.destination.contract import Capabilities, ObjectInfo
from snapferry.destination.http_answers import (
    LARGEST_ANSWER,
    LARGEST_PAGE,
    PAGE,
    About,
    NonsenseAnswer,
    Page,
    about_of,
    number_of,
    page_of,
    range_of,
    upload_at,
)
from snapferry.destination.http_link import Link, make_session
from snapferry.destination.http_requests import Filling, PastTheEnd, Requests, broke_off
from snapferry.destination.keys import check_key, check_prefix
from snapferry.destination.off_loop import off_loop
from snapferry.destination.repeating import RetryBudget, RetryPolicy, repeat
from snapferry.errors import DestinationError, DestinationUnreachable, ObjectDamaged, ObjectNotFound

_RESUMES = 8
"""So often a body is taken up again, as long as each attempt gets on."""

_RESUMABLE = 4 << 20
"""Bytes from which on an upload is worth the request that makes it resumable."""


class HttpDestination:
    """A store of a server as a destination; ``open`` makes one.

    Arguments:
        name: of this destination in the configuration.
        link: the way there.
        requests: single requests over it.
        about: what the server declared.
        policy: for pages of listings.
    """

    def __init__(self, name: str, link: Link, requests: Requests, about: About, policy: RetryPolicy) -> None:
        self._name = name
        self._link = link
        self._requests = requests
        self._about = about
        self._policy = policy
        self._budget = RetryBudget()

    @classmethod
    async def open(cls, name: str, link: Link, policy: RetryPolicy | None = None) -> HttpDestination:
        """Asks the server what the store offers.

        Raises:
            DestinationUnreachable: no answer, or no such store. DestinationDenied: the token is unknown. DestinationError: another protocol.
        """
        policy = policy or RetryPolicy()
        requests = Requests(name, link, make_session(link, f"destination {name}"))

        async def ask() -> About:
            return about_of(await requests.document(f"{link.base}?about", "", LARGEST_ANSWER))

        try:
            return cls(name, link, requests, await repeat(ask, policy, RetryBudget()), policy)
        except NonsenseAnswer as error:
            await requests.close()
            raise DestinationError(f"{link.shown}: {error}{link.words.nonsense}", name) from error
        except BaseException:
            await requests.close()
            raise

    @property
    def name(self) -> str:
        """The name of this destination in the configuration."""
        return self._name

    @property
    def url(self) -> str:
        """The store's URL."""
        return self._link.shown

    @property
    def capabilities(self) -> Capabilities:
        """What the server declared when the destination was opened."""
        return self._about.capabilities

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores ``data`` under ``key`` unless it is taken. The bytes are sent from where they are."""
        check_key(key)
        view = memoryview(data).cast("B")
        digest = await off_loop(_digest, view)
        if self._about.resumable_uploads and view.nbytes >= _RESUMABLE:
            return await self._upload(key, view, digest)
        headers = {"If-None-Match": "*", "Content-Digest": digest}
        return await self._requests.store("PUT", self._at(key), key, view, headers) == 201

    async def read(self, key: str, limit: int) -> bytes:
        """The whole object; ``ObjectDamaged`` if it is longer than ``limit`` bytes."""
        check_key(key)
        filling = Filling(memoryview(b""))
        try:
            async with self._requests.ask("GET", self._at(key), key, wanted=(200,)) as answer:
                size = answer.size()
                if size > limit:
                    raise ObjectDamaged(f"{key} has {size} bytes where at most {limit} are expected", self._name)
                filling = Filling(memoryview(bytearray(size)))
                await answer.pour(filling)
        except DestinationError as error:
            await self._go_on(key, 0, filling, error)
        return bytes(filling.view)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on; ``ObjectDamaged`` if the object ends before it is full."""
        check_key(key)
        view = buffer.cast("B")
        if offset < 0:
            raise ValueError(f"negative offset {offset}")
        if not view.nbytes:
            size = await self._size(key)
            if offset > size:
                raise self._too_short(key, size, offset)
            return
        filling = Filling(view)
        try:
            await self._range(key, offset, filling)
        except DestinationError as error:
            await self._go_on(key, offset, filling, error)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """The last ``length`` bytes at most, and the object's size."""
        check_key(key)
        if not length:
            return b"", await self._size(key)
        filling, first, size = Filling(memoryview(b"")), 0, 0
        try:
            async with self._requests.ask("GET", self._at(key), key, wanted=(206,), headers={"Range": f"bytes=-{length}"}) as answer:
                first, last, size = range_of(answer.header("Content-Range"))
                if last != size - 1 or first != max(0, size - length):
                    raise NonsenseAnswer("another range than it was asked for")
                filling = Filling(memoryview(bytearray(size - first)))
                await answer.pour(filling)
        except PastTheEnd:
            # No suffix of an empty object is a range.
            if await self._size(key):
                raise self._nonsense(key, "no end of an object that has one") from None
        except DestinationError as error:
            await self._go_on(key, first, filling, error)
        return bytes(filling.view), size

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with ``prefix``, in order, page by page; a page that fails is asked for again."""
        check_prefix(prefix)
        after = ""
        while True:
            page = await self._page(prefix, after)
            for item in page.objects:
                yield item
            if not page.more:
                return
            after = page.objects[-1].key

    async def delete(self, key: str) -> None:
        """Removes the object; one that is not there is no error."""
        check_key(key)
        async with self._requests.ask("DELETE", self._at(key), key, wanted=(200, 204, 404)):
            pass

    async def close(self) -> None:
        """Closes the connections."""
        await self._requests.close()

    # Below: reading.

    async def _range(self, key: str, offset: int, filling: Filling) -> None:
        """What is missing of the bytes from ``offset`` on, in one request."""
        begin, end = offset + filling.filled, offset + filling.view.nbytes
        try:
            async with self._requests.ask(
                "GET", self._at(key), key, wanted=(206,), headers={"Range": f"bytes={begin}-{end - 1}"}
            ) as answer:
                first, last, size = range_of(answer.header("Content-Range"))
                if size < end:
                    raise self._too_short(key, size, end)
                if (first, last) != (begin, end - 1):
                    raise NonsenseAnswer("another range than it was asked for")
                await answer.pour(filling)
        except PastTheEnd as past:
            size = past.size if past.size is not None else await self._size(key)
            if size > begin:
                raise self._nonsense(key, f"no byte {begin} of an object of {size}") from None
            raise self._too_short(key, size, end) from None

    async def _go_on(self, key: str, offset: int, filling: Filling, error: DestinationError) -> None:
        """Fills what is missing after a request that broke off; raises ``error`` if that got nowhere, or is no such thing."""
        before = 0
        for _ in range(_RESUMES):
            if not broke_off(error) or filling.filled == before:
                break
            before = filling.filled
            try:
                return await self._range(key, offset, filling)
            except DestinationError as again:
                error = again
        raise error

    async def _size(self, key: str) -> int:
        async with self._requests.ask("HEAD", self._at(key), key, wanted=(200,)) as answer:
            return answer.size()

    async def _page(self, prefix: str, after: str) -> Page:
        # Nothing in a key or a prefix needs quoting.
        target = f"{self._link.base}?prefix={prefix}&limit={PAGE}" + (f"&after={after}" if after else "")

        async def once() -> Page:
            try:
                return page_of(await self._requests.document(target, "", LARGEST_PAGE), prefix, after)
            except NonsenseAnswer as error:
                raise self._nonsense(prefix, str(error)) from error

        try:
            return await repeat(once, self._policy, self._budget)
        except DestinationError as error:
            error.retryable = False  # it was tried again already
            raise

    # Below: an upload that can be taken up again.

    async def _upload(self, key: str, view: memoryview, digest: str) -> bool:
        location = await self._begin(key, view.nbytes, digest)
        if location is None:
            return False
        sent = 0
        for _ in range(_RESUMES):
            try:
                return await self._append(key, location, view, sent)
            except DestinationError as error:
                if not broke_off(error):
                    raise
                there = await self._received(key, location, view.nbytes, error)
                if there <= sent:
                    raise
                sent = there
        return await self._append(key, location, view, sent)

    async def _begin(self, key: str, size: int, digest: str) -> str | None:
        """Where to send the bytes to; None if the key is taken."""
        headers = {"If-None-Match": "*", "Upload-Complete": "?0", "Upload-Length": str(size), "Repr-Digest": digest}
        async with self._requests.ask("PUT", self._at(key), key, wanted=(201, 412), headers=headers) as answer:
            return upload_at(answer.header("Location"), self._link.base) if answer.status == 201 else None

    async def _append(self, key: str, location: str, view: memoryview, sent: int) -> bool:
        headers = {"Upload-Complete": "?1", "Upload-Offset": str(sent), "Content-Type": "application/partial-upload"}
        return await self._requests.store("PATCH", location, key, view[sent:], headers) == 201

    async def _received(self, key: str, location: str, size: int, broke: DestinationError) -> int:
        """How many bytes the server has; raises ``broke`` where it does not have the upload any more, or cannot say."""
        try:
            async with self._requests.ask("HEAD", location, key, wanted=(200, 204)) as answer:
                there = number_of(answer.header("Upload-Offset"))
                if there is None or there > size:
                    raise NonsenseAnswer("an upload of no sensible length")
                return there
        except (DestinationUnreachable, ObjectNotFound):
            raise broke from broke.__cause__

    # Below: words.

    def _at(self, key: str) -> str:
        return self._link.base + key

    def _nonsense(self, key: str, error: str) -> DestinationError:
        return DestinationError(f"{self._link.shown}: {key}: {self._link.words.who} answers with {error}", self._name)

    def _too_short(self, key: str, size: int, end: int) -> ObjectDamaged:
        return ObjectDamaged(f"{key} ends at {size}, before {end}", self._name)


def _digest(view: memoryview) -> str:
    """A ``Content-Digest`` or ``Repr-Digest`` (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(view).digest()).decode()}:"
