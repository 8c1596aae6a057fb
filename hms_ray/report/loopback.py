"""A web server for the person at this machine: one loopback address, its own name alone.

Every page that this program serves goes through ``serve``. A page of another site cannot read
the answers: a name that an attacker points to 127.0.0.1 (DNS rebinding) still stands in the Host
header of the request, and such requests are refused.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from hms_ray.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from werkzeug.serving import BaseWSGIServer

ADDRESS: Final = "127.0.0.1"
NAMES: Final = (ADDRESS, "localhost", "[::1]")
"""Host names of this machine for itself, as they stand in a Host header."""


def serve(app: WSGIApplication, *, port: int | None = None, path: str = "/") -> None:
    """Serves an application until Ctrl-C or SIGTERM, and prints its address.

    Args:
        app: WSGI application; it is called by several threads at once.
        port: of this machine; None: a free one.
        path: of the page to print, with its query and fragment.

    Raises:
        ResourceError: if the port cannot be used.
    """
    try:
        with _stop_quietly(), running(app, port=port) as address:
            # Flushed: whoever started this in the background waits for the line.
            print(f"{address}{path}\nCtrl-C ends it", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print()


@contextmanager
def running(app: WSGIApplication, *, port: int | None = None) -> Iterator[str]:
    """Serves an application in threads of this process while a block runs.

    Args:
        app: WSGI application.
        port: of this machine; None: a free one.

    Yields:
        The address without a path, such as ``http://127.0.0.1:6006``.

    Raises:
        ResourceError: if the port cannot be used.
    """
    # A server of werkzeug ends the process if it cannot bind a port itself.
    with closing(_bound(port or 0)) as bound:
        found = int(bound.getsockname()[1])
        server = _server(OwnNamesOnly(app, found), found, bound)
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield f"http://{ADDRESS}:{found}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class OwnNamesOnly:
    """An application that answers only requests for this machine's own names.

    Args:
        app: the application behind it.
        port: of its server.
    """

    def __init__(self, app: WSGIApplication, port: int) -> None:
        self._app = app
        self._port = port
        hosts = {f"{name}:{port}" for name in NAMES}
        # Clients leave the default port out.
        self._hosts = hosts | set(NAMES) if port == 80 else hosts

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers 403 to a request with another Host header, or without one."""
        host = environ.get("HTTP_HOST", "")
        if host.lower() in self._hosts:
            return self._app(environ, start_response)
        text = (
            f"The Host header must be {ADDRESS}:{self._port} or localhost:{self._port}. "
            f"From another machine, forward the same port: "
            f"ssh -L {self._port}:{ADDRESS}:{self._port} HOST\n"
        ).encode()
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))]
        start_response("403 Forbidden", headers)
        return [text]


def _bound(port: int) -> socket.socket:
    """A listening socket of this machine's loopback address."""
    try:
        return socket.create_server((ADDRESS, port), backlog=128)
    except (OSError, OverflowError) as error:
        # A number above 65,535 overflows.
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise ResourceError(
            "the port must be free",
            got=f"{port}: {reason}",
            where=ADDRESS,
            fix="Give another --port, or omit it for a free one.",
        ) from None


def _server(app: WSGIApplication, port: int, bound: socket.socket) -> BaseWSGIServer:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class _Handler(WSGIRequestHandler):
        """Without a line on the terminal for each request."""

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Prints nothing."""

    return make_server(
        ADDRESS, port, app, threaded=True, request_handler=_Handler, fd=bound.fileno()
    )


@contextmanager
def _stop_quietly() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise ``KeyboardInterrupt`` without a word: both are the normal end."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
