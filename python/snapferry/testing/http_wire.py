"""Requests and answers of HTTP as they go over the wire, for the proxy of ``http_faults``: heads stay bytes, lest a signature breaks."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(slots=True)
class Request:
    """One request: its head as it came, and its body, which may not have been read yet."""

    head: bytes
    body: bytes = b""

    @property
    def method(self) -> str:
        """Of the first line."""
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        """Path and query."""
        return self.head.split(b" ", 2)[1].decode()

    @property
    def length(self) -> int:
        """Of the body, in bytes."""
        return int(header(self.head, "content-length") or 0)


@dataclass(slots=True)
class Answer:
    """One answer of the server: head and body as it sent them."""

    head: bytes
    body: bytes


def header(head: bytes, name: str) -> str | None:
    """A header's value, or None."""
    match = re.search(rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r]*)\r\n", head, re.IGNORECASE)
    return match[1].decode("latin-1") if match else None


def with_header(head: bytes, name: str, value: str | None) -> bytes:
    """The head with one header set, or taken out."""
    out = re.sub(rb"\r\n" + re.escape(name.encode()) + rb":[^\r]*(?=\r\n)", b"", head, flags=re.IGNORECASE)
    return out if value is None else out[:-2] + f"{name}: {value}\r\n\r\n".encode("latin-1")
