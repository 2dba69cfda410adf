"""What an object server says, checked: everything it sends is hostile until it has been here. Pure functions; nothing here talks to a server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import msgspec

from snapferry.destination.contract import Capabilities, ObjectInfo
from snapferry.destination.keys import MAX_KEY_LENGTH, is_key

PROTOCOL = 1
PAGE = 10_000
"""Objects of a listing that are asked for at once."""

LARGEST_PAGE = PAGE * (MAX_KEY_LENGTH + 64) + 4096
LARGEST_ANSWER = 64 << 10
"""Bytes of any other document."""

_MOST_CONCURRENCY = 64
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_PAST = re.compile(r"bytes \*/(\d{1,19})", re.ASCII)
_NUMBER = re.compile(r"\d{1,19}", re.ASCII)
_SHOWN = 300


class NonsenseAnswer(Exception):
    """A server says what no server of this protocol would; the message says what."""


class _About(msgspec.Struct):
    protocol: int
    exclusive_create: bool
    consistent_list: bool
    durable: bool
    concurrency: int
    resumable_uploads: bool = False


class _Object(msgspec.Struct):
    key: str
    size: int


class _Page(msgspec.Struct):
    objects: list[_Object]
    more: bool


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What a server declares of a store."""

    capabilities: Capabilities
    resumable_uploads: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; ``more`` follow."""

    objects: tuple[ObjectInfo, ...]
    more: bool


def about_of(data: bytes) -> About:
    """The declaration; ``NonsenseAnswer`` if it is none, or of another version."""
    try:
        said = msgspec.json.decode(data, type=_About)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NonsenseAnswer(f"it does not speak the object protocol: ?about: {cleaned(str(error))}") from error
    if said.protocol != PROTOCOL:
        raise NonsenseAnswer(f"it speaks version {said.protocol} of the object protocol, and this program version {PROTOCOL}")
    if said.concurrency < 1:
        raise NonsenseAnswer(f"it declares a concurrency of {said.concurrency}")
    capabilities = Capabilities(said.exclusive_create, said.consistent_list, min(said.concurrency, _MOST_CONCURRENCY), said.durable)
    return About(capabilities, said.resumable_uploads)


def page_of(data: bytes, prefix: str, after: str) -> Page:
    """One page of the listing of ``prefix`` behind ``after``; ``NonsenseAnswer`` unless it is just that, in order, and leads on."""
    try:
        said = msgspec.json.decode(data, type=_Page)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NonsenseAnswer(f"a listing that is none: {cleaned(str(error))}") from error
    if len(said.objects) > PAGE:
        raise NonsenseAnswer(f"a page of {len(said.objects)} objects where {PAGE} were asked for")
    last = after
    for item in said.objects:
        if not is_key(item.key) or not item.key.startswith(prefix) or item.size < 0:
            raise NonsenseAnswer(f"a listing with {cleaned(item.key)!r} of {item.size} bytes below {prefix!r}")
        if item.key <= last:
            raise NonsenseAnswer(f"a listing that is not in order: {item.key!r} behind {last!r}")
        last = item.key
    if said.more and not said.objects:
        raise NonsenseAnswer("a listing that goes on behind an empty page")
    return Page(tuple(ObjectInfo(item.key, item.size) for item in said.objects), said.more)


def range_of(text: str | None) -> tuple[int, int, int]:
    """(first, last, size) of a ``Content-Range``; ``NonsenseAnswer`` if it is none, or contradicts itself."""
    match = _RANGE.fullmatch(text or "")
    first, last, size = map(int, match.groups()) if match else (1, 0, 0)
    if not first <= last < size:
        raise NonsenseAnswer("another range than it was asked for")
    return first, last, size


def size_past(text: str | None) -> int | None:
    """The size of the object that a 416 tells, if it does."""
    match = _PAST.fullmatch(text or "")
    return int(match[1]) if match else None


def number_of(text: str | None) -> int | None:
    """A header that is a count of bytes, or None."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def upload_at(location: str | None, base: str) -> str:
    """The URL of an upload, from a ``Location`` that may be relative; ``NonsenseAnswer`` unless it is of the same server, below ``base``."""
    url = urljoin(base, location or "")
    if not location or len(location) > 2048 or not location.isascii() or not location.isprintable() or " " in location:
        raise NonsenseAnswer("an upload without a sensible place")
    there, here = urlsplit(url), urlsplit(base)
    if there[:2] != here[:2] or not there.path.startswith(here.path) or there.fragment or "/." in there.path:
        raise NonsenseAnswer("an upload that would go elsewhere")
    return url


def problem_of(data: bytes) -> str:
    """Title and detail of a problem document (RFC 9457), for people; empty where it is none."""
    try:
        said = msgspec.json.decode(data, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return ": ".join(text for text in (cleaned(said.title), cleaned(said.detail)) if text)


def cleaned(text: str) -> str:
    """``text`` from outside, bounded, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_SHOWN]).split())
