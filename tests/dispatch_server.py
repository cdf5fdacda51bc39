"""A dispatch system on loopback: checks signatures, keeps what it gets by webhook-id, and misbehaves as told.

As a fixture: `with DispatchServer(secret) as server`. From scripts: `python -m tests.dispatch_server --port 0 --secret … --state FILE`.
Signatures are checked with the reference library, not with ours.
"""
from __future__ import annotations

import argparse
import base64
import contextlib
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

from standardwebhooks.webhooks import Webhook


@dataclass(frozen=True)
class Behaviour:
    """What to do with one request: keep it or not, wait, then hang up without an answer or answer."""

    status: int = 200
    record: bool = True
    hang: float = 0.0
    drop: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # None = JSON with a service_request_id


OK = Behaviour()
ERROR_500 = Behaviour(status=500, record=False)
DROP_BEFORE_RECORDING = Behaviour(drop=True, record=False)
DROP_AFTER_RECORDING = Behaviour(drop=True)


def hang(seconds: float) -> Behaviour:
    return Behaviour(hang=seconds)


@dataclass(frozen=True)
class Event:
    """One distinct message, as first recorded."""

    id: str
    type: str
    ticket_number: str
    payload: dict[str, Any]


class DispatchServer:
    """Thread-safe. `plan()` sets the behaviours of the next requests; `rule` decides per message and comes first."""

    def __init__(self, secret: str, *, port: int = 0, state: Path | None = None, tolerance: float = 300) -> None:
        self.secret, self.tolerance, self.state = secret, tolerance, state
        self.rule: Callable[[str, dict[str, Any]], Behaviour | None] | None = None
        self.default = OK
        self.bad_signatures = 0
        self.requests: list[str] = []  # webhook-id of every request with a good signature, in order of arrival
        self.forms: list[dict[str, str]] = []  # GeoReport v2: POST /requests.json
        self.overlaps: list[str] = []  # ids that two requests carried at the same moment
        self._events: dict[str, Event] = {}
        self._planned: list[Behaviour] = []
        self._present: Counter[str] = Counter()
        self._lock = threading.Lock()
        if state is not None and state.exists():
            for line in state.read_text(encoding="utf-8").splitlines():
                kept = json.loads(line)
                self._keep(kept["id"], kept["payload"], write=False)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> DispatchServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/events"

    @property
    def base_url(self) -> str:
        return self.url.removesuffix("/events")

    @property
    def events(self) -> list[Event]:
        """Distinct messages in the order they were first recorded."""
        with self._lock:
            return list(self._events.values())

    def plan(self, *behaviours: Behaviour) -> None:
        with self._lock:
            self._planned.extend(behaviours)

    def tickets(self) -> dict[str, dict[str, Any]]:
        """`data` of ticket.created by ticket number, with later changes laid over it."""
        merged: dict[str, dict[str, Any]] = {}
        for event in self.events:
            merged.setdefault(event.ticket_number, {}).update(event.payload["data"])
        return merged

    def counts(self) -> dict[str, int]:
        """How many distinct ticket.created ids each ticket has; anything but 1 is a fault."""
        return dict(Counter(event.ticket_number for event in self.events if event.type == "ticket.created"))

    def attempts(self, webhook_id: str) -> int:
        with self._lock:
            return self.requests.count(webhook_id)

    # -- used by the handler --------------------------------------------------------------------------------------

    def signature_fits(self, headers: dict[str, str], body: bytes) -> bool:
        given, timestamp = headers.get("webhook-signature", "").split(" "), headers.get("webhook-timestamp", "")
        fits = timestamp.isdecimal() and abs(time.time() - int(timestamp)) <= self.tolerance
        if fits:
            moment = datetime(1970, 1, 1) + timedelta(seconds=int(timestamp))  # the library takes naive times as UTC
            expected = [key.sign(headers.get("webhook-id", ""), moment, body.decode()) for key in self._keys()]
            fits = any(hmac.compare_digest(mine, theirs) for mine in expected for theirs in given)
        if not fits:
            with self._lock:
                self.bad_signatures += 1
        return fits

    def _keys(self) -> list[Webhook]:
        if self.secret.startswith("whsec_"):
            return [Webhook(self.secret)]
        keys = [Webhook(self.secret.encode())]
        with contextlib.suppress(ValueError, RuntimeError):
            keys.append(Webhook(base64.b64decode(self.secret, validate=True)))
        return keys

    @contextlib.contextmanager
    def receiving(self, webhook_id: str, payload: dict[str, Any]) -> Iterator[Behaviour]:
        with self._lock:
            self.requests.append(webhook_id)
            self._present[webhook_id] += 1
            if self._present[webhook_id] > 1:
                self.overlaps.append(webhook_id)
            chosen = self.rule(webhook_id, payload) if self.rule else None
            behaviour = chosen or (self._planned.pop(0) if self._planned else self.default)
            if behaviour.record:
                self._keep(webhook_id, payload, write=True)
        try:
            yield behaviour
        finally:
            with self._lock:
                self._present[webhook_id] -= 1

    def keep_form(self, form: dict[str, str]) -> None:
        with self._lock:
            self.forms.append(form)

    def _keep(self, webhook_id: str, payload: dict[str, Any], *, write: bool) -> None:
        if webhook_id in self._events:
            return
        self._events[webhook_id] = Event(webhook_id, payload["type"], payload["data"]["ticket_number"], payload)
        if write and self.state is not None:
            with self.state.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": webhook_id, "payload": payload}, ensure_ascii=False) + "\n")


def _handler_for(dispatch: DispatchServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.endswith("/requests.json"):
                dispatch.keep_form(dict(parse_qsl(body.decode(), keep_blank_values=True)))
                return self._answer(201, b'[{"service_request_id": 311001}]', {})
            headers = {name.lower(): value for name, value in self.headers.items()}
            if not dispatch.signature_fits(headers, body):
                return self._answer(401, b"{}", {})
            payload = json.loads(body)
            with dispatch.receiving(headers["webhook-id"], payload) as behaviour:
                time.sleep(behaviour.hang)
            if behaviour.drop:
                self.close_connection = True
                return None
            known = json.dumps({"service_request_id": "SR-" + payload["data"]["ticket_number"]}).encode()
            return self._answer(behaviour.status, known if behaviour.body is None else behaviour.body, behaviour.headers)

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            with contextlib.suppress(OSError):  # the caller may have given up waiting
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet: the messages hold residents' words."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--state", type=Path)
    given = parser.parse_args()
    with DispatchServer(given.secret, port=given.port, state=given.state) as server:
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
