"""The call desk for tests: its pages with a real model, a telephone system that posts turns, and a model that can be switched off."""
from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from flask import Flask
from staff_pages import StaffClient, staff_app
from werkzeug.test import TestResponse

from bot.assistant import Assistant, RemoteAssistant
from bot.call_desk import build_desk
from bot.services import Services
from bot.web import calls, desk, openapi, turns


def call_app(services: Services, assistant: Assistant) -> Flask:
    """The desk's pages and the machine API of calls, with the people of staff_pages."""
    call_desk = build_desk(services, assistant)
    machine = turns.create_blueprint(call_desk)
    app = staff_app(services, desk.create_blueprint(call_desk), calls.create_blueprint(call_desk), machine, openapi.create_blueprint())
    app.extensions["csrf"].exempt(machine)
    app.extensions["call_desk"] = call_desk
    return app


def as_turns(said: Sequence[tuple[str, str]], start: int = 0) -> list[dict[str, Any]]:
    return [{"turn_id": f"t{number}", "speaker": who, "text": text} for number, (who, text) in enumerate(said, start)]


@dataclass(frozen=True)
class Telephone:
    """The machine that posts what is said."""

    app: Flask

    def post(self, call_id: str, said: Sequence[tuple[str, str]] | list[dict[str, Any]], **more: Any) -> TestResponse:
        turns = [turn if isinstance(turn, dict) else {"speaker": turn[0], "text": turn[1]} for turn in said]
        return self.app.test_client().post(f"/api/calls/{call_id}/turns", json={"turns": turns, **more})

    def say(self, call_id: str, said: Sequence[tuple[str, str]] | list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        answer = self.post(call_id, said, **more)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.get_json()
        return body


def state_of(client: StaffClient, call_id: str, wanted: Callable[[dict[str, Any]], bool] = lambda state: True) -> dict[str, Any]:
    """The state of a call once its turns are read and it is as wanted."""
    until = time.monotonic() + 30
    while True:
        answer = client.get(f"/desk/calls/{call_id}/state")
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.get_json()
        if state["reading"]["state"] not in ("working", "slow") and wanted(state):
            return state
        assert time.monotonic() < until, state
        time.sleep(0.02)


def shown(state: dict[str, Any], *touched: str) -> dict[str, Any]:
    """What the page sends to file what it shows; `touched` are the fields a person set."""
    return {
        "forms": [
            {
                "values": {name: entry["value"] for name, entry in form["fields"].items()},
                "touched": [name for name, entry in form["fields"].items() if entry["touched"] or name in touched],
            }
            for form in state["forms"]
        ]
    }


def file_call(client: StaffClient, call_id: str) -> list[str]:
    answer = client.post(f"/desk/calls/{call_id}/file", json=shown(state_of(client, call_id)))
    assert answer.status_code == 200, answer.text
    numbers: list[str] = answer.get_json()["numbers"]
    return numbers


@dataclass
class ModelSwitch:
    """A Rasa server on loopback in front of the trained model: up, down (refuses), or taking its time until it is `free`."""

    port: int = 0
    up: bool = True
    asked: int = 0
    free: threading.Event = field(default_factory=threading.Event)

    def client(self, services: Services) -> RemoteAssistant:
        return RemoteAssistant(replace(services.settings, rasa_url=f"http://127.0.0.1:{self.port}"))


@contextmanager
def switched_model(assistant: Assistant) -> Iterator[ModelSwitch]:
    switch = ModelSwitch()
    switch.free.set()
    reading = threading.Lock()  # the embedded model is for one thread at a time

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            switch.asked += 1
            if not switch.up:
                self.send_error(503)
                return
            switch.free.wait()
            with reading:
                parsed = assistant.parse(body["text"])
            self.answer(json.dumps(parsed, default=float).encode())

        def do_GET(self) -> None:
            self.answer(json.dumps({"model_file": f"{assistant.serving_model()}.tar.gz"}).encode())

        def answer(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    switch.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield switch
    finally:
        switch.free.set()
        server.shutdown()
        server.server_close()
        thread.join()
