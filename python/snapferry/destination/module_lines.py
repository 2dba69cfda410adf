"""What a module prints, for people: line by line, cleaned, cut, and no more of it than anybody reads. Nothing it prints can fill memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LONGEST = 400
"""Characters of a line that are kept."""

_BURST, _EACH_SECOND = 50.0, 10.0
_ENDS = str.maketrans({"\r": "\n"})


class Lines:
    """Hands lines on, at most ``_EACH_SECOND`` after a burst, says how many it left out, and remembers the last one.

    Arguments:
        say: takes a line.
        clock: of ``time``; a test gives its own.
    """

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._left, self._seen = _BURST, clock()
        self._part = ""
        self._dropped = 0
        self.last = ""

    async def follow(self, stream: asyncio.StreamReader) -> None:
        """Reads to the end, whatever comes, so that who prints never waits for us."""
        while piece := await stream.read(1 << 14):
            self.feed(piece)
        self.feed(b"\n")

    def feed(self, piece: bytes) -> None:
        """Takes some bytes of it."""
        *lines, rest = (self._part + piece.decode("utf-8", "replace").translate(_ENDS)).split("\n")
        self._part = rest[: LONGEST + 1]
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        text = "".join(c if c.isprintable() else "?" for c in line.strip()[: LONGEST + 1])
        if not text:
            return
        self.last = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
        now = self._clock()
        self._left, self._seen = min(_BURST, self._left + (now - self._seen) * _EACH_SECOND), now
        if self._left < 1:
            self._dropped += 1
            return
        self._left -= 1
        if self._dropped:
            self._say(f"({self._dropped} lines left out)")
            self._dropped = 0
        self._say(self.last)
