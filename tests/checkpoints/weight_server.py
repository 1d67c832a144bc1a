"""A local HTTP server with one file, which behaves like the Hub, a plain server, or badly."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STATUS = {"gated": 403, "login": 401, "missing": 404, "broken": 500, "private": 401}


@dataclass
class WeightServer:
    """What the server sends, and what it was asked for.

    Attributes:
        content: the file; all paths lead to it.
        behavior: "ok", "cut" (each connection ends after a third of the file), "endless",
            "redirect" (once, to another path), "stall" or a key of `STATUS`.
        requests: method, path and `Range` of each request.
        tokens: `Authorization` of each request.
    """

    content: bytes
    behavior: str = "ok"
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    url: str = ""
    release: threading.Event = field(default_factory=threading.Event)

    def ranges(self) -> list[str | None]:
        """Return the `Range` headers of the downloads."""
        return [span for method, _, span in self.requests if method == "GET"]


def _handler(server: WeightServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            span = self.headers.get("Range")
            if self.path.startswith("/api/"):  # which huggingface_hub asks for on its own
                self.send_error(404)
                return
            server.requests.append((self.command, self.path, span))
            server.tokens.add(self.headers.get("Authorization"))
            if server.behavior in STATUS:
                self.send_response(STATUS[server.behavior])
                codes = {
                    "gated": "GatedRepo",
                    "missing": "EntryNotFound",
                    "private": "RepoNotFound",
                }
                if server.behavior in codes:
                    self.send_header("X-Error-Code", codes[server.behavior])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if server.behavior == "redirect" and "/moved/" not in self.path:
                self.send_response(302)
                self.send_header("Location", "/moved/" + self.path.rpartition("/")[2])
                self.hub_headers()
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
            content = server.content[start:]
            self.send_response(206 if span else 200)
            self.hub_headers()
            if span:
                size = len(server.content)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            if server.behavior == "endless" and body:
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                while not server.release.is_set():
                    self.wfile.write(b"\0" * 65536)
                return
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not body:
                return
            if server.behavior == "cut" and len(content) > len(server.content) // 3:
                self.wfile.write(content[: len(server.content) // 3])
                self.close_connection = True
                return
            if server.behavior == "stall":
                self.wfile.write(content[:1000])
                self.wfile.flush()
                server.release.wait(30)
                content = content[1000:]
            self.wfile.write(content)

        def hub_headers(self) -> None:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(server.content).hexdigest()}"')
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(server.content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(server.content)))

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: the client has gone."""


@contextmanager
def serve(content: bytes, behavior: str = "ok") -> Iterator[WeightServer]:
    """Run a server until the body ends."""
    server = WeightServer(content, behavior)
    with _Server(("127.0.0.1", 0), _handler(server)) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            http.shutdown()
            thread.join()
