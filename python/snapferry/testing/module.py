"""``python -m snapferry.testing.module SOCKET``: tries a storage module, in whatever language it is written, and says what is wrong with it.

First the cases on the wire (``module_cases``), then the public conformance suite through snapferry's own client. Each runs in a store of its own,
``/test-…/``, which stays: the module's directory should be one to throw away. Exits with 1 if a case fails.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import uuid

from snapferry.destination import Destination
from snapferry.destination.http import HttpDestination
from snapferry.destination.http_link import Link
from snapferry.testing.conformance import CASES, run_case
from snapferry.testing.module_cases import WIRE_CASES, Wire


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases and prints a line for each; the number to exit with."""
    parser = argparse.ArgumentParser(
        prog="python -m snapferry.testing.module", description="Tries a storage module; docs/modules.md is what it asks for."
    )
    parser.add_argument("socket", help="the path of the Unix socket at which the module listens")
    parser.add_argument("--only", metavar="WORD", default="", help="only cases with this in their name")
    given = parser.parse_args(arguments)
    names = [*(case.name for case in WIRE_CASES), *(case.name for case in CASES)]
    if not any(given.only in name for name in names):
        parser.error(f"no case has {given.only!r} in its name; there are: {', '.join(dict.fromkeys(names))}")
    if why := _why_nobody_listens(given.socket):
        _say(f"nothing listens at {given.socket} ({why}): start the module first, with SNAPFERRY_SOCKET={given.socket} in its environment")
        return 1
    run = f"test-{uuid.uuid4().hex[:8]}"
    failed = passed = 0
    for number, name in enumerate(names):
        kind = "wire" if number < len(WIRE_CASES) else "client"
        if given.only not in name:
            continue
        store = f"/{run}/{kind}-{name.replace('_', '-')}/"
        try:
            if kind == "wire":
                _on_the_wire(number, given.socket, store)
            else:
                asyncio.run(_through_the_client(number - len(WIRE_CASES), given.socket, store))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the case that failed
            failed += 1
            reason = " ".join(str(error).split()) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            _say(f"FAIL  {kind:6} {name}\n      {reason or 'see snapferry/testing/conformance.py'}")
        else:
            passed += 1
            _say(f"ok    {kind:6} {name}")
    _say(
        f"{passed} passed, {failed} failed"
        + ("" if failed else "; what no case can see is whether it is durable: fsync the file and the directory")
    )
    return 1 if failed else 0


def _why_nobody_listens(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(path)
        except OSError as error:
            return error.strerror or str(error)  # a path that is too long has only the latter
    return None


def _on_the_wire(number: int, socket: str, store: str) -> None:
    wire = Wire(socket, store)
    try:
        WIRE_CASES[number].run(wire)
    finally:
        wire.close()


async def _through_the_client(number: int, socket: str, store: str) -> None:
    async def make(place: str) -> Destination:
        return await HttpDestination.open("module", Link(f"http://localhost{store}{place}/", "the module", socket=socket))

    async with asyncio.timeout(120):
        await run_case(CASES[number], make)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
