"""The repository of a command that runs for long: on SIGHUP it reads the limits of its configuration again, and nothing else of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from snapferry.errors import SnapferryError

if TYPE_CHECKING:
    from snapferry.cli.invocation import Invocation
    from snapferry.config import Config
    from snapferry.engine import Repository

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def opened(invocation: Invocation, config: Config) -> AsyncIterator[Repository]:
    """The open repository. A file that cannot be used when the signal comes is a warning; flags go before the file, as ever.

    A terminal that is closed sends the same signal: then the command ends, as it would without this; not under nohup.
    """
    from snapferry.engine import open_repository

    loop = asyncio.get_running_loop()
    task, before = asyncio.current_task(), signal.getsignal(signal.SIGHUP)
    ends = _has_terminal() and before is not signal.SIG_IGN
    async with open_repository(config) as repository:

        def hung_up() -> None:
            if ends and not _has_terminal():
                invocation.ended_by = signal.SIGHUP
                assert task is not None
                task.cancel()
                return
            try:
                repository.take_limits(invocation.load_config_again())
            except (SnapferryError, OSError) as error:
                logger.warning("the limits stay as they were: %s", error)

        loop.add_signal_handler(signal.SIGHUP, hung_up)
        try:
            yield repository
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, before)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
