"""Checksums that an S3 server verifies of what it is sent, and that it gives with what is read: computed off the event loop."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from snapferry.destination.off_loop import off_loop


@dataclass(frozen=True, slots=True)
class Sums:
    """Base64 texts, as the headers want them; None where it was not asked for."""

    crc32: str | None
    md5: str | None

    def arguments(self) -> dict[str, str]:
        """For ``PutObject``."""
        found: dict[str, str] = {}
        if self.crc32 is not None:
            found |= {"ChecksumAlgorithm": "CRC32", "ChecksumCRC32": self.crc32}
        if self.md5 is not None:
            found["ContentMD5"] = self.md5
        return found


async def sums_of(view: memoryview, *, crc32: bool, md5: bool) -> Sums:
    """The sums of the bytes in ``view``. A cancelled caller gets its cancellation when nobody reads them any more."""
    return await off_loop(lambda view: _sums(view, crc32, md5), view)


def _sums(view: memoryview, crc32: bool, md5: bool) -> Sums:
    return Sums(
        base64.b64encode(zlib.crc32(view).to_bytes(4, "big")).decode() if crc32 else None,
        base64.b64encode(hashlib.md5(view, usedforsecurity=False).digest()).decode() if md5 else None,
    )


def contradicts(headers: Mapping[str, str], data: bytes | bytearray) -> str:
    """Which checksum of the answer's ``headers`` (of a whole object) says that ``data`` is something else; empty if none does."""
    crc32 = headers.get("x-amz-checksum-crc32", "")
    # A sum of parts' sums has a number behind a dash: it says nothing of the whole.
    if crc32 and "-" not in crc32 and crc32 != base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode():
        return "CRC32"
    sha256 = headers.get("x-amz-checksum-sha256", "")
    if sha256 and "-" not in sha256 and sha256 != base64.b64encode(hashlib.sha256(data).digest()).decode():
        return "SHA-256"
    return ""
