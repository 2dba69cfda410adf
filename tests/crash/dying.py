"""Kills the process (kill -9) at the Nth time that it creates or deletes an object, before or after it is done."""

from __future__ import annotations

import os
import signal
from typing import Any

from snapferry.destination import Destination, open_destination
from snapferry.engine import membership
from snapferry.transport.wrapper import Wrapper


class Dies(Wrapper):
    """Counts over all destinations together."""

    when = "never"
    nth = 0
    changes = 0

    async def create(self, key: str, data: Any) -> bool:
        """Creates, and may not live to tell."""
        mine = self._begin()
        created = await self.inner.create(key, data)
        self._end(mine)
        return created

    async def delete(self, key: str) -> None:
        """Deletes, and may not live to tell."""
        mine = self._begin()
        await self.inner.delete(key)
        self._end(mine)

    def _begin(self) -> bool:
        Dies.changes += 1
        mine = Dies.changes == Dies.nth
        if mine and Dies.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        return mine

    def _end(self, mine: bool) -> None:
        if mine and Dies.when == "after":
            os.kill(os.getpid(), signal.SIGKILL)


async def _open(name: str, url: str, options: Any = None, **how: Any) -> Destination:
    return Dies(await open_destination(name, url, options, **how))


def arm(arguments: list[str]) -> None:
    """Arranges for the death that ``[before|after|never N]`` asks for, at every destination opened from now on."""
    if arguments:
        Dies.when, Dies.nth = arguments[0], int(arguments[1])
    vars(membership)["open_destination"] = _open
