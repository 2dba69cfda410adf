"""Every byte of a small repository is flipped, and every object cut and removed: healed where there is a good replica, told where not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from snapferry import _core
from snapferry.engine import Repository, open_repository
from snapferry.errors import DamageError, SnapferryError
from tests.support.lab import BLOCK, Lab, MakeLab

# Few bytes in the repository, so that each can be flipped: two blocks that compress to nothing, and a hole.
DATA = b"left" * (BLOCK // 4) + bytes(BLOCK) + b"right..." * (BLOCK // 8) + b"tail"

KINDS = ("config", "destination", "index", "keys", "packs", "sessions", "snapshots")


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    return await (await make_lab()).begin_with(DATA)


def _flips(lab: Lab, kind: str) -> Iterator[tuple[str, bytes | None]]:
    """(key, altered bytes) for each byte of each object of that kind."""
    for key, data in sorted(lab.stores["near"].items()):
        if key.split("/")[0] == kind:
            for position in range(len(data)):
                yield key, data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :]


def _cuts(lab: Lab, kind: str) -> Iterator[tuple[str, bytes | None]]:
    """(key, first bytes) at lengths all over each object; None: it is gone."""
    for key, data in sorted(lab.stores["near"].items()):
        if key.split("/")[0] == kind:
            yield key, None
            yield key, data + b"\0"
            for length in sorted({0, 1, len(data) - 1, *range(0, len(data), 13)}):
                yield key, data[:length]


@asynccontextmanager
async def _damaged(lab: Lab, key: str, data: bytes | None) -> AsyncIterator[None]:
    good = lab.stores["near"][key]
    if data is None:
        del lab.stores["near"][key]
    else:
        lab.stores["near"][key] = data
    try:
        yield
    finally:
        lab.stores["near"][key] = good


class _Machines:
    """Two machines: one knows both places, one the damaged place alone. Opened anew where opening is what the damage touches."""

    def __init__(self, lab: Lab) -> None:
        self._configs = lab.machine(catalog="sqlite://"), lab.machine("near", catalog="sqlite://")
        self._open: list[Repository] = []

    @asynccontextmanager
    async def each(self, which: int, *, anew: bool) -> AsyncIterator[Repository]:
        if anew:
            async with open_repository(self._configs[which]) as repository:
                yield repository
            return
        if not self._open:
            self._open = [await open_repository(config).__aenter__() for config in self._configs]
        yield self._open[which]

    async def close(self) -> None:
        for repository in self._open:
            await repository.close()


async def _check(lab: Lab, machines: _Machines, key: str, data: bytes | None) -> None:
    """All that must hold for one damaged object."""
    kind = key.split("/")[0]
    # Pack headers are remembered by an open repository, which would hide damage in them.
    header = lab.stores["near"][key][: _core.PACK_HEADER_LENGTH]
    anew = kind in ("config", "destination", "keys") or (kind == "packs" and (data is None or data[: len(header)] != header))
    async with _damaged(lab, key, data):
        # From the other replica, bit-exact; and reported.
        async with machines.each(0, anew=anew) as both:
            assert await lab.contents(both, "v") == DATA, key
            found = await both.verify(read_data=100)
            assert found.exit_code == 4, key
            assert {damage.destination for damage in found.damage} == {"near"}, key
        # From the only replica: the documented code, and never wrong bytes.
        problem: SnapferryError | None = None
        try:
            async with machines.each(1, anew=anew) as alone:
                assert await lab.contents(alone, "v") == DATA, key
        except SnapferryError as error:
            problem = error
        code = problem.exit_code if problem else 0
        assert kind != "packs" or problem is None or (isinstance(problem, DamageError) and problem.extents), key
        expected = {"config": 10, "keys": 12, "snapshots": 1}.get(kind, 0)
        # Of a pack, a restore needs the header and the records, not the footer.
        assert code == expected or (kind == "packs" and code == 4), (key, code)


async def _check_all(lab: Lab, damaged: Iterator[tuple[str, bytes | None]]) -> None:
    machines = _Machines(lab)
    try:
        for key, data in damaged:
            await _check(lab, machines, key, data)
    finally:
        await machines.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_byte_flipped(lab: Lab, kind: str) -> None:
    await _check_all(lab, _flips(lab, kind))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_object_missing_or_cut(lab: Lab, kind: str) -> None:
    await _check_all(lab, _cuts(lab, kind))
