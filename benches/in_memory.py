"""A repository in memory around the native core: what the kernels need beside them, and no destination, thread or loop."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from snapferry import _core

BLOCK = 256 << 10
_PACK = 32 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to: the roots, the volume's size and the packs it made, in the order they were finished."""

    roots: _core.RootsTuple
    size: int
    packs: tuple[bytes, ...]


@dataclass
class Store:
    """Packs by id, and what an export and a restore hold."""

    block_size: int = BLOCK
    keyring: _core.Keyring = field(default_factory=_core.Keyring.generate)
    workers: _core.Workers = field(default_factory=lambda: _core.Workers(os.cpu_count() or 1))
    index: _core.Index = field(default_factory=_core.Index)
    packs: dict[bytes, bytes] = field(default_factory=dict)

    def manifest(self, exported: Exported) -> _core.Manifest:
        """Its trees, nothing loaded."""
        return _core.Manifest(self.keyring, exported.roots, exported.size, self.block_size)

    def feed(self, manifest: _core.Manifest, fetches: list[_core.Fetch]) -> None:
        """Gives a manifest the pages that it asked for."""
        for pack, offset, length in fetches:
            assert manifest.feed(pack, offset, memoryview(self.packs[pack])[offset : offset + length]) == 0

    def loaded(self, exported: Exported) -> _core.Manifest:
        """Its trees with all their pages."""
        manifest = self.manifest(exported)
        while fetches := manifest.missing(0, manifest.blocks):
            self.feed(manifest, fetches)
        return manifest

    def packer(
        self, size: int, parent: _core.Manifest | None = None, codec: str = "zstd", check: str = "full"
    ) -> tuple[_core.Packer, _core.ManifestWriter]:
        """A new session's packer, with room for 32 MiB, and its manifest writer."""
        session = os.urandom(16)
        writer = _core.ManifestWriter(
            self.keyring, self.workers, self.index, session=session, size=size, block_size=self.block_size, parent=parent, check=check
        )
        packer = _core.Packer(self.keyring, self.workers, self.index, writer, session=session, codec=codec, level=1, check=check)
        packer.provide(_PACK)
        return packer, writer

    def export(self, data: bytes | bytearray, parent: _core.Manifest | None = None, codec: str = "zstd") -> Exported:
        """Exports ``data`` whole and keeps the packs."""
        packer, writer = self.packer(len(data), parent, codec, check="sample")
        packs: list[_core.Pack] = []
        step = 8 << 20
        for at in range(0, len(data), step):
            while packer.room < step + (1 << 20):
                packer.provide(_PACK)
            packs += packer.process(at // self.block_size, memoryview(data)[at : at + step])
        packs += packer.finish()
        packs += writer.advance(-(-len(data) // self.block_size))
        roots, last = writer.finish()
        packs += last
        self.packs.update((pack.id, bytes(pack)) for pack in packs)
        return Exported(roots, len(data), tuple(pack.id for pack in packs))

    def segment(self, data: bytes | bytearray) -> tuple[_core.Segment, list[bytes]]:
        """An index segment of the blocks of ``data``, and their ids. The packs are not kept."""
        packer, writer = self.packer(len(data), codec="none", check="sample")
        step = 8 << 20
        finished: list[bytes] = []
        for at in range(0, len(data), step):
            while packer.room < step + (1 << 20):
                packer.provide(_PACK)
            finished += [pack.id for pack in packer.process(at // self.block_size, memoryview(data)[at : at + step])]
        finished += [pack.id for pack in packer.finish()]
        packs = {pack.id: bytes(pack) for pack in writer.advance(len(data) // self.block_size)}
        segment = packer.segment(finished)
        assert segment is not None
        roots, last = writer.finish()
        self.packs.update(packs | {pack.id: bytes(pack) for pack in last})
        blocks = len(data) // self.block_size
        ids = self.loaded(Exported(roots, len(data), ())).ids(0, blocks)
        return segment, [ids[at : at + 32] for at in range(0, len(ids), 32)]
