#!/usr/bin/python3
"""A snapferry storage module that keeps objects as files below a directory. Python's standard library alone; docs/modules.md is what it follows.

Objects are written to a file of their own, synced, and given their name by link(2), which never replaces; then the directory is synced.
Memory does not grow with an object: bytes go between socket and file piece by piece.
"""

import base64
import binascii
import contextlib
import errno
import hashlib
import json
import os
import re
import socketserver
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

ROOT = os.environ["SNAPFERRY_DIRECTORY"]
PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", re.ASCII)
PIECE = 1 << 18
PAGE = 1000
TEMPORARY = "tmp"
STALE = 86_400
"""Seconds after which nobody works on a temporary file any more: no put is given more than minutes, and a day hides what clocks differ by."""

ABOUT = {"protocol": 1, "exclusive_create": True, "consistent_list": True, "durable": True, "concurrency": 8}


class Refused(Exception):
    """An answer other than the wished one: status and reason."""


class Module(BaseHTTPRequestHandler):
    """One connection; the requests on it come one after another."""

    protocol_version = "HTTP/1.1"
    wbufsize = PIECE  # head and small bodies leave together

    def do_GET(self):
        self.serve(self.get)

    def do_HEAD(self):
        self.serve(self.get)

    def do_PUT(self):
        self.serve(self.put)

    def do_DELETE(self):
        self.serve(self.delete)

    def serve(self, method):
        try:
            method(urlsplit(self.path))
        except Refused as refused:
            self.close_connection = self.command == "PUT"  # its body may be unread
            self.answer(refused.args[0], json.dumps({"title": refused.args[1]}).encode())
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            self.close_connection = True  # who knows what of the request was read
            self.answer(507 if full else 500, json.dumps({"title": "it cannot be kept or read", "detail": str(error)}).encode())

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def get(self, url):
        if url.path.endswith("/"):
            return self.about(url.path, url.query)
        try:
            file = open(path_of(url.path[1:]), "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Refused(404, "there is no such object") from None
        with file:
            size = os.fstat(file.fileno()).st_size
            begin, end = 0, size
            asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if asked and any(asked.groups()):
                first, last = asked.groups()
                begin, end = (int(first), min(int(last) + 1 if last else size, size)) if first else (max(0, size - int(last)), size)
                if begin >= size or begin >= end:
                    return self.answer(416, Content_Range=f"bytes */{size}")
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(end - begin))
            self.end_headers()
            if self.command == "GET":
                self.wfile.flush()
                if end > begin:
                    self.connection.sendfile(file, begin, end - begin)

    def about(self, above, query):
        words = parse_qs(query, keep_blank_values=True)
        if "about" in words:
            return self.answer(200, json.dumps(ABOUT).encode())
        prefix, after = words.get("prefix", [""])[0], words.get("after", [""])[0]
        limit = min(int(words.get("limit", [PAGE])[0]), PAGE)
        base = above[1:]
        if above[1:] + prefix:
            path_of((base + prefix).rstrip("/"))  # refuses what is no prefix
        objects, more = [], False
        for key, size in walk(base + prefix, base + after if after else ""):
            if len(objects) == limit:
                more = True
                break
            objects.append({"key": key[len(base) :], "size": size})
        return self.answer(200, json.dumps({"objects": objects, "more": more}).encode())

    def put(self, url):
        key = url.path[1:]
        path = path_of(key)
        length = self.headers.get("Content-Length", "")
        digest = re.fullmatch(r"sha-256=:([A-Za-z0-9+/=]+):", self.headers.get("Content-Digest", ""))
        if not re.fullmatch(r"[0-9]{1,18}", length) or not digest or self.headers.get("If-None-Match") != "*":
            raise Refused(400, "a put needs Content-Length, Content-Digest (sha-256) and If-None-Match: *")
        left = int(length)
        temporary = os.path.join(ROOT, TEMPORARY, os.urandom(16).hex())
        try:
            hashed = hashlib.sha256()
            with open(temporary, "xb", buffering=0) as file:
                while left:
                    piece = self.rfile.read1(min(left, PIECE))
                    if not piece:
                        raise ConnectionResetError("the body broke off")
                    hashed.update(piece)
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
                    left -= len(piece)
                os.fsync(file.fileno())
            if hashed.digest() != decoded(digest[1]):
                raise Refused(400, "the bytes are not what Content-Digest says")
            make_directory(os.path.dirname(path))
            try:
                os.link(temporary, path)
                status = 201
            except FileExistsError:
                status = 412
            sync(os.path.dirname(path))  # also for 412: another put may have made the name, and not synced it yet
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        self.answer(status)

    def delete(self, url):
        path = path_of(url.path[1:])
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            os.unlink(path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            sync(os.path.dirname(path))  # also where it was gone: who removed it may not have synced it yet
        self.answer(204)

    def log_message(self, format, *values):
        """Errors raise; what went well needs no line."""

    def address_string(self):
        return "snapferry"


def decoded(text):
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refused(400, "Content-Digest is no base64") from None


def path_of(key):
    """The file of an object. No part is empty, hidden, ``.`` or ``..``, so nothing outside of the directory has a key."""
    parts = key.split("/")
    if parts[0] == TEMPORARY or not all(PART.fullmatch(part) for part in parts):
        raise Refused(400, "that is no key")
    return os.path.join(ROOT, *parts)


def walk(prefix, after):
    """(key, size) below a prefix and after a key, in the order of bytes: a directory sorts as its name and a slash."""
    try:
        with os.scandir(os.path.join(ROOT, prefix)) as entries:
            names = sorted((entry.name + "/" * entry.is_dir(), entry) for entry in entries if PART.fullmatch(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, entry in names:
        key = prefix + name
        if name.endswith("/"):
            if key != TEMPORARY + "/" and (key > after or after.startswith(key)):
                yield from walk(key, after)
        elif key > after:
            try:
                yield key, entry.stat().st_size
            except FileNotFoundError:
                continue  # deleted meanwhile


known = {ROOT}


def make_directory(path):
    """Makes a directory and those above it. One whose name somebody else has made may not be synced yet, so each is synced here, once."""
    if path not in known:
        above = os.path.dirname(path)
        make_directory(above)
        os.makedirs(path, 0o700, exist_ok=True)
        sync(above)
        known.add(path)


def sync(directory):
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A thread for each connection; snapferry opens few, and uses them again."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """A client that went away in the middle is nothing to talk about."""


def clear_away():
    """Removes what puts left that a kill broke off, if it is old: the young may be of another process on the same directory, which still writes."""
    with os.scandir(os.path.join(ROOT, TEMPORARY)) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process clears away, too
                if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < time.time() - STALE:
                    os.unlink(entry.path)


if __name__ == "__main__":
    os.makedirs(os.path.join(ROOT, TEMPORARY), exist_ok=True)
    clear_away()
    with Server(os.environ["SNAPFERRY_SOCKET"], Module) as server:
        server.serve_forever()
