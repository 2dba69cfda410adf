"""Progress for programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from snapferry.cli.standing import document

if TYPE_CHECKING:
    from snapferry.cli.invocation import Invocation
    from snapferry.types import Progress, ProgressCallback

JSON_SECONDS = 0.5


def json_lines(invocation: Invocation) -> ProgressCallback:
    """One line for each subject every half second."""
    last: dict[str, float] = {}

    def callback(event: Progress) -> None:
        now = time.monotonic()
        if now - last.get(event.subject, -JSON_SECONDS) >= JSON_SECONDS:
            last[event.subject] = now
            line = {
                "operation": event.operation,
                "subject": event.subject,
                "done": event.done,
                "total": event.total,
                "sent": event.sent,
                "channels": document(event.channels),
            }
            invocation.emit("progress", line)

    return callback
