"""The index on this machine: fetched once, folded, shared by processes, and nothing that a kill or a rotten disk can make wrong."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from snapferry import _core
from snapferry.destination import Destination
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import SnapferryError
from snapferry.repository import names
from snapferry.repository.index_cache import IndexCache, LoadedIndex, join, split
from snapferry.repository.presence import list_presence
from snapferry.repository.threads import Threads
from snapferry.testing.sources import MemorySource
from tests.support.lab import BLOCK, Lab, MakeLab, volume

VOLUMES = 4
BLOCKS = 10


class Place(MemoryDestination):
    """Counts the segments that are read."""

    fetched = 0

    async def read(self, key: str, limit: int) -> bytes:
        self.fetched += key.startswith(names.INDEX)
        return await super().read(key, limit)


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    """Four volumes of ten blocks, each in a segment of its own."""
    lab = await make_lab("near")
    async with lab.repository() as repository:
        for number in range(VOLUMES):
            data = volume(number, blocks=BLOCKS, tail=0, zeros=())
            await repository.export(MemorySource(data), volume=f"v{number}", block_size=BLOCK)
    return lab


@pytest.fixture
async def keyring(lab: Lab) -> _core.Keyring:
    async with lab.repository() as repository:
        return repository._both[0].tools.keyring


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(2)
    yield threads
    threads.close()


MakeCache = Callable[[], IndexCache]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "index"


@pytest.fixture
def cache(directory: Path, keyring: _core.Keyring, threads: Threads) -> MakeCache:
    """Makes what another process would have: a cache in the same directory."""
    return lambda: IndexCache(directory, keyring, threads, ["near"])


async def load(cache: IndexCache, lab: Lab) -> tuple[LoadedIndex, Place]:
    place = Place("near", lab.stores["near"])
    replicas: dict[str, Destination] = {"near": place}
    return await cache.load(replicas, await list_presence(replicas)), place


def verify(index: _core.Index) -> None:
    """All files; ``DamagedError``."""
    number = 0
    while index.verify(number):
        number += 1


def segments(lab: Lab) -> list[str]:
    return [key for key in lab.stores["near"] if key.startswith(names.INDEX)]


def whole(loaded: LoadedIndex, lab: Lab) -> bool:
    """Whether it knows all that is there."""
    packs = b"".join(bytes.fromhex(key[-64:]) for key in lab.packs("near"))
    return sorted(split(loaded.index.named(packs))) == sorted(split(packs)) and not loaded.damage and not loaded.packs_read


async def test_segments_are_fetched_once(lab: Lab, cache: MakeCache) -> None:
    loaded, place = await load(cache(), lab)
    assert place.fetched == VOLUMES
    assert whole(loaded, lab)
    assert len(loaded.index) == VOLUMES * BLOCKS
    again, place = await load(cache(), lab)
    assert place.fetched == 0
    assert whole(again, lab)
    assert len(again.index) == VOLUMES * BLOCKS


async def test_a_segment_that_is_listed_no_more_says_nothing_any_more(lab: Lab, cache: MakeCache) -> None:
    await load(cache(), lab)
    gone = segments(lab)[0]
    del lab.stores["near"][gone]
    for key in lab.packs("near"):
        lab.stores["near"].pop(key)
    loaded, place = await load(cache(), lab)
    assert place.fetched == 0
    every = {pack for pack, _ in loaded.index.packs()}
    assert every == loaded.packs_named(key.removeprefix(names.INDEX) for key in segments(lab))
    assert loaded.packs_named([gone.removeprefix(names.INDEX)]) == set()


async def test_its_packs_are_read_if_they_are_there(lab: Lab, cache: MakeCache, directory: Path) -> None:
    await load(cache(), lab)
    del lab.stores["near"][segments(lab)[0]]
    # Another export at the same time makes the same; each removes its own file when it has stored it.
    (loaded, _), (other, _) = await asyncio.gather(load(cache(), lab), load(cache(), lab))
    assert loaded.packs_read == other.packs_read == 2  # Of data, and of pages.
    assert all(path.name.startswith(f"made-{segment}-") for segment, path in loaded.made.items())
    for path in other.made.values():
        path.unlink()
    for segment, path in loaded.made.items():
        lab.stores["near"][names.segment(segment)] = path.read_bytes()
    again, place = await load(cache(), lab)
    assert place.fetched == 0
    assert whole(again, lab)


@pytest.mark.parametrize("kind", ["bundle-", "table-", "current"])
async def test_what_rots_is_fetched_anew(lab: Lab, cache: MakeCache, directory: Path, kind: str) -> None:
    await load(cache(), lab)
    (path,) = [path for path in directory.iterdir() if path.name.startswith(kind)]
    good = path.read_bytes()
    for at in range(0, len(good), 1 if len(good) < 200 else len(good) // 40):
        for rotten in directory.iterdir():
            rotten.unlink()
        await load(cache(), lab)
        (path,) = [path for path in directory.iterdir() if path.name.startswith(kind)]
        bad = bytearray(path.read_bytes())
        bad[at] ^= 1
        path.write_bytes(bad)
        index = _core.Index()
        missing = index.open(str(directory), join(key.removeprefix(names.INDEX) for key in segments(lab)), whole=True)
        if not missing:
            with pytest.raises(_core.DamagedError):
                verify(index)
        loaded, place = await load(cache(), lab)
        assert place.fetched == VOLUMES
        assert whole(loaded, lab)


@pytest.mark.parametrize("kind", ["bundle-", "table-"])
async def test_who_must_miss_nothing_has_it_fetched_at_once(lab: Lab, cache: MakeCache, directory: Path, kind: str) -> None:
    await load(cache(), lab)
    (path,) = [path for path in directory.iterdir() if path.name.startswith(kind)]
    bad = bytearray(path.read_bytes())
    bad[len(bad) // 2] ^= 1
    path.write_bytes(bad)
    place = Place("near", lab.stores["near"])
    loaded = await cache().load({"near": place}, await list_presence({"near": place}), complete=True)
    assert place.fetched == VOLUMES
    assert whole(loaded, lab)
    verify(loaded.index)


async def test_a_kill_at_any_step_of_a_fold_leaves_what_was_there(
    lab: Lab, cache: MakeCache, directory: Path, keyring: _core.Keyring
) -> None:
    """A process that ends without a word after so many steps; the next one finds everything."""
    ids = [key.removeprefix(names.INDEX) for key in segments(lab)]
    plain = [keyring.open("segment", "index", lab.stores["near"][names.segment(segment)]).hex() for segment in ids]
    script = """
import os, sys
from snapferry import _core
index = _core.Index()
wanted = [line.split() for line in sys.stdin]
index.open(sys.argv[1], b"".join(bytes.fromhex(segment) for segment, _ in wanted), True)
for segment, plain in wanted:
    index.add_segment(bytes.fromhex(segment), bytes.fromhex(plain))
fold = _core.Fold(index, sys.argv[1], last=True)
more = all(fold.step() for _ in range(int(sys.argv[2])))
os._exit(7 if more else 0)
"""
    await load(cache(), lab)
    lab.stores["near"].pop(segments(lab)[-1])
    for key in lab.packs("near"):
        lab.stores["near"].pop(key)
    for steps in range(30):
        fed = "".join(f"{segment} {text}\n" for segment, text in zip(ids, plain, strict=True))
        ended = subprocess.run([sys.executable, "-c", script, str(directory), str(steps)], input=fed, text=True, check=False)
        loaded, place = await load(cache(), lab)
        assert place.fetched == 0
        assert not loaded.damage
        verify(loaded.index)
        assert {pack for pack, _ in loaded.index.packs()} == loaded.packs_named(key.removeprefix(names.INDEX) for key in segments(lab))
        if ended.returncode == 0:
            break
        assert ended.returncode == 7
    else:
        pytest.fail("it never came to its end")
    # What killed ones left is removed once it is old.
    for path in directory.iterdir():
        os.utime(path, (0, 0))
    loaded, _ = await load(cache(), lab)
    assert {path.name for path in directory.iterdir()} == {"lock", "current", *loaded.index.files}


async def test_what_is_young_may_be_another_process_s(lab: Lab, cache: MakeCache, directory: Path) -> None:
    await load(cache(), lab)
    young = directory / ".0123"
    young.write_bytes(b"half")
    await load(cache(), lab)
    assert young.exists()


async def test_side_by_side(lab: Lab, cache: MakeCache) -> None:
    """Many at once in one directory: each knows everything, whoever folds."""
    for loaded, _ in await asyncio.gather(*(load(cache(), lab) for _ in range(8))):
        assert whole(loaded, lab)
    loaded, place = await load(cache(), lab)
    assert whole(loaded, lab)
    assert place.fetched == 0


async def test_it_works_while_another_one_changes_the_directory(lab: Lab, cache: MakeCache, directory: Path) -> None:
    directory.mkdir(parents=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(2):
            loaded, place = await load(cache(), lab)
            assert place.fetched == VOLUMES
            assert whole(loaded, lab)
    _, place = await load(cache(), lab)
    assert place.fetched == VOLUMES
    _, place = await load(cache(), lab)
    assert place.fetched == 0


async def test_clear_forgets_everything(lab: Lab, cache: MakeCache) -> None:
    await load(cache(), lab)
    await cache().clear()
    loaded, place = await load(cache(), lab)
    assert place.fetched == VOLUMES
    assert whole(loaded, lab)


async def test_a_directory_that_cannot_be_used_is_named(lab: Lab, cache: MakeCache, directory: Path) -> None:
    directory.parent.write_bytes(b"a file")
    with pytest.raises(SnapferryError, match=r"cannot use the cache directory .*/cache/index: .* set repository\.cache_dir"):
        await load(cache(), lab)


async def test_a_bad_segment_is_told_and_made_up_for_by_its_packs(lab: Lab, cache: MakeCache) -> None:
    key = segments(lab)[0]
    lab.stores["near"][key] = lab.stores["near"][key][:-1] + b"\0"
    loaded, _ = await load(cache(), lab)
    assert [damage.object for damage in loaded.damage] == [key]
    assert loaded.packs_read == 2
    assert len(loaded.index) == VOLUMES * BLOCKS


async def test_sizes_that_differ(lab: Lab, cache: MakeCache) -> None:
    place = MemoryDestination("near", lab.stores["near"])
    presence = await list_presence({"near": place})
    loaded, _ = await load(cache(), lab)
    assert loaded.sizes_that_differ(presence) == {}
    pack, size = next(iter(presence.packs["near"].items()))
    presence.packs["near"][pack] = size - 1
    assert loaded.sizes_that_differ(presence) == {pack: size}


async def test_merged_segments_replace_those_that_name_a_pack(lab: Lab, cache: MakeCache, keyring: _core.Keyring, tmp_path: Path) -> None:
    """As a collection does: every segment that names a condemned pack is replaced by those that do not."""
    loaded, _ = await load(cache(), lab)
    condemned = next(pack for pack, _ in loaded.index.packs())
    replaced = loaded.index.segments_naming(condemned)
    assert len(replaced) == 32
    scratch = tmp_path / replaced.hex()
    scratch.write_bytes(keyring.open("segment", "index", lab.stores["near"][names.segment(replaced.hex())]))
    merged = _core.merge_segments(keyring, [str(scratch)], condemned)
    for segment in merged:
        lab.stores["near"][names.segment(segment.id)] = segment.data
    lab.stores["near"].pop(names.segment(replaced.hex()))
    lab.stores["near"].pop(names.pack(condemned))
    loaded, place = await load(cache(), lab)
    assert place.fetched == len(merged) == 1
    assert whole(loaded, lab)
    assert loaded.index.named(condemned) == b""
