"""One call of the command line: its common options, and where what it says goes.

Data goes to standard output and everything else to standard error; with ``--json`` all is one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from snapferry.config import Config

SCHEMA_VERSION = 1


class StdoutClosed(Exception):
    """Whoever read our standard output went away."""


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """Tells what writing to standard output raises apart from all other errors: ``StdoutClosed``, or one that names it."""
    try:
        yield
    except BrokenPipeError as error:
        raise StdoutClosed from error
    except OSError as error:
        from snapferry.errors import SnapferryError

        raise SnapferryError(f"standard output cannot be written: {error.strerror}") from error


@dataclass
class Invocation:
    """The common options, given before or after the command.

    Attributes:
        volume_on_stdout: standard output carries a volume's bytes, so that JSON goes to standard error.
        ended_by: the number of a signal that came before a command handled signals, else 0.
    """

    config_path: str | None = None
    json_lines: bool = False
    quiet: bool = False
    verbose: bool = False
    volume_on_stdout: bool = field(default=False)
    ended_by: int = 0
    _flags: Mapping[str, str | int] = field(default_factory=dict, repr=False)

    def load_config(self, flags: Mapping[str, str | int] | None = None) -> Config:
        """The configuration, with ``section.key`` flags over it."""
        from snapferry.config import load_config

        self._flags = flags or {}
        return load_config(self.config_path, flags=self._flags)

    def load_config_again(self) -> Config:
        """The configuration as it is by now, under the same flags."""
        return self.load_config(self._flags)

    def emit(self, kind: str, document: Mapping[str, Any]) -> None:
        """One JSON object on a line of its own."""
        line = json.dumps({"type": kind, "schema_version": SCHEMA_VERSION, **document})
        if self.volume_on_stdout:
            print(line, file=sys.stderr, flush=True)
        else:
            self.write(line)

    def emit_many(self, kind: str, document: Mapping[str, Any]) -> None:
        """As ``emit``, for a document of very many lines; times in it may be ``datetime``."""
        import msgspec

        line = msgspec.json.encode({"type": kind, "schema_version": SCHEMA_VERSION, **document})
        if not line.isascii():
            line = json.dumps(json.loads(line)).encode()  # Whatever standard output's encoding is, it has these.
        with to_stdout():
            sys.stdout.flush()
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.write(b"\n")

    def write(self, text: str) -> None:
        """A line of data on standard output."""
        with to_stdout():
            sys.stdout.write(text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding) + "\n")

    def result(self, text: str) -> None:
        """What a command that makes something says at its end; ``-q`` hides it."""
        if not self.quiet:
            self.write(text)

    def say(self, text: str) -> None:
        """A message for people on standard error; ``-q`` and ``--json`` hide it."""
        if not self.quiet and not self.json_lines:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """What no one may miss who looks at the exit code alone, on standard error; ``--json`` says it in the document."""
        if not self.json_lines:
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Hands standard output over to the system, which is when a closed pipe shows."""
        with to_stdout():
            sys.stdout.flush()
