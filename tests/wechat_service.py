"""The whole service on loopback, with its threads, between the platform and the dispatch system: what tests of its news drive."""
from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import select, update
from werkzeug.serving import make_server

from bot import background
from bot.assistant import Assistant
from bot.db import iso, reading, transaction
from bot.petition import Petition
from bot.schema import notices, wechat_contacts
from bot.services import Services, current_services, utc_now
from bot.settings import load_settings
from bot.signing import sign
from bot.ticket import Ticket
from tests.wechat_channel import ACCOUNT, wait_until
from tests.wechat_platform import RESIDENT, Platform
from webhook import create_app

PUBLIC_URL = "https://city.example"
NEIGHBOUR = "oNeighbour-0002"


@dataclass
class Service:
    url: str
    services: Services
    platform: Platform

    # -- the resident ---------------------------------------------------------------------------------------------

    def say(self, text: str, *, openid: str = RESIDENT, **more: str) -> str | None:
        """The words of the passive reply."""
        return self.send({**ACCOUNT.text(text, **more), "FromUserName": openid})

    def hear(self, text: str) -> str:
        """All that reaches the resident with their next message. It opens the window again, so that what was waiting stands in the
        passive reply or is pushed, whichever comes first; the choices of pushed menus with it."""
        before = len(self.platform.sends)
        reply = self.say(text) or ""
        wait_until(lambda: not self.waiting())
        menus = [send["msgmenu"] for send in self.platform.sends[before:] if send["msgtype"] == "msgmenu"]
        choices = [item["content"] for menu in menus for item in menu["list"]]
        return "\n\n".join([*self.platform.texts()[before:], *choices, reply])

    def send(self, fields: dict[str, Any]) -> str | None:
        answer = ACCOUNT.post_to(self.url + "/wechat", fields)
        assert answer.status_code == 200
        reply = ACCOUNT.read_reply(answer.text)
        assert reply is None or reply["ToUserName"] == fields["FromUserName"]
        return reply["Content"] if reply else None

    def chat(self, text: str, sender: str = "web-1") -> str:
        answer = requests.post(self.url + "/api/chat", json={"sender": sender, "text": text}, timeout=20)
        assert answer.status_code == 200
        return "\n".join(message["text"] for message in answer.json()["messages"])

    def conversation(self, openid: str = RESIDENT) -> str:
        return self.services.vault.pseudonym("wechat", ACCOUNT.name, openid)

    def web_conversation(self, sender: str = "web-1") -> str:
        return self.services.vault.pseudonym("api", "", sender)

    def file(self, text: str = "桂花新村8号楼的路灯坏了", *, conversation: str = "", **fields: Any) -> Ticket:
        key = uuid.uuid4().hex
        petition = Petition(id=key, texts=(text,), category="010204", **fields)
        owner = conversation or self.conversation()
        return self.services.tickets.open_ticket(petition, request_key=key, conversation_id=owner)

    def leave(self, openid: str = RESIDENT) -> None:
        """48 hours and more go by without a word."""
        past = iso(utc_now() - timedelta(seconds=1))
        mine = wechat_contacts.c.conversation_id == self.conversation(openid)
        with transaction(self.services.engine) as connection:
            connection.execute(update(wechat_contacts).where(mine).values(messages_until=past, taps_until=past))

    # -- the dispatch system --------------------------------------------------------------------------------------

    def move(self, ticket: Ticket, status: str, note: str = "已派人", *, at: datetime | None = None) -> None:
        data = {"ticket_number": ticket.number, "status": status, "department": "市城管局", "note": note, "at": iso(at or utc_now())}
        body = json.dumps({"type": "ticket.status", "timestamp": iso(utc_now()), "data": data}, ensure_ascii=False).encode()
        name, now = f"evt_{uuid.uuid4().hex}", int(time.time())
        signed = {"webhook-id": name, "webhook-timestamp": str(now), "webhook-signature": sign(self.secret, name, now, body)}
        for _ in range(2):  # dispatch systems repeat themselves
            assert requests.post(self.url + "/dispatch/events", data=body, headers=signed, timeout=10).status_code == 200

    @property
    def secret(self) -> str:
        return self.services.settings.dispatch_secret

    # -- what happened --------------------------------------------------------------------------------------------

    def table(self, table: Any) -> list[Any]:
        with reading(self.services.engine) as connection:
            return list(connection.execute(select(table)))

    def waiting(self) -> list[str]:
        return [str(self.services.vault.open(row.text)) for row in self.table(notices) if row.delivered_at is None]

    def kinds(self, ticket: Ticket) -> list[tuple[str, str]]:
        """What the resident did to a ticket."""
        entries = self.services.tickets.timeline(ticket.number)
        return [(entry.kind, entry.note) for entry in entries if entry.actor == "resident" and entry.kind != "filed"]


StartService = Callable[..., Service]


@pytest.fixture
def start_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartService]:
    """Several share one database and one platform, as replicas do."""
    monkeypatch.setattr(background, "RECOVER_EVERY", 0.1)
    platform, running = Platform(), []
    api_base = platform.start()

    def start(assistant: Assistant, **settings: str) -> Service:
        named = {
            "VAR_DIR": str(tmp_path / "var"),
            "PUBLIC_URL": PUBLIC_URL,
            "RATE_LIMIT": "0",
            "WECHAT_APP_ID": ACCOUNT.app_id,
            "WECHAT_APP_SECRET": platform.secret,
            "WECHAT_TOKEN": ACCOUNT.token,
            "WECHAT_AES_KEY": ACCOUNT.aes_key,
            "WECHAT_API_BASE": api_base,
            **settings,
        }
        app = create_app(load_settings({f"MINSHENG_{name}": value for name, value in named.items()}), assistant=assistant)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append((app, server))
        return Service(f"http://127.0.0.1:{server.server_port}", replace(current_services()), platform)

    yield start
    for app, server in running:
        server.shutdown()
        app.extensions["background"].stop()
    platform.stop()
