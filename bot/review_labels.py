"""Labels as reviewers give them: checked on their way in, and what a model's reading comes to in the same form. Pure."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bot.annotations import CATEGORY, INTENT, REQUEST_TYPE, URGENCY, Labels, agree
from bot.catalogue import REQUEST_TYPES, URGENCIES, Catalogue

PLACES, MAIN_PLACE, PARTS = "places", "main_place", "parts"
CORRECTED = "corrected"  # key of a prediction: what an agent or a department made of the fields, proposed to the reviewer
MAX_SPANS = 40

REPORT = "report_problem"
# What people say and how the page calls it; what rules find or channels send is not reviewed.
INTENT_NAMES = {
    REPORT: "反映问题",
    "report_need": "求助心愿",
    "report_topic": "议题建议",
    "ask_info": "咨询政策办事",
    "inform": "补充信息",
    "affirm": "确认",
    "deny": "否认",
    "modify": "修改",
    "cancel": "取消",
    "keep": "保留不变",
    "split_yes": "同意拆分",
    "split_no": "不拆分",
    "anonymous": "要求匿名",
    "confidential": "要求保密",
    "no_phone": "不留电话",
    "ask_progress": "查进度",
    "supplement": "补充情况",
    "urge": "催办",
    "withdraw": "撤回",
    "ask_human": "找人工",
    "satisfied": "满意",
    "dissatisfied": "不满意",
    "file_enquiry": "登记咨询",
    "greet": "问候",
    "goodbye": "告别",
    "thank": "感谢",
    "bot_challenge": "问是不是机器人",
    "ask_capability": "问能做什么",
    "chitchat": "闲聊",
    "abuse": "辱骂",
    "advertising": "广告",
}
APPEALS = (REPORT, "report_need", "report_topic")  # intents of which category, request type and urgency say something
# Read elsewhere as one of the above.
_READ_AS = {"report_emergency": REPORT}


class LabelRefused(ValueError):
    """A label cannot be kept; the text is what the reviewer reads."""


def read_labels(given: Any, text: str, catalogue: Catalogue) -> Labels:
    """The labels of one text as the page sent them. Raises LabelRefused."""
    if not isinstance(given, Mapping):
        raise LabelRefused("没有收到标签，请刷新页面再试")
    labels: Labels = {}
    if given.get(INTENT) is not None:
        labels[INTENT] = _one_of(given[INTENT], INTENT_NAMES, "意图")
    if given.get(CATEGORY) is not None:
        labels[CATEGORY] = read_category(given[CATEGORY], catalogue)
    if given.get(REQUEST_TYPE) is not None:
        labels[REQUEST_TYPE] = _one_of(given[REQUEST_TYPE], REQUEST_TYPES, "诉求类型")
    if given.get(URGENCY) is not None:
        labels[URGENCY] = _one_of(given[URGENCY], URGENCIES, "紧急程度")
    for name, what in ((PLACES, "地点"), (PARTS, "拆分")):
        if given.get(name) is not None:
            labels[name] = _spans(given[name], len(text), what)
    if labels.get(PLACES) and isinstance(given.get(MAIN_PLACE), int) and 0 <= given[MAIN_PLACE] < len(labels[PLACES]):
        labels[MAIN_PLACE] = given[MAIN_PLACE]
    if not labels:
        raise LabelRefused("至少要给一个标签")
    return labels


def read_category(code: Any, catalogue: Catalogue) -> str:
    """A class of any level. Raises LabelRefused."""
    if not isinstance(code, str) or len(code) not in (2, 4, 6) or not any(one.startswith(code) for one in catalogue.categories):
        raise LabelRefused("没有这个类别，请从列表里选")
    return code


def _one_of(value: Any, allowed: Iterable[str], what: str) -> str:
    if value not in tuple(allowed):
        raise LabelRefused(f"没有这种{what}，请从列表里选")
    return str(value)


def _spans(given: Any, length: int, what: str) -> list[list[int]]:
    """Sorted, within the text, not overlapping."""
    if not isinstance(given, Sequence) or len(given) > MAX_SPANS or not all(_is_span(span, length) for span in given):
        raise LabelRefused(f"{what}的位置不对，请重新选")
    spans = sorted([int(start), int(end)] for start, end in given)
    if any(first[1] > second[0] for first, second in zip(spans, spans[1:])):
        raise LabelRefused(f"{what}有重叠，请重新选")
    return spans


def _is_span(span: Any, length: int) -> bool:
    whole = isinstance(span, Sequence) and len(span) == 2 and all(isinstance(end, int) and not isinstance(end, bool) for end in span)
    return whole and 0 <= span[0] < span[1] <= length


# -- what a model made of it ----------------------------------------------------------------------------------------------


def slim_prediction(parse: Mapping[str, Any]) -> dict[str, Any]:
    """A parse without any word of its text: labels, confidences and offsets."""
    return {
        "intent": dict(parse["intent"]),
        "request_type": dict(parse["request_type"]),
        "categories": [{"code": one["code"], "confidence": one["confidence"]} for one in parse["categories"]],
        "urgency": {key: parse["urgency"][key] for key in ("level", "confidence", "emergency", "reasons")},
        PLACES: [[span["start"], span["end"]] for span in parse["locations"]],
        "main": parse["main_location"],
        "evidence": [[span["start"], span["end"], span["weight"]] for span in parse["evidence"]],
        PARTS: [[part["start"], part["end"]] for part in parse["parts"]],
    }


def labels_of(prediction: Mapping[str, Any]) -> Labels:
    """The prediction as labels: what is accepted by whoever changes nothing, before any correction."""
    intent = str(prediction["intent"]["name"])
    labels: Labels = {
        INTENT: _READ_AS.get(intent, intent if intent in INTENT_NAMES else None),
        CATEGORY: prediction["categories"][0]["code"],
        REQUEST_TYPE: prediction["request_type"]["name"],
        URGENCY: prediction["urgency"]["level"],
        PLACES: sorted(prediction[PLACES]),
        PARTS: prediction[PARTS],
    }
    if labels[PLACES] and prediction["main"] is not None:
        labels[MAIN_PLACE] = labels[PLACES].index(prediction[PLACES][prediction["main"]])
    return {name: value for name, value in labels.items() if value is not None}


def proposed_labels(prediction: Mapping[str, Any]) -> Labels:
    """What the page offers: the prediction, with what a colleague already corrected."""
    return {**labels_of(prediction), **prediction.get(CORRECTED, {})}


def certainty(prediction: Mapping[str, Any]) -> float:
    """How sure the model was of what decides: the category of an appeal, the intent of anything else; its intent either way."""
    intent = float(prediction["intent"]["confidence"])
    if prediction["intent"]["name"] not in (*APPEALS, *_READ_AS):
        return round(intent, 4)
    return round(min(intent, float(prediction["categories"][0]["confidence"])), 4)


def is_as_predicted(labels: Mapping[str, Any], prediction: Mapping[str, Any]) -> bool:
    """Whether a reviewer's labels say nothing else than the model did."""
    read = labels_of(prediction)
    return all(name in read and _same(value, read[name]) for name, value in labels.items() if name != "order")


def _same(value: Any, read: Any) -> bool:
    return agree(value, read) if isinstance(value, str) and isinstance(read, str) else value == read
