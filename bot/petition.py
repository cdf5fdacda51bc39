"""A citizen's request while it is being written: its fields, what each turn adds, what is still missing, masking. Pure.

Facts are taken from the resident's own words or left empty; nothing is guessed and nothing is filled with a default.
"""
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bot.catalogue import OTHER, URGENCIES, Catalogue, Matter
from bot.gazetteer import Gazetteer, Place
from bot.text import fold

APPEAL, NEED, TOPIC = "appeal", "need", "topic"
MAX_TITLE = 20
MAX_DESCRIPTION = 4000
ASKED_ENOUGH = 3
# Below this the first level of a short cry for help is a guess, and the kind of danger says more.
SURE = 0.6

_CHINESE_DIGITS = str.maketrans("幺〇零一二两三四五六七八九", "1001223456789")
_SPOKEN_PHONE = re.compile(r"(?<![0-9幺〇零一二三四五六七八九])[0-9幺〇零一二两三四五六七八九](?:[\s，,、-]?[0-9幺〇零一二两三四五六七八九]){6,11}(?![0-9幺〇零一二三四五六七八九])")
_MOBILE = re.compile(r"^1[3-9]\d{9}$")
_LANDLINE = re.compile(r"^(?:0\d{9,11}|[2-8]\d{6,7})$")
SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏水窦章云苏潘葛奚范彭郎鲁韦昌马苗凤花方俞任袁柳酆鲍史唐费廉岑薛雷贺倪汤滕殷罗毕郝邬安常乐于时傅皮卞齐康伍余元卜顾孟平黄和穆萧尹姚邵湛汪祁毛禹狄米贝明臧计伏成戴谈宋茅庞熊纪舒屈项祝董梁杜阮蓝闵席季麻强贾路娄危江童颜郭梅盛林刁钟徐邱骆高夏蔡田樊胡凌霍虞万支柯昝管卢莫经房裘缪干解应宗丁宣邓郁单杭洪包诸左石崔吉钮龚程嵇邢滑裴陆荣翁荀羊惠甄曲家封芮羿储靳汲邴糜松井段富巫乌焦巴弓牧隗山谷车侯宓蓬全郗班仰秋仲伊宫宁仇栾暴甘钭厉戎祖武符刘景詹束龙叶幸司韶郜黎蓟薄印宿白怀蒲台从鄂索咸籍赖卓蔺屠蒙池乔阴胥能苍双闻莘党翟谭贡劳逄姬申扶堵冉宰郦雍郤璩桑桂濮牛寿通边扈燕冀郏浦尚农温别庄晏柴瞿阎充慕连茹习宦艾鱼容向古易慎戈廖庾终暨居衡步都耿满弘匡国文寇广禄阙东欧殳沃利蔚越夔隆师巩厍聂晁勾敖融冷訾辛阚那简饶空曾毋沙乜养鞠须丰巢关蒯相查后荆红游竺权逯盖益桓公隋亓肖闫付仝渠尉苟佘佟覃谌阎麦帅迟亢逯郏牟苑楚晋仉綦逄缑揭"
_NAME = re.compile(rf"(?:我姓|免贵姓|姓)\s*([{SURNAMES}])(?:[，。,\s叫]|$|的)?|我(?:是|叫)([{SURNAMES}](?:先生|女士|阿姨|大爷|大妈|师傅|老师|叔|姨))|(?:我叫|名字(?:叫|是))\s*([{SURNAMES}][\u4e00-\u9fff]{{1,2}})(?=[，。,\s]|$)|^([{SURNAMES}](?:先生|女士|阿姨|大爷|大妈|师傅|老师))$")
# Bounded, and only from the first digit of a run: thousands of digits in a row must not cost seconds.
_AMOUNT = re.compile(r"(?:(?<![\d.])\d{1,12}(?:\.\d{1,6})?|(?<![一二两三四五六七八九十百千])[一二两三四五六七八九十百千]{1,12})\s?(?:多|来)?\s?(?:万(?:多|[一二三四五六七八九]千?)?|千(?:多|[一二三四五六七八九])?|百(?:多)?)?\s?(?:块钱|块|元|万元|万块|万)(?!平|人|里)")
_PEOPLE = re.compile(r"(?:(?<!\d)\d{1,9}|(?<![一二两三四五六七八九十百])[一二两三四五六七八九十百]{1,9})\s?(?:多|来|几)?\s?(?:个人|人|名|位|户|家人|家住户|个工友|个工人|个老乡|口人|口子)(?!民币)")
_WHEN = re.compile(r"(?:每天|天天|每晚|夜夜|夜里|半夜|凌晨|早上|早晨|上午|中午|下午|傍晚|晚上|夜间|白天|周末|今天|昨天|前天|昨晚|今早|今晚|上周|上个月|这个月|去年|今年|最近|从)?[^，。；！？\s]{0,4}(?:\d{1,2}|[一二两三四五六七八九十]{1,3})\s*(?:点半?|时|月\d{1,2}[日号]?|月份|[天周年]了?|个(?:多)?月|个(?:多)?星期|个(?:多)?小时)[^，。；！？\s]{0,6}|(?:每天|天天|夜夜|每晚|昨晚|昨天|前天|今早|今天|今晚|夜里|半夜|凌晨|一到晚上|上周|上个月|这个月|去年|周末)[^，。；！？\s]{0,8}")
_EMPLOYER = re.compile(r"[\w（）()]{2,16}?(?:有限责任公司|有限公司|股份公司|集团|公司|建筑队|工程队|工地|厂|酒店|饭店|店|学校|医院|项目部|劳务队|物流园|快递点|工厂|车间|项目)")
_ANONYMOUS = re.compile(r"匿名|不(?:要|想|愿|便|能)?(?:留|写|透露|登记|记|署|说)(?:我的?)?(?:真实)?(?:姓名|名字|名)|别(?:写|留|记|登)[^，。]{0,3}(?:姓名|名字|名)")
_CONFIDENTIAL = re.compile(r"保密|(?:千万|可|一定)?(?:别|不要|不能|莫|勿)(?:让|叫|给)[^，。]{0,8}(?:知道|晓得|发现|看到|看见)|(?:别|不要|不能|莫|千万)[^，。]{0,4}(?:说|讲|提)(?:出去)?(?:是|到)?我|会不会[^，。]{0,4}(?:让|被|叫)[^，。]{1,8}(?:知道|晓得)|(?:别|不要|不能|勿)(?:泄露|透露|暴露|告诉|说出)[^，。]{0,8}(?:我|身份|信息|姓名|他|单位|厂|老板|公司)?|打击报复|怕(?:被)?(?:报复|穿小鞋|找麻烦)")
_CORRECTION = re.compile(r"(?:不对|错了|不是|说错了|更正|纠正|改成|应该是|是)[，,\s]*")
# "你们这样做不对" in a letter corrects nobody's address.
_SELF_CORRECTION = re.compile(r"(?:^|[，。！？,.!?\s])[啊哦嗯呃]*(?:不对|错了|更正)|说错了|不对不对")
_NOT_BUT = re.compile(r"不是\s*([^，。,\s是]{1,20}?)\s*[，,、\s]*\s*(?:而?是|应该是|改成)\s*([^，。,\s]{1,30})")
_RESPONDENT = re.compile(
    r"[\u4e00-\u9fff]{2,12}?(?:主任|书记|局长|所长|科长|处长|镇长|乡长|县长|区长|市长|村长|会计|校长|院长|队长|站长|经理|老板)"
)
_CORRECTS = re.compile(
    r"^(?:(?:不对|错了|说错了|搞错了|打错了|写错了|更正)[一下了，,。\s]*|不是[，,\s]+)(?:应该)?(?:是|在)?\s*(?P<right>.{2,12}?)[吧啊呀的。！!\s]*$"
)
_COUNT = r"[\dA-Za-z一二三四五六七八九十百]{1,4}"
_PART_KINDS = tuple(
    re.compile(part) for part in (r"[东南西北正后侧]{1,2}门", rf"{_COUNT}(?:号楼|栋|幢|座)", rf"{_COUNT}单元", rf"{_COUNT}室", rf"{_COUNT}[楼层]", rf"{_COUNT}期", rf"{_COUNT}号")
)
_BUILDING_WORD = re.compile(r"^[\dA-Za-z一二三四五六七八九十]+\s*(?:号楼|栋|幢|座|单元|楼|室|号|组|队)")


@dataclass(frozen=True)
class Petition:
    """One appeal being written. `texts` are the resident's own messages about it, oldest first."""

    id: str
    kind: str = APPEAL
    texts: tuple[str, ...] = ()
    request_type: str = "求助"
    request_type_confidence: float = 0.0
    category: str = OTHER
    category_confidence: float = 0.0
    alternatives: tuple[tuple[str, float], ...] = ()
    urgency: str = "一般"
    emergency: bool = False
    emergency_kind: str | None = None
    reasons: tuple[str, ...] = ()
    matter: str | None = None
    place: Mapping[str, Any] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    unanswered: Mapping[str, int] = field(default_factory=dict)
    name: str | None = None
    phone: str | None = None
    anonymous: bool = False
    confidential: bool = False
    evidence: tuple[Mapping[str, Any], ...] = ()
    model: str = ""
    source: str = "web"
    scene: str | None = None
    attachments: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()  # fields a person chose; later readings do not overwrite them
    title: str = ""  # as a person wrote it; empty = drawn from the words
    lead: str | None = None  # departments a person chose; None = by the catalogue's route
    co: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields as they are, not copied: this runs several times a turn, and nothing in them is ever changed."""
        return dict(vars(self))

    @property
    def description(self) -> str:
        return "\n".join(self.texts)[:MAX_DESCRIPTION]


def petition_from_dict(data: Mapping[str, Any]) -> Petition:
    """The inverse of as_dict() for data that went through JSON; unknown keys of an older version are dropped."""
    known = {f.name: data[f.name] for f in fields(Petition) if f.name in data}
    for name in ("texts", "reasons", "evidence", "attachments", "fixed"):
        known[name] = tuple(known.get(name, ()))
    known["alternatives"] = tuple((str(code), float(p)) for code, p in known.get("alternatives", ()))
    known["co"] = tuple(known["co"]) if known.get("co") is not None else None
    return Petition(**known)


FILE, SUGGEST, PERSON = "file", "suggest", "person"


@dataclass(frozen=True)
class Lanes:
    """What the calibrated confidence of the category decides. Both thresholds lie between 0 and 1."""

    file: float
    suggest: float

    def of(self, petition: Petition) -> str:
        """`file` as read, `suggest` other classes to who is there, or let a `person` check. What a person chose is sure."""
        return FILE if "category" in petition.fixed else self.lane(petition.category_confidence)

    def lane(self, confidence: float) -> str:
        if confidence >= self.file:
            return FILE
        return SUGGEST if confidence >= self.suggest else PERSON


def apply_reading(petition: Petition, reading: Mapping[str, Any], catalogue: Catalogue) -> Petition:
    """Category, request type, urgency and evidence as read from everything said so far; a level once raised stays."""
    matter = catalogue.find_matter(petition.description)
    categories = [(str(c["code"]), float(c["confidence"])) for c in reading["categories"]]
    code, confidence = categories[0]
    first_level = float(reading.get("first_level_confidence", confidence))
    if matter and matter.category:
        code = matter.category if code[:4] != matter.category[:4] else code
        first_level = max(first_level, 0.7)
    if petition.emergency and first_level < SURE:
        code = catalogue.emergency(petition.emergency_kind).category or code
    kind = petition.kind if "kind" in petition.fixed else (matter.kind if matter and matter.kind else APPEAL)
    level, request_type = reading["urgency"]["level"], reading["request_type"]["name"]
    # Old words read again with new ones may sound like an emergency; only the message itself can be one.
    level = "紧急" if level == "特急" else level
    if matter and matter.urgency:
        level = higher_urgency(level, matter.urgency)
    if kind in (NEED, "minor", "relief", "mediation") and request_type in ("投诉", "建议", "咨询"):
        request_type = "求助"
    if kind == TOPIC and request_type in ("投诉", "举报", "咨询"):
        request_type = "建议"
    if kind in (TOPIC, NEED):  # nobody is in danger in a wish or a proposal, whatever words it borrows
        level = "一般"
    changed = replace(
        petition,
        kind=kind,
        matter=matter.id if matter else None,
        request_type=request_type,
        request_type_confidence=float(reading["request_type"]["confidence"]),
        category=code,
        category_confidence=first_level,
        alternatives=tuple(categories),
        urgency=higher_urgency(petition.urgency, level),
        reasons=tuple(dict.fromkeys((*petition.reasons, *reading["urgency"]["reasons"]))),
        evidence=tuple(reading["evidence"]),
        confidential=petition.confidential or bool(matter and matter.confidential),
    )
    return replace(changed, **{name: getattr(petition, name) for name in petition.fixed if name != "kind"})  # type: ignore[arg-type]


def add_text(petition: Petition, text: str) -> Petition:
    """The resident's words, and the facts that plain patterns find in them."""
    text = text.strip()
    if not text:
        return petition
    changed = replace(petition, texts=(*petition.texts, text)) if text not in petition.texts else petition
    anonymous, confidential = find_secrecy(text)
    facts = dict(changed.facts)
    for slot, value in facts_in(text).items():
        facts.setdefault(slot, value)
    return replace(
        changed,
        facts=facts,
        name=changed.name or find_name(text),
        phone=find_phone(text) or changed.phone,
        anonymous=changed.anonymous or anonymous,
        confidential=changed.confidential or confidential,
    )


def add_places(petition: Petition, spans: Sequence[Mapping[str, Any]], text: str, gazetteer: Gazetteer) -> Petition:
    """The place to send people to, from the spans of one message; a later, fuller or corrected place replaces the earlier."""
    corrected = correct_place(petition, text, gazetteer)
    if corrected is not None:
        return corrected
    main = main_span(spans, text)
    if main is None:
        return petition
    place = gazetteer.resolve(main, context=text)
    known = petition.place
    if known and not known.get("whole_answer"):
        place = _merge_places(known, place, text, gazetteer)
    elif known and len(str(known["text"])) > len(place.text) and place.text in str(known["text"]):
        return petition
    merged = _as_known(place)
    if known and known.get("lat") and not merged.get("lat"):
        merged.update(lat=known["lat"], lng=known["lng"])
    return replace(petition, place=merged)


_PLACE_WORD = re.compile(r"[路街巷弄村镇乡县区市组队屯湾号楼栋幢室苑府里园院校站桥河湖厂店场口门旁边侧]|小区|对面|附近|后面|前面|单元|社区|工地|公司|大厦|广场")
_MY_PLACE = re.compile(r"我们?(?:家|村|住在?|在|是|这(?:里|边)?|那(?:里|边)?|小区|单位|楼)|单号")
_STORY_WORD = re.compile(r"[我你他她咋啥谁怕想]|单号|有没有|说|找|打(?:了|过)?电话|没人|没法|怎么|为什么|不管|投诉|举报|[吗呢？?]|已经|一直|每天|天天|好几|多久|赶紧|麻烦|希望")


def looks_like_place(text: str) -> bool:
    """Whether an answer in which no place span was found may still be one: place words, and nothing being told."""
    told = _MY_PLACE.sub("", text)
    return len(text) <= 60 and bool(_PLACE_WORD.search(text)) and not _STORY_WORD.search(told)


def place_from_answer(petition: Petition, text: str, gazetteer: Gazetteer) -> Petition:
    """The whole message is the place: the answer to "where" in which no place span was found."""
    cleaned = text.strip(" ，。,.!！?？\n")[:80]
    place = gazetteer.resolve(cleaned, context=cleaned)
    return replace(petition, place={**_as_known(place), "whole_answer": True})


def correct_place(petition: Petition, text: str, gazetteer: Gazetteer) -> Petition | None:
    """"不是3栋，是8栋" exchanges the named part of the known place, "不对，是8栋" the part of its kind; None when the text corrects nothing."""
    if not petition.place:
        return None
    match = _NOT_BUT.search(text)
    if not match:
        return _exchange_parts(petition, text, gazetteer)
    wrong, right = match.group(1).strip(), match.group(2).strip()
    known = str(petition.place["text"])
    if wrong and wrong in known:
        return replace(petition, place=_as_known(gazetteer.resolve(known.replace(wrong, right), context=known)))
    return None


def _exchange_parts(petition: Petition, text: str, gazetteer: Gazetteer) -> Petition | None:
    """With the gate, building, unit … that the whole text corrects, where the known place has one of each kind it names."""
    assert petition.place is not None
    match = _CORRECTS.match(text)
    if match is None:
        return None
    known, left = str(petition.place["text"]), match.group("right")
    for kind in _PART_KINDS:
        old, new = kind.search(known), kind.search(left)
        if old and new:
            known = known[: old.start()] + new.group() + known[old.end() :]
            left = left[: new.start()] + left[new.end() :]
    if left.strip() or known == petition.place["text"]:
        return None
    return replace(petition, place=_as_known(gazetteer.resolve(known, context=known)))


def _as_known(place: Place) -> dict[str, Any]:
    """A place as a petition keeps it; `among` are the districts to ask about, where several have a place of this name."""
    return {**place.as_dict(), **({"among": list(place.ambiguous)} if place.ambiguous else {})}


def choose_district(petition: Petition, text: str, gazetteer: Gazetteer) -> Petition | None:
    """The petition with its place in the district that the answer names; None when it names none of those asked about."""
    place = petition.place or {}
    for district in place.get("among", ()):
        if str(district) in text or re.sub(r"[区县市]$", "", str(district)) in text:
            return replace(petition, place=_as_known(gazetteer.resolve(f"{district}{place['text']}")))
    return None


def _merge_places(known: Mapping[str, Any], new: Place, text: str, gazetteer: Gazetteer) -> Place:
    old = re.sub(r"^(?:我们|咱们?)?小区(?=[\dA-Za-z一二三四五六七八九十])", "", str(known["text"]))  # "小区三号楼": now we hear which
    if new.text in old:
        return gazetteer.resolve(old)
    if old in new.text:
        return new
    if _BUILDING_WORD.match(old) and (new.poi or new.road or new.community):  # the estate after its building
        return new if new.building else gazetteer.resolve(new.text + old, context=text)
    if _BUILDING_WORD.match(new.text):  # "3号楼" after "桂花新村8号楼": exchange the building, or add it
        base = re.sub(r"[\dA-Za-z一二三四五六七八九十]+\s*(?:号楼|栋|幢|座)\S*$", "", old) if re.search(r"号楼|栋|幢|座", new.text) else old
        return gazetteer.resolve(base + new.text, context=text)
    if re.search(r"不对|错了|更正|改成|应该是", text):
        return new
    if known.get("poi") or known.get("road") or known.get("community"):
        if new.poi or new.road or new.community or new.building:
            return gazetteer.resolve(f"{old} {new.text}", context=text) if new.text not in old else gazetteer.resolve(old)
        return gazetteer.resolve(f"{new.text}{old}", context=text) if new.district and not known.get("district") else gazetteer.resolve(old)
    return gazetteer.resolve(f"{old}{new.text}", context=text)


def main_span(spans: Sequence[Mapping[str, Any]], text: str) -> str | None:
    """The span to send people to: the last of a self-correction, else the place reader's weightiest, else the first."""
    if not spans:
        return None
    correction = _SELF_CORRECTION.search(text)
    if correction:
        later = [span for span in spans if int(span["start"]) >= correction.end()]
        earlier = [span for span in spans if int(span["end"]) <= correction.start() + 1]
        if later and earlier and _BUILDING_WORD.match(str(later[-1]["text"])):
            base = re.sub(r"[\dA-Za-z一二三四五六七八九十]+\s*(?:号楼|栋|幢|座).*$", "", str(earlier[-1]["text"]))
            return base + str(later[-1]["text"])
        if later:
            return str(later[-1]["text"])
    return str(max(spans, key=lambda span: (float(span.get("weight", 0.0)), -int(span["start"])))["text"])


def find_secrecy(text: str) -> tuple[bool, bool]:
    """Whether somebody will not be named, and whether somebody wants to be kept secret."""
    return bool(_ANONYMOUS.search(text)), bool(_CONFIDENTIAL.search(text))


def answer_slot(petition: Petition, slot: str, text: str) -> Petition:
    """A plain answer to a question for `slot` (not the place); a refusal counts as answered."""
    value = facts_in(text).get(slot) or text.strip()[:120]
    return replace(petition, facts={**petition.facts, slot: value})


def missing_slots(petition: Petition, catalogue: Catalogue) -> list[str]:
    """What is still to be asked, in order; a slot asked twice without an answer is let go."""
    matter = next((m for m in catalogue.matters if m.id == petition.matter), None)
    needed = catalogue.required_slots(
        petition.category, petition.request_type, petition.kind, matter, length=len(petition.description)
    )
    if petition.place and petition.place.get("among"):
        needed = ["district", *needed]
    known = {"location": _has_place(petition), "district": False}
    return [
        slot for slot in needed if petition.unanswered.get(slot, 0) < ASKED_ENOUGH and not known.get(slot, petition.facts.get(slot))
    ]


# "楼下便民超市" is a place only for who lives there.
_RELATIVE = re.compile(r"^(?:我们?家?|咱们?)?(?:楼下|楼上|附近|隔壁|旁边|门口|对面|后面|前面|小区|村里|单位|学校|家)")


def _has_place(petition: Petition) -> bool:
    """A place somebody can be sent to: more than a province, city or county."""
    place = petition.place
    if not place:
        return False
    if place.get("lat") or place.get("whole_answer"):
        return True
    if _RELATIVE.match(str(place["text"])) and not any(place.get(key) for key in ("district", "street", "community", "road")):
        return False
    if any(place.get(key) for key in ("community", "road", "poi", "street")):
        return True
    if place.get("building"):  # "5号楼六层" of which estate?
        return False
    return not re.fullmatch(r"(?:[\u4e00-\u9fff]{2,8}?(?:省|市|区|县|开发区))+", str(place["text"])) and len(str(place["text"])) > 3


def note_asked(petition: Petition, slot: str) -> Petition:
    return replace(petition, unanswered={**petition.unanswered, slot: petition.unanswered.get(slot, 0) + 1})


def facts_in(text: str) -> dict[str, str]:
    """when, amount, persons, employer, respondent, as literally written."""
    found: dict[str, str] = {}
    for slot, pattern in (("when", _WHEN), ("amount", _AMOUNT), ("persons", _PEOPLE), ("employer", _EMPLOYER), ("respondent", _RESPONDENT)):
        match = pattern.search(text)
        if match:
            found[slot] = match.group().strip()
    return found


def find_phone(text: str) -> str | None:
    """A mobile or landline number as digits, also when spoken ("幺三八…") or full-width."""
    for match in _SPOKEN_PHONE.finditer(fold(text)):
        digits = re.sub(r"\D", "", match.group().translate(_CHINESE_DIGITS))
        if _MOBILE.match(digits) or _LANDLINE.match(digits):
            return digits
    return None


def find_name(text: str) -> str | None:
    match = _NAME.search(text)
    return next((group for group in match.groups() if group), None) if match else None


_IDENTITY = re.compile(r"(?<!\d)\d{6}(?:19|20)\d{2}[01]\d[0-3]\d\d{3}[\dXx](?!\d)")
_BANK_CARD = re.compile(r"(?<!\d)\d{16,19}(?!\d)")


def mask(text: str) -> str:
    """A text without phone, identity and card numbers and without given names, fit for logs, exports and training data."""
    masked = _IDENTITY.sub(lambda m: m.group()[:6] + "********" + m.group()[-4:-3] + "***", text)
    masked = _BANK_CARD.sub(lambda m: "*" * len(m.group()), masked)
    masked = _SPOKEN_PHONE.sub(lambda m: _mask_phone(m.group()), masked)
    return re.sub(rf"((?:我叫|名字叫|名字是)\s*[{SURNAMES}])[\u4e00-\u9fff]{{1,2}}", r"\1**", masked)


def _mask_phone(found: str) -> str:
    digits = re.sub(r"\D", "", found.translate(_CHINESE_DIGITS))
    return f"{digits[:3]}****{digits[-4:]}" if find_phone(found) else found


_CLAUSES = re.compile(r"[，。！？；,!?;\n\s]")
LEAST_WITHOUT_PLACE = 6
# What may come of it is told to say how bad it is: "晚上看不见，差点摔倒".
MAY_COME_OF_IT = re.compile(r"看不[见清到]|差点|差一点|险些|幸好|万一|要是|早晚|迟早")
# "刚才还在万达一楼": the place has its own field.
_HERE = "\0"
_LEADS_TO = r"(?:刚才|刚刚|现在|人|就|还|都|正|是)*(?:在|到|从|去|往|位于)?"


def title_of(petition: Petition) -> str:
    """What a person wrote, else at most 20 characters of the resident's own words: the clause that carries the most evidence."""
    if petition.title:
        return petition.title
    best, best_score = "", -math.inf
    where = str((petition.place or {}).get("text") or "")
    described = re.sub(f"{_LEADS_TO}{re.escape(where)}", _HERE, petition.description) if where else petition.description
    for clause in _CLAUSES.split(described):
        cleaned, placed = (_bare_clause(clause.replace(_HERE, text)) for text in (" ", where))
        if 2 <= len(cleaned) < LEAST_WITHOUT_PLACE and cleaned != placed and len(placed) <= MAX_TITLE:
            cleaned = placed  # "南门里面的路塌了一块", not "塌了一块"
        if len(cleaned) < 3 or find_phone(cleaned) or _CONFIDENTIAL.search(cleaned) or _ANONYMOUS.search(cleaned):
            continue
        score = sum(float(span["weight"]) for span in petition.evidence if str(span["text"]) in cleaned) + min(len(cleaned), 12) / 100
        score -= bool(MAY_COME_OF_IT.search(cleaned))
        if score > best_score:
            best, best_score = cleaned, score
    return (mask(best) or "居民反映事项")[:MAX_TITLE]


def _bare_clause(clause: str) -> str:
    return re.sub(r"^(?:的|你们?好|您好|喂|请问|我要|我想|反映|投诉|举报|一下|咨询|个事|就是|那个|关于|还有|另外|麻烦|啊|哎|[\s:：])+", "", clause.strip())


def matter_of(petition: Petition, catalogue: Catalogue) -> Matter | None:
    return next((matter for matter in catalogue.matters if matter.id == petition.matter), None)


def higher_urgency(first: str, second: str) -> str:
    return max(first, second, key=URGENCIES.index)
