"""How a hot spot is told: whom it concerns, and what it is about in the words of its own appeals. Nothing is added to them. Pure."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from bot.hotspot_matters import Matters
from bot.hotspot_places import squeeze
from bot.petition import mask

LONGEST, SHORTEST = 40, 6
# People are named when so many of the appeals speak of them, and never for a single one: its writer may mention whom it likes.
SPOKEN_OF, LEAST_SPOKEN = 0.2, 2
MOST_PEOPLE = 2
# A description is looked for in the first sentences of so many appeals.
TOLD, SENTENCES = 40, 4
# What begins an appeal was written to say what it is about.
TITLE_BONUS = 1.5

_PEOPLE = re.compile(
    r"(业主|居民|住户|村民|租户|商户|摊主|店主|家长|学生|学员|考生|教师|老师|职工|员工|农民工|工人|司机|车主|乘客|旅客|行人|患者|病人|老人|购房者|消费者|顾客"
    r"|受害人|投资人|出借人|退役军人|转业士官|残疾人|拆迁户|安置户|低保户|贫困户|退休人员|群众|市民)"
    r"(?!委|楼|区|大会|小组|代表大会|服务中心|热线|信箱|之家|家园|公寓|广场|卡)"
)
_ANYBODY = ("群众", "市民")
# Whoever lives there, whatever they call themselves.
_LIVING_THERE = frozenset({"业主", "居民", "住户"})
_SENTENCE = re.compile(r"[^。！？!?；;\n]+[！？!?]?")
_LEAD = re.compile(
    r"^(?:[\s，,、：:（(]+|\d{1,2}[、.．]|第?[一二三四五六]、|再次|强烈|坚决|紧急|联名|关于|反映|反应|投诉|举报|咨询|质疑|请求|建议|请问|想问|希望|恳请|恳求|要求|呼吁|盼"
    r"|请(?=加快|解决|取缔|公开|关注|重视|处理|查)|向您|对于?(?=.{6}))+"
)
_TRAIL = re.compile(r"(?:等?(?:相关|有关|若干|一些)?(?:的)?(?:问题|情况|事宜|事情|投诉|咨询|建议|疑问|请求|诉求|回复))+$|[，,、：:\s]+$")
_NOT_THIRD_PERSON = re.compile(r"[我俺咱你您]|本人|尊敬|敬爱|领导|书记|[市县区镇局]长|谢谢|感谢|您好|此致|敬礼|http|\*{3}")
_CUT = re.compile(r"[，,、：:]")


def people_of(texts: Sequence[str]) -> str:
    """Those whom many of the texts speak of: 业主、居民; empty where none are named."""
    spoken = [set(_PEOPLE.findall(text)) for text in texts]
    found = Counter(word for words in spoken for word in words)
    living = sum(bool(words & _LIVING_THERE) for words in spoken)
    enough = max(SPOKEN_OF * len(texts), LEAST_SPOKEN)
    often = [word for word, count in found.most_common() if (living if word in _LIVING_THERE else count) >= enough]
    named = [word for word in often if word not in _ANYBODY] or often
    return "、".join(named[:MOST_PEOPLE])


def describe(texts: Sequence[str], central: Sequence[int], matters: Matters) -> str:
    """The sentence nearest to what all the appeals say, in the third person, at most 40 characters.

    `central`: numbers of the texts in `matters`, the most typical first.
    """
    direction = np.asarray(matters.words[list(central)].sum(axis=0)).ravel()
    told = [sentence for number in central[:TOLD] for sentence in _sentences(texts[number])]
    impersonal = [sentence for sentence in told if not _NOT_THIRD_PERSON.search(sentence[0])]
    chosen = impersonal or [(_impersonal(text), first) for text, first in told]
    if not chosen:
        return ""
    scores = matters.rows(squeeze(text) for text, _ in chosen) @ direction
    weighed = [score * (TITLE_BONUS if first else 1.0) for score, (_, first) in zip(scores.tolist(), chosen, strict=True)]
    return mask(chosen[int(np.argmax(weighed))][0])[:LONGEST]


def _sentences(text: str) -> list[tuple[str, bool]]:
    """The first sentences without what leads to the matter, shortened at a comma; and whether each begins the text."""
    found: list[tuple[str, bool]] = []
    for number, match in enumerate(_SENTENCE.finditer(text)):
        if number == SENTENCES:
            break
        said = _TRAIL.sub("", _LEAD.sub("", match.group().strip()))
        while len(said) > LONGEST and _CUT.search(said):
            said = said[: list(_CUT.finditer(said))[-1].start()]
        if len(said) >= SHORTEST:
            found.append((said[:LONGEST], number == 0))
    return found


def _impersonal(text: str) -> str:
    said = re.sub(r"我们?(?=小区|村|镇|学校|单位|公司|楼)", "该", text)
    said = re.sub(r"(?:我|咱|俺)们?家", "居民家", said)
    return re.sub(r"本人|(?:我|咱|俺)们?", "居民", said)
