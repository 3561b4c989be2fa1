"""Serve the metrics of a process that has no web application, in a thread of its own."""

import socket
import threading
import time
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from runtime import metrics
from runtime.logs import log

logger = log(__name__)

# Try again so often to bind a port that another process holds: its former owner may be draining.
BIND_RETRY_SECONDS: Final = 1.0
CLIENT_TIMEOUT_SECONDS: Final = 30.0
_TEXT: Final = "text/plain; charset=utf-8"


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_SECONDS
    protocol_version = "HTTP/1.1"
    server_version = "coordinator"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name in the base class
        """Write no access log, like the web."""

    def _answer(self, *, with_body: bool) -> None:
        status, kind, body = _page(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _page(path: str) -> tuple[int, str, bytes]:
    match path:
        case "/metrics":
            body, kind = metrics.render()
            return 200, kind, body
        case "/health/live":
            return 200, "application/json", b'{"status":"alive"}'
        case _:
            return 404, _TEXT, b"This process serves /metrics and /health/live only\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        del request
        logger.debug("metrics client failed", client=str(client_address))


def serve_metrics(*, host: str = "127.0.0.1", port: int = 0, fd: int | None = None) -> "Future[tuple[str, int]]":
    """Serve /metrics and /health/live on the socket ``fd``, or on host and port, until the process ends.

    Returns at once, with the address as it will be known. A port in use is tried again every second: metrics must not
    keep a process from its work.
    """
    bound: Future[tuple[str, int]] = Future()

    def serve() -> None:
        listener = _listen(host, port) if fd is None else socket.socket(fileno=fd)
        server = _Server(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = listener
        bound.set_result(listener.getsockname()[:2])
        server.serve_forever()

    threading.Thread(target=serve, name="metrics", daemon=True).start()
    return bound


def _listen(host: str, port: int) -> socket.socket:
    logged = False
    while True:
        try:
            listener = socket.create_server((host, port), family=_family(host), backlog=16)
        except OSError as error:
            if not logged:
                logger.warning("metrics port not bound; tried again", host=host, port=port, error=error.strerror)
            logged = True
            time.sleep(BIND_RETRY_SECONDS)
        else:
            logger.info("metrics served", host=host, port=listener.getsockname()[1])
            return listener


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
