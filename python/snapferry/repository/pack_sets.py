"""Which packs a snapshot's trees name, remembered on this machine, so that nobody has to walk them to know whether all are in place.

A cache: a file that is missing or torn means that the trees are walked. A snapshot never changes, so neither does what is remembered
of it. The set may hold packs that the snapshot needs no more, never fewer than it needs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from snapferry import _core

_MAGIC = b"snapferry packs of a snapshot v1\n"
_CHECK = 32


class PackSets:
    """The sets of one repository.

    Arguments:
        directory: where they lie; made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, volume: str, snapshot: str) -> bytes | None:
        """Ids of the packs that the snapshot names, 32 bytes each; None if they are not known."""
        try:
            data = self._file(volume, snapshot).read_bytes()
        except OSError:
            return None
        body, check = data[:-_CHECK], data[-_CHECK:]
        if not body.startswith(_MAGIC) or (len(body) - len(_MAGIC)) % 32 or _core.blake3(body) != check:
            return None
        return body[len(_MAGIC) :]

    def store(self, volume: str, snapshot: str, packs: bytes, keep: str | None = None) -> None:
        """Remembers a snapshot's packs, and forgets those of the volume's others but ``keep``. Trouble is passed over: it is a cache."""
        body = _MAGIC + packs
        file = self._file(volume, snapshot)
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(body + _core.blake3(body))
            os.replace(temporary, file)
            for entry in os.scandir(file.parent):
                if entry.name not in (snapshot, keep):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _file(self, volume: str, snapshot: str) -> Path:
        return self._directory / _core.blake3(volume.encode())[:16].hex() / snapshot
