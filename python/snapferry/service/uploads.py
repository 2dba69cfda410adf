"""Uploads that can be taken up again: what came of each is kept in memory, for a while, and is no object before all of it is there.

After draft-ietf-httpbis-resumable-upload. Whoever needs the memory takes that of the upload which has been left alone for longest.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from snapferry.service.access import Grant
from snapferry.service.problems import Problem
from snapferry.transport import ByteBudget

MAX_AGE = 600.0
"""Seconds for which an upload that nothing is added to is kept."""


@dataclass(slots=True, eq=False)
class Upload:
    """One of them. ``filled``: how many bytes are there, as its only item; ``digest``: SHA-256 of the whole."""

    identity: str
    grant: Grant
    store: str
    key: str
    digest: bytes
    data: bytearray
    filled: list[int] = field(default_factory=lambda: [0])
    active: asyncio.Task[None] | None = None
    storing: bool = False
    expiry: asyncio.TimerHandle | None = None


class Uploads:
    """Those of all stores; their bytes are of ``budget``."""

    def __init__(self, budget: ByteBudget, max_age: float = MAX_AGE) -> None:
        self._budget = budget
        self.max_age = max_age
        self._uploads: dict[str, Upload] = {}
        budget.add_keeper(self._give_back)

    def add(self, grant: Grant, store: str, key: str, digest: bytes, size: int) -> Upload:
        """A new one, of ``size`` bytes that the caller has reserved."""
        upload = Upload(secrets.token_hex(16), grant, store, key, digest, bytearray(size))
        self._uploads[upload.identity] = upload
        self._touch(upload)
        return upload

    def find(self, identity: str, grant: Grant, store: str) -> Upload:
        """That of the same client; ``Problem`` 404."""
        upload = self._uploads.get(identity)
        if upload is None or upload.grant is not grant or upload.store != store:
            raise Problem(404, "there is no such upload (any more)")
        return upload

    async def settle(self, upload: Upload) -> None:
        """Ends what still fills it, on a connection that its client has given up; waits for one that is being stored, which then is gone.

        Raises:
            Problem: 404, it is gone.
        """
        while upload.active is not None:
            if not upload.storing:
                upload.active.cancel()
            await asyncio.wait([upload.active])
        if upload.identity not in self._uploads:
            raise Problem(404, "there is no such upload (any more)")
        self._touch(upload)

    async def occupy(self, upload: Upload, work: Callable[[], Awaitable[None]]) -> None:
        """Runs ``work``, which adds to the upload, until ``settle`` ends it (``Problem`` 409), as long as it is not ``storing``."""
        assert upload.active is None
        self._stop(upload)

        async def run() -> None:
            await work()

        task = upload.active = asyncio.create_task(run())
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            upload.active = None
            if upload.identity in self._uploads:
                self._touch(upload)
        if task.cancelled():
            raise Problem(409, "the upload was taken up on another connection")
        task.result()

    def drop(self, upload: Upload) -> None:
        """Forgets it, whose bytes are free from then on."""
        if self._uploads.pop(upload.identity, None) is not None:
            self._stop(upload)
            self._budget.release(len(upload.data))

    def close(self) -> None:
        """Forgets all."""
        for upload in tuple(self._uploads.values()):
            self.drop(upload)

    def _touch(self, upload: Upload) -> None:
        self._stop(upload)
        upload.expiry = asyncio.get_running_loop().call_later(self.max_age, self.drop, upload)
        # The longest untouched comes first.
        self._uploads[upload.identity] = self._uploads.pop(upload.identity)

    def _stop(self, upload: Upload) -> None:
        if upload.expiry is not None:
            upload.expiry.cancel()
            upload.expiry = None

    def _give_back(self) -> None:
        """Called before somebody waits for memory: the oldest that is left alone goes, unless it was only just made."""
        for upload in tuple(self._uploads.values()):
            if upload.active is None and upload.expiry is not None and self._idle(upload) > _UNTOUCHED:
                self.drop(upload)
                return

    def _idle(self, upload: Upload) -> float:
        assert upload.expiry is not None
        return self.max_age - (upload.expiry.when() - asyncio.get_running_loop().time())


_UNTOUCHED = 5.0
"""Seconds for which an upload is safe from those who need its memory: its client is about to go on."""
