"""What a message means at this point of the talk: the trained intent, corrected by what was asked and by fixed phrases.

Pure rules over the tracker; the last component of the pipeline, so that Rasa's rules see the corrected intent.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rasa.engine.graph import ExecutionContext, GraphComponent
from rasa.engine.recipes.default_recipe import DefaultV1Recipe
from rasa.engine.storage.resource import Resource
from rasa.engine.storage.storage import ModelStorage
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.constants import INTENT, TEXT
from rasa.shared.nlu.training_data.message import Message

from bot.petition import looks_like_place
from bot.phrases import PHRASES
from bot.text import fold

DRAFTS, ASKED, RECENT_TICKETS, ENQUIRY, SCENE = "drafts", "asked", "recent_tickets", "enquiry", "scene"
FALLBACK, EMERGENCY, REPORT = "nlu_fallback", "report_emergency", "report_problem"

_EXACT = {phrase: intent for intent, phrases in PHRASES.items() for phrase in phrases.split()}
_EDGES = re.compile(r"^[\s，。！？,.!?~～、…]+|[\s，。！？,.!?~～、…啊呀吧哈呢哦噢]+$")

CANCEL_CUE = re.compile(r"算了|不(?:投诉|举报|反映|报|说|登记|提|告|弄|办|咨询)了|别(?:登记|提交|报|记|弄)|不用(?:登记|提交|处理|你们|报|管|办)了?|取消|撤(?:了|掉|销|回)吧?|当我没说")
PROGRESS_CUE = re.compile(r"怎么样了|咋样了|进度|到哪(?:一?步|了|里了)|(?:有|出)?结果(?:了)?(?:没|吗|么|呢)|处理(?:完|好|得怎么样|到哪|了)(?:没|吗|了吗)|办(?:完|好|得怎么样|到哪)(?:了)?(?:没|吗|么)?|啥情况了|受理(?:了)?没|派(?:单|出去)(?:了)?没")
EARLIER_CUE = re.compile(r"上次|上回|之前|前几天|那天|昨天|前天|上周|以前|上个月|工单|单号|我报的|我反映的|我提的|那个单")
# The card's own button, and what residents make of it.
CATEGORY_CUE = re.compile(r"(?:类别|分类)\s*(?:不对|错了|有误)?[，,：:\s]*(?:应该)?(?:是|为|改成|改为|选)")
TICKET_NUMBER = re.compile(r"(?<!\d)(20\d{6})[-－—]?(\d{4})(?!\d)")
PHONE = re.compile(r"(?<!\d)(?:1[3-9]\d[\s-]?\d{4}[\s-]?\d{4}|0\d{2,3}[\s-]?\d{7,8}|\d{7,8})(?!\d)")
QUESTION = re.compile(r"[?？]|吗|么$|呢$|怎么|咋|如何|哪里|哪儿|在哪|几点|多少|多久|什么|啥|能不能|可不可以|有没有|是不是|要不要|需不需要|行不行")
SERVICE_QUESTION = re.compile(r"你们[^，。]{0,6}(?:几点|什么时候(?:上|下)班|下班|上班|收费|要钱|周末|节假日|休息|是真人|是机器人|会不会泄露)")
_VERDICT = re.compile(r"^(?:很|挺|非常|太|还算|基本|总体)?(?:不太?|非常不|很不)?满意")
_SECRECY = re.compile(r"匿|名|身份|保密|别让|不要让|别说|别告诉|知道是我|泄露|暴露|报复|实名|信息")
# A short question right after an answered one goes on asking, even where it mentions a trouble.
_ENDS_ASKING = re.compile(r"(?:吗|么|呢|行不行|可不可以|能不能|要不要|多少|多久|几天|哪里|哪儿|怎么办|咋办|咋整|不)[?？。]*$|[?？]$")
_CONTENT = re.compile(r"[\w]")

# These speak to the service itself and are answered in passing, whatever the form asked.
ASIDES = frozenset({"greet", "goodbye", "thank", "bot_challenge", "ask_capability", "chitchat", "abuse", "advertising"})
ASIDE_CONFIDENCE = 0.3
GIBBERISH = 0.3
# "不对，是9栋" when nothing is being written speaks of what has just been filed.
AMENDS = re.compile(r"^(?:不对|不是|错了|说错了|搞错了|打错了|更正)[一下了，,。\s]*(?=.{0,12}(?:是|在|应该|栋|号|单元|楼|路))")
ABOUT_TICKETS = frozenset({"ask_progress", "urge", "withdraw", "supplement"})


@dataclass(frozen=True)
class Situation:
    """The part of the conversation that decides what a message means."""

    asked: str | None
    has_draft: bool
    has_tickets: bool
    has_enquiry: bool = False
    in_room: bool = False


def situation_of(tracker: DialogueStateTracker) -> Situation:
    return Situation(
        tracker.get_slot(ASKED) if ASKED in tracker.slots else None,
        bool(DRAFTS in tracker.slots and tracker.get_slot(DRAFTS)),
        bool(RECENT_TICKETS in tracker.slots and tracker.get_slot(RECENT_TICKETS)),
        bool(ENQUIRY in tracker.slots and tracker.get_slot(ENQUIRY)),
        bool(SCENE in tracker.slots and (tracker.get_slot(SCENE) or {}).get("kind") == "room"),
    )


def draft_text(tracker: DialogueStateTracker) -> str:
    """What the resident has said so far of the petition being asked about; empty when there is none."""
    drafts = tracker.get_slot(DRAFTS) if DRAFTS in tracker.slots else None
    return "\n".join(drafts[0].get("texts", [])) if drafts else ""


def answers_the_card(text: str, tracker: DialogueStateTracker) -> bool:
    """Whether a message only says yes, no or which button to what was shown, and so adds nothing to the petition's words."""
    return situation_of(tracker).asked in ("confirm", "split") and phrase_intent(text) is not None


def names_the_place(text: str, tracker: DialogueStateTracker) -> bool:
    """Whether a message is the answer to "where" and nothing more: the words of a place say nothing about the matter."""
    return situation_of(tracker).asked == "location" and looks_like_place(text)


@DefaultV1Recipe.register(DefaultV1Recipe.ComponentType.INTENT_CLASSIFIER, is_trainable=False)
class ContextResolver(GraphComponent):
    """Replaces the intent's name where the situation knows better; the trained ranking stays as it was."""

    @classmethod
    def create(
        cls, config: dict[str, Any], model_storage: ModelStorage, resource: Resource, execution_context: ExecutionContext
    ) -> ContextResolver:
        return cls()

    def process(self, messages: list[Message], tracker: DialogueStateTracker) -> list[Message]:
        situation = situation_of(tracker)
        for message in messages:
            # Actions need what the channel knows (source, map point, scene); Rasa leaves it out of the parse by itself.
            message.set("metadata", message.get("metadata") or {}, add_to_output=True)
            intent = message.get(INTENT) or {}
            if not message.get("intent_ranking"):  # set by a payload
                continue
            name = resolve_intent(message.get(TEXT) or "", message.get("intent_ranking"), message.data, situation)
            if name != intent.get("name"):
                message.set(INTENT, {"name": name, "confidence": intent.get("confidence", 0.0)}, add_to_output=True)
        return messages


def phrase_intent(text: str) -> str | None:
    return _EXACT.get(_EDGES.sub("", fold(text)))


def resolve_intent(text: str, ranking: Sequence[Mapping[str, Any]], parse: Mapping[str, Any], situation: Situation) -> str:
    """The intent that Rasa's rules are to see. `parse` holds `reading` and `place_spans`."""
    if not _CONTENT.search(text):
        return phrase_intent(text) or FALLBACK
    exact = phrase_intent(text)
    if exact:
        return _exact_in_situation(exact, situation)
    if situation.has_draft and CATEGORY_CUE.match(text):
        return "modify"
    name, confidence = str(ranking[0]["name"]), float(ranking[0]["confidence"])
    if situation.has_draft and CANCEL_CUE.search(text) and name in ("cancel", "withdraw", "deny"):
        return "cancel"
    if parse["reading"]["urgency"]["emergency"]:
        return EMERGENCY
    verdict = _VERDICT.match(text)
    if verdict and not situation.has_draft and situation.has_tickets:
        return "dissatisfied" if "不" in verdict.group() or re.match(r".{0,4}没(?:解决|处理)", text) else "satisfied"
    if name in ("anonymous", "confidential") and not _SECRECY.search(text):
        name = next((str(r["name"]) for r in ranking if r["name"] not in ("anonymous", "confidential")), FALLBACK)
    if situation.has_draft:
        return _while_writing(text, name, confidence, parse, situation)
    return _otherwise(text, name, confidence, parse, situation)


def _exact_in_situation(intent: str, situation: Situation) -> str:
    if intent == "affirm" and situation.asked == "split":
        return "split_yes"
    if intent == "affirm" and situation.asked == "withdraw":
        return "withdraw"
    if intent == "cancel" and not situation.has_draft and situation.asked in ("phone", "rating"):
        return "no_phone"
    return intent


def _while_writing(text: str, name: str, confidence: float, parse: Mapping[str, Any], situation: Situation) -> str:
    if CANCEL_CUE.search(text) and (name in ("cancel", "withdraw", "deny") or len(text) < 30) and not _has_matter(parse, 0.75):
        return "cancel"
    if situation.asked == "split":
        short = len(text) <= 12
        if short and (name in ("split_yes", "affirm") or re.search(r"分开|分别|[两三四][个件]|各|[都全]要|都(?:办|登记|报|说|管)|全部", text)):
            return "split_yes"
        if short and (name in ("split_no", "deny") or re.search(r"合|一起|一件", text)):
            return "split_no"
        return "inform"
    if situation.asked == "confirm":
        if name in ("affirm", "modify", "deny", "anonymous", "confidential") and (confidence > 0.4 or len(text) <= 12):
            return "modify" if name == "deny" else name
        if re.match(r"^(?:不是|不对|错了)", fold(text)):
            return "modify"
    if TICKET_NUMBER.search(text):
        return name if name in ABOUT_TICKETS else "ask_progress"
    if name in ("ask_human", "anonymous", "confidential") and confidence > 0.5:
        return name
    if SERVICE_QUESTION.search(text):
        return "ask_capability"
    if parse["place_spans"] and situation.asked == "location" and name not in ("ask_human", "cancel"):
        return "inform"
    if name in ASIDES and confidence > ASIDE_CONFIDENCE and not _has_matter(parse, 0.8) and not PHONE.search(text):
        return name
    if name == "ask_progress" and confidence > 0.6 and situation.has_tickets and EARLIER_CUE.search(text):
        return name
    if name == "ask_info" and confidence > 0.5 and QUESTION.search(text) and situation.asked != "confirm" and not parse["place_spans"]:
        return name
    return "inform"


def _otherwise(text: str, name: str, confidence: float, parse: Mapping[str, Any], situation: Situation) -> str:
    if situation.asked == "address" and name not in ABOUT_TICKETS and name not in ("ask_human", "cancel", "thank", "greet"):
        return "inform"
    if situation.asked == "note" and name not in ABOUT_TICKETS - {"supplement"} and name not in ("ask_human", "cancel", "thank", "greet"):
        return "inform"  # what comes after "请说要补充的情况" is that, however it sounds
    if situation.asked in ("phone", "address", "rating", "withdraw") and (name in _ANSWERS or len(text) <= 12 or name == "inform"):
        resolved = _answer_after_filing(text, name, situation)
        if resolved:
            return resolved
    if situation.asked == "near" and (parse["place_spans"] or name in ("inform", "ask_info")) and name not in ABOUT_TICKETS:
        return "inform"
    if situation.has_tickets and not situation.asked and len(text) <= 30 and parse["place_spans"] and AMENDS.match(fold(text)):
        return "supplement"
    if situation.in_room and not situation.asked and name in (REPORT, "ask_info", "report_need", "inform") and len(text) > 8:
        return "report_topic"  # who scanned a deliberation room's code has come to propose
    if situation.has_enquiry and name in (REPORT, "inform", "deny") and _ENDS_ASKING.search(fold(text)) and len(text) <= 30:
        return "ask_info"
    if TICKET_NUMBER.search(text):
        return name if name in ABOUT_TICKETS else "ask_progress"
    if name == "ask_progress" and not (PROGRESS_CUE.search(text) or EARLIER_CUE.search(text)) and _has_matter(parse, 0.6):
        return REPORT
    if name in ("supplement", "urge") and not situation.has_tickets and not EARLIER_CUE.search(text) and _has_matter(parse, 0.5):
        return REPORT
    if name in ("anonymous", "confidential", "ask_human", "modify", "dissatisfied", "satisfied", "deny", "no_phone", "split_yes", "split_no") and _has_matter(parse, 0.5) and len(text) > 12:
        return REPORT
    if name in ("affirm", "deny", "split_yes", "split_no", "no_phone", "modify", "satisfied", "dissatisfied", "cancel") and not situation.asked:
        return "thank" if name in ("affirm", "satisfied") else FALLBACK if name != "cancel" else "cancel"
    if parse["reading"]["known"] < (GIBBERISH / 2 if parse["place_spans"] else GIBBERISH):
        return FALLBACK
    if name == "inform":
        return REPORT if _has_matter(parse, 0.45) and len(text) > 6 else "inform"
    if confidence < 0.25 and not _has_matter(parse, 0.4):
        return FALLBACK
    return name


_ANSWERS = frozenset({"inform", "deny", "affirm", "no_phone", "satisfied", "dissatisfied", "withdraw", "anonymous", "cancel", "supplement"})


def _answer_after_filing(text: str, name: str, situation: Situation) -> str | None:
    if situation.asked == "phone":
        if PHONE.search(fold(text)):
            return "inform"
        return "no_phone" if name in ("no_phone", "deny", "anonymous", "cancel") else "inform" if name == "inform" else None
    if situation.asked == "rating":
        return name if name in ("satisfied", "dissatisfied") else None
    if situation.asked == "withdraw":
        return "withdraw" if name in ("withdraw", "affirm") else "keep" if name in ("deny", "cancel") else None
    return "inform" if name in ("inform", "supplement", "affirm", "deny") else None


def _has_matter(parse: Mapping[str, Any], least: float) -> bool:
    """Whether the text plainly names a matter of some category."""
    return float(parse["reading"]["first_level_confidence"]) >= least
