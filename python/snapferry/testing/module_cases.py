"""What a storage module must do on the wire, as cases that say what to do about it where it does not; docs/modules.md is what they follow.

Each case gets a ``Wire`` to a store of its own. It fails with ``AssertionError``, whose text is for the module's author.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote

SECONDS = 10.0
_LARGE = 32 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, headers by their names in lower case, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Wire:
    """Requests to one store of a module, over one connection that is used again.

    Arguments:
        socket_path: where the module listens.
        base: the path that keys are put behind; it begins and ends with a slash.
    """

    def __init__(self, socket_path: str, base: str) -> None:
        self.path = socket_path
        self.base = base
        self._connection = _Connection(socket_path)

    def again(self) -> Wire:
        """Another connection to the same store."""
        return Wire(self.path, self.base)

    def ask(self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request; ``target`` follows ``base``. ``AssertionError`` where there is no answer."""
        what = f"{method} {self.base}{target}"
        try:
            with contextlib.suppress(BrokenPipeError):  # a PUT may be refused, and its connection closed, before all of it was sent
                self._connection.request(method, self.base + target, body, dict(headers or {}))
            answer = self._connection.getresponse()
            return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        except TimeoutError as error:
            raise AssertionError(f"{what}: no whole answer within {SECONDS:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise AssertionError(f"{what}: no answer that is HTTP ({type(error).__name__}: {error})") from error
        finally:
            if method == "PUT":  # one that was refused may leave its body unread
                self._connection.close()

    def put(self, key: str, data: bytes, digest_of: bytes | None = None) -> Reply:
        """Creates an object; ``digest_of``: other bytes than those sent, for a digest that is wrong."""
        return self.ask("PUT", key, data, put_headers(data if digest_of is None else digest_of, len(data)))

    def made(self, key: str, data: bytes) -> None:
        """Creates an object, which must work."""
        expect(self.put(key, data), 201, f"PUT of a new key, {key}")

    def listed(self, query: str = "") -> tuple[list[tuple[str, int]], bool]:
        """A page of a listing: keys and sizes, and whether more follow."""
        reply = self.ask("GET", f"?prefix={query}")
        expect(reply, 200, f"GET ?prefix={query}")
        try:
            page = json.loads(reply.body)
            return [(str(item["key"]), int(item["size"])) for item in page["objects"]], bool(page["more"])
        except (ValueError, KeyError, TypeError) as error:
            raise AssertionError(
                f'a listing should read {{"objects":[{{"key":"…","size":N}}],"more":false}}, not {reply.body[:200]!r}'
            ) from error

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def put_headers(data: bytes, length: int) -> dict[str, str]:
    """The headers of every create: the digest of ``data``, and how many bytes are sent."""
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return {"If-None-Match": "*", "Content-Digest": f"sha-256=:{digest}:", "Content-Length": str(length)}


def expect(reply: Reply, status: int, what: str) -> None:
    """``AssertionError`` unless the answer has that status."""
    said = f" ({reply.body[:200].decode('utf-8', 'replace')})" if reply.body and reply.status >= 400 else ""
    assert reply.status == status, f"{what} should be answered with {status}, not {reply.status}{said}"


def _says_what_it_is(wire: Wire) -> None:
    reply = wire.ask("GET", "?about")
    expect(reply, 200, "GET ?about")
    try:
        about = json.loads(reply.body)
    except ValueError as error:
        raise AssertionError(f"?about should be JSON, not {reply.body[:200]!r}") from error
    for member, kind in (("protocol", int), ("exclusive_create", bool), ("consistent_list", bool), ("durable", bool), ("concurrency", int)):
        assert isinstance(about, dict), "?about should be a JSON object"
        assert type(about.get(member)) is kind, f"?about: {member} should be there, and {kind.__name__}; it is {about.get(member)!r}"
    assert about["protocol"] == 1, "?about: protocol should be 1"
    for member in ("exclusive_create", "consistent_list", "durable"):
        assert about[member], f"?about: {member} is false; a module that cannot promise it is no place for backups that others prune"


def _keeps_what_it_is_given(wire: Wire) -> None:
    for key, data in (("config", b"some bytes"), ("packs/ab/abcd", os.urandom(70_001)), ("index/empty", b"")):
        wire.made(key, data)
        reply = wire.ask("GET", key)
        expect(reply, 200, f"GET {key}")
        assert reply.body == data, f"GET {key} gives other bytes than were put: {len(reply.body)} of them, where there were {len(data)}"
        assert reply.headers.get("content-length") == str(len(data)), f"GET {key} needs Content-Length: {len(data)}, and no chunks"


def _answers_head(wire: Wire) -> None:
    wire.made("packs/ab/head", b"x" * 1234)
    reply = wire.ask("HEAD", "packs/ab/head")
    expect(reply, 200, "HEAD of an object")
    assert reply.headers.get("content-length") == "1234", f"HEAD needs Content-Length: 1234; it is {reply.headers.get('content-length')!r}"
    expect(wire.ask("HEAD", "packs/ab/none"), 404, "HEAD of a key that is not there")
    expect(wire.ask("GET", "packs/ab/head"), 200, "GET after HEAD on the same connection (a HEAD must send no body)")


def _says_what_is_missing(wire: Wire) -> None:
    wire.made("packs/ab/there", b"x")
    for key in ("config", "packs/ab/none", "packs/zz/none", "packs/ab", "packs/ab/there/below"):
        expect(wire.ask("GET", key), 404, f"GET {key}, where nothing is,")


def _never_replaces(wire: Wire) -> None:
    wire.made("packs/ab/taken", b"first")
    for data in (b"second", b"first", b"", b"x" * 100_000):
        expect(wire.put("packs/ab/taken", data), 412, "PUT of a key that is taken, whatever the bytes,")
    assert wire.ask("GET", "packs/ab/taken").body == b"first", "a PUT that was answered with 412 has changed the object"


def _lets_one_of_many_win(wire: Wire) -> None:
    statuses: list[int] = []

    def one(number: int) -> None:
        other = wire.again()
        statuses.append(other.put("packs/ab/race", b"%d" % number * 100_000).status)
        other.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [412] * 7, (
        f"of 8 PUTs of one key at once one should be answered with 201 and the others with 412, not {sorted(statuses)}: "
        "give an object its name by something that never replaces (link, O_EXCL), not by looking first or by rename"
    )


def _refuses_what_the_digest_denies(wire: Wire) -> None:
    expect(wire.put("packs/ab/wrong", b"what was sent", b"what was meant"), 400, "PUT with bytes that are not what Content-Digest says")
    expect(wire.ask("GET", "packs/ab/wrong"), 404, "GET of a key whose PUT was refused")
    assert wire.listed("packs/") == ([], False), "a PUT that was refused has left something in the listing"
    wire.made("packs/ab/wrong", b"what was meant")


def _keeps_nothing_of_a_put_that_broke_off(wire: Wire) -> None:
    data = os.urandom(1 << 20)
    head = "".join(f"{name}: {value}\r\n" for name, value in put_headers(data, len(data)).items())
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(SECONDS)
        raw.connect(wire.path)
        raw.sendall(f"PUT {wire.base}packs/ab/half HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode() + data[: 1 << 19])
    reply = wire.ask("GET", "packs/ab/half")
    assert reply.status == 404, (
        "after a PUT whose connection ended in the middle of the body the object is there: it must be whole, or not at all"
    )
    wire.made("packs/ab/half", data)
    assert wire.ask("GET", "packs/ab/half").body == data, "an object that was put again after a PUT that broke off has other bytes"


def _gives_ranges(wire: Wire) -> None:
    data = os.urandom(1000)
    wire.made("packs/ab/ranges", data)
    for asked, begin, end in (("0-0", 0, 1), ("0-999", 0, 1000), ("10-19", 10, 20), ("999-999", 999, 1000), ("990-2000", 990, 1000),
                              ("-1", 999, 1000), ("-100", 900, 1000), ("-5000", 0, 1000)):  # fmt: skip
        what = f"GET of 1000 bytes with Range: bytes={asked}"
        reply = wire.ask("GET", "packs/ab/ranges", headers={"Range": f"bytes={asked}"})
        expect(reply, 206, what)
        assert reply.body == data[begin:end], f"{what} should give bytes {begin} to {end - 1}; it gives {len(reply.body)} others"
        wanted = f"bytes {begin}-{end - 1}/1000"
        assert reply.headers.get("content-range") == wanted, (
            f"{what} needs Content-Range: {wanted}; it is {reply.headers.get('content-range')!r}"
        )


def _says_where_an_object_ends(wire: Wire) -> None:
    wire.made("packs/ab/short", b"x" * 1000)
    wire.made("packs/ab/empty", b"")
    for key, asked, size in (("short", "1000-1000", 1000), ("short", "5000-5001", 1000), ("empty", "0-0", 0), ("empty", "-5", 0)):
        reply = wire.ask("GET", f"packs/ab/{key}", headers={"Range": f"bytes={asked}"})
        what = f"GET of {size} bytes with Range: bytes={asked}"
        expect(reply, 416, what)
        assert reply.headers.get("content-range") == f"bytes */{size}", f"{what} needs Content-Range: bytes */{size} with its 416"


def _lists_in_order(wire: Wire) -> None:
    keys = ["a", "a-b/x", "a.b", "a/x", "a/y", "a0", "packs-old/x", "packs/aa/1", "packs/ab/2", "packs.x", "Z"]
    assert wire.listed() == ([], False), "the listing of an empty store should be empty"
    for number, key in enumerate(keys):
        if key != "a":  # a file system has no room for both a and a/x
            wire.made(key, b"x" * number)
    sizes = {key: number for number, key in enumerate(keys) if key != "a"}
    everything = sorted(sizes)
    found, more = wire.listed()
    assert [key for key, _ in found] == everything, (
        f"the listing should be {everything}, in the order of the keys' bytes ('-' and '.' before '/'), not {[key for key, _ in found]}"
    )
    assert dict(found) == sizes, "the listing has wrong sizes"
    assert not more, "the listing says that more follow where nothing does"
    for prefix in ("packs/", "packs/aa/", "a/", "none/"):
        below = [key for key in everything if key.startswith(prefix)]
        assert [key for key, _ in wire.listed(prefix)[0]] == below, f"the listing of prefix={prefix} should be {below}"
    for after in ("a-b/x", "a", "packs/aa/1", "packs/b", "zzz"):
        left = [key for key in everything if key > after]
        assert [key for key, _ in wire.listed(f"&after={after}")[0]] == left, (
            f"the listing after={after} should be {left}, whether or not that is there"
        )


def _lists_by_pages(wire: Wire) -> None:
    keys = [f"packs/{number % 3:02x}/{number:04x}" for number in range(60)]
    for key in keys:
        wire.made(key, b"x")
    for limit in (1, 7, 59, 60, 61):
        found: list[str] = []
        for _ in range(len(keys) + 1):
            page, more = wire.listed(f"packs/&limit={limit}" + (f"&after={found[-1]}" if found else ""))
            assert len(page) <= limit, f"a page of {len(page)} objects where limit={limit} was asked for"
            found += [key for key, _ in page]
            if not more:
                break
            assert page, "an empty page that says that more follow leads nowhere"
        assert found == sorted(keys), (
            f"the pages of limit={limit} together give {len(found)} keys, not the {len(keys)} that are there, each once"
        )


def _deletes(wire: Wire) -> None:
    wire.made("packs/ab/gone", b"x")
    for what in ("DELETE", "DELETE of what is not there any more"):
        expect(wire.ask("DELETE", "packs/ab/gone"), 204, what)
    expect(wire.ask("DELETE", "packs/zz/never"), 204, "DELETE of what was never there")
    expect(wire.ask("GET", "packs/ab/gone"), 404, "GET of what was deleted")
    assert wire.listed("packs/") == ([], False), "what was deleted is still listed"
    wire.made("packs/ab/gone", b"new")


def _refuses_other_keys(wire: Wire) -> None:
    for key in ("../outside", "a/../b", "a/./b", "a//b", ".hidden", "a/.hidden", "a b", "a\\b", "%2e%2e/outside", "x" * 201):
        reply = wire.put(quote(key, safe="/%"), b"x")
        assert 400 <= reply.status < 500, f"PUT of {key!r}, which is no key, should be refused with 400, not answered with {reply.status}"


def _is_not_led_astray_by_a_refused_put(wire: Wire) -> None:
    body = f"GET {wire.base}?about HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in put_headers(body, len(body)).items())
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(SECONDS)
        raw.connect(wire.path)
        with raw.makefile("rb") as stream:
            raw.sendall(f"PUT {wire.base}.hidden HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode() + body)
            assert _next_status(stream) == 400, "PUT of '.hidden', which is no key, should be refused with 400"
            with contextlib.suppress(OSError):
                raw.sendall(f"GET {wire.base}packs/ab/none HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert _next_status(stream) in (None, 404), (
                "what follows a PUT that was refused is answered wrong: its body was taken for the next request; "
                "read it to its end, or close the connection after the answer"
            )


def _next_status(stream: IO[bytes]) -> int | None:
    """The status of the next answer, of which nothing is left in ``stream``; None where the connection has ended."""
    try:
        line = stream.readline()
        if not line:
            return None
        status = int(line.split()[1])
        stream.read(int(http.client.parse_headers(stream).get("Content-Length", "0")))
        return status
    except ConnectionError:
        return None
    except TimeoutError as error:
        raise AssertionError(f"no whole answer within {SECONDS:.0f} s") from error
    except (ValueError, IndexError, http.client.HTTPException) as error:
        raise AssertionError(f"no answer that is HTTP ({type(error).__name__}: {error})") from error


def _takes_a_full_pack(wire: Wire) -> None:
    data = os.urandom(1 << 20) * (_LARGE >> 20)
    wire.made("packs/00/full", data)
    assert wire.ask("GET", "packs/00/full").body == data, f"an object of {_LARGE} bytes comes back with other bytes"


@dataclass(frozen=True, slots=True)
class WireCase:
    """One thing that must hold on the wire."""

    name: str
    run: Callable[[Wire], None]

    def __str__(self) -> str:
        return self.name


WIRE_CASES: tuple[WireCase, ...] = tuple(
    WireCase(function.__name__.strip("_"), function)
    for function in (
        _says_what_it_is,
        _keeps_what_it_is_given,
        _answers_head,
        _says_what_is_missing,
        _never_replaces,
        _lets_one_of_many_win,
        _refuses_what_the_digest_denies,
        _keeps_nothing_of_a_put_that_broke_off,
        _gives_ranges,
        _says_where_an_object_ends,
        _lists_in_order,
        _lists_by_pages,
        _deletes,
        _refuses_other_keys,
        _is_not_led_astray_by_a_refused_put,
        _takes_a_full_pack,
    )
)
