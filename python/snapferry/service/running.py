"""Runs the service: opens its stores, listens, and ends in good order when it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web

from snapferry.config.http_place import is_loopback
from snapferry.config.service import ServiceConfig
from snapferry.destination import Destination, open_destination
from snapferry.errors import ConfigurationError, SnapferryError
from snapferry.service.access import grants_of
from snapferry.service.objects import ObjectsApi
from snapferry.service.problems import problems

_FINISHING_SECONDS = 3.0
"""For requests that are under way when the service ends; then they are broken off."""

_IDLE_SECONDS = 75.0


async def serve(config: ServiceConfig, *, allow_plain_http: bool, ready: Callable[[str], None]) -> None:
    """Serves until it is cancelled. ``ready`` gets the URL when connections are taken.

    Raises:
        ConfigurationError: another machine could reach it unencrypted, or the certificate cannot be used.
        DestinationUnreachable: a store's directory is missing. SnapferryError: the address cannot be listened on.
    """
    tls = _tls(config)
    if tls is None and not is_loopback(config.host) and not allow_plain_http:
        raise ConfigurationError(
            f"{config.path}: [service]: listen: tokens would go to {config.host} unencrypted; set tls_cert and tls_key, or give "
            "--allow-plain-http where a proxy in front does the encryption"
        )
    grants = grants_of(config.access)
    async with AsyncExitStack() as stack:
        stores: dict[str, Destination] = {}
        for store in config.stores:
            stores[store.name] = await open_destination(store.name, str(store.path), writable=True)
            stack.push_async_callback(stores[store.name].close)
        api = ObjectsApi(stores, grants, memory=config.memory, stall=config.stall_timeout)
        stack.callback(api.close)
        application = web.Application(middlewares=[problems])
        application.router.add_get("/healthz", _healthz)
        api.add_to(application)
        runner = web.AppRunner(
            application,
            access_log=None,
            logger=logging.getLogger("snapferry.service"),
            auto_decompress=False,
            keepalive_timeout=_IDLE_SECONDS,
            read_bufsize=1 << 20,
            shutdown_timeout=_FINISHING_SECONDS,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, config.host, config.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise SnapferryError(f"{config.host}:{config.port} cannot be listened on: {error.strerror or error}") from error
        host, port = runner.addresses[0][:2]
        ready(f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}")
        await asyncio.Event().wait()


async def _healthz(request: web.Request) -> web.Response:
    del request
    return web.json_response({"status": "ok"})


def _tls(config: ServiceConfig) -> ssl.SSLContext | None:
    if config.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{config.path}: [service]: tls_cert and tls_key cannot be used: {error}") from error
    return context
