"""The residents' pages with a small assistant in Rasa's place, for tests of pages: `python tests/stub_app.py [PORT]` shows them.

Everything but the dialogue is real: database, tickets, conversation, cookies.
"""
from __future__ import annotations

import functools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from flask import Flask
from flask_wtf.csrf import CSRFProtect
from werkzeug.serving import make_server

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from bot.assistant import Bubble, Button, PreparedTurn, Turn, TurnResult
from bot.catalogue import Catalogue, load_catalogue
from bot.conversation import Conversations
from bot.gazetteer import Gazetteer, load_gazetteer
from bot.petition import Petition
from bot.schema import metadata
from bot.services import DATA_DIR, Services, services_of, utc_now
from bot.settings import load_settings
from bot.ticket import summary_of
from bot.web import STATIC, TEMPLATES, chat, errors, my, tracking, web_config, wechat_login
from bot.wechat_api import WeChatClient
from bot.wechat_media import MediaKeeper
from bot.wechat_pages import WeChatPages

CARD = "请核对：\n〔类别〕城乡建设 · 道路设施\n〔地点〕经开区山阳小区南门内\n〔紧急程度〕紧急\n〔诉求〕路面空鼓塌陷，请尽快围挡、修复"
SAID = "山阳小区南门里面的路面空鼓塌陷了，晚上看不见很危险，请尽快围挡、修复。我姓王，电话13812345678"


@dataclass(frozen=True)
class EchoTurn:
    services: Services
    turn: Turn

    def run(self) -> TurnResult:
        text = self.turn.text
        if text == "确认提交":
            return self._file()
        if text.startswith("慢"):
            time.sleep(1.5)
        if self.turn.kind != "text":
            return _says({"picture": "照片收到了。", "location": "位置收到了。", "scene": "这里是您扫的地方。"}[self.turn.kind])
        if "塌" in text:
            return _says(CARD, "确认提交", "修改", "匿名提交")
        return _says(f"您说的是：{text}", "查进度", "转人工")

    def _file(self) -> TurnResult:
        petition = road_petition(source=self.turn.metadata["source"])
        key = str(self.turn.metadata["message_id"])
        ticket = self.services.tickets.open_ticket(petition, request_key=key, conversation_id=self.turn.conversation_id)
        link = self.services.tickets.link(ticket.number, self.services.settings.base_url)
        text = f"已经登记，编号 {ticket.number}。{ticket.lead_department}会处理。\n随时查看进度：{link}"
        return _says(text, tickets=(summary_of(ticket),))


@dataclass(frozen=True)
class EchoAssistant:
    """Answers with the resident's own words, a confirmation card or a ticket."""

    concurrency: ClassVar[int] = 8

    services: Services

    def prepare(self, turn: Turn) -> PreparedTurn:
        return EchoTurn(self.services, turn)

    def parse(self, text: str) -> Mapping[str, Any]:
        return {"text": text}

    def serving_model(self) -> str:
        return "echo"


def _says(text: str, *titles: str, tickets: tuple[Mapping[str, Any], ...] = ()) -> TurnResult:
    return TurnResult((Bubble(text, tuple(Button(title, title) for title in titles)),), tickets, {})


def road_petition(**changes: Any) -> Petition:
    given: dict[str, Any] = {
        "id": "p1",
        "texts": (SAID,),
        "request_type": "求助",
        "urgency": "紧急",
        "place": {"text": "经开区山阳小区南门内", "district": "淮安经济技术开发区", "poi": "山阳小区"},
        "name": "王先生",
        "phone": "13812345678",
    }
    return Petition(**{**given, **changes})


def stub_services(directory: Path, *, now: Callable[[], datetime] = utc_now, **settings: str) -> Services:
    """A fresh database in `directory`; the city's data, which nobody changes, is read once for all tests."""
    chosen = load_settings({"MINSHENG_VAR_DIR": str(directory), **settings})
    built = services_of(chosen, now, *_city(chosen.city))
    metadata.create_all(built.engine)
    return built


@functools.cache
def _city(name: str) -> tuple[Catalogue, Gazetteer]:
    catalogue = load_catalogue(DATA_DIR, name)
    return catalogue, load_gazetteer(DATA_DIR, name, catalogue.city)


def create_stub_app(services: Services, *, limiter_check: Callable[[str], bool] = lambda _sender: True) -> Flask:
    app = Flask("stub", template_folder=str(TEMPLATES), static_folder=str(STATIC))
    app.config.update(web_config(services))
    csrf = CSRFProtect(app)
    client = WeChatClient(services)
    wechat, media = WeChatPages(services, client), MediaKeeper(services, client)
    conversations = Conversations(services, EchoAssistant(services))
    pages = chat.create_blueprint(services, conversations, limiter_check=limiter_check, wechat=wechat, media=media)
    csrf.exempt(pages)
    signed_in = wechat_login.WebLogin(services, wechat, limiter_check)
    for blueprint in (pages, wechat_login.create_blueprint(signed_in), my.create_blueprint(services, signed_in), tracking.create_blueprint(services, signed_in)):
        app.register_blueprint(blueprint)
    errors.register_error_handlers(app)
    return app


@contextmanager
def serving(app: Flask, port: int = 0) -> Iterator[str]:
    """The app on loopback, as its address."""
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with tempfile.TemporaryDirectory() as scratch, serving(create_stub_app(stub_services(Path(scratch))), wanted) as url:
        print(f"{url}/chat", flush=True)
        threading.Event().wait()
