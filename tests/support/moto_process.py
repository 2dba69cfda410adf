"""moto's server as a process: as ``moto_server`` starts it, but that it takes one write after the other.

moto looks for an object and stores one in two steps that its threads run side by side, so that its conditional puts are none under load.
A server is only of use to these tests if a second create is refused every time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def one_write_at_a_time(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    lock = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start_response)
        with lock:
            return list(application(environ, start_response))

    return serve


if __name__ == "__main__":
    run_simple("127.0.0.1", 0, one_write_at_a_time(DomainDispatcherApplication(create_backend_app)), threaded=True)
