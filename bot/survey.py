"""How a closed ticket was handled, as the resident sees it: a tap, a number or a word, and after a bad mark one question why.

A turn of its own, without Rasa: a tap names its ticket, so it means the same whatever was said in between. Knows no channel's
protocol. Rating words inside a sentence ("满意，路平多了") stay Rasa's.
"""
from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Row

from bot.assistant import Bubble, PreparedTurn, TurnResult
from bot.db import iso, reading
from bot.schema import inbound_messages, notices, surveys
from bot.services import Services
from bot.ticket import RATINGS, Ticket, alike
from bot.tickets import TicketNotFound

MENU_PREFIX = "sat:"
# Kept in the conversation's state, where Rasa's next turn drops what it does not know: only the very next words are the answer.
AWAITED = "survey_reason"
_AWAITED_FOR = timedelta(days=1)

FOREIGN = "这份评价对不上您名下的工单，没有记下。想问办到哪了，回复“查进度”。"
RECORDED = "“{title}”您已经评过“{label}”，记着呢，不用再评。还有什么想说的，直接告诉我。"
THANKS = "谢谢您的评价：“{title}”记为“{label}”。"
SORRY = "对不起，没让您满意。“{title}”已记为“{label}”。"
ASK_REASON = "哪里没办好？说一句就行，我记到工单里，转给{lead}。"
GO_ON = "我们接着说刚才的事。"
NOTED = "记下了，已加到“{title}”（{number}），转给{lead}。事情还没解决，或者要说的是另一件事，请再说一遍，我来登记。"
NO_REASON = "好的，不说也行，评价已经记下。"

_LABELS = {label: score for score, label in RATINGS.items()}
_MENU_ID = re.compile(rf"{MENU_PREFIX}([0-9]{{8}}-[0-9]{{4,10}}):([1-5])")
_EDGES = re.compile(r"^[\s“”\"']+|[\s“”\"'。.！!，,、～~]+$")
_NUMBERS = dict(zip("12345一二三四五", [*RATINGS] * 2, strict=True))
_NOTHING = re.compile(r"^(?:没有|没什么|没啥|没了|算了|不说了|不想说|不用了|无)(?:了|什么|说的|好说的)*$")
# A command is one also when a reason was asked for; longer words only when they are read as one with certainty.
_COMMANDS = frozenset({"ask_progress", "ask_human", "ask_capability", "urge", "withdraw", "greet", "thank", "goodbye"})
_SHORT, _CERTAIN = 8, 0.7
# Words that plainly name a matter of another class than the ticket's are about something new.
_PLAIN_MATTER = 0.6


def menu_items(number: str) -> list[tuple[str, str]]:
    """Id and words of each answer, as a menu offers them."""
    return [(f"{MENU_PREFIX}{number}:{score}", label) for score, label in RATINGS.items()]


@dataclass(frozen=True)
class Said:
    """A turn that answers and changes nothing but the conversation's state."""

    text: str
    state: Mapping[str, Any]

    def run(self) -> TurnResult:
        return TurnResult((Bubble(self.text),), (), self.state)


class Surveys:
    def __init__(self, services: Services, parse: Callable[[str], Mapping[str, Any]]) -> None:
        self._services, self._parse = services, parse

    def find_turn(self, row: Row, text: str, *, menu_id: str, channel: str, state: Mapping[str, Any] | None) -> PreparedTurn | None:
        """The turn that answers a survey with this message; None when it says something else. Raises AssistantError, StorageError."""
        state = {name: value for name, value in (state or {}).items() if name != AWAITED}
        if menu_id.startswith(MENU_PREFIX):
            return self._tapped(row.conversation_id, menu_id, state)
        answer = _EDGES.sub("", unicodedata.normalize("NFKC", text))
        if answer in _LABELS:
            found = self._last_told(row, channel)
            return None if found is None else _Rating(self._services, found.ticket_number, _LABELS[answer], state)
        if answer in _NUMBERS and not state.get("drafts"):
            found = self._last_told(row, channel)
            if found is None or not self._was_said_last(row, found):
                return None
            return _Rating(self._services, found.ticket_number, _NUMBERS[answer], state)
        return None

    def find_reason(self, row: Row, text: str, state: Mapping[str, Any] | None) -> PreparedTurn | None:
        """The turn that keeps why the resident was not satisfied; None when none was asked for or this is something else."""
        awaited = (state or {}).get(AWAITED)
        if not awaited or not text.strip() or awaited["until"] < iso(self._services.now()):
            return None
        rest = {name: value for name, value in (state or {}).items() if name != AWAITED}
        if _NOTHING.match(_EDGES.sub("", text)):
            return Said(NO_REASON, rest)
        ticket = self._services.tickets.get_ticket(awaited["ticket"])
        if ticket.conversation_id != row.conversation_id or not _is_reason(text, self._parse(text), ticket):
            return None
        return _Reason(self._services, ticket.number, text, rest)

    def _tapped(self, conversation_id: str, menu_id: str, state: Mapping[str, Any]) -> PreparedTurn:
        match = _MENU_ID.fullmatch(menu_id)
        try:
            ticket = self._services.tickets.get_ticket(match.group(1)) if match else None
        except TicketNotFound:
            ticket = None
        if match is None or ticket is None or ticket.conversation_id != conversation_id or not self._was_asked(ticket.number):
            return Said(FOREIGN, state)
        return _Rating(self._services, ticket.number, int(match.group(2)), state)

    def _was_asked(self, number: str) -> bool:
        with reading(self._services.engine) as connection:
            return connection.execute(select(surveys.c.score).where(surveys.c.ticket_number == number)).first() is not None

    def _last_told(self, row: Row, channel: str) -> Row | None:
        """The open survey this resident was asked last, and when: on the web page a notice shows at once."""
        told_at = func.coalesce(notices.c.delivered_at, notices.c.created_at) if channel == "web" else notices.c.delivered_at
        mine = and_(surveys.c.conversation_id == row.conversation_id, told_at.is_not(None))
        with reading(self._services.engine) as connection:
            return connection.execute(
                select(surveys.c.ticket_number, told_at.label("told_at"))
                .join(notices, notices.c.id == surveys.c.notice_id)
                .where(mine, surveys.c.score.is_(None))
                .order_by(told_at.desc(), surveys.c.notice_id.desc())
                .limit(1)
            ).first()

    def _was_said_last(self, row: Row, survey: Row) -> bool:
        """Whether a bare number answers the survey: nothing that could be meant as well was said since, or beside it."""
        stored = inbound_messages.c
        with reading(self._services.engine) as connection:
            last = connection.execute(
                select(stored.received_at, stored.answered_at, stored.reply)
                .where(stored.conversation_id == row.conversation_id, stored.id < row.id)
                .order_by(stored.id.desc())
                .limit(1)
            ).first()
        if last is None or survey.told_at > (last.answered_at or ""):
            return True
        said = self._services.vault.open(last.reply)["messages"] if last.reply else []
        return bool(survey.told_at >= last.received_at) and not any(bubble.get("buttons") for bubble in said)


@dataclass(frozen=True)
class _Rating:
    services: Services
    number: str
    score: int
    state: Mapping[str, Any]

    def run(self) -> TurnResult:
        earlier = self._recorded()
        if earlier is not None:
            return self._say(RECORDED, earlier)
        self.services.tickets.rate(self.number, satisfied=self.score >= 3, note="", score=self.score)
        if self.state.get("drafts"):
            return self._say((THANKS if self.score >= 3 else SORRY) + GO_ON, self.score)
        if self.score >= 3:
            return self._say(THANKS, self.score)
        until = iso(self.services.now() + _AWAITED_FOR)
        return self._say(SORRY + ASK_REASON, self.score, {**self.state, AWAITED: {"ticket": self.number, "until": until}})

    def _recorded(self) -> int | None:
        with reading(self.services.engine) as connection:
            score = connection.execute(select(surveys.c.score).where(surveys.c.ticket_number == self.number)).scalar()
        return None if score is None else int(score)

    def _say(self, words: str, score: int, state: Mapping[str, Any] | None = None) -> TurnResult:
        text = _fill(words, self.services.tickets.get_ticket(self.number), label=RATINGS[score])
        return Said(text, self.state if state is None else state).run()


@dataclass(frozen=True)
class _Reason:
    services: Services
    number: str
    text: str
    state: Mapping[str, Any]

    def run(self) -> TurnResult:
        ticket = self.services.tickets.give_feedback(self.number, self.text)
        return Said(_fill(NOTED, ticket), self.state).run()


def _fill(words: str, ticket: Ticket, **more: str) -> str:
    return words.format(title=ticket.title, number=ticket.number, lead=ticket.status_department or ticket.lead_department, **more)


def _is_reason(text: str, parse: Mapping[str, Any], ticket: Ticket) -> bool:
    """Danger, a command or a new matter goes its own way; everything else is what was asked for."""
    found = parse.get("reading") or {}
    intent = parse.get("intent") or {}
    if (found.get("urgency") or {}).get("emergency"):
        return False
    if intent.get("name") in _COMMANDS and (len(text) <= _SHORT or intent.get("confidence", 0.0) >= _CERTAIN):
        return False
    return not _is_new_matter(text, found, ticket)


def _is_new_matter(text: str, found: Mapping[str, Any], ticket: Ticket) -> bool:
    categories = found.get("categories") or []
    if len(text) <= 12 or not categories or found.get("first_level_confidence", 0.0) < _PLAIN_MATTER:
        return False
    same_class = str(categories[0]["code"])[:2] == ticket.petition.category[:2]
    return not same_class and not alike(text, ticket.title)
