"""api.weixin.qq.com of the simulated platform over HTTP on loopback, and beside it whatever pages a demonstration adds."""
from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.wechat_sim.api import Api

# method, path, query, body → content type and body; None when there is no such page
Pages = Callable[[str, str, dict[str, str], bytes], "tuple[str, bytes] | None"]
JSON = "application/json; charset=utf-8"
_MAX_BODY = 12 * 1024 * 1024


def no_pages(_method: str, _path: str, _query: dict[str, str], _body: bytes) -> None:
    return None


class SimulatorServer(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, api: Api, pages: Pages = no_pages, *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.api, self.pages = api, pages

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> SimulatorServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that was killed is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SimulatorServer

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > _MAX_BODY:
            return self._send(413, "text/plain", b"")
        return self._answer("POST", self.rfile.read(length))

    def _answer(self, method: str, body: bytes) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if not url.path.startswith(("/cgi-bin/", "/video/")):
            return self._page(method, url.path, query, body)
        token = query.get("access_token", "")
        if method == "POST":
            return self._send(200, JSON, json.dumps(self.server.api.post(url.path, token, body)).encode())
        media_id, host = query.get("media_id", ""), self.headers.get("Host", "")
        return self._send(200, *self.server.api.get_media(url.path, token, media_id, host))

    def _page(self, method: str, path: str, query: dict[str, str], body: bytes) -> None:
        # Only for pages of this address: another site must not talk as a resident.
        foreign = self.headers.get("Origin", self.server.url) not in (self.server.url, self.server.url.replace("127.0.0.1", "localhost"))
        found = None if foreign else self.server.pages(method, path, query, body)
        self._send(*((200, *found) if found else (404, "text/plain", b"")))

    def _send(self, status: int, kind: str, answer: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass
