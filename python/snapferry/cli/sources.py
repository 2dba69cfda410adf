"""What ``export`` is told about sources that are no files: standard input, FIFOs, and maps of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snapferry.errors import ConfigurationError

if TYPE_CHECKING:
    from snapferry.cli.invocation import Invocation
    from snapferry.source import AnySource
    from snapferry.types import ExportResult


def check_source(source: str, volume: str | None, changed: str | None) -> None:
    """``ConfigurationError`` for what cannot go together."""
    if source != "-":
        return
    if changed is not None:
        raise ConfigurationError("--changed needs a source that can be read anywhere, not standard input")
    if volume is None:
        raise ConfigurationError("a volume from standard input needs a name: --volume NAME")


def open_stream(source: str, stream_size: int | None) -> str | AnySource:
    """The source as it is to be exported: with a size that is announced, opened to be held against it."""
    if stream_size is None:
        return source
    from snapferry.source import StreamSource, open_source

    opened = open_source(source)
    if not isinstance(opened, StreamSource):
        opened.close()
        raise ConfigurationError(f"--stream-size is for standard input and FIFOs; {source} tells its size itself")
    opened.expect(stream_size)
    return opened


def content_document(result: ExportResult) -> dict[str, Any]:
    """What a ``snapshot`` line says of the content: the root, equal for equal contents of one repository, and the map of changes if there was one."""
    root = result.snapshot.roots.ids
    document: dict[str, Any] = {} if result.dry_run else {"root": root.page.hex() if root else None}
    use = result.map
    if use is not None:
        document["map"] = {"used": use.used, "blocks_audited": use.audited} | ({} if use.reason is None else {"reason": use.reason})
    return document


def say_map(invocation: Invocation, result: ExportResult) -> None:
    """The same for people; that a map was not used, a warning has said."""
    if result.map is not None and result.map.used:
        invocation.say(f"  read only what the map of changes names; {result.map.audited} blocks read to audit it are as it says")
