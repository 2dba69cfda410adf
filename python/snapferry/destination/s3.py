"""Objects in an S3 bucket, or in that of any server that speaks its language.

A key is the bucket's key below the prefix. ``PutObject`` with ``If-None-Match: *`` is create-if-absent, which is atomic; where a server does
not have it, looking first stands in for it, and ``capabilities`` say so. Every object is put in one piece. Nothing here is tried again but
pages of a listing, which only this file can take up where they broke off; the rest is for wrappers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from botocore.exceptions import ClientError
from typing_extensions import Buffer

from snapferry.config.s3_place import S3Place
from snapferry.destination.body import Body
from snapferry.destination.contract import Capabilities, ObjectInfo
from snapferry.destination.deadline import Deadline, deadline, expect_answer, expect_sending
from snapferry.destination.keys import RESERVED, check_key, check_prefix, is_key
from snapferry.destination.repeating import RetryBudget, RetryPolicy, repeat
from snapferry.destination.s3_checksums import contradicts, sums_of
from snapferry.destination.s3_client import CONNECTIONS, FAILURES, Client, make_client, refusal_of, translated
from snapferry.errors import DestinationError, DestinationUnreachable, ObjectDamaged, ObjectNotFound

_CONCURRENCY = 6
_CONFLICTS = 6
"""So often a put is made again that met another one of the same key under way."""

_PROVEN_BY = "config"
_SMALL = 64 << 10


class S3Destination:
    """A prefix of a bucket as a destination; ``open`` makes one.

    Arguments:
        name: of this destination in the configuration.
        place: where it is.
        client: of the SDK, for that place.
        stack: closes the client.
        policy: for pages of listings.
    """

    def __init__(self, name: str, place: S3Place, client: Client, stack: AsyncExitStack, policy: RetryPolicy | None = None) -> None:
        self._name = name
        self._place = place
        self._client = client
        self._stack = stack
        self._policy = policy or RetryPolicy()
        self._budget = RetryBudget()
        self._below = f"{place.prefix}/" if place.prefix else ""
        self._turns = asyncio.Semaphore(CONNECTIONS)
        # A server that gives back the CRC32 has verified it; until one does, the older MD5 goes along.
        self._send_md5 = place.checksum != "crc32"
        self._exclusive = place.conditional_put is not False
        self._listed = place.consistent_list

    @classmethod
    async def open(cls, name: str, place: S3Place, *, writable: bool) -> S3Destination:
        """Opens the place. The bucket is only asked where it is opened for writing and nobody has noted yet whether it has conditional puts.

        Raises:
            DestinationDenied: there are no credentials, or they do not suffice. DestinationUnreachable: no answer, or no such bucket.
        """
        async with AsyncExitStack() as stack:
            client = await make_client(name, place, stack)
            destination = cls(name, place, client, stack)
            if writable and place.conditional_put is None:
                await repeat(destination.prove, destination._policy, destination._budget)
            destination._stack = stack.pop_all()
            return destination
        raise AssertionError("unreachable")

    @property
    def name(self) -> str:
        """The name of this destination in the configuration."""
        return self._name

    @property
    def url(self) -> str:
        """Bucket, prefix and, where one is configured, the endpoint."""
        return self._place.url

    @property
    def capabilities(self) -> Capabilities:
        """Durable, and as exclusive and consistent as was noted or proved."""
        return Capabilities(self._exclusive, self._listed, _CONCURRENCY, durable=True)

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores ``data`` under ``key`` unless it is taken, in one put. The bytes are sent from where they are."""
        check_key(key)
        view = memoryview(data).cast("B")
        if not self._exclusive:
            return not await self._exists(key) and await self._put(key, view, conditional=False)
        for turn in range(_CONFLICTS):
            created = await self._put_if_absent(key, view)
            if created is not None:
                return created
            await asyncio.sleep(self._policy.pause(turn + 1) / 2)
        raise DestinationUnreachable(f"{self._at(key)}: other puts of the same key were always under way", self._name)

    async def read(self, key: str, limit: int) -> bytes:
        """The whole object; ``ObjectDamaged`` if it is longer than ``limit`` bytes, or not what the server's checksum says."""
        check_key(key)
        async with self._under_way(key) as moving, self._answer(key, moving, ChecksumMode="ENABLED") as (answer, pieces):
            size = _length(answer)
            if size is not None and size > limit:
                raise self._too_long(key, size, limit)
            data = bytearray()
            async for piece in pieces:
                data += piece
                if len(data) > limit:
                    raise self._too_long(key, len(data), limit)
        wrong = contradicts(_headers(answer), data)
        if wrong:
            raise ObjectDamaged(f"{self._at(key)}: {key} is not what the server's {wrong} says", self._name)
        return bytes(data)

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
        end = offset + view.nbytes
        try:
            async with self._under_way(key) as moving, self._answer(key, moving, Range=f"bytes={offset}-{end - 1}") as (answer, pieces):
                begin, size = self._range(key, answer)
                if size < end:
                    raise self._too_short(key, size, end)
                if begin != offset or _length(answer) not in (None, view.nbytes):
                    raise self._other_range(key)
                await self._fill(key, view, pieces)
        except _PastTheEnd:
            raise self._too_short(key, await self._size(key), end) from None

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """The last ``length`` bytes at most, and the object's size."""
        check_key(key)
        if not length:
            return b"", await self._size(key)
        try:
            async with self._under_way(key) as moving, self._answer(key, moving, Range=f"bytes=-{length}") as (answer, pieces):
                begin, size = self._range(key, answer)
                if begin != max(0, size - length) or _length(answer) not in (None, size - begin):
                    raise self._other_range(key)
                tail = bytearray(size - begin)
                await self._fill(key, memoryview(tail), pieces)
                return bytes(tail), size
        except _PastTheEnd:
            # No suffix of an empty object is a range; and some servers have none that is longer than the object.
            size = await self._size(key)
            if size > length:
                raise self._other_range(key) from None
            tail = bytearray(size)
            await self.read_into(key, 0, memoryview(tail))
            return bytes(tail), size

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with ``prefix``, page by page; a page that fails is asked for again."""
        check_prefix(prefix)
        arguments = {"Prefix": self._below + prefix}
        while True:
            page = await self._page(prefix, arguments)
            for entry in page.get("Contents", ()):
                key = str(entry["Key"]).removeprefix(self._below)
                # Directories of servers that keep files, and what is no object of ours.
                if is_key(key):
                    yield ObjectInfo(key, int(entry["Size"]))
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == arguments.get("ContinuationToken"):
                raise DestinationError(f"{self._at(prefix)}: the server breaks a listing off without saying where it goes on", self._name)
            arguments["ContinuationToken"] = token

    async def delete(self, key: str) -> None:
        """Removes the object; one that is not there is no error. In a bucket with versions, older ones stay until its lifecycle ends them."""
        check_key(key)
        with contextlib.suppress(ObjectNotFound):
            async with self._under_way(key):
                await self._client.delete_object(Bucket=self._place.bucket, Key=self._below + key)

    async def close(self) -> None:
        """Closes the connections."""
        await self._stack.aclose()

    async def prove(self) -> dict[str, bool]:
        """Finds out whether a second create is refused and a listing shows the first, by doing so; ``capabilities`` say it from then on.

        Where a repository is, its config object is put once more, as it is: refused or not, nothing changes. Else an object of no meaning is
        made and removed again.

        Returns:
            The options to note it with.
        """
        try:
            self._exclusive = await self._refuses(_PROVEN_BY, memoryview(await self.read(_PROVEN_BY, _SMALL)))
        except ObjectNotFound:
            key = f"{RESERVED}/{secrets.token_hex(16)}"
            first = await self._conditional(key, memoryview(b"first"))
            if first is None:
                await self._put(key, memoryview(b"first"), conditional=False)
            self._exclusive = first is True and await self._refuses(key, memoryview(b"second"))
            self._listed = key in [key async for key in self._keys(f"{RESERVED}/")]
            with contextlib.suppress(DestinationError):  # a host that may not delete leaves it: it is no object of the repository
                async with self._under_way(key):
                    await self._client.delete_object(Bucket=self._place.bucket, Key=self._below + key)
        return {"conditional_put": self._exclusive, "consistent_list": self._listed}

    # Below: single requests.

    async def _refuses(self, key: str, view: memoryview) -> bool:
        """Whether a create of a key that is taken is refused."""
        return await self._conditional(key, view) is False

    async def _conditional(self, key: str, view: memoryview) -> bool | None:
        """Whether a conditional put stored it; None if the server says that it has no such thing."""
        try:
            for turn in range(_CONFLICTS):
                created = await self._put_if_absent(key, view)
                if created is not None:
                    return created
                await asyncio.sleep(self._policy.pause(turn + 1) / 2)
        except DestinationError as error:
            if isinstance(error.__cause__, ClientError) and refusal_of(error.__cause__).lacks_condition:
                return None
            raise
        raise DestinationUnreachable(f"{self._at(key)}: other puts of the same key were always under way", self._name)

    async def _put_if_absent(self, key: str, view: memoryview) -> bool | None:
        """Whether it was stored; None where another put of the key is under way, and nothing is decided."""
        try:
            return await self._put(key, view, conditional=True)
        except DestinationError as error:
            if isinstance(error.__cause__, ClientError):
                refusal = refusal_of(error.__cause__)
                if refusal.is_precondition:
                    return False
                if refusal.is_conflict:
                    return None
            raise

    async def _put(self, key: str, view: memoryview, *, conditional: bool) -> bool:
        arguments: dict[str, Any] = {"IfNoneMatch": "*"} if conditional else {}
        sums = await sums_of(view, crc32=self._place.checksum != "md5", md5=self._send_md5)
        async with self._under_way(key) as moving:
            body = Body(view, lambda sent: expect_sending(moving, self._place, sent=sent)) if view.nbytes else b""
            try:
                answer = await self._client.put_object(
                    Bucket=self._place.bucket, Key=self._below + key, Body=body, ContentLength=view.nbytes, **sums.arguments(), **arguments
                )
            except BaseException:
                if isinstance(body, Body):
                    body.abort()
                raise
        if self._place.checksum == "auto" and sums.crc32 is not None and answer.get("ChecksumCRC32") == sums.crc32:
            self._send_md5 = False
        if not answer.get("ETag"):
            await self._confirm(key, view.nbytes)
        return True

    async def _confirm(self, key: str, size: int) -> None:
        """Every S3 server names what it stored. One that does not may be no S3 server, but something on the way that is pleased with anything."""
        with contextlib.suppress(ObjectNotFound):
            if await self._size(key) == size:
                return
        raise DestinationUnreachable(f"{self._at(key)}: the server says that it stored the object, and does not have it", self._name)

    async def _exists(self, key: str) -> bool:
        try:
            await self._size(key)
        except ObjectNotFound:
            return False
        return True

    async def _size(self, key: str) -> int:
        async with self._under_way(key):
            answer = await self._client.head_object(Bucket=self._place.bucket, Key=self._below + key)
        return int(answer["ContentLength"])

    async def _page(self, prefix: str, arguments: dict[str, str]) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            async with self._under_way(prefix):
                return await self._client.list_objects_v2(Bucket=self._place.bucket, **arguments)

        try:
            return await repeat(once, self._policy, self._budget)
        except DestinationError as error:
            error.retryable = False  # it was tried again already
            raise

    async def _keys(self, prefix: str) -> AsyncIterator[str]:
        page = await self._page(prefix, {"Prefix": self._below + prefix})
        for entry in page.get("Contents", ()):
            yield str(entry["Key"]).removeprefix(self._below)

    @asynccontextmanager
    async def _under_way(self, key: str) -> AsyncIterator[Deadline]:
        """Waits for a turn, then runs one request under a deadline; what goes wrong is raised as our error."""
        async with self._turns:
            try:
                async with deadline() as moving:
                    expect_answer(moving, self._place)
                    yield moving
            except FAILURES as error:
                if isinstance(error, ClientError) and refusal_of(error).is_past_the_end:
                    raise _PastTheEnd from error
                raise translated(error, self._place, self._name, key) from error

    @asynccontextmanager
    async def _answer(self, key: str, moving: Deadline, **arguments: Any) -> AsyncIterator[tuple[dict[str, Any], AsyncIterator[bytes]]]:
        """The answer to a ``GetObject`` and the pieces of its body, each as it comes. A body left before its end takes its connection with it."""
        answer = await self._client.get_object(Bucket=self._place.bucket, Key=self._below + key, **arguments)
        raw = answer["Body"].raw_stream
        came = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal came
            while True:
                stall = self._place.stall_timeout
                moving.expect(f"nothing came for {stall:g} s after {came} bytes (stall_timeout)", stall)
                piece = await raw.content.readany()
                if not piece:
                    return
                came += len(piece)
                yield piece

        try:
            yield answer, pieces()
        finally:
            # Of one read to its end this does nothing.
            raw.close()

    async def _fill(self, key: str, view: memoryview, pieces: AsyncIterator[bytes]) -> None:
        filled = 0
        async for piece in pieces:
            if filled + len(piece) > view.nbytes:
                raise DestinationUnreachable(f"{self._at(key)}: the server sent more than it was asked for", self._name)
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        if filled < view.nbytes:
            raise DestinationUnreachable(f"{self._at(key)}: the server sent {filled} of {view.nbytes} bytes", self._name)

    def _range(self, key: str, answer: dict[str, Any]) -> tuple[int, int]:
        """(first byte, size of the object) of an answer; a server that does not know ranges sends the whole."""
        text = answer.get("ContentRange")
        if text is None:
            return 0, _length(answer) or 0
        match = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", str(text))
        if match is None:
            raise self._other_range(key)
        return int(match[1]), int(match[3])

    def _at(self, key: str) -> str:
        return f"s3://{self._place.bucket}: {key}"

    def _too_long(self, key: str, size: int, limit: int) -> ObjectDamaged:
        return ObjectDamaged(f"{key} has {size} bytes where at most {limit} are expected", self._name)

    def _too_short(self, key: str, size: int, end: int) -> ObjectDamaged:
        return ObjectDamaged(f"{key} ends at {size}, before {end}", self._name)

    def _other_range(self, key: str) -> DestinationError:
        return DestinationError(f"{self._at(key)}: the server answers with another range than it was asked for", self._name)


class _PastTheEnd(Exception):
    """A range begins behind the object's end."""


def _length(answer: dict[str, Any]) -> int | None:
    length = answer.get("ContentLength")
    return None if length is None else int(length)


def _headers(answer: dict[str, Any]) -> dict[str, str]:
    return {str(key).lower(): str(value) for key, value in answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).items()}
