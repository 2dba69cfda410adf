"""The programs that are compared, each as the commands for the same four jobs at equal guarantees: encrypted and compressed."""

from __future__ import annotations

import os
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from benches.command_line import CommandLine

_BENJI = """\
configurationVersion: '1'
databaseEngine: sqlite:///{catalog}
defaultStorage: near
blockSize: 4194304
hashFunction: BLAKE2b,digest_bits=256
ios:
- name: file
  module: file
  configuration: {{simultaneousReads: 4}}
storages:
- name: near
  module: file
  storageId: 1
  configuration: {{path: {objects}, simultaneousWrites: 4, simultaneousReads: 4, activeTransforms: [zstd, aes]}}
transforms:
- {{name: zstd, module: zstd, configuration: {{level: 3}}}}
- {{name: aes, module: aes_256_gcm, configuration: {{masterKey: 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='}}}}
"""


class Program(ABC):
    """One program with a new repository at ``repository``; what else it keeps is below ``home``, and it restores below ``out``.

    Attributes:
        environment: for all its commands.
        sparse: whether the image is mostly holes, which some programs must be told to restore as such.
    """

    name: ClassVar[str]
    variable: ClassVar[str]
    """Names the environment variable with the program's path."""

    def __init__(self, image: Path, work: Path, *, sparse: bool) -> None:
        self.image, self.sparse = image, sparse
        self.repository, self.home, self.out = work / "repository", work / "home", work / "out"
        self.home.mkdir(parents=True)
        self.out.mkdir()
        self.program = os.environ.get(self.variable, self.variable.lower())
        self.environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self.home), "XDG_CACHE_HOME": str(self.home)}

    @abstractmethod
    def create(self) -> list[str]:
        """Makes the repository."""

    @abstractmethod
    def backup(self) -> list[str]:
        """Reads the whole image."""

    @abstractmethod
    def restore(self) -> list[str]:
        """Restores the latest; run in ``out``."""

    @property
    def restored(self) -> Path:
        """The file that ``restore`` makes."""
        return Path(f"{self.out}{self.image}")


class Snapferry(Program):
    """With its defaults: every record is checked before it leaves memory."""

    name = "snapferry"
    variable = "SNAPFERRY"

    def __init__(self, image: Path, work: Path, *, sparse: bool) -> None:
        super().__init__(image, work, sparse=sparse)
        self._line = CommandLine(self.home, self.repository)
        self.environment = self._line.environment

    def create(self) -> list[str]:
        return self._line.init()

    def backup(self) -> list[str]:
        return self._line.command("export", str(self.image), "--volume", "volume")

    def restore(self) -> list[str]:
        return self._line.command("restore", "volume", str(self.restored))

    @property
    def restored(self) -> Path:
        return self.out / "volume.img"


class Restic(Program):
    """``--force``: it would else believe the file's times and read nothing."""

    name = "restic auto"
    variable = "RESTIC"

    def __init__(self, image: Path, work: Path, *, sparse: bool) -> None:
        super().__init__(image, work, sparse=sparse)
        self.environment |= {
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": "x",
            "RESTIC_CACHE_DIR": str(self.home / "restic"),
            "TMPDIR": str(self.home),
        }

    def create(self) -> list[str]:
        return [self.program, "init", "-q"]

    def backup(self) -> list[str]:
        return [self.program, "backup", "-q", "--force", "--compression", "auto", str(self.image)]

    def restore(self) -> list[str]:
        return [self.program, "restore", "-q", "latest", "--target", str(self.out), *(["--sparse"] if self.sparse else [])]


class Borg(Program):
    """Fixed chunks, which suit images best; ``--files-cache=disabled``: as restic's ``--force``."""

    name = "borg fixed 1 MiB, zstd 3"
    variable = "BORG"

    def __init__(self, image: Path, work: Path, *, sparse: bool) -> None:
        super().__init__(image, work, sparse=sparse)
        self._archives = 0
        self.environment |= {"BORG_BASE_DIR": str(self.home), "BORG_PASSPHRASE": "x", "BORG_REPO": str(self.repository)}

    def create(self) -> list[str]:
        return [self.program, "init", "-e", "repokey-blake2"]

    def backup(self) -> list[str]:
        self._archives += 1
        chunks = ["--chunker-params", "fixed,1048576", "--sparse", "--files-cache=disabled"]
        return [self.program, "create", "-C", "zstd,3", *chunks, f"::{self._archives}", str(self.image)]

    def restore(self) -> list[str]:
        return [self.program, "extract", *(["--sparse"] if self.sparse else []), f"::{self._archives}"]


class Benji(Program):
    """Blocks of 4 MiB, zstd and AES-256-GCM."""

    name = "benji zstd + aes"
    variable = "BENJI"

    def __init__(self, image: Path, work: Path, *, sparse: bool) -> None:
        super().__init__(image, work, sparse=sparse)
        objects, configuration = self.repository / "objects", self.home / "benji.yaml"
        self._catalog = self.repository / "catalog.sqlite"
        objects.mkdir(parents=True)
        configuration.write_text(_BENJI.format(catalog=self._catalog, objects=objects))
        self._prefix = [self.program, "-c", str(configuration), "--log-level", "ERROR"]

    def create(self) -> list[str]:
        return [*self._prefix, "database-init"]

    def backup(self) -> list[str]:
        return [*self._prefix, "backup", f"file:{self.image}", "volume"]

    def restore(self) -> list[str]:
        with sqlite3.connect(self._catalog) as catalog:
            (version,) = catalog.execute("SELECT uid FROM versions ORDER BY date DESC, id DESC LIMIT 1").fetchone()
        catalog.close()
        return [*self._prefix, "restore", *(["-s"] if self.sparse else []), str(version), f"file:{self.restored}"]

    @property
    def restored(self) -> Path:
        return self.out / "volume.img"


PROGRAMS: dict[str, type[Program]] = {kind.variable.lower(): kind for kind in (Snapferry, Restic, Borg, Benji)}
