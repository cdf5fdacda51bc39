"""What we may still send to a follower, what the platform told us about them, and forgetting who they were.

The platform's rule since 2025: five customer-service messages in 48 hours after a message of the resident, three in one minute
after a tap on a menu, a scan or a new subscription. We count along, so that a message that would be refused is not tried.
"""
from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import bindparam, delete, select, text, update
from sqlalchemy.engine import Connection

from bot.conversation import InboundMessage
from bot.db import iso, transaction
from bot.schema import conversations, inbound_messages, wechat_contacts, wechat_media, wechat_subscriptions
from bot.services import Services
from bot.wechat import Notification
from bot.wechat_notify import note_result

logger = logging.getLogger(__name__)

MESSAGE_QUOTA, MESSAGE_SPAN = 5, timedelta(hours=48)
TAP_QUOTA, TAP_SPAN = 3, timedelta(minutes=1)

_UPSERT = (
    "INSERT INTO wechat_contact (conversation_id, messages_left, messages_until, taps_left, taps_until) "
    "VALUES (:id, :messages, :messages_until, :taps, :taps_until) ON CONFLICT (conversation_id) DO UPDATE SET "
)
_GRANT = {
    "message": text(_UPSERT + "messages_left = :messages, messages_until = :messages_until"),
    "tap": text(_UPSERT + "taps_left = :taps, taps_until = :taps_until"),
    "": text(_UPSERT + "messages_left = wechat_contact.messages_left"),
}
_MINE = wechat_contacts.c.conversation_id == bindparam("conversation")
_COME_BACK = update(wechat_contacts).where(_MINE, wechat_contacts.c.unlinked_at.is_not(None)).values(unlinked_at=None)
_TAKE_TAP = (
    update(wechat_contacts)
    .where(_MINE, wechat_contacts.c.taps_left > 0, wechat_contacts.c.taps_until > bindparam("now"))
    .values(taps_left=wechat_contacts.c.taps_left - 1)
)
_TAKE_MESSAGE = (
    update(wechat_contacts)
    .where(_MINE, wechat_contacts.c.messages_left > 0, wechat_contacts.c.messages_until > bindparam("now"))
    .values(messages_left=wechat_contacts.c.messages_left - 1)
)
_KNOWN = select(wechat_contacts.c.conversation_id).where(_MINE)


class Contacts:
    def __init__(self, services: Services) -> None:
        self._services = services

    # -- quota ----------------------------------------------------------------------------------------------------

    def grant(self, conversation_id: str, message: InboundMessage, kind: str) -> None:
        """The resident wrote ("message") or tapped ("tap"): we may write again. Finds an unsubscribed one again."""
        with transaction(self._services.engine, durable=False) as connection:
            self._upsert(connection, conversation_id, kind)
            if connection.execute(_COME_BACK, {"conversation": conversation_id}).rowcount:
                sealed = self._services.vault.seal({"sender": message.sender, "account": message.account})
                connection.execute(update(conversations).where(conversations.c.id == conversation_id).values(sender=sealed))

    def take(self, conversation_id: str) -> bool:
        """Use up one message, of the allowance that ends first. True for somebody we kept no book about."""
        wanted = {"conversation": conversation_id, "now": iso(self._services.now())}
        with transaction(self._services.engine, durable=False) as connection:
            if any(connection.execute(statement, wanted).rowcount for statement in (_TAKE_TAP, _TAKE_MESSAGE)):
                return True
            return connection.execute(_KNOWN, {"conversation": conversation_id}).first() is None

    def give_back(self, conversation_id: str) -> None:
        """One message that was taken and certainly not sent."""
        self._change(conversation_id, messages_left=wechat_contacts.c.messages_left + 1)

    def exhaust(self, conversation_id: str) -> None:
        """The platform counts otherwise: nothing more before the next contact."""
        self._change(conversation_id, messages_left=0, taps_left=0)

    # -- what the platform told -----------------------------------------------------------------------------------

    def heed(self, conversation_id: str, told: Notification) -> None:
        """What follows from an event that needs no answer. Raises StorageError."""
        logger.info("event %s", told.name, extra={"conversation": conversation_id})
        if told.name in ("unsubscribe", "cancel"):
            self.unlink(conversation_id)
        elif told.name == "revoke":
            self.forget_point(conversation_id)
        elif told.name == "position":
            self.remember_point(conversation_id, told.details)
        elif told.name == "subscriptions":
            self.remember_subscriptions(conversation_id, told.details)
        elif told.name == "send_result":
            for result in told.details["results"]:
                logger.info("notification %(message_id)s: %(status)s", result, extra={"conversation": conversation_id})
                note_result(self._services, conversation_id, result["message_id"], result["status"])

    def remember_point(self, conversation_id: str, point: Mapping[str, float]) -> None:
        """Where the app says the resident is; only the last point is kept."""
        with transaction(self._services.engine, durable=False) as connection:
            self._upsert(connection, conversation_id, "")
            sealed = self._services.vault.seal(dict(point))
            self._change(conversation_id, point=sealed, point_at=iso(self._services.now()))

    def forget_point(self, conversation_id: str) -> None:
        self._change(conversation_id, point=None, point_at=None)

    def remember_subscriptions(self, conversation_id: str, chosen: Mapping[str, str]) -> None:
        """Template id → accept | reject; the last word counts."""
        with transaction(self._services.engine) as connection:
            for template_id, state in chosen.items():
                mine = wechat_subscriptions.c.conversation_id == conversation_id, wechat_subscriptions.c.template_id == template_id
                connection.execute(delete(wechat_subscriptions).where(*mine))
                connection.execute(
                    wechat_subscriptions.insert().values(
                        conversation_id=conversation_id, template_id=template_id, state=state, at=iso(self._services.now())
                    )
                )

    # -- unsubscribed ---------------------------------------------------------------------------------------------

    def unlink(self, conversation_id: str) -> None:
        """Forget who this was: the openid, the half-told matter and the point go; tickets and what was said stay.

        The platform demands it on `unsubscribe`; the record of a filed appeal is kept under the law on archives. The
        conversation's id is a keyed hash, so a resident who comes back finds their tickets again.
        """
        with transaction(self._services.engine) as connection:
            nobody = self._services.vault.seal({"sender": "", "account": ""})
            found = connection.execute(
                update(conversations)
                .where(conversations.c.id == conversation_id)
                .values(sender=nobody, state=None, version=conversations.c.version + 1)
            )
            if not found.rowcount:
                return
            self._upsert(connection, conversation_id, "")
            now = iso(self._services.now())
            self._change(conversation_id, messages_left=0, taps_left=0, point=None, point_at=None, unlinked_at=now)
            mine = wechat_media.c.conversation_id == conversation_id
            connection.execute(delete(wechat_media).where(mine, wechat_media.c.kind == "voice"))
            connection.execute(delete(wechat_subscriptions).where(wechat_subscriptions.c.conversation_id == conversation_id))
            self._forget_sender(connection, conversation_id)

    def _forget_sender(self, connection: Connection, conversation_id: str) -> None:
        vault = self._services.vault
        rows = connection.execute(
            select(inbound_messages.c.id, inbound_messages.c.body).where(inbound_messages.c.conversation_id == conversation_id)
        ).fetchall()
        for row in rows:
            body = vault.seal({**vault.open(row.body), "sender": ""})
            connection.execute(update(inbound_messages).where(inbound_messages.c.id == row.id).values(body=body))

    def _upsert(self, connection: Connection, conversation_id: str, kind: str) -> None:
        now = self._services.now()
        connection.execute(
            _GRANT[kind],
            {
                "id": conversation_id,
                "messages": MESSAGE_QUOTA if kind == "message" else 0,
                "messages_until": iso(now + MESSAGE_SPAN),
                "taps": TAP_QUOTA if kind == "tap" else 0,
                "taps_until": iso(now + TAP_SPAN),
            },
        )

    def _change(self, conversation_id: str, **values: object) -> None:
        with transaction(self._services.engine, durable=False) as connection:
            connection.execute(
                update(wechat_contacts).where(wechat_contacts.c.conversation_id == conversation_id).values(**values)
            )
