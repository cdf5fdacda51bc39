"""Tables of residents, tickets, delivery and WeChat. Declarations only; what staff work with is in staff_schema.py.

Times are UTC ISO-8601 text with microseconds: they sort as text and mean the same in SQLite and PostgreSQL.
"""
from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()


def _where(condition: str) -> dict[str, Any]:
    """For an index of some rows only, in both dialects."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


conversations = Table(
    "conversation",
    metadata,
    Column("id", String(64), primary_key=True),  # keyed hash of channel, account and sender: safe to log
    Column("channel", String(16), nullable=False),
    Column("sender", LargeBinary, nullable=False),  # encrypted openid or browser id, needed to push messages
    Column("state", LargeBinary),  # encrypted slots of the dialogue
    Column("version", Integer, nullable=False, default=0),
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
)

inbound_messages = Table(
    "inbound_message",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False),
    Column("message_id", String(200), nullable=False),
    Column("body", LargeBinary, nullable=False),  # encrypted InboundMessage
    Column("reply", LargeBinary),  # encrypted Reply; NULL = not answered yet
    Column("delivery", String(16)),  # WeChat: passive | pushing | pushed | pending
    Column("received_at", String(32), nullable=False),
    Column("answered_at", String(32)),
    Column("delivery_at", String(32)),
    Column("delivered_with", Integer),  # the message whose HTTP answer carried this reply
    Column("model", String(60)),  # that read this message and chose the reply
    UniqueConstraint("conversation_id", "message_id", name="uq_inbound_message"),
    Index("ix_inbound_unanswered", "answered_at", "received_at"),
)

tickets = Table(
    "ticket",
    metadata,
    Column("number", String(20), primary_key=True),
    Column("request_key", String(120), nullable=False, unique=True),
    Column("conversation_id", String(64), index=True),
    Column("token_digest", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("source", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("request_type", String(8), nullable=False),
    Column("category_code", String(12), nullable=False),
    Column("urgency", String(8), nullable=False),
    Column("emergency", Boolean, nullable=False),
    Column("title", Text, nullable=False),
    Column("petition", LargeBinary, nullable=False),  # encrypted Petition: description, place, reporter
    Column("place_key", String(200)),
    Column("cluster", String(20), index=True),  # number of the first ticket on the same matter at the same place
    Column("lead_department", String(80), nullable=False),
    Column("co_departments", Text, nullable=False),
    Column("due_at", String(32)),
    Column("filed_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("status_at", String(32)),  # `at` of the newest status event, to ignore late older ones
    Column("status_department", String(80)),
    Column("service_request_id", String(120)),
    Column("district", String(80), index=True),  # whose staff may read it
    Column("confidential", Boolean, nullable=False, server_default="0"),
    Column("person_key", String(64), index=True),  # keyed hash of the appellant's number
    Column("model", String(60), nullable=False, server_default=""),
    Column("confidence", Float),  # of the category, as read
    Column("responded_at", String(32)),  # accepted by a department
    Column("replied_at", String(32)),  # first reply
    Column("closed_at", String(32)),
    Column("score", Integer),  # 5 … 1, the resident's verdict
    Column("position", BigInteger, nullable=False, server_default="0"),  # the number as an integer: grows with time
    Column("search_revision", Integer, nullable=False, server_default="0"),  # documents in ticket_search; 0 = not found yet
    Index("ix_ticket_filed", "filed_at"),
    Index("ix_ticket_place", "place_key", "number"),
    # The desk's list filters and counts by these: with all of them here it never reads the sealed rows to say no.
    Index(
        "ix_ticket_list", "position", "state", "district", "confidential", "request_type", "category_code", "urgency", "emergency",
        "source", "lead_department", "due_at", "filed_at", "confidence", "person_key", "search_revision",
    ),
)  # fmt: skip

ticket_events = Table(
    "ticket_event",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("ticket_number", String(20), ForeignKey("ticket.number"), nullable=False, index=True),
    Column("kind", String(24), nullable=False),
    Column("at", String(32), nullable=False),
    Column("actor", String(40), nullable=False),
    Column("department", String(80)),
    Column("note", LargeBinary),  # encrypted: residents write phone numbers into notes
    Index("ix_ticket_event_actor", "actor", "ticket_number"),
)

ticket_days = Table(
    "ticket_day",
    metadata,
    Column("day", String(8), primary_key=True),
    Column("last", Integer, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", String(40), primary_key=True),  # the webhook-id and idempotency key
    Column("position", Integer, nullable=False),  # order within the ticket
    Column("ticket_number", String(20), ForeignKey("ticket.number"), nullable=False, index=True),
    Column("type", String(24), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", String(12), nullable=False),  # pending | delivered | parked
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", String(32), nullable=False),
    Column("lease_until", String(32)),
    Column("lease_owner", String(40)),
    Column("last_error", Text),
    Column("created_at", String(32), nullable=False),
    Column("delivered_at", String(32)),
    Index("ix_outbox_due", "state", "next_attempt_at"),
    UniqueConstraint("ticket_number", "position", name="uq_outbox_position"),
)

outbox_attempts = Table(
    "outbox_attempt",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("outbox_id", String(40), ForeignKey("outbox.id"), nullable=False, index=True),
    Column("at", String(32), nullable=False),
    Column("outcome", Text, nullable=False),
)

webhooks_seen = Table(
    "webhook_seen",
    metadata,
    Column("id", String(120), primary_key=True),
    Column("at", String(32), nullable=False, index=True),
)

notices = Table(
    "notice",  # what the resident is to hear at the next opportunity
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("ticket_number", String(20)),
    Column("text", LargeBinary, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("delivered_at", String(32)),
    Column("status", String(24)),  # of the ticket, where the notice tells one
    Column("asks", Boolean),  # ends with the question how it went
    Column("notified_at", String(32)),  # a template message or subscription notification was tried, once
    Column("author", String(40)),  # the agent who wrote it; NULL = the service
)

surveys = Table(
    "survey",  # the question how it went, asked once for each closed ticket
    metadata,
    Column("ticket_number", String(20), ForeignKey("ticket.number"), primary_key=True),
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("notice_id", Integer, nullable=False),
    Column("score", Integer),  # 5 = very satisfied … 1
    Column("answered_at", String(32)),
)

attachments = Table(
    "attachment",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("ticket_number", String(20), index=True),
    Column("media_type", String(60), nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
)

sandbox_deliveries = Table(
    "sandbox_delivery",  # the stand-in dispatch system's inbox, used while DISPATCH_URL is empty
    metadata,
    Column("id", String(40), primary_key=True),
    Column("ticket_number", String(20), nullable=False, index=True),
    Column("type", String(24), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("received_at", String(32), nullable=False),
)

handovers = Table(
    "handover",  # conversations waiting for, or held by, a person
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("reason", String(40), nullable=False),
    Column("opened_at", String(32), nullable=False),
    Column("closed_at", String(32)),
    Column("username", String(40)),  # who has taken it
    Column("taken_at", String(32)),
    Index("uq_handover_open", "conversation_id", unique=True, **_where("closed_at IS NULL")),
)

diversions = Table(
    "diversion",  # what the service may not take, told the right way to go; counted, never lost
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False),
    Column("reason_code", String(40), nullable=False),
    Column("at", String(32), nullable=False),
)

misunderstandings = Table(
    "misunderstanding",  # messages that were not understood; supervisors review them
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(64), nullable=False),
    Column("message_id", String(200), nullable=False),
    Column("at", String(32), nullable=False),
)

wechat_accounts = Table(
    "wechat_account",  # what all processes share about the official account: its access token, and whether it may push
    metadata,
    Column("app_id", String(64), primary_key=True),  # with /jsapi behind it: the row of the ticket of its pages
    Column("name", String(64)),  # gh_…, which is how messages name the account
    Column("token", LargeBinary),  # encrypted
    Column("token_expires_at", String(32)),
    Column("lease_until", String(32)),  # until then somebody is fetching a token
    Column("forced_at", String(32)),
    Column("push_refused_at", String(32)),  # when the platform last said that customer-service messages are not permitted
)

wechat_contacts = Table(
    "wechat_contact",  # how often the platform still lets us write to a follower, and the point the app reported last
    metadata,
    Column("conversation_id", String(64), primary_key=True),
    Column("messages_left", Integer, nullable=False),
    Column("messages_until", String(32), nullable=False),
    Column("taps_left", Integer, nullable=False),
    Column("taps_until", String(32), nullable=False),
    Column("point", LargeBinary),  # encrypted
    Column("point_at", String(32)),
    Column("unlinked_at", String(32)),  # unsubscribed: no openid is kept
)

wechat_media = Table(
    "wechat_media",  # pictures, videos and voice to be fetched from the platform within three days
    metadata,
    Column("id", String(40), primary_key=True),  # of pictures and videos also the attachment's
    Column("conversation_id", String(64), nullable=False, index=True),
    Column("kind", String(12), nullable=False),  # picture | video | voice
    Column("body", LargeBinary, nullable=False),  # encrypted media id; for voice the message that its words will be
    Column("state", String(12), nullable=False),  # waiting | kept | failed
    Column("reason", String(120)),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", String(32), nullable=False),  # while one fetches: when another one may
    Column("created_at", String(32), nullable=False),
    Index("ix_wechat_media_due", "state", "next_attempt_at"),
)

wechat_subscriptions = Table(
    "wechat_subscription",  # whether a resident wants a kind of subscription notification
    metadata,
    Column("conversation_id", String(64), primary_key=True),
    Column("template_id", String(120), primary_key=True),
    Column("state", String(12), nullable=False),  # accept | reject
    Column("at", String(32), nullable=False),
)

wechat_notifications = Table(
    "wechat_notification",  # template messages and subscription notifications, and what the platform said became of them
    metadata,
    Column("message_id", String(40), primary_key=True),
    Column("conversation_id", String(64), nullable=False),
    Column("notice_id", Integer),
    Column("result", String(60)),
    Column("at", String(32), nullable=False),
    Index("ix_wechat_notification_foreign", "notice_id", "at"),
)
