"""The object API: ``/objects/STORE/…`` over destinations, for other snapferries. Version 1 of the protocol (docs/object-protocol.md).

It knows names and bytes. Of what an object is, it checks the digest that came with it; packs and segments are named by a hash that their
readers check.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import re
from collections.abc import Mapping

from aiohttp import web

from snapferry.config.service import LARGEST_BODY
from snapferry.destination.contract import Destination, is_there
from snapferry.destination.keys import check_prefix, is_key
from snapferry.destination.off_loop import off_loop
from snapferry.service.access import Grant, grant_of
from snapferry.service.bodies import digest_of, receive, send, sha256
from snapferry.service.problems import Problem, busy
from snapferry.service.uploads import Upload, Uploads
from snapferry.transport import ByteBudget

PROTOCOL = 1
LARGEST_PAGE = 10_000
_WAIT_FOR_MEMORY = 10.0
_REQUESTS = 256
"""At once; more are told to come later."""

_ROLES = {"GET": "read", "HEAD": "read", "PUT": "append", "PATCH": "append", "DELETE": "full"}
_RANGE = re.compile(r"bytes=(?:(\d{1,19})-(\d{1,19})?|-(\d{1,19}))", re.ASCII)


class ObjectsApi:
    """Serves ``stores`` (by name) to those who hold a token of ``grants``.

    Arguments:
        memory: bytes of objects on their way in, and of uploads that wait to be taken up again.
        stall: seconds in which some bytes of a body must move.
    """

    def __init__(self, stores: Mapping[str, Destination], grants: tuple[Grant, ...], *, memory: int, stall: float) -> None:
        self._stores = stores
        self._grants = grants
        self._budget = ByteBudget(memory)
        self._uploads = Uploads(self._budget)
        self._stall = stall
        self._under_way = 0

    def add_to(self, application: web.Application) -> None:
        """Adds its routes."""
        application.router.add_route("*", "/objects/{store}/{key:.*}", self._serve)

    def close(self) -> None:
        """Forgets what is not whole."""
        self._uploads.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        grant = grant_of(request.headers.get("Authorization"), self._grants)
        if grant is None:
            raise Problem(401, "a known token is needed", {"WWW-Authenticate": "Bearer"})
        name, key = request.match_info["store"], request.match_info["key"]
        role = _ROLES.get(request.method)
        if role is None:
            raise Problem(405, "there is no such method here", {"Allow": ", ".join(_ROLES)})
        if key == "" and request.method == "DELETE":
            role = "append"  # of an upload
        # A store that is not there is refused as one that the token is not for.
        if not grant.allows(role, name):
            raise Problem(403, f"the token does not allow {request.method} in this store")
        if self._under_way >= _REQUESTS:
            raise busy("too many requests at once")
        self._under_way += 1
        try:
            return await self._route(request, grant, name, key)
        finally:
            self._under_way -= 1

    async def _route(self, request: web.Request, grant: Grant, name: str, key: str) -> web.StreamResponse:
        store = self._stores[name]
        if key == "":
            if "upload" in request.query:
                return await self._upload(request, grant, name, request.query["upload"])
            if request.method != "GET":
                raise Problem(405, "only objects can be that", {"Allow": "GET"})
            return self._about(store) if "about" in request.query else await self._list(request, store)
        if not is_key(key):
            raise Problem(400, "not a key of an object")
        match request.method:
            case "PUT":
                return await self._put(request, grant, name, key)
            case "DELETE":
                await store.delete(key)
                return web.Response(status=204)
            case "PATCH":
                raise Problem(405, "objects never change", {"Allow": "GET, HEAD, PUT, DELETE"})
        return await self._get(request, store, key)

    def _about(self, store: Destination) -> web.Response:
        has = store.capabilities
        return _json(
            {
                "protocol": PROTOCOL,
                "exclusive_create": has.exclusive_create,
                "consistent_list": has.consistent_list,
                "durable": has.durable,
                "concurrency": max(has.concurrency, 4),
                "resumable_uploads": True,
            }
        )

    async def _list(self, request: web.Request, store: Destination) -> web.Response:
        prefix, after, limit = request.query.get("prefix", ""), request.query.get("after", ""), request.query.get("limit", "1000")
        try:
            check_prefix(prefix)
        except ValueError as error:
            raise Problem(400, "not a prefix of keys: empty, or parts that end in '/'") from error
        if not re.fullmatch(r"[1-9]\d{0,8}", limit, re.ASCII):
            raise Problem(400, "limit must be a number above 0")
        most = min(int(limit), LARGEST_PAGE)
        behind = [(item.key, item.size) async for item in store.list(prefix) if item.key > after]
        page = await asyncio.to_thread(heapq.nsmallest, most, behind)
        return _json({"objects": [{"key": key, "size": size} for key, size in page], "more": len(behind) > most})

    async def _get(self, request: web.Request, store: Destination, key: str) -> web.StreamResponse:
        _, size = await store.read_tail(key, 0)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
        begin, end, status = 0, size, 200
        text = request.headers.get("Range")
        if text is not None:
            begin, end = _range(text, size)
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        answer = web.StreamResponse(status=status, headers=headers)
        answer.content_length = end - begin
        if request.method == "HEAD":
            await answer.prepare(request)
            await answer.write_eof()
        else:
            await send(request, answer, store, key, begin, end, self._stall)
        return answer

    async def _put(self, request: web.Request, grant: Grant, name: str, key: str) -> web.Response:
        store = self._stores[name]
        if request.headers.get("If-None-Match") != "*":
            raise Problem(428, "objects are only ever created: If-None-Match: * is needed")
        if request.content_length is None:
            raise Problem(411, "Content-Length is needed")
        begins = request.headers.get("Upload-Complete") == "?0"
        size = _size(request.headers.get("Upload-Length") if begins else str(request.content_length))
        digest = digest_of(
            request.headers.get("Repr-Digest" if begins else "Content-Digest"), "Repr-Digest" if begins else "Content-Digest"
        )
        if begins and request.content_length:
            raise Problem(400, "an upload begins empty here; PATCH adds to it")
        if await is_there(store, key):
            raise _taken()
        await self._reserve(size)
        if begins:
            return self._location(self._uploads.add(grant, name, key, digest, size), 201)
        try:
            view = memoryview(bytearray(size))
            filled = [0]
            await receive(request, view, self._stall, filled)
            if filled[0] < size:
                raise Problem(400, "the body is shorter than was said")
            return await _store(store, key, view, digest)
        finally:
            self._budget.release(size)

    async def _upload(self, request: web.Request, grant: Grant, name: str, identity: str) -> web.Response:
        upload = self._uploads.find(identity, grant, name)
        if request.method not in ("HEAD", "PATCH", "DELETE"):
            raise Problem(405, "an upload is looked at, added to or ended", {"Allow": "HEAD, PATCH, DELETE"})
        if not grant.allows("append", name):
            raise Problem(403, "the token does not allow uploads in this store")
        await self._uploads.settle(upload)
        if request.method == "HEAD":
            return self._location(upload, 204)
        if request.method == "DELETE":
            self._uploads.drop(upload)
            return web.Response(status=204)
        if request.content_type != "application/partial-upload":
            raise Problem(415, "application/partial-upload is needed")
        if request.headers.get("Upload-Offset") != str(upload.filled[0]):
            raise Problem(409, f"the upload has {upload.filled[0]} bytes", {"Upload-Offset": str(upload.filled[0])})
        if upload.filled[0] + _size(None if request.content_length is None else str(request.content_length)) > len(upload.data):
            raise Problem(413, "the upload would be longer than was said")
        return await self._append(request, upload)

    async def _append(self, request: web.Request, upload: Upload) -> web.Response:
        last = request.headers.get("Upload-Complete") == "?1"
        answers: list[web.Response] = []

        async def work() -> None:
            await receive(request, memoryview(upload.data), self._stall, upload.filled)
            if not last:
                answers.append(self._location(upload, 204))
                return
            if upload.filled[0] < len(upload.data):
                raise Problem(400, "the upload is shorter than was said")
            upload.storing = True
            try:
                answers.append(await _store(self._stores[upload.store], upload.key, memoryview(upload.data), upload.digest))
            finally:
                self._uploads.drop(upload)

        await self._uploads.occupy(upload, work)
        return answers[0]

    def _location(self, upload: Upload, status: int) -> web.Response:
        return web.Response(
            status=status,
            headers={
                "Location": f"/objects/{upload.store}/?upload={upload.identity}",
                "Upload-Complete": "?0",
                "Upload-Offset": str(upload.filled[0]),
                "Upload-Length": str(len(upload.data)),
                "Upload-Limit": f"max-age={self._uploads.max_age:.0f}",
                "Cache-Control": "no-store",
            },
        )

    async def _reserve(self, size: int) -> None:
        try:
            async with asyncio.timeout(_WAIT_FOR_MEMORY):
                await self._budget.acquire(size)
        except TimeoutError:
            raise busy("too many objects are on their way in", 2) from None


async def _store(store: Destination, key: str, view: memoryview, digest: bytes) -> web.Response:
    if await off_loop(sha256, view) != digest:
        raise Problem(400, "the bytes are not what their digest says; nothing was kept")
    if not await store.create(key, view):
        raise _taken()
    return web.Response(status=201)


def _taken() -> Problem:
    return Problem(412, "the key is taken")


def _size(text: str | None) -> int:
    if text is None or not re.fullmatch(r"\d{1,19}", text, re.ASCII):
        raise Problem(411, "the length is needed")
    if int(text) > LARGEST_BODY:
        raise Problem(413, f"an object has at most {LARGEST_BODY} bytes")
    return int(text)


def _range(text: str, size: int) -> tuple[int, int]:
    """(begin, end) of the one range of a ``Range`` header in an object of ``size`` bytes."""
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise Problem(400, "one range of bytes is needed")
    if match[3] is not None:
        begin, end = max(0, size - int(match[3])), size
    else:
        begin, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
        if match[2] and int(match[2]) < begin:
            raise Problem(400, "the range ends before it begins")
    if begin >= size or begin >= end:
        raise Problem(416, f"the object has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return begin, end


def _json(document: Mapping[str, object]) -> web.Response:
    return web.Response(text=json.dumps(document), content_type="application/json", headers={"Cache-Control": "no-store"})
