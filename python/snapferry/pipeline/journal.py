"""What a restore notes before it touches its target, so that the same restore can be run again: which snapshot goes into which file.

Durable before the target exists, and kept when complete. It allows nothing but the very same: snapshot, path and inode.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from snapferry import _core
from snapferry.errors import SnapferryError
from snapferry.repository.keyfile import sync_directory


class Entry(msgspec.Struct, frozen=True):
    """One restore. ``device``, ``inode`` and ``generation`` are the target's, once it exists: see ``target.Identity``."""

    snapshot: str
    path: str
    size: int
    device: int | None = None
    inode: int | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """The note for one target, below ``directory``. ``path`` is the target's real path."""

    directory: Path
    path: str

    @property
    def file(self) -> Path:
        """Where the note lies."""
        return self.directory / f"{_core.blake3(os.fsencode(self.path))[:16].hex()}.json"

    def read(self) -> Entry | None:
        """The note, or None if there is none that makes sense."""
        try:
            entry = msgspec.json.decode(self.file.read_bytes(), type=Entry)
        except (OSError, msgspec.DecodeError):
            return None
        return entry if entry.path == self.path else None

    def write(self, entry: Entry) -> None:
        """Replaces the note durably; ``SnapferryError`` if it cannot."""
        temporary = self.directory / f".{self.file.name}.{secrets.token_hex(4)}"
        try:
            self._make_directory()
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                data = msgspec.json.encode(entry)
                if os.write(fd, data) != len(data):
                    raise OSError(0, "short write")
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, self.file)
            sync_directory(self.directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise SnapferryError(
                f"cannot keep the restore's journal in {self.directory}: {error.strerror}; set repository.state_dir"
            ) from error

    def _make_directory(self) -> None:
        if not self.directory.is_dir():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(self.directory.parent)
