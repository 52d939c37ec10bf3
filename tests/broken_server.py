"""An HTTP server that does what it is told, request by request: a network's edge for tests, over real sockets."""

import re
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread, main_thread


class Server(ThreadingHTTPServer):
    """Serves `content` under every path; what `plan` holds comes before, an answer a request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = bytes(range(256)) * 1200
        self.etag = '"first"'
        self.plan: list[Answer] = []
        self.always: Answer = honest
        self.asked: list[str | None] = []
        """The Range of each request."""
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Does what the server's plan says."""

    server: Server
    body = b""

    def do_GET(self) -> None:
        self.server.asked.append(self.headers["Range"])
        self.server.paths.append(f"{self.command} {self.path}")
        (self.server.plan.pop(0) if self.server.plan else self.server.always)(self)

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.do_GET()

    def log_message(self, *words: object) -> None:
        """Say nothing."""

    def send(self, status: int, body: bytes = b"", **headers: str | None) -> None:
        """Answer; a header that is None is left out."""
        self.send_response(status)
        defaults: dict[str, str | None] = {"Content_Length": str(len(body)),
                                           "Content_Type": "application/octet-stream"}
        for name, value in (defaults | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


Answer = Callable[[Handler], None]


@contextmanager
def served() -> Iterator[Server]:
    """A server in a thread, for the block."""
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def honest(handler: Handler) -> None:
    """As a server should: the rest for a Range whose If-Range still holds, else all of it."""
    whole, etag = handler.server.content, handler.server.etag
    start = _start(handler) if handler.headers["If-Range"] in (None, etag) else 0
    if start >= len(whole) > 0:
        return handler.send(416, Content_Range=f"bytes */{len(whole)}")
    if start:
        return handler.send(206, whole[start:], ETag=etag or None,
                            Content_Range=f"bytes {start}-{len(whole) - 1}/{len(whole)}")
    return handler.send(200, whole, ETag=etag or None)


def breaks_after(num_bytes: int, *, hard: bool = False) -> Answer:
    """An honest answer that ends so many bytes on; `hard` by a reset."""
    def answer(handler: Handler) -> None:
        whole, etag = handler.server.content, handler.server.etag
        start = _start(handler)
        status, where = (206, f"bytes {start}-{len(whole) - 1}/{len(whole)}") if start else (200, None)
        handler.send(status, whole[start : start + num_bytes], Content_Length=str(len(whole) - start),
                     Content_Range=where, ETag=etag or None)
        handler.wfile.flush()
        if hard:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
    return answer


def interrupts(part: Path, stop: Event) -> Answer:
    """Half an answer, and Ctrl-C for the main thread once the first bytes of it are in the part."""
    def answer(handler: Handler) -> None:
        breaks_after(len(handler.server.content) // 2)(handler)
        handler.wfile.flush()
        while not (part.exists() and part.stat().st_size) and not stop.wait(0.01):
            pass
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
        stop.wait(20)
    return answer


def status(code: int, body: bytes = b"", **headers: str | None) -> Answer:
    """An answer of a status, with headers."""
    return lambda handler: handler.send(code, body, **headers)


def all_of_it(handler: Handler) -> None:
    """200 with all of it, whatever was asked for."""
    handler.send(200, handler.server.content, ETag=handler.server.etag or None)


def announces(difference: int) -> Answer:
    """All of it, with a Content-Length that is so much off."""
    return lambda handler: handler.send(200, handler.server.content, ETag=handler.server.etag or None,
                                        Content_Length=str(len(handler.server.content) + difference))


def _start(handler: Handler) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "bytes=0-")
    assert match, handler.headers["Range"]
    return int(match[1])
