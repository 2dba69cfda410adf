"""Machines with keys of their own for one repository: full ones, and hosts that can write and not read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from snapferry.config import Config
from snapferry.engine import Repository, open_repository
from snapferry.repository.keyfile import create_key_file
from snapferry.testing.sources import MemorySource
from snapferry.types import ExportResult
from tests.support.lab import BLOCK, Lab


class Keyholders:
    """Key files beside a lab's own, by name."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def file(self, name: str) -> Path:
        """The key file of that name, made if need be."""
        path = self._lab.directory / f"{name}.key"
        if not path.exists():
            create_key_file(path)
        return path

    def passphrase(self, text: str = "two words") -> Path:
        """A file with a passphrase."""
        path = self._lab.directory / "passphrase"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def config(self, name: str | None, *places: str) -> Config:
        """A blank machine that knows these places (all, unless given) and the key of that name; of none: the passphrase."""
        config = self._lab.machine(*places)
        repository = dataclasses.replace(config.repository, key_file=None, passphrase_file=self.passphrase())
        if name is not None:
            repository = dataclasses.replace(config.repository, key_file=self.file(name))
        return dataclasses.replace(config, repository=repository)

    def open(self, name: str | None, *places: str) -> Repository:
        """That machine's repository."""
        return open_repository(self.config(name, *places))

    async def export(self, name: str | None, data: bytes, *places: str) -> ExportResult:
        """One export from a blank machine with that key."""
        async with self.open(name, *places) as repository:
            return await repository.export(MemorySource(data), volume="v", block_size=BLOCK)

    async def assert_reads(self, name: str | None, expected: Mapping[str, bytes], *places: str) -> None:
        """That key restores every snapshot, bit-exact, at each place alone."""
        for place in places or self._lab.names:
            async with self.open(name, place) as repository:
                listed = {item.snapshot.id for item in await repository.list()}
                assert listed <= set(expected), place
                for snapshot in listed:
                    assert await self._lab.contents(repository, snapshot) == expected[snapshot], (place, snapshot)
