"""The summaries of snapshots as the catalog keeps them: sealed runs, opened once and merged while they are small."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import TYPE_CHECKING

from snapferry.errors import ObjectDamaged
from snapferry.repository.summaries import Run, absorbed

if TYPE_CHECKING:
    from snapferry.catalog import Catalog
    from snapferry.repository.opening import Members
    from snapferry.types import SnapshotSummary

_FEW = 1024
"""So many summaries of what nobody holds any more are not worth writing the others anew."""

logger = logging.getLogger("snapferry")


class SummaryCache:
    """The runs of one repository. Not for several threads at once: whoever has it takes turns."""

    def __init__(self, members: Members) -> None:
        self._keyring = members.keyring
        self._repository = members.repository_id
        self._runs: dict[str, Run] = {}

    def load(self, catalog: Catalog) -> list[Run]:
        """All runs. One that does not open has rotted in the catalog: it is removed, and its commits are read again."""
        runs: dict[str, Run] = {}
        for name, sealed in catalog.runs(self._repository, self._runs).items():
            if sealed is None:
                runs[name] = self._runs[name]
                continue
            try:
                runs[name] = Run.open(self._keyring, sealed, "the catalog")
            except ObjectDamaged as error:
                logger.warning("%s; the commits are read again", error)
                catalog.remove_runs(self._repository, [name])
        self._runs = runs
        return list(runs.values())

    def add(self, catalog: Catalog, fresh: Sequence[SnapshotSummary]) -> None:
        """Keeps summaries of commits that were just read."""
        if fresh:
            merged = absorbed({name: len(run) for name, run in self._runs.items()}, len(fresh))
            self._replace(catalog, merged, chain(fresh, *(self._runs[name].all() for name in merged)))

    def let_go(self, catalog: Catalog, held: AbstractSet[str]) -> None:
        """Lets go of summaries of snapshots that are not ``held`` anywhere, once they are the larger part."""
        if sum(len(run) for run in self._runs.values()) > 2 * len(held) + _FEW:
            everything = chain.from_iterable(run.all() for run in self._runs.values())
            self._replace(catalog, list(self._runs), (summary for summary in everything if summary.id in held))

    def _replace(self, catalog: Catalog, gone: Sequence[str], summaries: Iterable[SnapshotSummary]) -> None:
        # Another process may have merged the same runs: what is there twice becomes one.
        run = Run.of({summary.id: summary for summary in summaries}.values())
        name = secrets.token_hex(16)
        catalog.replace_runs(self._repository, gone, name, run.seal(self._keyring))
        self._runs = {name: run, **{other: self._runs[other] for other in self._runs.keys() - set(gone)}}
