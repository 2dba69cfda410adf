"""A store that lies with bytes of our own: what it hands out under another name is not built upon."""

from __future__ import annotations

import random

from snapferry.testing.sources import MemorySource
from tests.support.lab import BLOCK, MakeLab

_FOOTER_AND_TRAILER = 8 * 46 + 248 + 32


async def test_the_tail_of_another_pack_is_not_taken_for_a_packs_own(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    make = random.Random(1)
    volumes = {name: make.randbytes(8 * BLOCK) for name in ("a", "b")}
    packs = {}
    async with lab.repository() as repository:
        for name, data in volumes.items():
            before = set(lab.packs("near"))
            await repository.export(MemorySource(data), volume=name, block_size=BLOCK)
            packs[name] = max(set(lab.packs("near")) - before, key=lambda key: len(lab.stores["near"][key]))
    store = lab.stores["near"]
    one, other = bytes(store[packs["a"]]), bytes(store[packs["b"]])
    assert len(one) == len(other)
    for key in [key for key in store if key.startswith("index/")]:
        del store[key]
    # It hands out the one with the other's tail, and the other not at all.
    store[packs["a"]] = one[:-_FOOTER_AND_TRAILER] + other[-_FOOTER_AND_TRAILER:]
    del store[packs["b"]]
    async with lab.repository("near") as blank:
        for name, data in volumes.items():
            again = await blank.export(MemorySource(data), volume=f"{name}-again", block_size=BLOCK)
            assert again.blocks_new == 8
            assert await lab.contents(blank, again.id) == data
