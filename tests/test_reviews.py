"""What is filed, corrected, returned and not understood becomes review items, read by the real model; and what reviewers make of them."""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from sqlalchemy import select

from bot import db
from bot.annotations import effective_annotations
from bot.conversation import Conversations, InboundMessage
from bot.judging import JudgementRefused, Judging
from bot.petition import Petition
from bot.review_index import ReviewIndex
from bot.review_labels import INTENT_NAMES, LabelRefused
from bot.review_queue import Filters, ItemNotFound, ReviewQueue
from bot.reviews import Reviews, Utterance, priority_of
from bot.services import Services, install_services
from bot.staff import StaffMember
from bot.staff_schema import call_turns, calls, corrections, review_items
from bot.ticket import StatusEvent
from tests.conftest import Clock

if TYPE_CHECKING:
    from bot.embedded import EmbeddedAssistant

LAMP = "清江浦区桂花新村门口的路灯坏了三天了，晚上看不见路，电话13800000000"
WAGES = "工地上的包工头拖欠我们三个月工资，找他就说没钱"


def person(username: str, role: str = "supervisor", districts: tuple[str, ...] = ()) -> StaffMember:
    return StaffMember(username, username, role, districts, True, None, 0)


LI, WANG, ZHAO, CHIEF = person("li"), person("wang"), person("zhao"), person("chief", "admin")


@pytest.fixture
def reviews(services: Services, assistant: EmbeddedAssistant) -> Reviews:
    install_services(services)  # the actions find them there
    return Reviews(services, assistant, ReviewIndex(services))


@pytest.fixture
def queue(reviews: Reviews) -> ReviewQueue:
    return ReviewQueue(reviews.services, reviews.index)


@pytest.fixture
def judging(services: Services) -> Judging:
    return Judging(services)


def look(reviews: Reviews) -> None:
    """A row is read one round after it was first seen."""
    reviews.make_items()
    reviews.make_items()


def file(services: Services, text: str, *, key: str = "", **fields: Any) -> str:
    petition = Petition(id=key or text[:10], texts=(text,), **{"source": "wechat", **fields})
    return services.tickets.open_ticket(petition, request_key=key or text, conversation_id=None).number


def items(services: Services) -> list[Any]:
    with db.reading(services.engine) as connection:
        return connection.execute(select(review_items).order_by(review_items.c.id)).fetchall()


def reasons(services: Services) -> set[str]:
    (item,) = items(services)
    return set(filter(None, item.reasons.split(","))) - {"random", "low"}


def correct(services: Services, subject: str, field: str, new: Any, source: str = "ticket") -> None:
    seal = services.vault.seal
    row = {"at": db.iso(services.now()), "username": "agent", "source": source, "subject": subject, "field": field, "model": "m1"}
    with db.transaction(services.engine) as connection:
        connection.execute(corrections.insert().values(**row, old=seal(None), new=seal(new), evidence=seal("")))


# -- making items ---------------------------------------------------------------------------------------------------------


def test_a_filed_ticket_becomes_one_item_masked_sealed_and_read(services: Services, reviews: Reviews) -> None:
    number = file(services, LAMP)
    look(reviews)
    (item,) = items(services)
    assert (item.channel, item.subject, item.state, item.model) == ("wechat", number, "open", reviews.assistant.serving_model())
    text = str(services.vault.open(item.text))
    assert "13800000000" not in text and "桂花新村" in text
    prediction = json.loads(item.prediction)
    assert prediction["evidence"] and prediction["places"] and item.category_code == prediction["categories"][0]["code"]
    assert not re.search(r"桂花|路灯|13800000000", item.prediction)  # nothing of the words is kept in the clear
    look(reviews)
    assert len(items(services)) == 1


def test_the_same_words_are_one_item(services: Services, reviews: Reviews) -> None:
    file(services, LAMP, key="a")
    file(services, LAMP, key="b")
    look(reviews)
    assert len(items(services)) == 1


@pytest.mark.parametrize("fields", [{"confidential": True}, {"kind": "minor"}])
def test_what_is_confidential_is_never_reviewed(services: Services, reviews: Reviews, fields: dict[str, Any]) -> None:
    file(services, WAGES, **fields)
    look(reviews)
    assert items(services) == []


def test_a_correction_is_a_reason_and_proposed_to_the_reviewer(services: Services, reviews: Reviews, queue: ReviewQueue) -> None:
    number = file(services, LAMP)
    look(reviews)
    before = items(services)[0]
    correct(services, number, "category", "060201")
    look(reviews)
    assert reasons(services) == {"corrected", "disagreement"}
    shown = queue.item(LI, before.id)
    assert shown["labels"]["category"] == "060201" and shown["predicted"]["category"] == before.category_code
    assert items(services)[0].priority > before.priority


def test_a_correction_of_a_call_counts_for_its_ticket_and_its_words_are_the_callers(services: Services, reviews: Reviews) -> None:
    now = db.iso(services.now())
    said = [("agent", "您好，请讲"), ("citizen", "我们这的路灯坏了"), ("citizen", "在桂花新村门口")]
    with db.transaction(services.engine) as connection:
        connection.execute(calls.insert().values(id="c1", state="filed", origin="pasted", form=services.vault.seal({}), created_at=now, updated_at=now))
        for position, (speaker, text) in enumerate(said):
            row = {"call_id": "c1", "position": position, "turn_id": str(position), "speaker": speaker, "at": now}
            connection.execute(call_turns.insert().values(**row, text=services.vault.seal(text)))
    file(services, "路灯坏，请修", key="call:c1", source="hotline")
    correct(services, "c1", "request_type", "建议", source="call")
    look(reviews)
    (item,) = items(services)
    assert services.vault.open(item.text) == "我们这的路灯坏了\n在桂花新村门口" and item.channel == "hotline"
    assert "corrected" in item.reasons and json.loads(item.prediction)["corrected"] == {"request_type": "建议"}


def test_a_returned_ticket_is_a_reason(services: Services, reviews: Reviews) -> None:
    number = file(services, LAMP)
    event = StatusEvent("evt_1", number, "returned", services.now(), "城管局", "不是本单位职责")
    services.tickets.record_status(event)
    look(reviews)
    assert reasons(services) == {"returned"}


def test_a_message_that_was_not_understood_is_reviewed(services: Services, reviews: Reviews) -> None:
    conversations = Conversations(services, reviews.assistant)
    said = "嘎嘣咯吱呱唧"
    conversations.respond(InboundMessage("web", "somebody", "m1", said))
    look(reviews)
    (item,) = items(services)
    assert services.vault.open(item.text) == said and item.channel == "web" and "fallback" in item.reasons


def test_two_models_that_read_it_differently_are_a_reason(services: Services, reviews: Reviews) -> None:
    file(services, LAMP, model="an earlier one", alternatives=(("060201", 0.9),))
    look(reviews)
    assert reasons(services) == {"disagreement"}


def test_a_judged_item_is_opened_again_by_a_correction(services: Services, reviews: Reviews, queue: ReviewQueue, judging: Judging, clock: Clock) -> None:
    number = file(services, LAMP)
    look(reviews)
    item = queue.item(LI, items(services)[0].id)
    assert judging.judge(LI, item["id"], item["labels"], version=item["version"]) == "accepted"
    correct(services, number, "category", "060201")
    look(reviews)
    assert items(services)[0].state == "open"


def test_priority_is_how_likely_the_reading_is_wrong() -> None:
    sure, unsure = priority_of(0.95, []), priority_of(0.3, [])
    assert sure < unsure < priority_of(0.3, ["returned"]) < priority_of(0.3, ["returned", "corrected"]) < 1
    order = ["random", "fallback", "disagreement", "returned", "corrected"]
    assert sorted(order, key=lambda reason: priority_of(0.9, [reason])) == order


def test_the_least_urgent_are_forgotten_when_there_are_too_many(services: Services, reviews: Reviews, queue: ReviewQueue, judging: Judging) -> None:
    for text in (LAMP, WAGES, "人民路上的井盖松了", "隔壁装修太吵"):
        file(services, text)
    look(reviews)
    rows = sorted(items(services), key=lambda row: row.priority)
    judged = queue.item(LI, rows[0].id)
    judging.judge(LI, judged["id"], judged["labels"], version=judged["version"])
    reviews.trim(1)
    left = items(services)
    assert rows[0].id in {row.id for row in left} and len([row for row in left if row.state == "open"]) in (1, 2)


def test_every_intent_that_people_say_can_be_given() -> None:
    domain = yaml.safe_load((Path(__file__).parent.parent / "domain.yml").read_text(encoding="utf-8"))
    found_by_rules = {"report_emergency", "nlu_fallback", "share_location", "send_picture", "open_scene"}
    assert set(INTENT_NAMES) == set(domain["intents"]) - found_by_rules


# -- reading the queue ----------------------------------------------------------------------------------------------------


@pytest.fixture
def four(reviews: Reviews) -> list[int]:
    """Three that tell of the same matter and one of another district."""
    texts = ["小区门口路灯坏了三天了，晚上很黑", "小区门口的路灯坏了，晚上很黑看不见", "我们小区门口路灯坏了，晚上很黑"]
    for number, text in enumerate(texts):
        reviews.keep(Utterance(text, "web", f"t{number}", "清江浦区", f"2026-11-1{number}T00:00:00.000000+00:00"))
    reviews.keep(Utterance(WAGES, "hotline", "t3", "涟水县", "2026-11-18T00:00:00.000000+00:00", frozenset({"returned"})))
    return [row.id for row in items(reviews.services)]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (Filters(), 4), (Filters(channel="hotline"), 1), (Filters(district="涟水县"), 1), (Filters(reason="returned"), 1), (Filters(category="04"), 1),
        (Filters(words="路灯 晚上"), 3), (Filters(words="路灯 工资"), 0), (Filters(since="2026-11-12"), 2), (Filters(until="2026-11-11"), 1),
        (Filters(model="nothing"), 0), (Filters(state="done"), 0), (Filters(words="路燈"), 3),
    ],
)  # fmt: skip
def test_filters_and_search(queue: ReviewQueue, four: list[int], filters: Filters, count: int) -> None:
    assert len(queue.page(LI, filters)) == count


def test_what_is_of_another_district_does_not_exist(queue: ReviewQueue, four: list[int]) -> None:
    near = person("near", districts=("清江浦区",))
    assert len(queue.page(near, Filters())) == 3 and queue.facets(near)["states"]["open"] == 3
    with pytest.raises(ItemNotFound):
        queue.item(near, four[3])


def test_the_doubtful_come_first_and_pages_go_on(queue: ReviewQueue, four: list[int]) -> None:
    rows = queue.page(LI, Filters())
    assert rows[0]["id"] == four[3] and [row["priority"] for row in rows] == sorted((row["priority"] for row in rows), reverse=True)
    after = queue.page(LI, Filters(), after=(rows[1]["priority"], rows[1]["id"]))
    assert [row["id"] for row in after] == [row["id"] for row in rows[2:]]


def test_similar_ones_are_shown_with_what_they_were_judged_to_be(queue: ReviewQueue, judging: Judging, four: list[int]) -> None:
    item = queue.item(LI, four[0])
    judging.judge(LI, four[0], {"intent": "report_problem", "category": "0102"}, version=item["version"])
    found = queue.similar(LI, four[1])
    assert {one["id"] for one in found} >= {four[0], four[2]} and four[1] not in {one["id"] for one in found}
    assert {one["judged"] for one in found if one["id"] == four[0]} == {True}


def test_what_reads_alike_is_one_group_and_accepted_at_once(services: Services, queue: ReviewQueue, judging: Judging, four: list[int]) -> None:
    (group,) = queue.clusters(LI, Filters())
    assert group["size"] == 3
    opened = queue.cluster(LI, group["cluster"])
    assert judging.judge_all(LI, four[:2], {"category": opened["category"]}) == 2
    assert [row.state for row in items(services)] == ["accepted", "accepted", "open", "open"]
    assert sorted(judging.undo(LI)) == four[:2]
    assert {row.state for row in items(services)} == {"open"}


# -- judging --------------------------------------------------------------------------------------------------------------


def judge(queue: ReviewQueue, judging: Judging, who: StaffMember, item_id: int, **labels: Any) -> str:
    item = queue.item(who, item_id)
    return judging.judge(who, item_id, {**item["predicted"], **labels}, version=item["version"])


def settled(services: Services) -> dict[str, Any]:
    with db.reading(services.engine) as connection:
        found = effective_annotations(connection)
    return found[0].labels if found else {}


def test_accepting_and_fixing_are_told_apart_and_kept_with_author_and_model(services: Services, queue: ReviewQueue, judging: Judging, four: list[int]) -> None:
    assert judge(queue, judging, LI, four[0]) == "accepted"
    assert judge(queue, judging, LI, four[1], request_type="建议") == "fixed"
    with db.reading(services.engine) as connection:
        rows = connection.exec_driver_sql("SELECT author, source, model, item_id FROM annotation ORDER BY id").fetchall()
    assert [tuple(row) for row in rows] == [("li", "review", queue.item(LI, one)["model"], one) for one in four[:2]]


def test_undo_takes_back_one_after_the_other(queue: ReviewQueue, judging: Judging, four: list[int]) -> None:
    judge(queue, judging, LI, four[0])
    judging.skip(LI, four[1], version=queue.item(LI, four[1])["version"])
    judge(queue, judging, WANG, four[2])
    assert judging.undo(LI) == [four[1]] and judging.undo(LI) == [four[0]] and judging.undo(LI) == []
    assert [row["id"] for row in queue.page(LI, Filters(state="done"))] == [four[2]]


def test_two_who_differ_are_decided_by_a_third(services: Services, queue: ReviewQueue, judging: Judging, four: list[int]) -> None:
    judge(queue, judging, LI, four[0], category="0102")
    assert judge(queue, judging, WANG, four[0], category="0602") == "disputed"
    assert "category" not in settled(services)
    assert judge(queue, judging, ZHAO, four[0], category="0602") == "fixed"
    assert settled(services)["category"] == "0602"


def test_the_final_word_is_for_who_took_no_part(services: Services, queue: ReviewQueue, judging: Judging, four: list[int]) -> None:
    def decide(who: StaffMember) -> str:
        item = queue.item(who, four[0])
        return judging.judge(who, four[0], {"category": "0303"}, version=item["version"], final=True)

    with pytest.raises(JudgementRefused, match="没有分歧"):
        decide(ZHAO)
    judge(queue, judging, LI, four[0], category="0102")
    judge(queue, judging, WANG, four[0], category="0602")
    with pytest.raises(JudgementRefused, match="意见不同"):
        decide(LI)
    assert decide(CHIEF) == "fixed" and settled(services)["category"] == "0303"
    judging.undo(CHIEF)
    assert queue.item(LI, four[0])["state"] == "disputed"


def test_whoever_looks_at_an_old_version_is_told(queue: ReviewQueue, judging: Judging, four: list[int], clock: Clock) -> None:
    old = queue.item(WANG, four[0])
    clock.forward(seconds=1)
    judge(queue, judging, LI, four[0])
    with pytest.raises(JudgementRefused, match="变化"):
        judging.judge(WANG, four[0], old["labels"], version=old["version"])


@pytest.mark.parametrize(
    "labels",
    [
        None, {}, [], {"category": "99"}, {"category": "0102x"}, {"category": 1}, {"request_type": "唠叨"}, {"urgency": "非常急"}, {"intent": "nlu_fallback"},
        {"places": [[0, 999]]}, {"places": [[3, 1]]}, {"places": [[0, 4], [2, 6]]}, {"places": "ab"}, {"places": [["0", "3"]]}, {"parts": [[0, True]]},
    ],
)  # fmt: skip
def test_labels_that_cannot_be_are_refused_and_nothing_is_kept(services: Services, queue: ReviewQueue, judging: Judging, four: list[int], labels: Any) -> None:
    version = queue.item(LI, four[0])["version"]
    with pytest.raises(LabelRefused):
        judging.judge(LI, four[0], labels, version=version)
    assert items(services)[0].state == "open" and settled(services) == {}
