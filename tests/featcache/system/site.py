"""A server on this machine that misbehaves on request."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(kw_only=True)
class Page:
    """What the server has under one path, and how it behaves."""

    content: bytes = b""
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    stop: int | None = None
    """Bytes after which the connection ends."""
    hang: bool = False
    """Whether it stays open without a byte more, instead of ending."""
    deaf: bool = False
    """Whether it gives the range asked for, of whatever file it has by now."""
    status: int = 200
    length: bool = True
    headers: dict[str, str] = field(default_factory=dict)


class Site:
    """A server on 127.0.0.1, its pages, and what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, Message]] = []
        self.free = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def ranges(self) -> list[str | None]:
        return [headers["Range"] for _, headers in self.asked]

    def url(self, path: str = "/model.npz") -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def close(self) -> None:
        self.free.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _handler(site) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, self.headers))
                site._answer(self, site.pages.get(self.path, Page(status=404)))

            def log_message(self, *_: object) -> None: ...

        return Handler

    def _answer(self, to: BaseHTTPRequestHandler, page: Page) -> None:
        start, size = self._start(to, page), len(page.content)
        to.send_response(206 if start else page.status)
        for name, value in page.headers.items():
            to.send_header(name, value)
        if page.etag:
            to.send_header("ETag", page.etag)
        if page.modified:
            to.send_header("Last-Modified", page.modified)
        if start:
            to.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if page.length:
            to.send_header("Content-Length", str(size - start))
        to.end_headers()
        body = page.content[start : page.stop]
        with suppress(ConnectionError):  # of a client that has read enough, or was killed
            to.wfile.write(body)
        if page.hang:
            self.free.wait(20)

    def _start(self, to: BaseHTTPRequestHandler, page: Page) -> int:
        asked, same = to.headers["Range"], to.headers["If-Range"]
        if (
            asked is None
            or page.status != 200
            or not page.ranges
            or not (page.deaf or same in (None, page.etag, page.modified))
        ):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The server; no other machine can be reached, whatever proxy is set."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: Any) -> None:
        assert address[0] == "127.0.0.1", f"the real network was asked: {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    monkeypatch.setenv("no_proxy", "*")
    server = Site()
    try:
        yield server
    finally:
        server.close()
