"""Refusals as problem documents (RFC 9457), and the errors of destinations as statuses: what a client may know of them, and no path."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import web

from snapferry.errors import (
    DestinationDenied,
    DestinationError,
    DestinationFull,
    DestinationUnreachable,
    ObjectNotFound,
)

_log = logging.getLogger("snapferry.service")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(Exception):
    """Why a request is refused.

    Arguments:
        status: of HTTP.
        detail: for people; goes to the client.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def answer(self) -> web.Response:
        """The document."""
        title = HTTPStatus(self.status).phrase
        text = json.dumps({"title": title, "status": self.status, "detail": self.detail})
        return web.Response(status=self.status, text=text, content_type="application/problem+json", headers=self.headers)


def busy(detail: str, seconds: int = 1) -> Problem:
    """Later."""
    return Problem(503, detail, {"Retry-After": str(seconds)})


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers what a handler raises."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.answer()
    except web.HTTPException as error:
        return Problem(error.status, error.reason, {k: v for k, v in error.headers.items() if k == "Allow"}).answer()
    except DestinationError as error:
        _log.warning("%s %s: %s", request.method, request.path, error)
        return _of_store(error).answer()
    except (ConnectionError, web.RequestPayloadError) as error:
        # Nobody will read it: the connection is gone, or aborted.
        _log.debug("%s %s: the client went away: %s", request.method, request.path, error)
        return web.Response(status=400)
    except Exception as error:  # noqa: BLE001 - one request failed, not the service
        _log.error("%s %s: %r", request.method, request.path, error)
        return Problem(500, "the server failed; its log says how").answer()


def _of_store(error: DestinationError) -> Problem:
    match error:
        case ObjectNotFound():
            return Problem(404, "there is no such object")
        case DestinationFull():
            return Problem(507, "the store has no space left")
        case DestinationDenied():
            return Problem(500, "the server may not do that in its own store; its log says more")
        case DestinationUnreachable():
            return busy("the store cannot be reached; the server's log says more", 5)
    return Problem(500, "the store failed; the server's log says how")
