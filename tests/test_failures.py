"""When storage fails, and when what arrives is nonsense: plain words, clear codes, nothing half written, nothing but ours in the log."""
from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import event
from standardwebhooks.webhooks import Webhook

from bot import db, schema
from bot.conversation import APOLOGY_STORAGE, Conversations, InboundMessage, Reply
from bot.embedded import EmbeddedAssistant
from bot.services import Services, build_services, install_services
from bot.settings import PROJECT_ROOT, child_environment, load_settings
from tests.servers import Server
from tests.wechat_platform import Account

SECRET = "whsec_" + "ZmFpbHVyZXNmYWlsdXJlc2ZhaWx1cmVz"
ACCOUNT = Account(aes_key="")
RATE_LIMIT = 100
PROBLEM, PLACE, CONFIRM = "小区门口的路灯坏了三天了，晚上黑漆漆的", "经开区山阳小区", "确认提交"
PHONE = "13912345678"


# -- fixtures -----------------------------------------------------------------------------------------------------


class Disk:
    """Where the server keeps its data: a file system of 48 MB where we may mount one, else an ordinary folder."""

    def __init__(self, path: Path) -> None:
        self.path, self._filler = path, path / "filler"
        self.small = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(path)], capture_output=True).returncode == 0

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Not one byte left."""
        with self._filler.open("wb", buffering=0) as filler:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b"\0" * size) == size:
                        pass
        try:
            yield
        finally:
            self._filler.unlink()

    def unmount(self) -> None:
        if self.small:
            subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    path = tmp_path_factory.mktemp("failures") / "var"
    path.mkdir()
    disk = Disk(path)
    yield disk
    disk.unmount()


@pytest.fixture(scope="module")
def server(disk: Disk) -> Iterator[Server]:
    """The real service for all tests of this file; each uses senders of its own."""
    server = Server(
        disk.path,
        rate_limit=str(RATE_LIMIT),
        dispatch_secret=SECRET,
        wechat_app_id=ACCOUNT.app_id,
        wechat_token=ACCOUNT.token,
    )
    with server:
        yield server


@pytest.fixture
def chat(server: Server) -> Chat:
    return Chat(server, f"sender-{uuid.uuid4().hex[:8]}")


class Chat:
    """One resident at POST /api/chat."""

    def __init__(self, server: Server, sender: str) -> None:
        self.server, self.sender = server, sender

    def say(self, text: str, message_id: str) -> requests.Response:
        body = {"sender": self.sender, "text": text, "message_id": message_id}
        return requests.post(f"{self.server.url}/api/chat", json=body, timeout=60)

    def reach_the_card(self) -> None:
        assert self.say(PROBLEM, "problem").status_code == 200
        assert CONFIRM in self.say(PLACE, "place").text

    def ticket_number(self, response: requests.Response) -> str:
        assert response.status_code == 200
        (ticket,) = response.json()["tickets"]
        return str(ticket["ticket_number"])


def table_counts(server: Server) -> tuple[int, ...]:
    """Rows of everything that a filing writes."""
    with contextlib.closing(sqlite3.connect(f"file:{server.settings['var_dir']}/minsheng.db?mode=ro", uri=True)) as connection:
        names = ("ticket", "ticket_event", "outbox", "ticket_day")
        return tuple(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names)


def assert_apology(response: requests.Response) -> None:
    assert response.status_code == 503
    assert response.json() == {"messages": [{"text": APOLOGY_STORAGE, "buttons": []}], "tickets": []}


# -- storage ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(server: Server, _disk: Disk) -> Iterator[None]:
    """Another program writes, and does not stop while we wait."""
    with contextlib.closing(sqlite3.connect(f"{server.settings['var_dir']}/minsheng.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def disk_full(_server: Server, disk: Disk) -> Iterator[None]:
    if not disk.small:
        pytest.skip("needs the right to mount a small file system")
    with disk.full():
        yield


@contextlib.contextmanager
def file_size_limit(server: Server, _disk: Disk) -> Iterator[None]:
    """Writes break off in the middle of a page with an error, as on a failing disk."""
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


Failure = Callable[[Server, Disk], AbstractContextManager[None]]
FAILURES = pytest.mark.parametrize("failure", [locked, disk_full, file_size_limit])


@FAILURES
def test_failing_storage_apologises_and_the_same_message_files_one_ticket_later(
    server: Server, disk: Disk, chat: Chat, failure: Failure
) -> None:
    chat.reach_the_card()
    before = table_counts(server)
    with failure(server, disk):
        assert_apology(chat.say(CONFIRM, "confirm"))
        assert table_counts(server) == before
    number = chat.ticket_number(chat.say(CONFIRM, "confirm"))
    assert chat.ticket_number(chat.say(CONFIRM, "confirm")) == number
    assert table_counts(server)[0] == before[0] + 1
    assert requests.get(f"{server.url}/api/tickets/{number}", timeout=10).status_code == 200


@FAILURES
def test_failing_storage_shows_in_readiness_and_passes(server: Server, disk: Disk, failure: Failure) -> None:
    with failure(server, disk):
        answer = requests.get(f"{server.url}/readyz", timeout=30)
        assert (answer.status_code, answer.json()["database"]) == (503, False)
        assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
    assert requests.get(f"{server.url}/readyz", timeout=30).status_code == 200


def test_waiting_for_a_locked_database_is_not_longer_for_the_last_in_the_queue(server: Server, disk: Disk) -> None:
    residents = [Chat(server, f"queue-{uuid.uuid4().hex[:8]}") for _ in range(6)]
    with locked(server, disk), ThreadPoolExecutor(len(residents)) as pool:
        started = time.monotonic()
        answers = list(pool.map(lambda resident: resident.say(PROBLEM, "first"), residents))
        assert time.monotonic() - started < 25  # waiting for each other, then for SQLite
    for answer in answers:
        assert_apology(answer)
    assert {resident.say(PROBLEM, "first").status_code for resident in residents} == {200}


def test_wechat_does_not_acknowledge_what_it_could_not_keep(server: Server, disk: Disk) -> None:
    fields = {**ACCOUNT.text(PROBLEM), "FromUserName": f"o-{uuid.uuid4().hex[:8]}"}
    with file_size_limit(server, disk):
        assert ACCOUNT.post_to(f"{server.url}/wechat", fields).status_code == 503
    retried = ACCOUNT.read_reply(ACCOUNT.post_to(f"{server.url}/wechat", fields).text)
    assert retried is not None
    assert "位置" in retried["Content"]


# -- another process that writes all the time --------------------------------------------------------------------------

WRITES_ON = """
import sys, time
from bot import db, schema
from bot.settings import settings_from_environment
engine = db.open_engine(settings_from_environment())
print("writing", flush=True)
while True:
    with db.transaction(engine, durable=False) as connection:
        connection.execute(schema.webhooks_seen.delete())
        time.sleep(0.03)
"""


def test_a_process_that_writes_all_the_time_lets_others_write(services: Services) -> None:
    environment = {**child_environment(services.settings), "PYTHONPATH": str(PROJECT_ROOT)}
    other = subprocess.Popen([sys.executable, "-c", WRITES_ON], env=environment, stdout=subprocess.PIPE)
    waits = []
    try:
        assert other.stdout is not None and other.stdout.readline()
        for _ in range(12):
            started = time.monotonic()
            assert db.is_writable(services.engine)
            waits.append(time.monotonic() - started)
    finally:
        other.kill()
        other.communicate()
    assert sorted(waits)[len(waits) // 2] < 0.3 and db.is_writable(services.engine)  # what was killed while writing blocks nobody


# -- a disk that fills up in the middle of a turn ------------------------------------------------------------------


class Pages:
    """How many pages the database may grow to, checked by SQLite itself."""

    limit = 1 << 30

    def __init__(self, services: Services) -> None:
        event.listen(services.engine, "checkout", self._apply)

    def _apply(self, connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={self.limit}")


@pytest.fixture
def live_services(tmp_path: Path) -> Iterator[Services]:
    settings = load_settings({"MINSHENG_VAR_DIR": str(tmp_path / "var")})
    db.migrate(settings)
    services = build_services(settings)
    install_services(services)
    yield services
    services.engine.dispose()


def count_rows(services: Services) -> tuple[int, ...]:
    with db.reading(services.engine) as connection:
        tables = (schema.tickets, schema.ticket_events, schema.outbox, schema.ticket_days)
        return tuple(len(connection.execute(table.select()).fetchall()) for table in tables)


def say(conversations: Conversations, text: str, message_id: str) -> Reply:
    return conversations.respond(InboundMessage("api", "resident", message_id, text=text))


def test_disk_full_at_any_page_of_a_filing_leaves_all_or_nothing(live_services: Services, assistant: EmbeddedAssistant) -> None:
    conversations, pages = Conversations(live_services, assistant), Pages(live_services)
    story = PROBLEM + "，我每天晚上八点以后下班都要从那里走。" * 150  # long, so that the ticket needs pages of its own
    say(conversations, story[:3500], "problem")
    say(conversations, PLACE, "place")
    with db.reading(live_services.engine) as connection:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    refusals, reply = 0, None
    for more in range(60):
        pages.limit = used + more
        try:
            reply = say(conversations, CONFIRM, "confirm")
            break
        except db.StorageError:
            assert count_rows(live_services) == (0, 0, 0, 0)
            refusals += 1
    assert refusals >= 3, "the disk was not full at several moments"
    assert reply and reply.tickets
    assert count_rows(live_services) == (1, 1, 1, 1)
    assert say(conversations, CONFIRM, "confirm") == reply


def test_database_locked_between_keeping_and_answering_is_no_answer(live_services: Services, assistant: EmbeddedAssistant) -> None:
    event.listen(live_services.engine, "checkout", lambda connection, *_: connection.execute("PRAGMA busy_timeout=200"))
    conversations = Conversations(live_services, assistant)
    say(conversations, PROBLEM, "problem")
    say(conversations, PLACE, "place")
    kept = conversations.receive(InboundMessage("api", "resident", "confirm", text=CONFIRM))
    with contextlib.closing(sqlite3.connect(live_services.settings.var_dir / "minsheng.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(db.StorageError):
            conversations.answer(kept)
        assert count_rows(live_services) == (0, 0, 0, 0)
        other.execute("ROLLBACK")
    assert conversations.recover(older_than=timedelta(0))[0][2].tickets
    assert count_rows(live_services) == (1, 1, 1, 1)


# -- bad input: the machine API -----------------------------------------------------------------------------------


def body_of(**fields: Any) -> bytes:
    return json.dumps({"sender": "odd", "text": "你好", **fields}).encode()


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


REFUSED = {
    "a megabyte of text": (body_of(text="路" * 350_000), 413),
    "a little too much text": (body_of(text="路" * 4_001), 413),
    "nothing": (b"", 400),
    "binary": (bytes(range(256)) * 40, 400),
    "not UTF-8": ('{"sender":"odd","text":"你好"}'.encode("gb18030"), 400),
    "half of a JSON object": (b'{"sender":"odd","text":"', 400),
    "a list": (b"[1,2]", 400),
    "a number": (b"7", 400),
    "null": (b"null", 400),
    "deep nesting": (nested(100_000), 400),
    "deep nesting in an unknown field": (b'{"sender":"odd","text":"x","more":' + nested(100_000) + b"}", 400),
    "no sender": (b'{"text":"x"}', 400),
    "an empty sender": (body_of(sender="  "), 400),
    "a number as sender": (body_of(sender=7), 400),
    "a list as text": (body_of(text=["x"]), 400),
    "a lone surrogate in the text": (b'{"sender":"odd","text":"\\ud83d"}', 400),
    "a lone surrogate in the sender": (b'{"sender":"\\udc00","text":"x"}', 400),
    "a lone surrogate in the message id": (b'{"sender":"odd","text":"x","message_id":"\\ud800"}', 400),
    "a lone surrogate in the scene": (b'{"sender":"odd","scene":"\\ud800"}', 400),
    "a lone surrogate in the label": (b'{"sender":"odd","location":{"lat":33,"lng":119,"label":"\\ud800"}}', 400),
    "an object as message id": (body_of(message_id={}), 400),
    "a boolean as message id": (body_of(message_id=True), 400),
    "a message id of 5,000 digits": (b'{"sender":"odd","text":"x","message_id":' + b"9" * 5_000 + b"}", 400),
    "a latitude of 400 digits": (b'{"sender":"odd","location":{"lat":' + b"9" * 400 + b',"lng":1}}', 400),
    "an infinite latitude": (b'{"sender":"odd","location":{"lat":1e999,"lng":1}}', 400),
    "not a number": (b'{"sender":"odd","location":{"lat":NaN,"lng":1}}', 400),
    "a latitude as text": (body_of(location={"lat": "33", "lng": 119}), 400),
    "a list as location": (body_of(location=[33, 119]), 400),
    "a long scene": (body_of(scene="x" * 65), 400),
}

ANSWERED = {
    "unknown fields": body_of(surprise={"deep": [1, {"x": None}]}, sender_=1),
    "NUL": body_of(text="路灯\x00坏了\x00\x00"),
    "NUL in sender and message id": body_of(sender="o\x00dd", message_id="m\x00"),
    "only NUL": body_of(text="\x00"),
    "no text": b'{"sender":"odd"}',
    "only blanks": body_of(text=" \t\r\n\u3000"),
    "control characters": body_of(text="\x01\x1b[31m\x7f路灯坏了\u0085"),
    "directions and joiners": body_of(text="\u202e了坏灯路\u202c\u200d\u200b\ufeff"),
    "noncharacters": body_of(text="\ufffe\uffff\U0010ffff"),
    "emoji": body_of(text="👨‍👩‍👧‍👦🇨🇳👌🏽" * 200),
    "combining marks": body_of(text="路" + "\u0301" * 3_000),
    "an intent of ours": body_of(text="/affirm"),
    "Rasa's own commands": body_of(text='/restart{"asked":"confirm"}'),
    "an entity payload": body_of(text='/report_problem{"drafts":[{"id":"x"}]}'),
    "Rasa's placeholder": body_of(text="0[drafts] {number} {0[drafts]} {{7*7}} %s %n"),
    "markup": body_of(text="<script>alert(1)</script>]]></xml>"),
    "SQL": body_of(text="'; DROP TABLE ticket; --", sender="' OR 1=1 --"),
    "4,000 brackets": body_of(text="（" * 4_000),
    "4,000 digits": body_of(text="1" * 4_000),
    "4,000 times the same": body_of(text="一二" * 2_000),
    "a large number as message id": b'{"sender":"odd","text":"x","message_id":' + b"9" * 128 + b"}",
}


def post(server: Server, path: str, body: bytes, **headers: str) -> requests.Response:
    return requests.post(server.url + path, data=body, headers={"Content-Type": "application/json", **headers}, timeout=60)


@pytest.mark.parametrize("name", REFUSED)
def test_unfit_chat_request_is_refused_in_one_sentence(server: Server, name: str) -> None:
    body, status = REFUSED[name]
    answer = post(server, "/api/chat", body)
    assert answer.status_code == status, answer.text[:200]
    assert re.search(r"[\u4e00-\u9fff]", answer.json()["error"])


@pytest.mark.parametrize("name", ANSWERED)
def test_odd_chat_message_is_answered(server: Server, name: str) -> None:
    started = time.monotonic()
    answer = post(server, "/api/chat", ANSWERED[name])
    assert answer.status_code == 200, answer.text[:200]
    assert answer.json()["messages"]
    assert not answer.json()["tickets"]
    assert time.monotonic() - started < 5


def test_twenty_megabytes_are_not_even_read(server: Server) -> None:
    assert post(server, "/api/chat", b" " * 20_000_000).status_code == 413


UNFIT_ANYWHERE = ("a megabyte of text", "a little too much text", "nothing", "binary", "not UTF-8", "a list", "null", "deep nesting", "a list as text")


@pytest.mark.parametrize("name", [*UNFIT_ANYWHERE, "deep nesting in an unknown field", "a lone surrogate in the text"])
def test_unfit_parse_request_is_refused(server: Server, name: str) -> None:
    body, _ = REFUSED[name]
    if name == "a little too much text":
        body = body_of(text="路" * 20_001)
    answer = post(server, "/api/parse", body)
    assert 400 <= answer.status_code < 500, answer.text[:200]
    assert answer.json()["error"]


TURNS: list[Any] = [[], {}, 7, [7], [{"speaker": "citizen"}], [{"speaker": "dog", "text": "x"}], [{"speaker": "agent", "text": 1}]]


@pytest.mark.parametrize("turns", TURNS)
def test_unfit_turns_are_refused(server: Server, turns: Any) -> None:
    assert post(server, "/api/parse", json.dumps({"turns": turns}).encode()).status_code == 400


@pytest.mark.parametrize("number", ["x", "20260101-9999", "' OR 1=1 --", "%00", "%ff%fe", "../../etc/passwd", "9" * 3000, "%F0%9F%91%8C"])
def test_unknown_ticket_number_is_not_found(server: Server, number: str) -> None:
    assert requests.get(f"{server.url}/api/tickets/{number}", timeout=10).status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_wrong_method_is_refused(server: Server, method: str) -> None:
    assert requests.request(method, f"{server.url}/api/chat", timeout=10).status_code == 405


def test_ten_thousand_messages_of_one_sender_meet_the_rate_limit(server: Server) -> None:
    with requests.Session() as session, ThreadPoolExecutor(12) as pool:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=12))

        def send(number: int) -> tuple[int, str]:
            body = {"sender": "flood", "text": "喂", "message_id": str(number)}
            answer = session.post(f"{server.url}/api/chat", json=body, timeout=60)
            return answer.status_code, answer.json()["messages"][0]["text"] if answer.status_code == 429 else ""

        answers = Counter(pool.map(send, range(10_000)))
    statuses = Counter({status: sum(count for (code, _), count in answers.items() if code == status) for status, _ in answers})
    assert set(statuses) == {200, 429}
    assert RATE_LIMIT <= statuses[200] <= 5 * RATE_LIMIT
    assert all("慢" in sentence or "快" in sentence for status, sentence in answers if status == 429)
    assert requests.get(f"{server.url}/readyz", timeout=10).status_code == 200


# -- bad input: events from dispatch -------------------------------------------------------------------------------


def signed(body: bytes, *, webhook_id: str = "", at: datetime | None = None, secret: str = SECRET) -> dict[str, str]:
    at, webhook_id = at or datetime.now(timezone.utc), webhook_id or f"evt_{uuid.uuid4().hex}"
    signature = Webhook(secret).sign(webhook_id, at.replace(tzinfo=None), body.decode())
    return {"webhook-id": webhook_id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def status_event(number: str, **data: Any) -> bytes:
    now = datetime.now(timezone.utc).isoformat()
    event = {"ticket_number": number, "status": "accepted", "department": "住建局", "at": now, **data}
    return json.dumps({"type": "ticket.status", "timestamp": now, "data": event}).encode()


def forged_count(server: Server) -> float:
    metrics = requests.get(f"{server.url}/metrics", timeout=10).text
    return float(re.search(r"^minsheng_forged_signatures_total (\S+)", metrics, re.M)[1])  # type: ignore[index]


@pytest.fixture
def filed(chat: Chat) -> str:
    chat.reach_the_card()
    return chat.ticket_number(chat.say(CONFIRM, "confirm"))


def test_forged_events_are_forbidden_counted_and_change_nothing(server: Server, filed: str) -> None:
    body, old = status_event(filed), datetime.now(timezone.utc) - timedelta(hours=1)
    good = signed(body)
    forged: list[tuple[dict[str, str], bytes]] = [
        ({}, body),
        (signed(body, secret="whsec_" + "Zm9yZ2VkZm9yZ2VkZm9yZ2VkZm9yZ2Vk"), body),
        (good, body.replace(b"accepted", b"closed")),
        ({**good, "webhook-id": "evt_other"}, body),
        ({**good, "webhook-timestamp": "0"}, body),
        ({**good, "webhook-timestamp": "9" * 400}, body),
        ({**good, "webhook-timestamp": "yesterday"}, body),
        ({**good, "webhook-signature": "v1,"}, body),
        ({**good, "webhook-signature": "v1," + "A" * 60_000}, body),
        ({**good, "webhook-signature": "é" * 10}, body),
        (signed(body, at=old), body),
        (signed(body, at=old + timedelta(hours=2)), body),
    ]
    before = forged_count(server)
    for headers, content in forged:
        raw: Any = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = requests.post(f"{server.url}/dispatch/events", data=content, headers=raw, timeout=10)
        assert (answer.status_code, answer.json()) == (403, {"error": "forbidden"})
    assert forged_count(server) == before + len(forged)
    assert requests.get(f"{server.url}/api/tickets/{filed}", timeout=10).json()["state"] == "filed"


def test_replayed_event_counts_once(server: Server, filed: str) -> None:
    body = status_event(filed, note=f"请联系 {PHONE}")
    headers = signed(body)
    answers = [post(server, "/dispatch/events", body, **headers).json() for _ in range(3)]
    assert answers == [{"status": "recorded"}, {"status": "duplicate"}, {"status": "duplicate"}]
    timeline = requests.get(f"{server.url}/api/tickets/{filed}", timeout=10).json()["timeline"]
    assert [entry["kind"] for entry in timeline] == ["filed", "accepted"]


SIGNED_NONSENSE = {
    "not JSON": b"{",
    "a list": b"[]",
    "deep nesting": b'{"type":"ticket.status","data":' + nested(25_000) + b"}",
    "another type": b'{"type":"ticket.eaten","data":{}}',
    "no data": b'{"type":"ticket.status"}',
    "an unknown status": status_event("20260101-0001", status="eaten"),
    "no time": status_event("20260101-0001", at=None),
    "a time far out": status_event("20260101-0001", at="99999-01-01T00:00:00Z"),
    "a number as ticket number": status_event("20260101-0001", ticket_number=20260101),
    "a list as note": status_event("20260101-0001", note=["x"]),
    "a lone surrogate": status_event("20260101-0001", note="\ud800"),
}


@pytest.mark.parametrize("name", SIGNED_NONSENSE)
def test_signed_nonsense_is_named(server: Server, name: str) -> None:
    body = SIGNED_NONSENSE[name]
    answer = post(server, "/dispatch/events", body, **signed(body))
    assert answer.status_code == 422, answer.text[:200]
    assert answer.json()["field"]


def test_signed_event_for_an_unknown_ticket_is_not_found(server: Server) -> None:
    body = status_event("20200101-0001")
    assert post(server, "/dispatch/events", body, **signed(body)).status_code == 404


# -- bad input: the official account ------------------------------------------------------------------------------


def laughs() -> str:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE xml [<!ENTITY l0 "ha">{entities}]><xml><Content>&l9;</Content></xml>'


XML = {
    "a billion laughs": laughs(),
    "a quadratic bomb": '<!DOCTYPE xml [<!ENTITY a "' + "a" * 30_000 + '">]><xml><Content>' + "&a;" * 5_000 + "</Content></xml>",
    "a file": '<!DOCTYPE xml [<!ENTITY f SYSTEM "file:///etc/passwd">]><xml><Content>&f;</Content></xml>',
    "an address": '<!DOCTYPE xml SYSTEM "http://127.0.0.1:1/x.dtd"><xml><Content>x</Content></xml>',
    "deep nesting": "<xml>" * 9_000 + "</xml>" * 9_000,
    "a megabyte": "<xml><Content>" + "路" * 350_000 + "</Content></xml>",
    "not XML": "hello",
    "nothing": "",
    "an empty message": "<xml></xml>",
    "a message without sender": "<xml><MsgType>text</MsgType><Content>x</Content><MsgId>1</MsgId></xml>",
    "a time of text": "<xml><FromUserName>o1</FromUserName><ToUserName>g</ToUserName><CreateTime>x</CreateTime></xml>",
    "many attributes": "<xml " + " ".join(f'a{n}="1"' for n in range(5_000)) + "/>",
}


@pytest.mark.parametrize("name", XML)
def test_signed_nonsense_on_the_official_account_is_survived(server: Server, name: str) -> None:
    query, body = ACCOUNT.sign_xml(XML[name])
    memory, started = server.rss_mb(), time.monotonic()
    answer = requests.post(f"{server.url}/wechat", params=query, data=body, timeout=30)
    assert answer.status_code < 500
    assert "root:" not in answer.text
    assert time.monotonic() - started < 3
    assert server.rss_mb() - memory < 100


UNSIGNED: list[dict[str, str]] = [
    {},
    {"signature": "x"},
    {"signature": "x", "timestamp": "9" * 999, "nonce": "n"},
    {"signature": "é", "timestamp": "1", "nonce": "n"},
]


@pytest.mark.parametrize("query", UNSIGNED)
def test_unsigned_callback_is_forbidden_and_counted(server: Server, query: dict[str, str]) -> None:
    before = forged_count(server)
    assert requests.post(f"{server.url}/wechat", params=query, data=b"<xml/>", timeout=10).status_code == 403
    assert forged_count(server) == before + 1


# -- afterwards ---------------------------------------------------------------------------------------------------


def test_broken_connections_do_not_wear_the_server_out(server: Server) -> None:
    half = b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    for beginning in (b"", b"\r\n" * 50, b"GET", half, os.urandom(400), b"\x16\x03\x01\x02\x00") * 20:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(beginning)
    assert requests.get(f"{server.url}/readyz", timeout=10).status_code == 200


def test_log_holds_nothing_that_residents_said(server: Server, chat: Chat) -> None:
    chat.reach_the_card()
    chat.say(CONFIRM, "confirm")
    chat.say(f"我的电话是{PHONE}", "phone")
    log = server.log.read_text(encoding="utf-8", errors="replace")
    for secret in (PROBLEM[:6], PLACE, PHONE, chat.sender, ACCOUNT.token + ",", SECRET):
        assert secret not in log


def test_no_request_of_this_file_met_an_unexpected_error(server: Server) -> None:
    assert "request failed" not in server.log_end(100_000)
