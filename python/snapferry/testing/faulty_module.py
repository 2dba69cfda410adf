"""A storage module that fails as modules do: each fault a class, named by what it does.

``/usr/bin/python3 faulty_module.py FAULT``, in a bare interpreter, as any module is run. It behaves well until a file ``armed`` lies in its
directory, so that a repository can be made first. What ``Probes`` finds out about its fences is written to ``probes.json`` there.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

DIRECTORY = os.environ.get("SNAPFERRY_DIRECTORY", "/")


class _Files:
    """Objects by path, each a file, so that they are there when the module is started again."""

    def names(self) -> list[str]:
        return sorted(name.replace("%", "/") for name in os.listdir(DIRECTORY) if name.startswith("%"))

    def get(self, key: str) -> bytes | None:
        try:
            with open(self._path(key), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def put(self, key: str, data: bytes) -> None:
        with open(self._path(key), "wb") as file:
            file.write(data)

    def remove(self, key: str) -> None:
        if self.get(key) is not None:
            os.unlink(self._path(key))

    def _path(self, key: str) -> str:
        return os.path.join(DIRECTORY, key.replace("/", "%"))


OBJECTS = _Files()


def is_armed() -> bool:
    """Whether the fault is wanted now."""
    return os.path.exists(os.path.join(DIRECTORY, "armed"))


class Fault(BaseHTTPRequestHandler):
    """None: a good module. The others change one of its steps."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Sends an answer."""
        if status != 204:
            headers["Content_Length"] = str(len(body))
        self.head(status, **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status: int, **headers: str) -> None:
        """Sends the beginning of an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self) -> None:
        """``?about``, a listing, or an object."""
        url = urlsplit(self.path)
        if not url.path.endswith("/"):
            self.give(url.path)
        elif "about" in url.query:
            self.about()
        else:
            self.listing(url.path, parse_qs(url.query))

    do_HEAD = do_GET

    def about(self) -> None:
        """What it is."""
        about = {"protocol": 1, "exclusive_create": True, "consistent_list": True, "durable": True, "concurrency": 4}
        self.reply(200, json.dumps(about).encode())

    def listing(self, base: str, words: dict[str, list[str]]) -> None:
        """All of it, in one page."""
        begin, after = base + words.get("prefix", [""])[0], base + words.get("after", [""])[0]
        found = [
            {"key": key[len(base) :], "size": len(OBJECTS.get(key) or b"")}
            for key in OBJECTS.names()
            if key.startswith(begin) and key > after
        ]
        self.reply(200, json.dumps({"objects": found, "more": False}).encode())

    def give(self, key: str) -> None:
        """Its bytes, or a range of them."""
        data = OBJECTS.get(key)
        if data is None:
            return self.reply(404)
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            return self.body(200, data)
        first, last = match.groups()
        begin = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last) + 1, len(data)) if first and last else len(data)
        if begin >= end:
            return self.reply(416, Content_Range=f"bytes */{len(data)}")
        return self.body(206, data[begin:end], Content_Range=f"bytes {begin}-{end - 1}/{len(data)}")

    def body(self, status: int, data: bytes, **headers: str) -> None:
        """Sends bytes of an object."""
        self.reply(status, data, **headers)

    def do_PUT(self) -> None:
        """Keeps an object."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        taken = OBJECTS.get(self.path) is not None
        if not taken:
            self.keep(data)
        self.reply(412 if taken else 201)

    def keep(self, data: bytes) -> None:
        """Keeps it."""
        OBJECTS.put(self.path, data)

    def do_DELETE(self) -> None:
        """Forgets it."""
        OBJECTS.remove(self.path)
        self.reply(204)

    def log_message(self, *values: object) -> None:
        """Says nothing."""

    def address_string(self) -> str:
        """Of the other side."""
        return ""


class FlipsABit(Fault):
    """In every body from a pack."""

    def body(self, status: int, data: bytes, **headers: str) -> None:
        if is_armed() and "/packs/" in self.path:
            data = data[:-4] + bytes([data[-4] ^ 1]) + data[-3:]
        super().body(status, data, **headers)


class NeverEndsABody(Fault):
    """Of any object: no length, and no end."""

    def body(self, status: int, data: bytes, **headers: str) -> None:
        if not is_armed():
            return super().body(status, data, **headers)
        self.head(status, **headers, Transfer_Encoding="chunked")
        while True:
            self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


class NeverEndsAListing(Fault):
    """Each page leads to the next."""

    def listing(self, base: str, words: dict[str, list[str]]) -> None:
        if not is_armed():
            return super().listing(base, words)
        prefix, after = words.get("prefix", [""])[0], words.get("after", [""])[0]
        number = int(after[len(prefix) :]) if after else 0
        found = [{"key": f"{prefix}{n:020d}", "size": 1} for n in range(number + 1, number + 1001)]
        return self.reply(200, json.dumps({"objects": found, "more": True}).encode())


class NeverAnswers(Fault):
    """Takes every request, and that is all."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        if is_armed():
            time.sleep(3600)
        super().reply(status, body, **headers)


class Trickles(Fault):
    """One byte a second."""

    def body(self, status: int, data: bytes, **headers: str) -> None:
        if not is_armed():
            return super().body(status, data, **headers)
        self.head(status, **headers, Content_Length=str(len(data)))
        for place in range(len(data)):
            self.wfile.write(data[place : place + 1])
            self.wfile.flush()
            time.sleep(1)
        return None


class DiesInAPut(Fault):
    """Every time, in the middle of the body."""

    def do_PUT(self) -> None:
        if is_armed():
            self.rfile.read(1)
            os.write(2, b"the tape is \x1b[31mtorn\x1b[0m\n")
            os._exit(3)
        super().do_PUT()


class DiesOnce(Fault):
    """In the middle of the first put; started again it works."""

    def do_PUT(self) -> None:
        if is_armed():
            os.unlink(os.path.join(DIRECTORY, "armed"))
            os._exit(3)
        super().do_PUT()


class KeepsNothing(Fault):
    """And says that it has."""

    def keep(self, data: bytes) -> None:
        if not is_armed():
            super().keep(data)


class KeepsHalf(Fault):
    """And says that it has all."""

    def keep(self, data: bytes) -> None:
        super().keep(data[: len(data) // 2] if is_armed() else data)


class SaysThatAllIsThere(Fault):
    """A put is refused as taken, of whatever key."""

    def do_PUT(self) -> None:
        if not is_armed():
            return super().do_PUT()
        self.rfile.read(int(self.headers["Content-Length"]))
        return self.reply(412)


class StaysBehind(Fault):
    """A child of it in a session of its own, which no signal but one moves. Its process id is in ``child``."""

    @staticmethod
    def begin() -> None:
        """Leaves it behind."""
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            if os.fork() == 0:
                time.sleep(3600)
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class EatsMemory(Fault):
    """In several processes, each below the limit of one."""

    def do_PUT(self) -> None:
        if is_armed():
            for _ in range(4):
                if os.fork() == 0:
                    kept = bytearray(48 << 20)
                    kept[::4096] = b"x" * len(kept[::4096])
                    time.sleep(3600)
            time.sleep(3600)
        super().do_PUT()


class AsksForMemory(Fault):
    """More than one process may have, at once."""

    def do_PUT(self) -> None:
        if is_armed():
            bytearray(512 << 20)
        super().do_PUT()


class TalksTooMuch(Fault):
    """On its error output."""

    @staticmethod
    def begin() -> None:
        """Says a great deal."""
        for _ in range(20_000):
            os.write(2, b"\x1b[2J" + b"la" * 4000 + b"\n")
        os.write(2, b"that is all\n")


class Probes(Fault):
    """Its fences: what a file tries (``fence_probes.py``) with what the arguments name, and the outcome of each written down."""

    @staticmethod
    def begin() -> None:
        """Tries all of it."""
        found = runpy.run_path(sys.argv[2])["probe"](DIRECTORY, json.loads(sys.argv[3]))
        with open(os.path.join(DIRECTORY, "probes.json"), "w") as file:
            json.dump(found, file)


class Misspeaks(Fault):
    """Answers ``?about`` with what the second argument says, and a listing with the status in the third."""

    def about(self) -> None:
        """Those words."""
        self.reply(200, sys.argv[2].encode())

    def listing(self, base: str, words: dict[str, list[str]]) -> None:
        """That status."""
        self.reply(int(sys.argv[3]))


class DiesAtOnce(Fault):
    """Before it listens."""

    @staticmethod
    def begin() -> None:
        """Dies."""
        os.write(2, b"no tape in drive 0\n")
        os._exit(7)


class NeverListens(Fault):
    """But runs."""

    @staticmethod
    def begin() -> None:
        """Waits."""
        time.sleep(3600)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """What is wanted to go wrong needs no trace."""


def main() -> None:
    """Serves with the fault that the first argument names."""
    fault = globals()[sys.argv[1]]
    if hasattr(fault, "begin"):
        fault.begin()
    with _Server(os.environ["SNAPFERRY_SOCKET"], fault) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
