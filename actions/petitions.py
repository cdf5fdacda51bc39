"""Writing a petition: taking the matter and its details, splitting, changing, confirming, filing."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from actions.answers import answer_nearest, answer_with, clarify
from actions.emergencies import running_emergency
from actions.talk import Talk, TalkAction
from bot.catalogue import REQUEST_TYPES, Diversion
from bot.knowledge import find_entry
from bot.nlu.context import QUESTION
from bot.petition import (
    NEED,
    PERSON,
    TOPIC,
    Petition,
    add_places,
    answer_slot,
    apply_reading,
    choose_district,
    correct_place,
    find_name,
    find_phone,
    looks_like_place,
    matter_of,
    place_from_answer,
)
from bot.ticket import Ticket
from bot.tickets import TicketClosed

MAX_PARTS = 4

_DONT_KNOW = re.compile(r"^(?:不清楚|不知道|说不清|不晓得|没有|没了?|无|不用|算了|不说|不方便|记不(?:清|得)|忘了|随便|不告诉)")
_ANOTHER = re.compile(r"^(?:另外|还有(?:一?[个件])?(?:事|问题)?|对了|再(?:反映|说|报)(?:一?[个件])?|顺便)")
_ANOTHER_MATTER = re.compile(r"^(?:另外|对了|还有|再|顺便)[，,\s]*(?:我)?(?:还有|再有|再说|再反映|反映)?(?:另外)?(?:一|1)?[个件桩](?:别的)?(?:事|问题)")
SHORT_ANSWER = 10
_LITTLE = 6  # a message this short carries no matter of its own


class ActionTakePetition(TalkAction):
    """A matter is told: divert it, divide it, or start a draft and ask for what is missing."""

    action = "action_take_petition"

    def act(self, talk: Talk) -> None:
        if talk.drafts:
            take_more(talk)
            return
        if place_of_emergency(talk):
            return
        diversion = talk.catalogue.find_diversion(talk.text) or _insisting(talk)
        if diversion:
            talk.say(diversion.say)
            talk.remember(diverted=diversion.code)
            talk.services.tickets.log_diversion(talk.conversation_id, diversion.code)
            if not diversion.file:
                talk.remember(asked=None)
                return
        entry = find_entry(talk.catalogue, talk.text) if talk.intent == "report_problem" and is_enquiry(talk) else None
        if entry is not None:
            answer_with(talk, entry)
            return
        if not diversion:
            talk.remember(diverted=None)
        talk.drafts = drafts_from_message(talk)
        if diversion and diversion.category:
            talk.drafts = [_under(diversion.category, draft) for draft in talk.drafts]
        tell_entitlements(talk)
        start(talk)
        if diversion:
            talk.remember(reporter={**(talk.slot("reporter") or {}), "confidential": True})


def _under(category: str, draft: Petition) -> Petition:
    """The draft in the class that its kind of matter has, with the leaf that was read where that is in it."""
    own = next((code for code, _ in draft.alternatives if code[:2] == category[:2]), category)
    return replace(draft, category=own, category_confidence=1.0, fixed=(*draft.fixed, "category"))


def _insisting(talk: Talk) -> Diversion | None:
    """Right after a diversion, a short push without a place ("你们下个单子嘛") is the same matter again."""
    code = talk.slot("diverted")
    again = len(talk.text) < 30 and not talk.places and re.search(r"你们|单子|派|催|管|帮|不能|凭什么|为什么", talk.text)
    return next((d for d in talk.catalogue.diversions if d.code == code), None) if code and again else None


_COMPLAINT = re.compile(r"投诉|举报|不管|没人管|不处理|不给|不发|拖|欠|坏|堵|漏|吵|臭|骗|乱|拒|推诿|踢皮球|态度|停了|没了|被")


def is_enquiry(talk: Talk) -> bool:
    """A question that was taken for a report: it asks, and it complains of nothing."""
    kind = talk.latest["reading"]["request_type"]["name"]
    return kind in ("咨询", "求助") and bool(QUESTION.search(talk.text)) and not _COMPLAINT.search(talk.text) and len(talk.text) < 60


def start(talk: Talk) -> None:
    """First answer to fresh drafts: what must be said at once, then the split or the next question."""
    for draft in talk.drafts:
        matter = matter_of(draft, talk.catalogue)
        if matter and matter.say:
            talk.say(matter.say)
    if len(talk.drafts) > 1:
        talk.offer_split()
    else:
        if talk.drafts[0].confidential and not matter_of(talk.drafts[0], talk.catalogue):
            talk.say("utter_confidential")
        talk.ask_next()


def drafts_from_message(talk: Talk) -> list[Petition]:
    """One draft, or one per separate appeal; a place named once serves every part that has none."""
    matter = talk.catalogue.find_matter(talk.text)
    kind = None if matter and matter.kind else {"report_need": NEED, "report_topic": TOPIC}.get(talk.intent)
    praises = talk.latest["reading"]["request_type"]["name"] == "表扬"
    if praises or talk.intent == "report_topic" and re.search(r"投诉|举报|没人管|不处理", talk.text):
        kind = None
    scene = talk.slot("scene") or {}
    if scene.get("kind") == "room" and kind is None and talk.latest["reading"]["request_type"]["name"] in ("建议", "求助", "咨询"):
        kind = TOPIC
    parts = [part for part in talk.parts if part.get("reading")][:MAX_PARTS]
    if kind or matter and matter.kind or len(parts) < 2:
        draft = talk.new_draft(kind or "appeal", fixed=("kind",) if kind else ())
        draft = talk.extend(draft, talk.text, talk.latest["reading"], talk.places)
        if kind == NEED:
            draft = replace(draft, category=_need_category(draft), fixed=(*draft.fixed, "category"))
        return [draft]
    base = talk.new_draft()
    whole = talk.latest["reading"]["request_type"]["name"]
    drafts = []
    for number, part in enumerate(parts):
        start, end = _without_joints(talk.text, part["start"], part["end"])
        text = talk.text[start:end]
        inside = [
            {**span, "start": span["start"] - start, "end": span["end"] - start} for span in talk.places if start <= span["start"] < end
        ]
        draft = talk.extend(replace(base, id=f"{base.id}{number}"), text, part["reading"], inside)
        drafts.append(replace(draft, request_type=whole, fixed=("request_type",)) if whole == "建议" else draft)
    placed = [draft for draft in drafts if draft.place]
    if len(placed) == 1:
        drafts = [draft if draft.place else replace(draft, place=placed[0].place) for draft in drafts]
    return drafts


# What joins an appeal to the one before it, and is part of neither.
_JOINT = re.compile(r"(?:[\s，,；;、]|(?:还有|另外|再有|再就是|其次)(?:(?:个|一个|一件|件)?事情?儿?)?(?=[\s，,：:、])|另外(?=[^，,。]{4}))+[\s，,：:、]*")
_LOOSE_END = re.compile(r"[\s，,；;、]+$")


def _without_joints(text: str, start: int, end: int) -> tuple[int, int]:
    joint, part = _JOINT.match(text, start, end), text[start:end]
    loose = _LOOSE_END.search(part)
    first, last = (joint.end() if joint else start), start + (loose.start() if loose else len(part))
    return (first, last) if first < last else (start, end)


def _need_category(draft: Petition) -> str:
    """A wish is matched by the volunteers' platform, which stands under 民政; the leaf is kept when it is there already."""
    return draft.category if draft.category.startswith("07") else "070102"


def tell_entitlements(talk: Talk) -> None:
    """Kinds of support that fit the facts the resident told; who may have them is for the office to decide."""
    if talk.drafts[0].kind == TOPIC or talk.drafts[0].request_type not in ("求助", "咨询"):
        return
    for entitlement in talk.catalogue.find_entitlements(talk.text)[:2]:
        talk.say("utter_entitlement", tell=entitlement.tell)


def take_more(talk: Talk) -> None:
    """Another message while drafts are open: an answer, a correction, more of the story, or a second matter."""
    if talk.asked == "split":
        if talk.places and is_only_place(talk):  # one place for all of them
            talk.drafts = [draft if draft.place else place_of(talk, draft) for draft in talk.drafts]
        elif len(talk.text) > _LITTLE:
            talk.drafts[0] = talk.extend(talk.drafts[0], talk.text, talk.reading, talk.places)
        if talk.drafts[0].unanswered.get("split", 0) >= 2:  # offered twice, never answered: one ticket loses nothing
            talk.drafts = [merged(talk.drafts)]
            talk.ask_next()
        else:
            talk.offer_split()
        return
    draft = talk.drafts[0]
    if _is_second_matter(talk, draft):
        second = talk.extend(talk.new_draft(), talk.text, talk.latest["reading"], talk.places)
        talk.drafts.append(second if second.place else replace(second, place=draft.place))
        talk.offer_split()
        return
    was_confirming = talk.asked == "confirm"
    talk.drafts[0] = merge_message(talk, draft)
    share_place(talk)
    talk.ask_next(changed=was_confirming)


def share_place(talk: Talk) -> None:
    """A place told for one of several appeals serves the others too, unless they have their own; the card shows it."""
    place = talk.drafts[0].place
    if place and talk.asked in ("location", "confirm"):
        talk.drafts = [draft if draft.place else replace(draft, place=place) for draft in talk.drafts]


def _is_second_matter(talk: Talk, draft: Petition) -> bool:
    """Announced by its first words and read as another field; "还有一个事" says so itself and needs only another leaf."""
    reading = talk.latest["reading"]
    read, sure = reading["categories"][0]["code"], float(reading["first_level_confidence"])
    if len(talk.drafts) >= MAX_PARTS or not _ANOTHER.match(talk.text):
        return False
    if _ANOTHER_MATTER.match(talk.text):
        return bool(read != draft.category and sure > 0.25)
    return bool(read[:2] != draft.category[:2] and sure > 0.5)


def merge_message(talk: Talk, draft: Petition) -> Petition:
    """The draft with this message: as the answer to what was asked where it is one, as more of the story anyway."""
    asked, text = talk.asked, talk.text
    gazetteer = talk.services.gazetteer
    corrected = correct_place(draft, text, gazetteer)
    if corrected is not None:
        return corrected
    named = _FIELD.match(text)
    if named:
        return place_from_answer(draft, named.group(1), gazetteer)
    before = draft.place
    if asked == "location":
        return _take_place(talk, draft)
    if asked == "district":
        chosen = choose_district(draft, text, gazetteer)
        if chosen is not None:
            return chosen
    if asked == "confirm" and talk.places and is_only_place(talk):
        return add_places(replace(draft, place=None if (before or {}).get("whole_answer") else before), talk.places, text, gazetteer)
    if asked in ("employer", "amount", "when", "item", "other_party", "respondent"):
        if _DONT_KNOW.match(text) and len(text) <= SHORT_ANSWER:
            return replace(draft, facts={**draft.facts, asked: "未提及"})
        draft = answer_slot(draft, asked, text)
    draft = talk.extend(draft, text, talk.reading, talk.places)
    # A place named in passing ("医院说…") must not displace the one that was given as the answer.
    return replace(draft, place=before) if before and before.get("whole_answer") and not re.search(r"不对|应该是|改", text) else draft


def _take_place(talk: Talk, draft: Petition) -> Petition:
    """The answer to "where": a place, more of the story (then the question comes again), or a refusal."""
    text = talk.text
    if talk.places:
        whole = whole_place(talk)
        extended = talk.extend(draft, text, talk.reading, [whole] if whole else talk.places)
        return replace(extended, texts=draft.texts) if whole or is_only_place(talk) else extended
    if _DONT_KNOW.match(text) and len(text) <= SHORT_ANSWER:
        return replace(draft, unanswered={**draft.unanswered, "location": 9})
    if looks_like_place(text):
        return place_from_answer(draft, text, talk.services.gazetteer)
    return talk.extend(draft, text, talk.reading, ())


def whole_place(talk: Talk) -> Mapping[str, Any] | None:
    """The answer to "where" from its first place on, when nothing is told after it: "翡翠城 碧水湾三期 门岗旁边" is one place."""
    start = int(talk.places[0]["start"])
    rest = talk.text[start:].strip(" ，。,.!！")
    if start > 4 or not looks_like_place(rest) or re.search(r"不对|不是", rest):
        return None
    return {"start": start, "end": start + len(rest), "text": rest, "confidence": 1.0}


def is_only_place(talk: Talk) -> bool:
    """Whether a message says where and nothing else; what a correction strikes out does not count as something else."""
    rest = talk.text
    for span in talk.places:
        rest = rest.replace(str(span["text"]), "")
    return len(re.sub(r"[\W_]|不对|不是|应该|我们?家?|住|是|在|就|的|那里|这里|这边|那边|位置|地址|地点", "", rest)) < 4


class ActionTakeDetail(TalkAction):
    """A bare fact: for the draft being written, for the ticket just filed, or for nothing yet."""

    action = "action_take_detail"

    def act(self, talk: Talk) -> None:
        if talk.drafts:
            if talk.intent == "deny" and talk.asked not in ("split", "confirm"):
                slot = str(talk.asked)
                talk.drafts[0] = replace(talk.drafts[0], unanswered={**talk.drafts[0].unanswered, slot: 9})
                talk.ask_next()
                return
            take_more(talk)
        elif talk.asked in ("phone", "address", "note"):
            detail_for_filed(talk)
        elif talk.asked == "near":
            answer_nearest(talk)
        elif talk.intent in ("deny", "no_phone"):
            talk.say("utter_nothing_to_confirm")
        elif place_of_emergency(talk):
            return
        elif talk.places or len(talk.text) > _LITTLE:
            talk.drafts = drafts_from_message(talk)
            start(talk)
        else:
            clarify(talk)


def place_of_emergency(talk: Talk) -> bool:
    """A bare place soon after an emergency says where it is, whether it was asked for or not."""
    running = running_emergency(talk) if talk.places and is_only_place(talk) else None
    if running is None:
        return False
    others = [number for number in talk.slot("recent_tickets") or [] if number != running.number]
    talk.remember(asked="address", recent_tickets=[running.number, *others])
    detail_for_filed(talk)
    return True


def detail_for_filed(talk: Talk) -> None:
    numbers = talk.slot("recent_tickets") or []
    asked = talk.asked
    talk.remember(asked=None)
    if not numbers:
        return
    tickets = talk.services.tickets
    ticket = tickets.get_ticket(numbers[0])
    try:
        if asked == "phone":
            _keep_phone(talk, ticket)
        elif asked == "address":
            if not talk.places and not looks_like_place(talk.text):
                _keep_asking_address(talk, ticket)
                return
            petition = replace(ticket.petition, texts=(*ticket.petition.texts, talk.text))
            placed = place_of(talk, petition)
            tickets.correct(ticket.number, placed)
            talk.say(
                "utter_address_kept",
                place=(placed.place or {}).get("text", talk.text),
                numbers="、".join(talk.catalogue.emergency(petition.emergency_kind).numbers),
            )
        else:
            tickets.supplement(ticket.number, talk.text)
            talk.say("utter_detail_kept", number=ticket.number)
    except TicketClosed:
        talk.say("utter_ticket_closed", title=ticket.title, number=ticket.number, status=ticket.state_label)


def _keep_asking_address(talk: Talk, ticket: Ticket) -> None:
    """Not an address: keep it on the ticket and ask once more, never a third time; who will not say is not pressed."""
    asked_again = bool(talk.slot("misses"))
    if _DONT_KNOW.match(talk.text):
        talk.say("utter_address_declined")
        return
    talk.services.tickets.supplement(ticket.number, talk.text)
    talk.say("utter_detail_kept", number=ticket.number)
    if not asked_again:
        talk.say("utter_ask_address")
        talk.remember(asked="address", misses=1)


def place_of(talk: Talk, petition: Petition) -> Petition:
    if talk.places:
        return add_places(petition, talk.places, talk.text, talk.services.gazetteer)
    return place_from_answer(petition, talk.text, talk.services.gazetteer)


def _keep_phone(talk: Talk, ticket: Ticket) -> None:
    phone, name = find_phone(talk.text), find_name(talk.text)
    if phone is None and talk.intent in ("no_phone", "deny", "anonymous"):
        talk.say("utter_phone_declined")
        return
    if phone is None and name is None:
        talk.say("utter_phone_unclear")
        talk.remember(asked="phone")
        return
    for number in filed_together(talk):
        petition = talk.services.tickets.get_ticket(number).petition
        changed = replace(petition, phone=phone or petition.phone, name=name or petition.name)
        talk.services.tickets.correct(number, changed)
    talk.remember(reporter={**(talk.slot("reporter") or {}), "phone": phone, "name": name})
    talk.say("utter_phone_kept" if phone else "utter_detail_kept", number=ticket.number)


def filed_together(talk: Talk) -> list[str]:
    """Tickets filed in one confirmation share the reporter; they stand first in recent_tickets."""
    numbers: list[str] = talk.slot("recent_tickets") or []
    first = talk.services.tickets.get_ticket(numbers[0])
    return [n for n in numbers[:4] if abs((talk.services.tickets.get_ticket(n).filed_at - first.filed_at).total_seconds()) < 5]


class ActionSplitPetition(TalkAction):
    """The resident decides whether two appeals become two tickets."""

    action = "action_split_petition"

    def act(self, talk: Talk) -> None:
        if not talk.drafts:
            talk.say("utter_nothing_to_confirm")
            return
        if talk.intent == "split_no" and len(talk.drafts) > 1:
            talk.drafts = [merged(talk.drafts)]
        talk.ask_next()


def merged(drafts: Sequence[Petition]) -> Petition:
    """Several drafts as one: all that was said, under the first one's category, at the first place that was named."""
    place = next((draft.place for draft in drafts if draft.place), None)
    return replace(drafts[0], texts=tuple(text for draft in drafts for text in draft.texts), place=place)


class ActionChangePetition(TalkAction):
    """The card is wrong somewhere: take the correction at once, or ask where."""

    action = "action_change_petition"

    def act(self, talk: Talk) -> None:
        if not talk.drafts:
            talk.say("utter_nothing_to_confirm")
            return
        changed = corrected_draft(talk, talk.drafts[0])
        if changed is None:
            talk.say("utter_ask_change")
            talk.remember(asked="confirm")
            return
        talk.drafts[0] = changed
        talk.ask_next(changed=True)


_FIELD = re.compile(r"(?:地点|地址|位置|地方)\s*(?:不对|错了|有误)?[，,：:\s]*(?:应该)?(?:改成|改为|是|在|为)\s*(.{2,60})")
_CATEGORY_FIELD = re.compile(r"(?:类别|分类|类型)\s*(?:不对|错了)?[，,：:\s]*(?:应该)?(?:改成|改为|是|为)\s*(.{1,20})")


def corrected_draft(talk: Talk, draft: Petition) -> Petition | None:
    """None when the message says only that something is wrong."""
    text = talk.text
    corrected = correct_place(draft, text, talk.services.gazetteer)
    if corrected is not None:
        return corrected
    field = _FIELD.search(text)
    if field:
        return place_from_answer(draft, field.group(1), talk.services.gazetteer)
    category = _CATEGORY_FIELD.search(text)
    if category:
        return _with_category(talk, draft, category.group(1))
    if re.search(r"不(?:紧急|急)", text):
        return replace(draft, urgency="一般", fixed=(*draft.fixed, "urgency"))
    if re.search(r"紧急|着急|很急", text):
        return replace(draft, urgency="紧急", fixed=(*draft.fixed, "urgency"))
    if len(text) <= 8:
        return None
    return talk.extend(replace(draft, place=None) if talk.places and re.search(r"地点|地址|位置|不是|不对", text) else draft, text, talk.reading, talk.places)


def _with_category(talk: Talk, draft: Petition, wanted: str) -> Petition:
    wanted = wanted.strip(" 。，")
    if wanted in REQUEST_TYPES:
        return replace(draft, request_type=wanted, fixed=(*draft.fixed, "request_type"))
    named = [c for c in talk.catalogue.categories.values() if any(wanted in level or level in wanted for level in c.path if level != "其他")]
    if not named:
        return apply_reading(draft, talk.reading, talk.catalogue)
    codes = {c.code for c in named}
    likeliest = next((code for code, _ in draft.alternatives if code in codes), None)
    code = likeliest or next((c.code for c in named if "其他" in c.path), named[0].code)
    return replace(draft, category=code, category_confidence=1.0, fixed=(*draft.fixed, "category"))


class ActionCancelPetition(TalkAction):
    action = "action_cancel_petition"

    def act(self, talk: Talk) -> None:
        talk.say("utter_cancelled" if talk.drafts else "utter_nothing_to_cancel")
        talk.drafts = []
        talk.remember(asked=None)


class ActionProtectReporter(TalkAction):
    """Anonymous or confidential, at any time; "匿名提交" on the card also files."""

    action = "action_protect_reporter"

    def act(self, talk: Talk) -> None:
        wish = talk.intent
        talk.remember(reporter={**(talk.slot("reporter") or {}), wish: True})
        if not talk.drafts:
            talk.say("utter_protect_later")
            return
        confirming = talk.asked == "confirm"
        talk.drafts = [replace(draft, **{wish: True}) for draft in talk.drafts]  # type: ignore[arg-type]
        talk.say(f"utter_{wish}")
        if confirming and re.search(r"提交|登记", talk.text):
            file_drafts(talk)
        else:
            talk.ask_again()


class ActionFileEnquiry(TalkAction):
    """"登记" after an answer: the question becomes a ticket, so that the department replies."""

    action = "action_file_enquiry"

    def act(self, talk: Talk) -> None:
        enquiry = talk.slot("enquiry")
        if talk.drafts:
            talk.ask_again()
        elif not enquiry:
            talk.say("utter_nothing_to_confirm")
        else:
            draft = talk.new_draft(fixed=("request_type",))
            draft = replace(draft, request_type="咨询")
            talk.drafts = [talk.extend(draft, enquiry["text"], enquiry["reading"], enquiry["places"])]
            talk.remember(enquiry=None)
            talk.ask_next()


class ActionFilePetition(TalkAction):
    """The resident says yes: to the card, or to whatever was asked."""

    action = "action_file_petition"

    def act(self, talk: Talk) -> None:
        if not talk.drafts:
            talk.say("utter_nothing_to_confirm")
        elif talk.asked == "confirm":
            file_drafts(talk)
        elif "提交" in talk.text and talk.asked != "split":
            # Who insists on filing has no more to say about what was asked; the card comes with what is known.
            talk.drafts[0] = replace(talk.drafts[0], unanswered={**talk.drafts[0].unanswered, str(talk.asked): 9})
            talk.ask_next()
        else:
            talk.ask_again()


def file_drafts(talk: Talk) -> list[Ticket]:
    """File every draft under its own request key, tell the numbers, then offer to leave a phone number."""
    filed = [
        talk.services.tickets.open_ticket(draft, request_key=f"{talk.conversation_id}:{draft.id}", conversation_id=talk.conversation_id)
        for draft in talk.drafts
    ]
    for ticket in filed:
        tell_filed(talk, ticket)
    talk.hand_over_tickets(filed)
    numbers = [ticket.number for ticket in filed]
    talk.remember(recent_tickets=[*numbers, *(n for n in talk.slot("recent_tickets") or [] if n not in numbers)][:10], asked=None)
    first = filed[0].petition
    talk.drafts = []
    if not (first.phone or first.anonymous or first.confidential):
        talk.say("utter_ask_phone", buttons=("不留电话",))
        talk.remember(asked="phone")
    return filed


def lead_verb(ticket: Ticket) -> str:
    if ticket.kind in (NEED, TOPIC):
        return ""
    return "主办" if ticket.co_departments else "办理"


def tell_filed(talk: Talk, ticket: Ticket) -> None:
    matter = matter_of(ticket.petition, talk.catalogue)
    _, promise = talk.catalogue.due_at(
        ticket.filed_at, request_type=ticket.petition.request_type, urgency=ticket.petition.urgency, matter=matter
    )
    response = {"need": "utter_filed_need", "topic": "utter_filed_topic"}.get(ticket.kind, "utter_filed")
    talk.say(
        response,
        number=ticket.number,
        lead=ticket.lead_department + lead_verb(ticket),
        co=f"、{'、'.join(ticket.co_departments)}协办" if ticket.co_departments else "",
        promise=promise,
        link=talk.services.tickets.link(ticket.number, talk.services.settings.base_url),
    )
    if ticket.cluster_size > 1:
        talk.say("utter_cluster", count=ticket.cluster_size)
    if talk.services.tickets.lanes.of(ticket.petition) == PERSON:
        talk.say("utter_low_confidence")
