"""As much of S3 as snapferry asks for, over a directory, at a quarter of the processor time of the server that the tests use.

    python benches/lean_s3.py ADDRESS DIRECTORY      # prints its URL; ends with its standard input

Where client and servers share two processors, a server that hashes all it takes is what would be measured. Bodies go between socket and file in the
kernel. It looks at no signature, verifies no checksum (and says it did), and syncs nothing: for benches alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from snapferry.testing.http_streams import Pipe, read_head
from snapferry.testing.http_wire import Request, header

_PAGE = 1000
_REASONS = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    404: "Not Found",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
}
_CODES = {404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}
_ETAG = 'ETag: "0123456789abcdef0123456789abcdef"'


class _Connection:
    """One client."""

    def __init__(self, root: Path, client: socket.socket, pipe: Pipe) -> None:
        self._root = root
        self._client = client
        self._pipe = pipe

    def serve(self) -> None:
        """One request."""
        head, rest = read_head(self._client)
        request = Request(head)
        parts = urlsplit(request.target)
        path = self._root / unquote(parts.path).strip("/")
        if request.method == "PUT":
            self._put(request, path, rest)
        elif request.method == "DELETE":
            path.unlink(missing_ok=True)
            self._answer(204)
        elif "list-type" in (asked := parse_qs(parts.query)):
            self._list(path, asked.get("prefix", [""])[0], asked.get("continuation-token", [""])[0])
        else:
            self._get(request, path)

    def _answer(self, status: int, *lines: str, body: bytes = b"", length: int | None = None) -> None:
        if status in _CODES:
            body = f"<Error><Code>{_CODES[status]}</Code><Message>{_REASONS[status]}</Message></Error>".encode()
        size = len(body) if length is None else length
        text = "\r\n".join([f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Length: {size}", *lines, "", ""])
        self._client.sendall(text.encode() + body)

    def _put(self, request: Request, path: Path, rest: bytes) -> None:
        if (header(request.head, "expect") or "").lower() == "100-continue":
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._root / f".{threading.get_native_id()}"
        with open(temporary, "wb", buffering=0) as file:
            file.write(rest)
            self._pipe.pass_on(self._client, file, request.length - len(rest))
        try:
            if header(request.head, "if-none-match") == "*":
                os.link(temporary, path)
            else:
                os.replace(temporary, path)
        except FileExistsError:
            self._answer(412)
        else:
            sum_ = header(request.head, "x-amz-checksum-crc32")
            self._answer(200, _ETAG, *([f"x-amz-checksum-crc32: {sum_}"] if sum_ else []))
        finally:
            temporary.unlink(missing_ok=True)

    def _get(self, request: Request, path: Path) -> None:
        try:
            file = path.open("rb", buffering=0)
        except (FileNotFoundError, IsADirectoryError):
            # No body answers a HEAD.
            if request.method == "HEAD":
                self._client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            else:
                self._answer(404)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            asked = re.fullmatch(r"bytes=(\d*)-(\d*)", header(request.head, "range") or "")
            begin, end = 0, size
            if asked:
                begin = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
                end = min(size, int(asked[2]) + 1) if asked[1] and asked[2] else size
                if begin >= size:
                    self._answer(416)
                    return
            lines = [_ETAG, *([f"Content-Range: bytes {begin}-{end - 1}/{size}"] if asked else [])]
            self._answer(206 if asked else 200, *lines, length=end - begin)
            if request.method == "GET":
                self._client.sendfile(file, begin, end - begin) if end > begin else None

    def _list(self, bucket: Path, prefix: str, after: str) -> None:
        top = bucket / prefix.rpartition("/")[0]
        found = ((Path(at) / name for name in names) for at, _, names in os.walk(top))
        keys = sorted(
            key for key in (str(path.relative_to(bucket)) for paths in found for path in paths) if key.startswith(prefix) and key > after
        )
        page = keys[:_PAGE]
        sizes = [(key, (bucket / key).stat().st_size) for key in page]
        entries = "".join(f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size></Contents>" for key, size in sizes)
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(keys) > _PAGE else ""
        truncated = "true" if more else "false"
        body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{entries}</ListBucketResult>"
        self._answer(200, "Content-Type: application/xml", body=body.encode())


def _serve(root: Path, client: socket.socket) -> None:
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError, EOFError):
        stack.enter_context(client)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(root, client, Pipe(stack))
        while True:
            connection.serve()


def _accept(listener: socket.socket, root: Path) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_serve, args=(root, client), daemon=True).start()


def main() -> None:
    """See the module."""
    address, directory = sys.argv[1:]
    listener = socket.create_server((address, 0), backlog=256)
    print(f"http://{address}:{listener.getsockname()[1]}", flush=True)
    threading.Thread(target=_accept, args=(listener, Path(directory)), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
