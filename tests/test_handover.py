"""Conversations change hands: the bot's silence, danger all the same, the form intact, nobody left waiting, nothing said twice."""
from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import Clock
from sqlalchemy import select
from stub_app import stub_services

from bot.access import Access
from bot.assistant import Bubble, PreparedTurn, Turn, TurnResult
from bot.conversation import Conversations, InboundMessage
from bot.db import transaction
from bot.handover import CLOSED, GIVEN_BACK, TAKEN, UNANSWERED, NotYours
from bot.handover_form import HandoverForm
from bot.history import read_history
from bot.petition import Petition
from bot.schema import conversations, handovers, metadata, notices, outbox
from bot.services import Services
from bot.staff import StaffMember
from bot.staff_schema import corrections
from bot.ticket_desk import Refused

ALARM = "着火了快来人"
LI = StaffMember("1024", "李女士", "agent", (), cleared=False, department=None, epoch=0)
WANG = replace(LI, username="2048", display_name="王女士")
DRAFT = Petition(
    id="d1", texts=("淮海东路的路灯坏了",), request_type="求助", category="010202", category_confidence=0.6, alternatives=(("010202", 0.6),),
    model="m1", evidence=({"text": "路灯", "start": 5, "end": 7, "weight": 1.0},),
)  # fmt: skip


@dataclass(frozen=True)
class Parrot:
    """An assistant that repeats what it hears, keeps its form, and hears danger in one sentence."""

    services: Services
    concurrency: ClassVar[int] = 4
    pause: threading.Event | None = None
    entered: threading.Event | None = None

    def prepare(self, turn: Turn) -> PreparedTurn:
        if self.entered and self.pause:
            self.entered.set()
            self.pause.wait(10)
        return _Echo(self.services, turn)

    def parse(self, text: str) -> Mapping[str, Any]:
        danger = ALARM in text
        reading = {
            "categories": [{"code": "010202", "confidence": 0.9}], "first_level_confidence": 0.9, "evidence": [],
            "request_type": {"name": "投诉", "confidence": 0.8}, "urgency": {"level": "一般", "emergency": danger, "reasons": []},
        }  # fmt: skip
        return {"reading": reading, "place_spans": []}

    def serving_model(self) -> str:
        return "m2"


@dataclass(frozen=True)
class _Echo:
    services: Services
    turn: Turn

    def run(self) -> TurnResult:
        state = dict(self.turn.state or {})
        if self.turn.text == "路灯坏了":
            state = {**state, "drafts": [DRAFT.as_dict()], "asked": "location"}
        if self.turn.text in ("转人工", ALARM):
            self.services.handovers.open(self.turn.conversation_id, "emergency" if self.turn.text == ALARM else "asked")
        return TurnResult((Bubble("请先打 119" if self.turn.text == ALARM else f"您说：{self.turn.text}"),), (), state)


@pytest.fixture(params=["sqlite", "postgresql"])
def services(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Services]:
    chosen = {"MINSHENG_DATABASE_URL": request.getfixturevalue("postgres_url")} if request.param == "postgresql" else {}
    built = stub_services(tmp_path, now=clock, **chosen)
    yield built

    metadata.drop_all(built.engine)
    built.engine.dispose()


class Talk:
    """One resident, and the bot with whom they talk."""

    def __init__(self, services: Services, clock: Clock, channel: str = "api", assistant: Parrot | None = None) -> None:
        self.services, self.clock, self.channel = services, clock, channel
        self.bot = Conversations(services, assistant or Parrot(services))
        self.id = self.bot.conversation_id(channel, "somebody")
        self.count = 0

    def say(self, text: str, **more: Any) -> list[str]:
        self.clock.forward(seconds=1)
        self.count += 1
        message = InboundMessage(self.channel, "somebody", f"m{self.count}", text, **more)
        return [bubble.text for bubble in self.bot.respond(message).messages]

    def state(self) -> dict[str, Any]:
        with self.services.engine.connect() as connection:
            sealed = connection.execute(select(conversations.c.state).where(conversations.c.id == self.id)).scalar()
        return dict(self.services.vault.open(sealed)) if sealed else {}

    def form(self, member: StaffMember = LI) -> HandoverForm:
        return HandoverForm(Access(self.services, member), self.id, self.bot.assistant)

    def told(self) -> list[str]:
        with self.services.engine.connect() as connection:
            rows = connection.execute(select(notices.c.text).order_by(notices.c.id)).scalars()
            return [str(self.services.vault.open(text)) for text in rows]


@pytest.fixture
def talk(services: Services, clock: Clock) -> Talk:
    return Talk(services, clock)


@pytest.fixture
def held(talk: Talk) -> Talk:
    """The form half filled, and 李女士 has the conversation."""
    talk.say("路灯坏了")
    talk.say("转人工")
    talk.clock.forward(seconds=1)
    talk.services.handovers.take(talk.id, LI)
    talk.clock.forward(seconds=1)
    return talk


# -- the bot's silence ------------------------------------------------------------------------------------------------


def test_until_somebody_takes_it_the_bot_goes_on_answering(talk: Talk) -> None:
    talk.say("转人工")
    assert talk.say("在吗") == ["您说：在吗"]


def test_while_a_person_has_it_the_bot_is_silent_and_everything_is_kept(held: Talk) -> None:
    assert held.say("你好") == [f"[李女士] {TAKEN}"]  # what the person said comes with the next contact
    assert held.say("在吗") == []
    said = [(item.sender, item.text) for item in read_history(held.services, held.id)]
    assert said[-2:] == [("resident", "你好"), ("resident", "在吗")] and said.count(("staff", f"[李女士] {TAKEN}")) == 1


def test_danger_is_answered_whoever_has_the_conversation(held: Talk) -> None:
    assert held.say(ALARM)[-1] == "请先打 119"
    found = held.services.handovers.find(held.id)
    assert found is not None and found.reason == "emergency" and found.username == "1024"


def test_repeated_message_is_answered_with_the_same_silence(held: Talk) -> None:
    message = InboundMessage("api", "somebody", "twice", "在吗")
    assert held.bot.respond(message) == held.bot.respond(message)


def test_picture_and_place_that_come_meanwhile_belong_to_the_form(held: Talk) -> None:
    held.say("", kind="picture", attachment="p1")
    held.say("位置", kind="location", location={"lat": 33.6, "lng": 119.0, "label": ""})
    state = held.state()
    assert state["drafts"][0]["attachments"] == ["p1"] and state["point"]["lat"] == 33.6 and state["asked"] == "location"


def test_turn_under_way_while_somebody_takes_over_is_not_said(services: Services, clock: Clock) -> None:
    """The bot was thinking when the person came: it looks again and leaves the message to them."""
    pause, entered = threading.Event(), threading.Event()
    talk = Talk(services, clock, assistant=Parrot(services))
    talk.say("转人工")
    slow = Conversations(services, Parrot(services, pause, entered))
    said: list[Any] = []
    thread = threading.Thread(target=lambda: said.append(slow.respond(InboundMessage("api", "somebody", "slow", "还在吗"))))
    thread.start()
    assert entered.wait(10)
    services.handovers.take(talk.id, LI)
    pause.set()
    thread.join(10)
    assert [bubble.text for bubble in said[0].messages] == [f"[李女士] {TAKEN}"]


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_of_two_people_one_gets_it(services: Services, clock: Clock) -> None:
    talk = Talk(services, clock)
    talk.say("转人工")
    outcomes: list[str] = []

    def grab(member: StaffMember) -> None:
        try:
            services.handovers.take(talk.id, member)
            outcomes.append(member.username)
        except NotYours:
            outcomes.append("late")

    threads = [threading.Thread(target=grab, args=(member,)) for member in (LI, WANG)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[-1] == "late" and len(talk.told()) == 1


def test_only_who_has_it_writes_fills_files_and_gives_it_back(held: Talk) -> None:
    services, form = held.services, held.form(WANG)
    for act in (
        lambda: services.handovers.write(held.id, WANG, "我来"),
        lambda: services.handovers.close(held.id, WANG),
        lambda: form.save("d1", {"urgency": "紧急"}),
        lambda: form.file("d1"),
        form.start,
        form.give_back,
    ):
        with pytest.raises(NotYours):
            act()
    assert held.told() == [f"[李女士] {TAKEN}"]


def test_queue_puts_danger_first_and_shows_who_has_what(services: Services, clock: Clock) -> None:
    ids = []
    for sender in ("a", "b", "c"):
        bot = Conversations(services, Parrot(services))
        clock.forward(seconds=1)
        bot.respond(InboundMessage("web", sender, "m1", ALARM if sender == "c" else "转人工"))
        ids.append(bot.conversation_id("web", sender))
    services.handovers.take(ids[0], LI)
    listed = services.handovers.list_open()
    assert [item.conversation_id for item in listed] == [ids[2], ids[1], ids[0]]
    assert [item.holder for item in listed] == [None, None, "1024"]
    assert services.handovers.open(ids[1], "asked") == 0 and services.handovers.dismiss(ids[1])
    assert not services.handovers.dismiss(ids[0])


def test_one_conversation_waits_once(talk: Talk) -> None:
    for _ in range(3):
        talk.say("转人工")
    with talk.services.engine.connect() as connection:
        assert len(connection.execute(select(handovers)).fetchall()) == 1


def test_conversation_nobody_asked_for_can_be_taken_too(talk: Talk) -> None:
    talk.say("你好")
    talk.services.handovers.take(talk.id, LI)
    found = talk.services.handovers.find(talk.id)
    assert found is not None and found.reason_label == "工作人员联系"


# -- the form ---------------------------------------------------------------------------------------------------------


def test_given_back_the_form_is_intact_and_the_bot_asks_for_what_is_missing(held: Talk) -> None:
    before = held.state()
    held.form().give_back()
    after = held.state()
    assert after["asked"] == "location" and {**after["drafts"][0], "unanswered": {}} == {**before["drafts"][0], "unanswered": {}}
    assert held.told()[-1].startswith(GIVEN_BACK) and "还差地点" in held.told()[-1]
    assert held.say("桂花新村3栋")[-1] == "您说：桂花新村3栋"


def test_what_the_person_filled_in_is_the_bots_form(held: Talk) -> None:
    held.form().save("d1", {"place": "清江浦区桂花新村3栋", "request_type": "投诉", "name": "李女士", "phone": "13800000001"})
    held.form().give_back()
    draft, told = held.state()["drafts"][0], held.told()[-1]
    assert draft["place"]["district"] == "清江浦区" and draft["phone"] == "13800000001" and "request_type" in draft["fixed"]
    assert held.state()["asked"] == "confirm" and "确认提交" in told and "〔地点〕清江浦区桂花新村3栋" in told and "138" not in told


def test_resident_who_writes_meanwhile_does_not_undo_the_form(held: Talk) -> None:
    held.form().save("d1", {"urgency": "紧急"})
    held.say("快点")
    assert held.state()["drafts"][0]["urgency"] == "紧急"


def test_words_are_quoted_into_the_form_and_read(talk: Talk) -> None:
    talk.say("小区门口垃圾没人收")
    talk.services.handovers.take(talk.id, LI)
    quoted = next(item.id for item in read_history(talk.services, talk.id) if item.sender == "resident")
    talk.form().quote(int(quoted[1:]))
    draft = talk.form().read()["drafts"][0]
    assert draft["description"] == "小区门口垃圾没人收" and draft["request_type"] == "投诉" and draft["category"].startswith("010202")
    with pytest.raises(Refused):
        talk.form().quote(999_999)


def test_filing_is_one_ticket_its_labels_and_word_to_the_resident(held: Talk) -> None:
    form, services = held.form(), held.services
    form.save("d1", {"category": "010211", "place": "桂花新村3栋"})
    ticket = form.file("d1")
    assert ticket.petition.category == "010211" and services.tickets.timeline(ticket.number)[0].actor == "1024"
    assert held.state()["drafts"] is None and held.state()["recent_tickets"] == [ticket.number]
    assert ticket.number in held.told()[-1] and held.told()[-1].startswith("[李女士]")
    with services.engine.connect() as connection:
        rows = connection.execute(select(corrections).order_by(corrections.c.id)).fetchall()
        assert connection.execute(select(outbox.c.type)).scalars().all() == ["ticket.created"]
    opened = services.vault.open
    assert [(row.field, opened(row.old), opened(row.new), row.model) for row in rows] == [
        ("category", "010202", "010211", "m1"), ("place", None, "桂花新村3栋", "m1"),
    ]  # fmt: skip
    with pytest.raises(Refused):
        form.file("d1")


def test_empty_form_is_not_filed(talk: Talk) -> None:
    talk.say("你好")
    talk.services.handovers.take(talk.id, LI)
    talk.form().start()
    draft = talk.form().read()["drafts"][0]
    with pytest.raises(Refused, match="诉求内容"):
        talk.form().file(draft["id"])


def test_half_written_change_leaves_nothing(held: Talk) -> None:
    with pytest.raises(Refused), transaction(held.services.engine):
        held.form().save("d1", {"urgency": "紧急", "phone": "12"})
    assert held.state()["drafts"][0]["urgency"] == "一般"


# -- nobody is left waiting -------------------------------------------------------------------------------------------


def test_who_is_not_answered_is_told_and_gets_the_bot_back(held: Talk) -> None:
    patience = timedelta(minutes=5)
    held.services.handovers.write(held.id, LI, "请稍等")
    assert held.services.handovers.release_idle(patience) == []
    held.say("好了吗")
    held.clock.forward(minutes=4)
    assert held.services.handovers.release_idle(patience) == []
    held.clock.forward(minutes=1)
    assert held.services.handovers.release_idle(patience) == [held.id] and held.services.handovers.release_idle(patience) == []
    assert UNANSWERED in held.told() and held.state()["drafts"]
    assert held.say("有人吗")[-1] == "您说：有人吗"
    held.services.handovers.take(held.id, WANG)  # it still waits for a person


def test_person_who_never_says_a_word_loses_it_too(held: Talk) -> None:
    held.clock.forward(minutes=6)
    assert held.services.handovers.release_idle(timedelta(minutes=5)) == [held.id]


def test_person_who_waits_for_the_resident_keeps_it(held: Talk) -> None:
    held.services.handovers.write(held.id, LI, "请问是哪一盏？")
    held.clock.forward(hours=3)
    assert held.services.handovers.release_idle(timedelta(minutes=5)) == []


def test_closed_conversation_is_the_bots_again(held: Talk) -> None:
    held.services.handovers.close(held.id, LI)
    assert held.told()[-1] == f"[李女士] {CLOSED}" and held.services.handovers.find(held.id) is None
    assert held.say("再问一句")[-1] == "您说：再问一句"


def test_another_process_and_a_restart_see_the_same(held: Talk) -> None:
    again = Talk(held.services, held.clock)
    again.count = 100
    assert again.say("在吗") == [f"[李女士] {TAKEN}"] and again.say("在吗") == []


# -- who may read -----------------------------------------------------------------------------------------------------


def readable(talk: Talk, *districts: str, **changes: Any) -> bool:
    return Access(talk.services, replace(WANG, districts=districts, **changes)).may_read_conversation(talk.id)


def test_conversation_belongs_to_the_place_of_its_form_and_tickets(held: Talk) -> None:
    assert readable(held, "涟水县") and readable(held, "清江浦区")  # nobody knows yet where it is
    held.form().save("d1", {"place": "清江浦区桂花新村3栋"})
    assert not readable(held, "涟水县") and readable(held, "清江浦区") and readable(held)
    held.form().file("d1")
    assert not readable(held, "涟水县") and readable(held, "清江浦区")


def test_who_has_it_reads_it_to_the_end(held: Talk) -> None:
    mine = replace(LI, districts=("涟水县",))
    held.form().save("d1", {"place": "清江浦区桂花新村3栋"})
    assert Access(held.services, mine).may_read_conversation(held.id)
    held.services.handovers.close(held.id, LI)
    assert not Access(held.services, mine).may_read_conversation(held.id)


def test_secret_matter_is_for_the_cleared(held: Talk) -> None:
    held.form().save("d1", {"confidential": True})
    assert not readable(held) and readable(held, cleared=True)


def test_department_spoken_about_reads_no_report(held: Talk) -> None:
    held.form().save("d1", {"request_type": "举报"})
    assert not readable(held, department="市城市管理局", cleared=True) and readable(held)
