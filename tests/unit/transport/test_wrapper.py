"""What a wrapper forwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from snapferry.destination import ObjectInfo, list_keys
from snapferry.destination.memory import MemoryDestination
from snapferry.transport import Wrapper


class Quick(MemoryDestination):
    """Tells its keys without a listing."""

    async def list_keys(self, prefix: str) -> Sequence[str]:
        return ["quick"]


class Hides(Wrapper):
    """A wrapper that changes listings."""

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async for item in self.inner.list(prefix):
            if item.key != "hidden":
                yield item


async def test_keys_are_listed_in_the_inner_destinations_own_way() -> None:
    assert await list_keys(Wrapper(Wrapper(Quick("near"))), "") == ["quick"]
    assert await list_keys(Wrapper(MemoryDestination("near", {"config": b"x"})), "") == ["config"]


async def test_what_a_wrapper_does_to_listings_is_done_to_listed_keys() -> None:
    inner = Quick("near", {"config": b"x", "hidden": b"y"})
    assert await list_keys(Wrapper(Hides(inner)), "") == ["config"]
