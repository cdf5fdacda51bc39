"""The title of a work order from a caller's story: the topic, what is wrong with it and where, in official words. Pure.

Nothing is added but the frame words named here; a word that stands in no piece of the story stands in no title.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jieba

from bot.call import AGENT
from bot.petition import MAX_TITLE, MAY_COME_OF_IT, mask
from bot.story import STRONG, TROUBLE, Part, Story
from bot.summary import NOTHING_TOLD
from bot.wording import official, own_people, speaks_to_the_agent

ROOM, LONGEST_PLACE, FIRST_PIECES = 17, 11, 4
# What two characters that the agent repeats are worth.
ECHO, MOST_ECHO = 0.06, 0.3
RIGHT_BEFORE, LEAST_MATTER = 24, 0.15
# What is wrong is said so soon that nothing but the topic does it.
SOON = 2
# A topic told right before a statement; another topic that will do as well; one that may stand before a colon.
NEAR, ENOUGH, SURE_TOPIC = 0.3, 0.8, 0.6
# A topic that says more than a statement without one: what carries no topic of the call is as likely talk by the way.
SAYS_MORE, EMPTY_STATEMENT = 0.85, 0.3
ASKING, PRAISE, PROPOSAL, REPORTING = "咨询", "表扬", "建议", "举报"
FRAMES = (ASKING, PRAISE, PROPOSAL, REPORTING)

_LEAD = re.compile(
    r"^(?:第[一二三](?:[个点件](?:事|呢|是)?|呢|是)|一个(?:是|呢)|再一?个(?:是|呢|就是)?|另外|还有(?:一个|就是)?|主要(?:是|就是)|关键(?:是)?|问题是|现在(?=.{3})|当时|后来|结果|但是?|可是?|然后|所以|因为|不过|而且|反正|打从|自从|那个|这个|这都|这(?=.{3})|那(?=.{3})|"
    r"我?(?:就是|是|只是|主要|先)?(?:想|要|来|先|着急)*(?:反映|投诉|举报|咨询|求助|表扬|建议|请教)(?:一下|个事儿?|个问题|[一两]个事情|个事情|一个|下子|下|个)?(?:关于|说|的事)?(?=.{2})|"
    r"我?(?:就是|先)?(?:想|要|来|着急)+(?:问|提(?![前出供取交醒])|说|夸)(?:问|一下|个事儿?|个问题|个)?(?=.{2})|我?(?:问|提|说)(?:一下|问|个事儿?|个问题|个?小?建议)(?=.{2})|关于|想问|请问|问一下|"
    r"(?:我们?|俺们?|咱们?|他们?|她们?|它|人家|对方|其)(?:就|都|也|又|还|才|现在|一直|这几天|那天|要|想)*(?=.{3})|说是?(?=.{3})|又(?=.{3})|还(?=.{3})|都(?=.{2})|也(?=.{3})|就(?=.{2})|才(?=.{3})|到现在|到底|叫(?=.{2,}(?:津贴|补贴|费|证)))"
)
_TIME_AHEAD = re.compile(
    r"^(?:从|打从|自从)?(?:去年|今年|前年|大前年|昨天|今天|前天|昨晚|今早|过了年|上个?(?:星期|礼拜|月|周)[一二三四五六日天]?|这个?(?:星期|月|周)|[一二三四五六七八九十]{1,3}月(?:份|底|初)?|腊月|正月|早上|上午|中午|下午|[一二三四五六七八九十]{1,3}点(?:半|多|钟)?|\s)+(?:就|的时候)?(?=.{2})"
)
_TRAIL = re.compile(r"(?:(?<!不)了|的|呢|吗|吧|啊|着|这个|那个|的事情?|的问题|这件事|什么|而已|一下|还|说|找谁|怎么办|咋办|谁管|归谁管|管不管)+$")
_IT = re.compile(r"(?<=[\u4e00-\u9fff]{2})(?:他们?|她们?|它)(?=[不没未就也都还又说])")
_WHOSE = re.compile(r"(?:我|俺|咱)们?的(?=[\u4e00-\u9fff]{2})|(?<=[\u4e00-\u9fff])的(?=钱|系统|电梯|路灯)")
_TAKES = re.compile(r"把(?:我们?|俺|其)?的?(?P<what>[^，把]{0,8}?)(?P<does>占|拉黑|扣|拆|堵|打|偷|骗|砸|锁|封|关|停|退|推|撞|剪|挖)(?:了|掉|走|上|住|伤|倒|坏|断)*$")
_TO_ME = re.compile(r"(?<=[了给占扣骗收欠打要叫让])(?:我们?|俺|咱们?)(?=.)")
_TAKES_ME = re.compile(r"^(?P<who>[^，]{1,8}?)把(?:我们?|俺|其)(?P<does>辞退|开除|拉黑|打|骗|踢|赶|扣|拦|堵)(?:了|出来|出去|走|伤|住|下)*$")
_SINCE = re.compile(r"(?:有|快|都|已经|将近|差不多)+(?=[一二两三四五六七八九十半几\d]+个?多?(?:天|月|年|星期|礼拜|周|小时))")
_QUESTION_WORD = re.compile(r"能否|如何|怎么|是否|有无|多少|哪些|哪个|什么|需要|几[天个]|还是")
_PROPOSES = re.compile(r"能不能|可不可以|能否|建议|希望|最好|应该|延长|增[设加]|改[成为]|加装|装[上个]")
_WISHED = re.compile(r"^(?:能否|可否|希望|最好(?:是)?|应该|建议)+(?=.{3})")
_THAT = re.compile(r"(?<=.)[那这]个(?!时候|月|人|星期|意思)(?=[\u4e00-\u9fff]{2})")
_FIRST_PERSON = re.compile(r"我|俺|咱")
# Where a statement begins like this it can follow a topic word at once; otherwise it has a subject of its own.
_VERBAL = re.compile(r"^(?:一直|显示|要[排等交加]|被|未|不|没|无|多[收扣交]|乱|停|坏|漏|全|每|天天|一分|上班时间|只|能否|可否|是否|需要|怎么|如何|有无|要不到|超|已|跑了|提交不|[一二两三四五六七八九十半几]+[天年月个周])")
_HANGING = re.compile(r"(?:的|把|被|让|给|和|跟|在|从|说|是|要|去|来到|或者|因为)$")
_ACTORS = re.compile(
    r"隔壁|邻居|楼[上下](?=那|的|$|住)|房东|老板|包工头|物业|开发商|中介|司机|(?:村)?支书|村长|主任|[\u4e00-\u9fff]{2,6}(?:化工|公司|厂|店|行|支行|学校|医院|幼儿园|健身|驾校|酒店|饭店|烧烤|KTV)$|施工队|工地|城管|保安|医生|教练|店家|商家|公司|银行"
)
_HE = re.compile(r"^(?:他们?|她们?|它|人家|对方)")
# Words that are about who handles a matter, when, how many: no topic of a title.
_NO_TOPIC = re.compile(
    r"民警|地址|保密|家长|[\u4e00-\u9fff]区$|[零一二两三四五六七八九十\d]号?楼$|^[没不爸妈]|[局所委厅]$|部$|法院|公证处|^物业$|客服|班主任|热线|电话|手机|事情|问题|时候|现在|[年月日天号点岁亩趟]$|[零一二两三四五六七八九十百千万\d]{2,}|^(?:银行|支行|农商行|去年|今年|前年|今天|昨天|明天|小区|中学|小学|学校|医院|村里|俺村|镇上|老人|老年人|孩子|事儿|别说|单位|公司|楼下|楼上|"
    r"一直|还是|真的|没有|知道|上班|居民|晚上|早上|上个月|合同|收据|领导|老板|经理|客户经理|销售|项目部|包工头|管理|出来|上班时间|什么|隔壁|可以|自己|东西|地方|师傅|同志|朋友|时间|情况|家里|门口|社区|街道)$|[县市镇村]$"
)
_PRAISED = re.compile(r"(?:表扬|夸夸?|感谢|谢谢|点赞|赞一下)(?:一下)?(?:一?[个位名下])*(?P<who>[\u4e00-\u9fff]{2,12}?)(?:$|的|[，。])")
_SOMEBODY = re.compile(r"^(?:人|他|她|你们|个人|一下|这个人|他们|表扬|工作人员$)")
_PEOPLE = re.compile(r"(?:出租车|公交车?|急诊|社区|小区|派出所|窗口)?(?:护士|医生|大夫|民警|辅警|交警|警察|司机|师傅|老师|保安|环卫工人|保洁员|志愿者|网格员|快递员|外卖员|社工|消防员|村医|售票员|乘务员|工作人员)")
# Whose life is at stake, as a title names them.
_VICTIM = re.compile(r"老人|老伴|老太太|老爷子|老大爷|老头|老婆婆|孩子|小孩|娃娃?|女童|男童|工友|工人|学生|邻居|女的|男的|老婆|妻子|骑电动车的|骑车的|司机|产妇|孕妇")


@dataclass(frozen=True)
class Statement:
    text: str
    part: Part
    score: float


@dataclass(frozen=True)
class Subject:
    word: str
    part: Part
    score: float


def build_title(story: Story, request_type: str, place: str, fallback: str, *, where: str = "") -> tuple[str, Part | None]:
    """At most 20 characters in the third person, and the piece that carries it.

    `place`: what the title may call the place, or ""; `where`: all that is known of it, of which nothing is a topic.
    """
    subjects = [subject for subject in _subjects(story) if subject.word not in where]
    statements = sorted(_statements(story, request_type), key=lambda found: -found.score)
    if request_type == PRAISE:
        praised = _praised(story, subjects, place)
        if praised:
            return praised
    if not statements:
        if not subjects:
            return fallback, None
        return _framed(subjects[0].word, request_type, place), subjects[0].part
    best = statements[0]
    if not subjects and best.part.weight < LEAST_MATTER and not STRONG.search(best.text):
        return fallback, None
    if _is_by_the_way(best, subjects, request_type):
        named = next((subject for subject in subjects if subject.score >= SAYS_MORE), None)
        if named:
            return mask(_framed(named.word, request_type, place))[:MAX_TITLE], named.part
        if fallback != NOTHING_TOLD:
            return _framed(fallback, request_type, place)[:MAX_TITLE], None
    if request_type == PROPOSAL:
        best = replace(best, text=_WISHED.sub("", best.text))
    # Of danger nothing stands before the danger but who is in it.
    body = best.text if best.part.danger else _with_subject(best, subjects, place, request_type)
    title = _framed(official(body), request_type, place)
    return mask(_extended(title, best, statements, request_type))[:MAX_TITLE], best.part


def _is_by_the_way(statement: Statement, subjects: Sequence[Subject], request_type: str) -> bool:
    """Whether nothing in it shows that it belongs to the matter."""
    text, part = statement.text, statement.part
    if request_type == ASKING and _QUESTION_WORD.search(text) or request_type == PROPOSAL and _PROPOSES.search(part.piece.text):
        return False
    if part.topics or part.danger:
        return False
    told_with = any(subject.score >= SURE_TOPIC and _is_near(subject.part, part) for subject in subjects)
    return part.weight <= EMPTY_STATEMENT and not (STRONG.search(text) and told_with)


def _framed(body: str, request_type: str, place: str) -> str:
    """With what kind of call it is, where that is no complaint, and with the place, as far as there is room."""
    frame = request_type if request_type in FRAMES else ""
    body = body.removeprefix(frame)
    if place and request_type != ASKING and not _overlaps(place, body):
        for title in (frame + place + body, place + body):
            if len(title) <= MAX_TITLE:
                return title
    return frame + body if len(frame + body) <= MAX_TITLE else body


def _extended(title: str, best: Statement, statements: Sequence[Statement], request_type: str) -> str:
    """With a second thing said in the same breath, where there is room for it."""
    if request_type in (ASKING, PRAISE, PROPOSAL):
        return title
    for other in statements[1:]:
        near = other.part.piece.turn == best.part.piece.turn and 0 < other.part.start - best.part.start < 30
        if near and other.score >= best.score * 0.7 and len(title) + len(other.text) < MAX_TITLE and not _overlaps(other.text, title):
            return f"{title} {other.text}"
    return title


def _overlaps(first: str, second: str) -> bool:
    """Whether the two share three characters in a row, or one stands in the other."""
    return first in second or second in first or any(first[at : at + 3] in second for at in range(len(first) - 2))


def _praised(story: Story, subjects: Sequence[Subject], place: str) -> tuple[str, Part] | None:
    for part in story.parts:
        match = _PRAISED.search(part.piece.text)
        who = official(match.group("who")) if match else ""
        if match and not _SOMEBODY.match(who):
            return _framed(who, PRAISE, place), part
    people = next(((part, match) for part in story.parts if (match := _PEOPLE.search(part.piece.text))), None)
    if people:
        return _framed(people[1].group(), PRAISE, place), people[0]
    best = next(iter(subjects), None)
    return (_framed(best.word, PRAISE, place), best.part) if best else None


# -- what is wrong -----------------------------------------------------------------------------------------------------------


def _statements(story: Story, request_type: str) -> Iterator[Statement]:
    count, heard = max(1, len(story.parts)), _heard(story)
    for number, part in enumerate(story.parts):
        if part.aside:
            continue
        before = story.parts[max(0, number - 3) : number]
        text = _shortened(_with_actor(statement_of(part.piece.text), part, before))
        if part.danger and not _VICTIM.search(part.piece.text):
            text = _victim(story.parts[:number]) + text
        text = re.sub(r"^你们" if request_type == ASKING else r"^是否(?=.{2})", "", text)
        if len(text) >= 2 and not _HANGING.search(text):
            score = _score(text, part, request_type, number / count) + _echo(text, heard)
            if score > 0:
                yield Statement(text, part, score)


def _score(text: str, part: Part, request_type: str, position: float) -> float:
    score = part.weight / 2 + 0.3 * (1 - position) + 0.02 * min(len(text), 10) + 0.2 * bool(part.topics)
    score -= 0.2 * bool(_FIRST_PERSON.search(text)) + 0.5 * speaks_to_the_agent(text) + 0.3 * (len(text) > ROOM)
    score -= (0.1 if _HE.match(part.piece.text) else 0.3) * part.quote
    if request_type == ASKING:
        return score + 0.6 * bool(_QUESTION_WORD.search(text)) - 0.4 * (not part.topics and not _QUESTION_WORD.search(text))
    if request_type == PROPOSAL:
        return score + 0.6 * part.wish + 0.4 * bool(_PROPOSES.search(part.piece.text))
    strong = part.danger or STRONG.search(text)
    score += 0.6 if strong else 0.25 if TROUBLE.search(text) else -0.5
    score -= 0.15 * (len(text) < 6 and not part.topics) + 0.5 * bool(MAY_COME_OF_IT.search(text) and not part.danger)
    return score - 0.6 * part.wish - 0.25 * part.question


def _echo(text: str, heard: frozenset[str]) -> float:
    """How much of a text the agent took up: what an agent repeats is what the call is about. Their words are weighed, never used."""
    return min(ECHO * sum(text[at : at + 2] in heard for at in range(len(text) - 1)), MOST_ECHO)


def _heard(story: Story) -> frozenset[str]:
    """Pairs of characters in what the agent says of the matter."""
    own = (turn.text for turn in story.call.turns if turn.speaker == AGENT)
    return frozenset(text[at : at + 2] for text in own for at in range(len(text) - 1))


def statement_of(text: str) -> str:
    """A piece as a title says it: without lead-in, address and trailing particles, in official words."""
    said, before = official(_WHOSE.sub("", own_people(text))), ""
    while before != said:
        before, said = said, _TIME_AHEAD.sub("", _LEAD.sub("", said))
    said = _TAKES_ME.sub(lambda match: f"被{match.group('who')}{match.group('does')}", said)
    said = _SINCE.sub("", _TAKES.sub(lambda match: match.group("does") + match.group("what"), official(said)))
    said = _THAT.sub("", said)
    if "把" in said:
        return said
    return _TRAIL.sub("", _IT.sub("", _TO_ME.sub("", said)))


def _victim(before: Sequence[Part]) -> str:
    """Who is in danger, as last named before."""
    named = (match.group() for part in reversed(before) if (match := _VICTIM.search(part.piece.text)))
    return official(next(named, ""))


def _with_actor(statement: str, part: Part, before: Sequence[Part]) -> str:
    """Who "he" is, where the pieces before name somebody."""
    if not _HE.match(part.piece.text) or len(statement) > ROOM - 2:
        return statement
    for earlier in reversed(before):
        match = _ACTORS.search(earlier.piece.text)
        if match and match.group() not in statement and len(match.group() + statement) <= MAX_TITLE:
            return official(match.group()) + statement
    return statement


_GOES_ON_TELLING = re.compile(r"从|一直|还(?!贷|钱|款)|又|就|让|说|在那|把|都|跟|搞得|弄得|害得|导致")
LEAST_CUT = 6


def _shortened(text: str) -> str:
    """At most as long as a title has room for, cut between words and before the clause that makes it too long."""
    if len(text) <= ROOM:
        return text
    wrong = STRONG.search(text)
    border = _GOES_ON_TELLING.search(text, max(wrong.end(), LEAST_CUT)) if wrong else None
    if border and border.start() <= ROOM:
        return _TRAIL.sub("", text[: border.start()])
    at, last = 0, 0
    for word in jieba.cut(text, HMM=False):
        at += len(word)
        if at > ROOM:
            break
        last = at
    return _TRAIL.sub("", text[:last])


# -- what it is about --------------------------------------------------------------------------------------------------------

_OURS = re.compile(r"^(?:(?:我|俺|咱|本|该)们?[村家厂]?|[这那]个)(?=.{2})")
_GOES_ON = re.compile(r"(?:系统|费用?|款|中心|窗口|证明?|站|店|厂|公司|司机|卡|金|证|期|调动|管道?|井|灯|水|桥|路)")


def _subjects(story: Story) -> list[Subject]:
    """What the call may be about, likeliest first: known words, with what stands behind them."""
    scores: dict[str, float] = {}
    first: dict[str, Part] = {}
    heard = _heard(story)
    for number, part in enumerate(story.parts):
        if part.aside:
            continue
        for topic in () if speaks_to_the_agent(part.piece.text) and not part.announces and number >= FIRST_PIECES else part.topics:
            more = _GOES_ON.match(part.piece.text, topic.end)
            word = _OURS.sub("", official(part.piece.text[topic.start : more.end() if more else topic.end]))
            if len(word) < 2 or _NO_TOPIC.search(word) or MAY_COME_OF_IT.search(word):
                continue
            word = _phrase(part, word)
            first.setdefault(word, part)
            early = 0.2 * (1 - number / len(story.parts)) + 0.2 * (number < FIRST_PIECES)
            scores[word] = scores.get(word, 0.2) + topic.weight + 0.1 + 0.25 * part.announces + early + 0.02 * len(word) - 0.4 * part.quote
    found = [Subject(word, first[word], score + _echo(word, heard)) for word, score in scores.items()]
    return sorted(found, key=lambda subject: -subject.score)


_NO_ATTRIBUTE = re.compile(r"[是在有给办住边个我俺你他她它去来到上下这那就问叫的了]")


def _phrase(part: Part, word: str) -> str:
    """A piece that says little more than its topic is the topic: "异地看病报销" rather than "看病报销"."""
    whole = statement_of(part.piece.text)
    plain = not (part.quote or part.wish or STRONG.search(whole) or _QUESTION_WORD.search(whole) or speaks_to_the_agent(whole))
    before = whole.removesuffix(word)
    return whole if plain and whole != before and len(before) <= 2 and not _NO_ATTRIBUTE.match(before) else word


def _with_subject(statement: Statement, subjects: Sequence[Subject], place: str, request_type: str) -> str:
    """The statement behind what it is about, unless it names that itself."""
    text = statement.text
    if request_type == ASKING:
        subjects = [subject for subject in subjects if subject.word not in text] or subjects
    near = sorted(subjects, key=lambda subject: -subject.score - NEAR * _is_near(subject.part, statement.part))
    if not near or any(subject.word in text for subject in near[:1]) or near[0].word in place and len(place + text) <= MAX_TITLE:
        return text
    named = max((subject.score for subject in subjects if subject.word in text), default=0.0)
    if named >= ENOUGH * near[0].score and request_type != ASKING:
        return text
    word = near[0].word
    if text[:2] == word[-2:]:
        return word + text[2:] if len(word + text) - 2 <= MAX_TITLE else text
    if len(word) <= 2 and any(character in text for character in word) or len(word + text) > ROOM + 1:
        return text
    if _ACTORS.search(word):
        return text
    wrong = STRONG.search(text)
    says_what_it_does = bool(_VERBAL.match(text)) or wrong is not None and wrong.start() <= SOON
    if request_type == ASKING or says_what_it_does and _is_right_before(near[0].part, statement.part):
        return word + text
    return f"{word}：{text}" if near[0].score >= SURE_TOPIC else text


def _is_right_before(first: Part, second: Part) -> bool:
    """So close that what is said is said of it; else a colon leaves open how the two belong together."""
    return first.piece.turn == second.piece.turn and 0 <= second.start - first.start <= RIGHT_BEFORE


def _is_near(first: Part, second: Part) -> bool:
    return first.piece.turn == second.piece.turn and 0 <= second.start - first.start < 40


def short_place(core: str, parts: Mapping[str, Any]) -> str:
    """What a title calls the place: the name told, without the divisions above it and the landmark before it."""
    name = _bare_name(core)
    if len(name) <= LONGEST_PLACE:
        return name if len(name) >= 2 else ""
    named = [str(parts[key]) for key in ("poi", "community", "road") if parts.get(key) and str(parts[key]) in core]
    return min((part for part in named if len(part) <= LONGEST_PLACE), key=core.find, default="")


def _bare_name(core: str) -> str:
    name = re.sub(r"(?<=.{2})第?[0-9a-zA-Z零〇一二两三四五六七八九十百]{1,4}(?:栋|幢|座|号楼|#|单元|楼|层|室|组|队|号).*$", "", core)
    name = re.sub(r"^.{2,8}(?:边上|旁边|对面|附近)的?(?=.{3})", "", name)
    name = re.sub(r"^(?:[\u4e00-\u9fff]{1,6}?(?:省|自治区|市|区|县|镇|乡))+(?=.{2})", "", name)
    if len(name) > LONGEST_PLACE:
        name = re.sub(r"^[\u4e00-\u9fff]{2,5}?街道(?=.{2})", "", name)
    return name
