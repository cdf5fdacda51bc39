"""News of a ticket for followers whom customer-service messages do not reach: subscription notification, template message.

Each notice is tried once, by the ways that are configured; what no way takes stays for the next contact, and so does what the
platform later reports as not delivered. What is refused to the account as a whole is no try: that way rests a while.
"""
from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, or_, select, text, true, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.sql import ColumnElement, Select

from bot.db import iso, parse_iso, reading, transaction
from bot.petition import matter_of
from bot.schema import conversations, notices, wechat_contacts, wechat_notifications, wechat_subscriptions
from bot.services import Services
from bot.settings import PREFIX, SettingsError
from bot.ticket import CHINA, STATES, Ticket
from bot.wechat_api import WeChatClient
from bot.wechat_http import WeChatError

logger = logging.getLogger(__name__)

TEMPLATE_PATH, SUBSCRIPTION_PATH = "/cgi-bin/message/template/send", "/cgi-bin/message/subscribe/bizsend"
REFUSED_BY_RESIDENT = 43101
_BUSY = -1
# No such template; calls of the day or the minute used up; no permission; blocked: nothing to do with who was written to.
_ACCOUNT_WIDE = (40037, 45009, 45011, 48001, 48004)
_REST_SECONDS = 1800.0
_FOREIGN_FOR = timedelta(hours=1)  # far longer than storing the answer to a call of ours may take
_NEWS_FOR = timedelta(days=2)  # older news is no news: said at the next contact
_PAUSE_SECONDS = 30.0
DELIVERED = "success"

# What each part of a notice may be called in a template; the platform checks values by the type in the key.
_TYPES = {
    "number": ("character_string", "thing"),
    "matter": ("thing",),
    "status": ("phrase", "thing", "short_thing", "const"),
    "time": ("time", "date"),
}
_KEY = re.compile(r"([a-z_]+?)[0-9]+")
_THING, _SHORT_THING, _CHARACTERS, _PHRASE = 20, 10, 32, 5
_UNFIT = re.compile("[\x00-\x1f\x7f\U00010000-\U0010ffff\ufe0f]+")  # line ends and emoji are refused with 47003

_UPSERT = (
    "INSERT INTO wechat_notification (message_id, conversation_id, notice_id, result, at) "
    "VALUES (:message_id, :conversation_id, :notice_id, :result, :at) ON CONFLICT (message_id) DO UPDATE SET "
)
# The report may come before the answer to the call is stored: whoever writes second sees both.
_NOTE_SENT, _NOTE_RESULT = text(_UPSERT + "notice_id = :notice_id"), text(_UPSERT + "result = :result, at = :at")


@dataclass(frozen=True)
class Template:
    """`fields`: number | matter | status | time → the key it has in this template."""

    path: str
    id: str
    fields: Mapping[str, str]


def parse_template(name: str, setting: str, path: str) -> Template | None:
    """`ID number=character_string1 matter=thing2 …`; None when empty. Raises SettingsError."""
    template_id, *pairs = setting.split() or [""]
    if not template_id:
        return None
    fields = dict(pair.partition("=")[::2] for pair in pairs)
    for part, key in fields.items():
        match = _KEY.fullmatch(key)
        if part not in _TYPES or match is None or match.group(1) not in _TYPES[part]:
            choices = ", ".join(f"{known}={types[0]}1" for known, types in _TYPES.items())
            raise SettingsError(f"{PREFIX}{name}: {part}={key} does not fit; after the template's id come some of: {choices}")
    if not fields or "=" in template_id:
        raise SettingsError(f"{PREFIX}{name} needs the template's id and at least one field, such as status=phrase1")
    return Template(path, template_id, fields)


def fit(key: str, value: str) -> str:
    """The value as the type in the key admits it."""
    match = _KEY.fullmatch(key)
    kind = match.group(1) if match else ""
    value = _UNFIT.sub(" ", value).strip()
    if kind == "character_string":
        return re.sub(r"[^\x21-\x7e]", "", value)[:_CHARACTERS]
    if kind == "phrase":
        return re.sub(r"[^\u4e00-\u9fff]", "", value)[:_PHRASE]
    limit = {"thing": _THING, "short_thing": _SHORT_THING}.get(kind, len(value))
    return value if len(value) <= limit else value[: limit - 1] + "…"


class Notifier:
    """Thread-safe; any number of processes may notify at once. Raises SettingsError when made with templates that cannot work."""

    def __init__(self, services: Services, client: WeChatClient) -> None:
        self._services, self._client = services, client
        settings = services.settings
        self._resting: dict[str, float] = {}  # path → until when, on the monotonic clock
        self._subscription = parse_template("WECHAT_SUBSCRIPTION", settings.wechat_subscription, SUBSCRIPTION_PATH)
        self._template = parse_template("WECHAT_TEMPLATE", settings.wechat_template, TEMPLATE_PATH)
        self._paused_until = 0.0

    def notify(self) -> None:
        """Try every fresh piece of news that customer-service messages cannot carry now. Raises StorageError."""
        if not self._services.settings.wechat_app_secret:
            return
        for row in self._due():
            if time.monotonic() < self._paused_until:
                return
            openid = str(self._services.vault.open(row.sender)["sender"])
            ticket = self._services.tickets.get_ticket(row.ticket_number)
            # All that may fail before anything is sent comes before the claim: what is claimed and not sent would be lost.
            calls = [(template, self._payload(template, ticket, row, openid)) for template in self._ways(row.conversation_id)]
            if openid and calls and self._claim(row.id):
                self._notify(row, calls)

    def _notify(self, row: Row, calls: Sequence[tuple[Template, Mapping[str, Any]]]) -> None:
        tried = False
        try:
            for template, payload in calls:
                code, message_id = self._client.send_notification(template.path, payload)
                if code == 0:
                    return self._note_sent(row, message_id)
                self._note_refused(row.conversation_id, template, code)
                if code == _BUSY:
                    raise WeChatError("the platform is busy")
                tried = code not in _ACCOUNT_WIDE  # by the last way there is
            self._put_back(row.id, tried=tried)
        except WeChatError as error:
            logger.warning("no notification: %s", error, extra={"conversation": row.conversation_id})
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            if not error.unsure:  # a call that may have taken effect counts as heard: nothing is said twice
                self._put_back(row.id, tried=False)

    def _ways(self, conversation_id: str) -> Iterator[Template]:
        for template in self._open_ways():
            if template is not self._subscription or self._wants(conversation_id, template.id):
                yield template

    def _open_ways(self) -> list[Template]:
        now = time.monotonic()
        return [way for way in (self._subscription, self._template) if way and self._resting.get(way.path, 0.0) < now]

    def _payload(self, template: Template, ticket: Ticket, row: Row, openid: str) -> dict[str, Any]:
        values = self._values(ticket, row)
        data = {key: {"value": fit(key, values[part])} for part, key in template.fields.items()}
        payload: dict[str, Any] = {"touser": openid, "template_id": template.id, "data": data}
        if self._services.settings.public_url:  # without it the address means this machine
            link = self._services.tickets.link(ticket.number, self._services.settings.base_url)
            payload["page" if template.path == SUBSCRIPTION_PATH else "url"] = link
        return {**payload, "client_msg_id": f"notice-{row.id}"} if template.path == TEMPLATE_PATH else payload

    def _values(self, ticket: Ticket, row: Row) -> dict[str, str]:
        matter = matter_of(ticket.petition, self._services.catalogue)
        # It shows on a locked phone, which may be somebody else's.
        hidden = ticket.kind == "minor" or ticket.petition.confidential or bool(matter and matter.restricted)
        return {
            "number": ticket.number,
            "matter": "您反映的一件事" if hidden else ticket.title,
            "status": STATES[row.status],
            "time": _china_time(parse_iso(row.created_at)),
        }

    # -- rows -----------------------------------------------------------------------------------------------------

    def _due(self) -> list[Row]:
        since, ways = iso(self._services.now() - _NEWS_FOR), self._open_ways()
        if not ways:
            return []
        # Those whom no open way can reach would take the places of the others.
        reachable = true() if self._template in ways else notices.c.conversation_id.in_(self._subscribers(ways[0].id))
        with reading(self._services.engine) as connection:
            return list(
                connection.execute(
                    select(notices, conversations.c.sender)
                    .join(conversations, conversations.c.id == notices.c.conversation_id)
                    .where(conversations.c.channel == "wechat", notices.c.delivered_at.is_(None), notices.c.notified_at.is_(None))
                    .where(notices.c.status.is_not(None), notices.c.created_at > since, self._out_of_reach(), reachable)
                    .order_by(notices.c.id)
                    .limit(200)
                )
            )

    def _subscribers(self, template_id: str) -> Select[Any]:
        chosen = wechat_subscriptions.c
        return select(chosen.conversation_id).where(chosen.template_id == template_id, chosen.state == "accept")

    def _out_of_reach(self) -> ColumnElement[bool]:
        contact, now, person = wechat_contacts.c, iso(self._services.now()), notices.c.conversation_id
        followers = person.notin_(select(contact.conversation_id).where(contact.unlinked_at.is_not(None)))
        if not self._client.can_push():
            return followers
        messages = and_(contact.messages_left > 0, contact.messages_until > now)
        taps = and_(contact.taps_left > 0, contact.taps_until > now)
        open_ones = select(contact.conversation_id).where(or_(messages, taps))
        return and_(followers, person.notin_(open_ones))

    def _claim(self, notice_id: int) -> bool:
        now = iso(self._services.now())
        with transaction(self._services.engine, durable=False) as connection:
            free = notices.c.id == notice_id, notices.c.delivered_at.is_(None), notices.c.notified_at.is_(None)
            changed = connection.execute(update(notices).where(*free).values(delivered_at=now, notified_at=now))
        return bool(changed.rowcount == 1)

    def _put_back(self, notice_id: int, *, tried: bool) -> None:
        values: dict[str, Any] = {"delivered_at": None} if tried else {"delivered_at": None, "notified_at": None}
        with transaction(self._services.engine, durable=False) as connection:
            connection.execute(update(notices).where(notices.c.id == notice_id).values(**values))

    def _note_sent(self, row: Row, message_id: str) -> None:
        with transaction(self._services.engine, durable=False) as connection:
            if row.asks:  # the state is out; what the department wrote, and the question, are said at the next contact
                connection.execute(update(notices).where(notices.c.id == row.id).values(delivered_at=None))
            if message_id:
                sent = {"message_id": message_id, "conversation_id": row.conversation_id, "notice_id": row.id, "result": None}
                connection.execute(_NOTE_SENT, {**sent, "at": iso(self._services.now())})
                _reopen_undelivered(connection, message_id)

    def _note_refused(self, conversation_id: str, template: Template, code: int) -> None:
        logger.warning("%s refused with %d", template.path.removeprefix("/cgi-bin/message/"), code, extra={"conversation": conversation_id})
        if code in _ACCOUNT_WIDE:
            self._resting[template.path] = time.monotonic() + _REST_SECONDS
        if code == REFUSED_BY_RESIDENT and template is self._subscription:  # until they subscribe again
            mine = wechat_subscriptions.c.conversation_id == conversation_id, wechat_subscriptions.c.template_id == template.id
            with transaction(self._services.engine, durable=False) as connection:
                connection.execute(update(wechat_subscriptions).where(*mine).values(state="reject", at=iso(self._services.now())))

    def _wants(self, conversation_id: str, template_id: str) -> bool:
        mine = wechat_subscriptions.c.conversation_id == conversation_id, wechat_subscriptions.c.template_id == template_id
        with reading(self._services.engine) as connection:
            return connection.execute(select(wechat_subscriptions.c.state).where(*mine)).scalar() == "accept"


def note_result(services: Services, conversation_id: str, message_id: str, status: str) -> None:
    """What the platform reports of a notification; one that did not arrive is said at the next contact. Raises StorageError."""
    if not message_id:
        return
    with transaction(services.engine, durable=False) as connection:
        # Another program may send with the same account: its reports come here too, and mean nothing to us.
        foreign = wechat_notifications.c.notice_id.is_(None), wechat_notifications.c.at < iso(services.now() - _FOREIGN_FOR)
        connection.execute(delete(wechat_notifications).where(*foreign))
        told = {"message_id": message_id, "conversation_id": conversation_id, "notice_id": None, "result": status}
        connection.execute(_NOTE_RESULT, {**told, "at": iso(services.now())})
        _reopen_undelivered(connection, message_id)


def _reopen_undelivered(connection: Connection, message_id: str) -> None:
    found = wechat_notifications.c
    row = connection.execute(select(found.notice_id, found.conversation_id, found.result).where(found.message_id == message_id)).one()
    if row.notice_id is None or row.result in (None, DELIVERED):
        return
    # Equal times: nobody has said it since. The platform may report twice.
    mine = and_(notices.c.id == row.notice_id, notices.c.conversation_id == row.conversation_id)
    mine = and_(mine, notices.c.delivered_at == notices.c.notified_at)
    connection.execute(update(notices).where(mine).values(delivered_at=None))


def _china_time(at: datetime) -> str:
    local = at.astimezone(CHINA)
    return f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}"
