"""The objects below a directory, as its entries say."""

from __future__ import annotations

import os
from collections.abc import Iterator

from snapferry.destination.keys import is_key_below


def walk(root: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The key and the entry of every object below ``prefix``. What vanishes meanwhile, or is no object of ours, is passed over."""
    pending = [prefix]
    while pending:
        above = pending.pop()
        try:
            with os.scandir(os.path.join(root, above)) as entries:
                for entry in entries:
                    if not is_key_below(above, entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{above}{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        yield above + entry.name, entry
        except (FileNotFoundError, NotADirectoryError):
            continue
