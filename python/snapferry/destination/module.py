"""The user's own module as a destination: the object protocol over its Unix socket, every call bounded, and every lie that shows named.

A module is nobody's friend: it gets names and sealed bytes, and what it answers is checked. What ``http`` cannot know is here: that it may have
to be started again, that it may say to have stored what it has not, that it may never come to an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import TypeVar

from typing_extensions import Buffer

from snapferry.config.plugins import PluginConfig, store_of
from snapferry.destination.contract import Capabilities, ObjectInfo
from snapferry.destination.http import HttpDestination
from snapferry.destination.http_link import Link
from snapferry.destination.module_process import ModuleProcess, make_directories, module_process
from snapferry.errors import DestinationError, DestinationUnreachable, ObjectNotFound
from snapferry.types import KiB

_ANSWER_SECONDS = 30.0
_SLOWEST = 512 * KiB
"""Bytes a second that a module must reach; without that one that trickles would hold everything up for ever."""

_WORDS_SECONDS = 0.5
_Result = TypeVar("_Result")


class ModuleDestination:
    """A store of a module as a destination; ``open`` makes one.

    Arguments:
        name: of this destination in the configuration.
        plugin: the module.
        inner: what speaks the protocol.
        process: where snapferry runs it, else None.
        stack: lets go of both.
    """

    def __init__(
        self, name: str, plugin: PluginConfig, inner: HttpDestination, process: ModuleProcess | None, stack: AsyncExitStack
    ) -> None:
        self._name = name
        self._plugin = plugin
        self._inner = inner
        self._process = process
        self._stack = stack

    @classmethod
    async def open(cls, name: str, plugin: PluginConfig, options: Mapping[str, object]) -> ModuleDestination:
        """Starts the module where that is ours to do and nobody did, and asks it what it offers.

        Raises:
            DestinationUnreachable: it does not run, or does not answer within its ``start_seconds``. DestinationDenied, ConfigurationError:
            its user or its directories are not as they should be. DestinationError: it speaks something else.
        """
        store = store_of(options, f"destination {name}")
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(module_process(plugin)) if plugin.command else None
            if process is not None:
                await process.running(name)
            socket = process.socket if process is not None else plugin.socket
            link = Link(f"http://localhost{store}", f"plugin:{plugin.name}{store.rstrip('/')}", socket=socket)
            opening = HttpDestination.open(name, link)
            inner = await _bounded(opening, name, link.shown, "?about", plugin.start_seconds, process)
            stack.push_async_callback(inner.close)
            return cls(name, plugin, inner, process, stack.pop_all())
        raise AssertionError("unreachable")

    @staticmethod
    async def prepare(name: str, plugin: PluginConfig) -> None:
        """Makes the directories of one that snapferry runs. Raises as ``make_directories``."""
        if plugin.command:
            await make_directories(name, plugin)

    @property
    def name(self) -> str:
        """The name of this destination in the configuration."""
        return self._name

    @property
    def url(self) -> str:
        """``plugin:NAME``, and the store where there is one."""
        return self._inner.url

    @property
    def capabilities(self) -> Capabilities:
        """What the module declared."""
        return self._inner.capabilities

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores ``data`` under ``key`` unless it is taken. It counts when the module, asked again, has an object of that size there."""
        size = memoryview(data).nbytes
        if size > self._plugin.max_object:
            raise DestinationError(f"{self.url}: {key} has {size} bytes, and its max_object is {self._plugin.max_object}", self._name)
        created = await self._call(key, size, self._inner.create(key, data))
        try:
            _, there = await self._call(key, 0, self._inner.read_tail(key, 0))
        except ObjectNotFound as error:
            said = "stored it" if created else "has it already"
            # One that was taken may have been deleted since, by a collector: then another attempt makes it.
            raise self._lie(key, f"says that it {said}, and does not have it", retryable=not created) from error
        if created and there != size:
            raise self._lie(key, f"says that it stored {size} bytes, and has {there}", retryable=False)
        return created

    async def read(self, key: str, limit: int) -> bytes:
        """The whole object; ``ObjectDamaged`` if it is longer than ``limit`` bytes."""
        return await self._call(key, min(limit, self._plugin.max_object), self._inner.read(key, limit))

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on; ``ObjectDamaged`` if the object ends before it is full."""
        await self._call(key, buffer.nbytes, self._inner.read_into(key, offset, buffer))

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """The last ``length`` bytes at most, and the object's size."""
        return await self._call(key, min(length, self._plugin.max_object), self._inner.read_tail(key, length))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with ``prefix``, at most the plug-in's ``max_objects``."""
        listing = self._inner.list(prefix)
        try:
            for count in range(self._plugin.max_objects + 1):
                try:
                    item = await self._call(prefix, 0, anext(listing))
                except StopAsyncIteration:
                    return
                if count == self._plugin.max_objects:
                    raise DestinationError(f"{self.url}: it lists more than {count} objects below {prefix!r} (max_objects)", self._name)
                yield item
        finally:
            await listing.aclose()  # type: ignore[attr-defined]

    async def delete(self, key: str) -> None:
        """Removes the object; one that is not there is no error."""
        await self._call(key, 0, self._inner.delete(key))

    async def close(self) -> None:
        """Closes the connections, and ends the module where snapferry runs it and nobody else here uses it."""
        await self._stack.aclose()

    async def _call(self, key: str, size: int, call: Awaitable[_Result]) -> _Result:
        seconds = _ANSWER_SECONDS + size / _SLOWEST

        async def calling() -> _Result:
            if self._process is not None:
                await self._process.running(self._name)
            return await call

        try:
            return await _bounded(calling(), self._name, self.url, key, seconds, self._process)
        finally:
            if asyncio.iscoroutine(call):
                call.close()  # where the module could not be started, it never began

    def _lie(self, key: str, what: str, *, retryable: bool) -> DestinationError:
        return DestinationError(f"{self.url}: {key}: the module {what}", self._name, retryable=retryable)


async def _bounded(call: Awaitable[_Result], name: str, shown: str, what: str, seconds: float, process: ModuleProcess | None) -> _Result:
    """The result of ``call``, unless it takes too long; where the module has ended meanwhile, the error says so."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DestinationUnreachable(f"{shown}: {what}: the module was not done with it after {seconds:.0f} s", name) from error
    except DestinationUnreachable as error:
        if process is None or not error.retryable:
            raise
        await process.ended(_WORDS_SECONDS)
        why = process.why()
        if not why:
            raise
        raise DestinationUnreachable(f"{shown}: {what}: {why}", name) from error
