"""A small HTTP server on loopback that answers each request with what one function says: the ground of the simulated platforms."""
from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

JSON = "application/json; charset=utf-8"
_MAX_BODY = 12 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def host(self) -> str:
        return self.headers.get("Host", "")


@dataclass(frozen=True)
class Answer:
    kind: str
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: Any) -> Answer:
    return Answer(JSON, json.dumps(value, ensure_ascii=False).encode())


class LoopbackServer(ThreadingHTTPServer):
    request_queue_size = 128  # many threads connect at once
    daemon_threads = True

    def __init__(self, answer: Callable[[Request], Answer], *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> str:
        """Its address."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self.url

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that was killed is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackServer

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > _MAX_BODY:
            return self._send(Answer("text/plain", b"", 413))
        return self._answer(self.rfile.read(length))

    def _answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self._send(self.server.answer(Request(self.command, url.path, query, self.headers, body)))  # type: ignore[arg-type]

    def _send(self, answer: Answer) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # tests let the caller hang up
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
