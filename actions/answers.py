"""Answering without a ticket: the knowledge base, the nearest service point, talk about the service itself, a person."""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from actions.talk import Talk, TalkAction
from bot.catalogue import Entry, ServicePoint
from bot.knowledge import find_entry, points_near

MISSES_BEFORE_PERSON = 2
_NEAR = re.compile(r"最近|附近|就近|离我|哪[里儿]|在哪|去哪|哪个(?:地方|窗口|大厅)|走路|网点|地址")

ASIDES = {
    "greet": "utter_greet",
    "goodbye": "utter_goodbye",
    "thank": "utter_thank",
    "bot_challenge": "utter_bot_challenge",
    "ask_capability": "utter_capability",
    "chitchat": "utter_chitchat",
    "abuse": "utter_abuse",
    "advertising": "utter_advertising",
}


class ActionAnswerQuestion(TalkAction):
    """A question of procedure or policy: the stored answer with its hotline, or an honest "not known here"."""

    action = "action_answer_question"

    def act(self, talk: Talk) -> None:
        diversion = talk.catalogue.find_diversion(talk.text)
        if diversion and not talk.drafts:
            talk.say(diversion.say)
            talk.services.tickets.log_diversion(talk.conversation_id, diversion.code)
            return
        entry = find_entry(talk.catalogue, talk.text)
        if entry is None and talk.asked == "near":
            answer_nearest(talk)
            return
        answer_with(talk, entry)


def answer_with(talk: Talk, entry: Entry | None) -> None:
    """The entry's answer, or an honest "not known here"; then the nearest counter, or back to the form."""
    if entry is None:
        _answer_unknown(talk)
    else:
        talk.say("utter_answer", answer=entry.answer, hotline=_hotline(entry.hotline))
    for entitlement in talk.catalogue.find_entitlements(talk.text)[:2]:
        talk.say("utter_entitlement", tell=entitlement.tell)
    if talk.drafts:
        talk.ask_again()
        return
    _keep_enquiry(talk, entry)
    if entry and entry.service and _NEAR.search(talk.text):
        answer_nearest(talk)


def _keep_enquiry(talk: Talk, entry: Entry | None) -> None:
    talk.remember(
        asked=None,
        enquiry={"text": talk.text, "reading": talk.latest["reading"], "places": list(talk.places), "entry": entry.id if entry else None},
    )


def _answer_unknown(talk: Talk) -> None:
    code = talk.latest["reading"]["categories"][0]["code"]
    role, _, _ = talk.catalogue.route(code, None)
    talk.say("utter_answer_unknown", hotline=_hotline(HOTLINES.get(role)), lead=talk.catalogue.department(role))


# National service numbers of the leading roles; facts, not promises.
HOTLINES = {
    "交警": "12123", "人社": "12333", "劳动监察": "12333", "医保": "12393", "公积金": "12329", "税务": "12366",
    "市场监管": "12315", "司法": "12348", "卫健": "12320", "残联": "12385", "供电": "95598", "交通": "12328", "纪委": "12388",
    "妇联": "12338", "团委": "12355", "未保": "12355", "通信管理": "12300", "邮政": "12305",
}  # fmt: skip


def _hotline(number: str | None) -> str:
    return f"也可以拨打 {number} 问。" if number else ""


def answer_nearest(talk: Talk) -> None:
    """Service points for the item last asked about, by distance; asks where the resident is when that is not known."""
    enquiry = talk.slot("enquiry") or {}
    entry = next((e for e in talk.catalogue.knowledge if e.id == enquiry.get("entry")), None)
    if entry is None or entry.service is None:
        talk.say("utter_clarify")
        return
    here = _whereabouts(talk)
    if here is None:
        talk.say("utter_ask_near")
        talk.remember(asked="near")
        return
    talk.remember(asked=None)
    points = points_near(talk.catalogue, entry.service, here)
    if not points:
        talk.say("utter_services_nowhere", service=entry.service, hotline=_hotline(entry.hotline))
        return
    talk.say("utter_services", service=entry.service, list="\n".join(_line(point, km) for point, km in points))


def _whereabouts(talk: Talk) -> Mapping[str, Any] | None:
    """{"district", "lat", "lng"} from a map point, a place in this message, or the scanned place."""
    point = talk.metadata.get("location") or talk.slot("point")
    if point:
        return {"lat": point["lat"], "lng": point["lng"], "district": None}
    for span in talk.places:
        place = talk.services.gazetteer.resolve(str(span["text"]), context=talk.text)
        return {"lat": place.lat, "lng": place.lng, "district": place.district, "known": talk.services.gazetteer.in_home_city(place)}
    return None


def _line(point: ServicePoint, km: float | None) -> str:
    distance, phone = f"约 {km:.1f} 公里" if km is not None else "", f"电话 {point.phone}" if point.phone else ""
    details = [point.address, distance, phone, point.hours, point.materials]
    return f"· {point.name}（{'，'.join(detail for detail in details if detail)}）"


class ActionAnswerAside(TalkAction):
    """Greeting, thanks, small talk, abuse, advertising, questions about the service: a short word, then back to the form."""

    action = "action_answer_aside"

    def act(self, talk: Talk) -> None:
        entry = find_entry(talk.catalogue, talk.text) if talk.intent == "ask_capability" else None
        if entry is not None:
            talk.say("utter_answer", answer=entry.answer, hotline="")
        else:
            city = str(talk.catalogue.city["name"])
            talk.say(ASIDES[talk.intent], assistant=talk.catalogue.city["assistant"], city=city)
        talk.ask_again()


class ActionClarify(TalkAction):
    """Not understood: say so once; the second time in a row a person takes over."""

    action = "action_clarify"

    def act(self, talk: Talk) -> None:
        clarify(talk)


def clarify(talk: Talk) -> None:
    talk.services.tickets.log_misunderstanding(talk.conversation_id, talk.message_id)
    misses = int(talk.slot("misses") or 0) + 1
    if misses >= MISSES_BEFORE_PERSON:
        call_person(talk, "utter_handover_after_misses", reason="misunderstood")
        return
    talk.say("utter_clarify" if re.search(r"\w", talk.text) else "utter_empty")
    talk.remember(misses=misses)
    talk.ask_again()


class ActionCallPerson(TalkAction):
    action = "action_call_person"

    def act(self, talk: Talk) -> None:
        call_person(talk, "utter_handover", reason="asked")


def call_person(talk: Talk, response: str, *, reason: str) -> None:
    """Queue the conversation for a person; what is being written stays as it is."""
    before = talk.services.handovers.open(talk.conversation_id, reason)
    talk.say(response, queue=f"，前面还有 {before} 位" if before else "")


