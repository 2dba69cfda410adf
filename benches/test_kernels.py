"""The core's kernels, one thing each, everything in memory: MiB/s are 16 over the shown seconds where nothing else is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.images import mixed
from benches.in_memory import BLOCK, Exported, Store
from snapferry import _core

SIZE = 16 << 20
BLOCKS = SIZE // BLOCK
ROUNDS = 20
SMALL = 64 << 10
"""The smallest block size: the most blocks for the fewest bytes."""

_CONTENT: dict[str, Callable[[], bytes]] = {
    "files": lambda: mixed(SIZE),
    "random": lambda: os.urandom(SIZE),
    "zero": lambda: bytes(SIZE),
}


def numbered(count: int, first: int = 0) -> bytearray:
    """``count`` small blocks, each different from all others, made quickly."""
    data = bytearray(os.urandom(SMALL)) * count
    for number in range(count):
        data[number * SMALL : number * SMALL + 8] = (first + number + 1).to_bytes(8, "little")
    return data


@pytest.fixture(scope="module")
def store() -> Store:
    return Store()


@pytest.fixture(scope="module")
def exported(store: Store) -> Exported:
    return store.export(mixed(SIZE))


def process(packer: _core.Packer, data: bytes) -> int:
    """Packs all of ``data``; returns how many packs came of it, which are dropped."""
    return len(packer.process(0, data)) + len(packer.finish())


@pytest.mark.parametrize("content", _CONTENT)
@pytest.mark.parametrize("check", ["full", "sample"])
def test_pack(benchmark: BenchmarkFixture, store: Store, content: str, check: str) -> None:
    """Hash, compress, seal and check new blocks."""
    data = _CONTENT[content]()

    def fresh() -> tuple[tuple[_core.Packer, bytes], dict[str, object]]:
        return (store.packer(SIZE, check=check)[0], data), {}

    made = benchmark.pedantic(process, setup=fresh, rounds=ROUNDS, warmup_rounds=2)
    assert made == (content != "zero")


@pytest.mark.parametrize("codec", ["lz4", "none"])
def test_pack_with_another_codec(benchmark: BenchmarkFixture, store: Store, codec: str) -> None:
    data = mixed(SIZE)

    def fresh() -> tuple[tuple[_core.Packer, bytes], dict[str, object]]:
        return (store.packer(SIZE, codec=codec)[0], data), {}

    assert benchmark.pedantic(process, setup=fresh, rounds=ROUNDS, warmup_rounds=2) == 1


def test_pack_unchanged(benchmark: BenchmarkFixture, store: Store, exported: Exported) -> None:
    """Hash, and compare with the parent's ids."""
    data = mixed(SIZE)
    store.index.declare_usable(b"".join(store.packs))

    def fresh() -> tuple[tuple[_core.Packer, bytes], dict[str, object]]:
        return (store.packer(SIZE, store.loaded(exported))[0], data), {}

    assert benchmark.pedantic(process, setup=fresh, rounds=ROUNDS, warmup_rounds=2) == 0


def test_check_pack(benchmark: BenchmarkFixture, store: Store, exported: Exported) -> None:
    pack = exported.packs[0]
    found = benchmark.pedantic(
        _core.check_pack, args=(store.keyring, store.workers, pack, store.packs[pack]), rounds=ROUNDS, warmup_rounds=2
    )
    assert found == []


def test_copy(benchmark: BenchmarkFixture, store: Store, exported: Exported) -> None:
    """Open, decompress and verify records, and put them into memory."""
    manifest = store.loaded(exported)
    out = bytearray(SIZE)

    def planned() -> tuple[tuple[_core.Plan], dict[str, object]]:
        plan = _core.Plan(store.keyring, store.workers, manifest, 0, BLOCKS, 8 << 20)
        for pack, _, length in plan.headers():
            assert plan.learn(pack, store.packs[pack][:length])
        return (plan,), {}

    def copy(plan: _core.Plan) -> int:
        return sum(
            plan.copy(number, memoryview(store.packs[pack])[offset : offset + length], out, 0)
            for number, (pack, offset, length) in plan.extents()
        )

    assert benchmark.pedantic(copy, setup=planned, rounds=ROUNDS, warmup_rounds=2) == 0
    assert out == mixed(SIZE)


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, list[bytes]]:
    """A directory with 2048 blocks folded into it, the id of their segment, and theirs."""
    directory = tmp_path_factory.mktemp("index")
    store = Store(block_size=SMALL)
    segment, blocks = store.segment(numbered(2048))
    index = _core.Index()
    index.add_segment(bytes.fromhex(segment.id), store.keyring.open("segment", "index", segment.data))
    fold = _core.Fold(index, str(directory), last=True)
    while fold.step():
        pass
    return directory, bytes.fromhex(segment.id), blocks


def test_open_an_index(benchmark: BenchmarkFixture, folded: tuple[Path, bytes, list[bytes]]) -> None:
    """2048 entries; as long for any number (see ``scale/``)."""
    assert benchmark(lambda: _core.Index().open(str(folded[0]), folded[1], whole=True)) == b""


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_look_up(benchmark: BenchmarkFixture, folded: tuple[Path, bytes, list[bytes]], known: bool) -> None:
    """2048 look-ups."""
    index = _core.Index()
    index.open(str(folded[0]), folded[1], whole=True)
    index.declare_usable(index.packs_of(folded[1]))
    ids = folded[2] if known else [os.urandom(32) for _ in folded[2]]
    found = benchmark(lambda: sum(index.find(block) is not None for block in ids))
    assert found == (len(ids) if known else 0)


def test_diff(benchmark: BenchmarkFixture) -> None:
    """2048 blocks, 20 of them changed: fetch what differs of both trees, and compare."""
    store = Store(block_size=SMALL)
    data = numbered(2048)
    before = store.export(data, codec="none")
    for number in range(0, 2000, 100):
        data[number * SMALL] ^= 0xFF
    after = store.export(data, store.loaded(before), codec="none")

    def compare() -> int:
        a, b = store.manifest(before), store.manifest(after)
        while True:
            of_a, of_b = _core.missing_for_diff(a, b, 0, a.blocks)
            if not of_a and not of_b:
                return sum(count for _, count in _core.diff(a, b, 0, a.blocks))
            store.feed(a, of_a)
            store.feed(b, of_b)

    assert benchmark(compare) == 20
