"""A process of the service as the official account sees it, with a platform on loopback: fixtures of every WeChat test."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import select

from bot.assistant import AssistantError, Bubble, Button, Done, PreparedTurn, Turn, TurnResult
from bot.conversation import Conversations
from bot.db import open_engine, reading
from bot.schema import inbound_messages, metadata, notices
from bot.services import Services, build_services, utc_now
from bot.settings import Settings
from bot.vault import Vault
from bot.web.wechat import Callback, create_blueprint
from bot.wechat import WeChatCodec
from bot.wechat_api import WeChatClient
from bot.wechat_delivery import Delivery
from bot.wechat_turns import Turns
from tests.wechat_platform import RESIDENT, Account, Platform

ACCOUNT = Account()
CARD = Bubble("请核对：桂花新村路灯坏了", (Button("确认提交", "确认"), Button("修改", "我要修改")))


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class ScriptedAssistant:
    """Stands in for Rasa: repeats the resident's words, or says what `answers` holds for them. While `may_answer` is clear a turn goes on."""

    concurrency: ClassVar[int] = 8

    answers: dict[str, tuple[Bubble, ...]] = field(default_factory=dict)
    seconds: float = 0.0
    may_answer: threading.Event = field(default_factory=_set_event)
    failing: bool = False
    turns: list[Turn] = field(default_factory=list)

    def prepare(self, turn: Turn) -> PreparedTurn:
        self.turns.append(turn)
        time.sleep(self.seconds)
        assert self.may_answer.wait(30), "the test never let it answer"
        if self.failing:
            raise AssistantError("down")
        return Done(TurnResult(self.answers.get(turn.text, (Bubble(f"收到：{turn.text}"),)), (), {}))

    def parse(self, text: str) -> dict[str, Any]:
        return {}

    def serving_model(self) -> str:
        return "scripted"


class Refusals:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.forged_signatures = Counter("forged_signatures", "refused requests", registry=self.registry)

    @property
    def count(self) -> int:
        return int(self.registry.get_sample_value("forged_signatures_total") or 0)


@dataclass
class Channel:
    services: Services
    conversations: Conversations
    assistant: ScriptedAssistant
    refusals: Refusals
    client: WeChatClient
    turns: Turns
    codec: WeChatCodec
    http: FlaskClient
    account: Account = ACCOUNT

    @property
    def delivery(self) -> Delivery:
        return self.turns.delivery

    def say(self, text: str, **more: str) -> str | None:
        return self.account.said(self.account.post(self.http, self.account.text(text, **more)))

    def rows(self) -> list[Any]:
        with reading(self.services.engine) as connection:
            return list(connection.execute(select(inbound_messages).order_by(inbound_messages.c.id)))

    def post(self, fields: dict[str, str]) -> Any:
        return self.account.post(self.http, fields)

    def heard(self, fields: dict[str, str]) -> str | None:
        return self.account.said(self.post(fields))

    @property
    def conversation_id(self) -> str:
        return self.conversations.conversation_id("wechat", RESIDENT, self.account.name)

    def table(self, table: Any) -> list[Any]:
        with reading(self.services.engine) as connection:
            return list(connection.execute(select(table)))

    def add_notice(self, text: str) -> None:
        self.delivery.say_later(self.conversation_id, text)

    def open_notices(self) -> list[str]:
        with reading(self.services.engine) as connection:
            rows = connection.execute(select(notices).where(notices.c.delivered_at.is_(None))).fetchall()
        return [self.services.vault.open(row.text) for row in rows]


@pytest.fixture
def platform() -> Iterator[Platform]:
    running = Platform()
    yield running
    running.stop()


@pytest.fixture
def wechat_settings(tmp_path: Path, platform: Platform) -> Settings:
    return Settings(
        var_dir=tmp_path,
        secret_key="a secret key for tests",
        wechat_app_id=ACCOUNT.app_id,
        wechat_app_secret=platform.secret,
        wechat_token=ACCOUNT.token,
        wechat_aes_key=ACCOUNT.aes_key,
        wechat_api_base=platform.start(),
    )


MakeChannel = Callable[..., Channel]


@pytest.fixture(scope="session")
def city() -> Services:
    """Catalogue and gazetteer, loaded once."""
    return build_services(Settings(secret_key="unused"))


@pytest.fixture
def make_channel(city: Services, wechat_settings: Settings) -> MakeChannel:
    """A process of the service; several share one database, as replicas do."""

    def make(
        *, seconds: float = 4.2, hang_up: float = 5.2, allow: Callable[[str], bool] = lambda openid: True, assistant: Any = None, **changes: str
    ) -> Channel:
        engine, vault = open_engine(wechat_settings), Vault(wechat_settings.secret_key)
        metadata.create_all(engine)
        tickets = replace(city.tickets, engine=engine, vault=vault, now=utc_now)
        changed = replace(wechat_settings, **changes)  # type: ignore[arg-type]
        services = replace(city, settings=changed, engine=engine, vault=vault, tickets=tickets)
        assistant, refusals = assistant or ScriptedAssistant(), Refusals()
        conversations, client = Conversations(services, assistant), WeChatClient(services)
        turns = Turns(services, conversations, client, allow)
        callback = Callback(services, turns, refusals, seconds=seconds, hang_up=hang_up)
        app = Flask(__name__)
        app.register_blueprint(create_blueprint(callback))
        return Channel(services, conversations, assistant, refusals, client, turns, callback.codec, app.test_client())

    return make


@pytest.fixture
def channel(make_channel: MakeChannel) -> Channel:
    return make_channel()


def wait_until(condition: Callable[[], bool], *, seconds: float = 6.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)
