"""Facts of a call beside its place and matter: the caller's name and wish for secrecy, time, people, money. Pure.

A bare answer means what was asked ("多少钱" – "三千六"); what is told of others (who is in charge, who is old, who works where)
is no fact of the caller. Every fact keeps the words it was taken from.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from pypinyin import lazy_pinyin

from bot.call import AMOUNT, NAME, OTHERS, PERSONS, PHONE, PLACE, WHEN, Call, Found, Turn
from bot.petition import SURNAMES, find_secrecy
from bot.text import fold

ASKED, TOLD, ASIDE = 0.9, 0.6, 0.3
# How much a piece of the story is about the matter: 0 for what is only told beside it. (turn, start, end) → weight.
Bearing = Callable[[int, int, int], float]

# -- who calls ---------------------------------------------------------------------------------------------------------------

_TITLE = r"(?:先生|女士|小姐|阿姨|大爷|大妈|大娘|大叔|大姐|师傅|老师|同志)"
_HAN = r"[\u4e00-\u9fff]"
_EDGE = r"(?=$|[\s，。,的呀啊])"
_OWN = re.compile(
    rf"(?:我叫|名字[叫是]|我的名字是)\s*(?P<full>[{SURNAMES}]{_HAN}{{1,2}}){_EDGE}|(?:我是|我|^|[\s，])(?P<titled>[{SURNAMES}]{_TITLE})|"
    rf"(?:我姓|免贵\s?姓?|俺姓|敝姓)\s*(?P<family>{_HAN})"
)
_ANSWER = re.compile(
    rf"(?:^|[\s，])(?:叫|姓名)?(?P<full>[{SURNAMES}]{_HAN}{{1,2}})(?=$|[\s，])|姓\s*(?P<family>{_HAN})(?!什么|啥|名|就|不){_EDGE}|姓\s*(?P<before>[{SURNAMES}])|"
    rf"(?:^|[\s，])(?P<again>{_HAN})(?=[\s，]*{_HAN}{{0,3}}(?P=again){_HAN}{{0,3}}的\s*(?P=again))|(?:^|[\s，])(?P<bare>[{SURNAMES}]){_EDGE}|(?:^|[\s，])(?P<single>[{SURNAMES}])(?={_HAN}{{1,3}}的)"
)
_SPELT = re.compile(rf"(?P<how>{_HAN}{{1,6}})的\s*(?P<which>{_HAN})(?=$|[\s，。,呀啊])|(?P<known>耳东|弓长|立早|木子|双木|口天|古月|言午|草头|三横|双口|木易|禾呈|走肖|西早|干勾|言身寸|美女)(?P<char>{_HAN})")
# "左边一个夹子的夹" spells half of a sign.
_PART_OF_A_SIGN = re.compile(r"[左右上下]边|旁|加[一个]|底下|[上下]面|里面|字头")
_KNOWN_SPELLINGS = {
    "耳东": "陈", "弓长": "张", "立早": "章", "木子": "李", "双木": "林", "口天": "吴", "古月": "胡", "言午": "许", "草头": "黄",
    "三横": "王", "双口": "吕", "木易": "杨", "禾呈": "程", "走肖": "赵", "西早": "覃", "干勾": "于", "言身寸": "谢", "美女": "姜",
}  # fmt: skip
_DECLINED = re.compile(
    r"(?:名字?|姓名?|这个|这|我)?(?:就|还是|也)?(?:不(?:说|留|讲|提供|登记|告诉|想说|想留|敢留|方便|用留)(?!.{0,4}(?:地址|位置))|不用了|算了|免了|不必了|别(?:写|记|留|登)|不愿意)"
)


def find_name(call: Call) -> Found | None:
    """The caller's own name: said of themselves, or the answer when the agent asked for it."""
    found: Found | None = None
    for turn in call.citizen:
        text = fold(turn.text)
        match = _OWN.search(text)
        if match is None and OTHERS not in turn.asked and turn.asked & {NAME, PHONE}:
            match = next(filter(_is_name, _ANSWER.finditer(text)), None)
        if match:
            group = next(name for name, value in match.groupdict().items() if value)
            value = _spelt(match.group(group), text[match.end() :]) if len(match.group(group)) == 1 else match.group(group)
            found = Found(value, turn.number, *match.span(group), ASKED if turn.asked & {NAME} or group != "bare" else TOLD)
    return found


_NOT_NAMES = frozenset("好 对 那 就 是 有 没 行 可以 时候 方便 全名 时间 明白 和谐 都 全 从 能 别 不 高兴 安全 应该 于是 从来 时常 经常 万一 成天 白天 常常 向来 温度 郁闷".split())


def _is_name(match: re.Match[str]) -> bool:
    value = next(value for value in match.groups() if value)
    return value not in _NOT_NAMES and value[:2] not in _NOT_NAMES and not (match.group("full") and _SPELT.match(value))


def _spelt(family: str, rest: str) -> str:
    """"姓程 耳东陈": how a name is spelt goes before how the recogniser heard it."""
    match = _SPELT.search(rest[:16])
    if match is None:
        return family
    if match.group("known"):
        return _KNOWN_SPELLINGS[match.group("known")]
    which = match.group("which")
    if _PART_OF_A_SIGN.search(rest[: match.end() + 6]):
        return family
    same_sound = which != family and lazy_pinyin(which) == lazy_pinyin(family)
    return which if same_sound and which in match.group("how") else family


def wishes_of_secrecy(call: Call, name: Found | None) -> tuple[Found | None, Found | None]:
    """(does not want to be named, wants to be kept secret), each with the turn that says so.

    Who gives a name after all has not declined to; who says not to write it down has.
    """
    anonymous = confidential = None
    for turn in call.citizen:
        nameless, secret = find_secrecy(turn.text)
        if (nameless or name is None and _declines(turn)) and anonymous is None:
            anonymous = Found("true", turn.number, 0, len(turn.text), ASKED)
        if secret and confidential is None:
            confidential = Found("true", turn.number, 0, len(turn.text), ASKED)
    return anonymous, confidential


def _declines(turn: Turn) -> bool:
    if PHONE in turn.asked and re.match(r"(?:姓|名)[^，。]{0,4}不", turn.text):
        return True
    return NAME in turn.asked and OTHERS not in turn.asked and bool(_DECLINED.match(turn.text.lstrip("那嗯哦呃 ")))


# -- when --------------------------------------------------------------------------------------------------------------------

_N = r"[零〇一二两三四五六七八九十\d]"
_MONTH = rf"(?:正月|腊月|冬月|{_N}{{1,3}}月(?:份)?(?!工资)|上{{1,2}}个?月|这个?月|本月|月初|月底)"
_DAY = rf"(?:大?前天|昨天|今天|明天|大?后天|当天|前[几两]天|[今昨前明]晚|[今明]早|昨夜|{_N}{{1,3}}[号日](?!楼|院|线|门|窗)|(?:上{{1,2}}|这|本|下)?个?(?:星期|礼拜|周)[一二三四五六日天末几]|上{{1,2}}个?(?:星期|礼拜|周)|这个?(?:星期|礼拜|周)|周末)"
_YEAR = r"(?:去年|今年|大?前年|前[几两]年|[一二三四五六七八九〇零\d]{2,4}年(?!级|[多来几]|了)|春节|国庆|五一|过年|过了年|清明|中秋|端午|元旦|入冬|开春|开学|暑假|寒假)"
_PART = r"(?:凌晨|早上|早晨|清早|一早|上午|中午|下午|傍晚|晚上|夜里|夜间|后?半夜|深夜|白天)"
_CLOCK = rf"{_N}{{1,3}}点(?!建议)(?:半|多|来?钟|[一三]刻|{_N}{{1,3}}分|{_N}{{2,3}}(?![个天年]))?(?:左右|前后)?"
_HABIT = r"(?:每天|天天|每晚|夜夜|每个?(?:周|星期|礼拜|月|季度)|一到(?:晚上|夏天|冬天|周末|下雨天?)|经常|三天两头)"
_SPAN = rf"(?:[有快都]|已经|将近|差不多|大概|整整)*(?:{_N}{{1,3}}年零{_N}{{1,2}}|{_N}{{1,3}}|[几半])个?[多来几]?(?:天|个?月|年|星期|礼拜|小时|钟头|周)[多来]?(?!级|前|后(?!.{{0,2}}[没不])|工资|[假期]|[给发打收]|才|要)"
_MOMENT = rf"(?:从|打从|自从|就在|就)?(?:(?:{_YEAR}|{_MONTH}|{_DAY}|{_HABIT}|{_PART}|{_CLOCK})(?:的|[\s]?到|[\s]?至)?[\s]?)+(?:开始|起|到现在|至今|以后|之后)?"
_WHEN = re.compile(rf"(?P<moment>{_MOMENT})|(?P<span>{_SPAN})")
_NO_TIME_AHEAD = re.compile(r"(?:[零百第]|服务期|签的?|合同|保修|满|不是|不要|别|过了|超过|工龄|年龄|今年$|等到)$")
_CORRECTED = re.compile(r"(?:不对|不是|错了)[^，]{0,8}$")
_BROKE = r"(?:停|坏|断|没|堵|漏|欠|拖|关|塌|淹|臭|吵|响|占|报|爆|裂|丢|骗|打|扣|收|拆)"
_HAPPENED_BEFORE = re.compile(rf"{_BROKE}[了有都快\s]{{0,3}}$")
_HAPPENED = re.compile(rf"[了就\s]{{0,2}}(?:{_BROKE}|开始|不|截止|到期)")
_NEARLY = re.compile(r"^(?:[有快都就]|已经|将近|差不多|大概|整整)+(?=.{2})")
_AGE = re.compile(rf"今年{_N}{{2,3}}(?:岁|了|$|[\s，])|{_N}{{2,3}}岁|{_N}{{2,4}}年级|服务期")


def find_when(call: Call, bearing: Bearing) -> Found | None:
    """When it happened or since when, as told: the answer to that question before what is said by the way."""
    return _best(call, bearing, _times, WHEN)


def _times(turn: Turn) -> Iterator[tuple[Found, float]]:
    """Times of one turn, with what speaks for each; what the caller takes back is none."""
    text = turn.text
    ages = [match.span() for match in _AGE.finditer(text)]
    for match in _WHEN.finditer(text):
        start, end = match.start(), match.start() + len(match.group().rstrip("的到至 "))
        if end - start < 2 or PLACE in turn.asked and text[end - 1] == "号" or _NO_TIME_AHEAD.search(text[max(0, start - 3) : start]) or any(a < end and start < b for a, b in ages):
            continue
        strength = 0.3 * bool(_CORRECTED.search(text[:start])) + 0.3 * bool(_HAPPENED_BEFORE.search(text[:start])) + 0.3 * bool(_HAPPENED.match(text, end))
        moment = 0.1 * bool(match.group("moment")) + min(end - start, 8) / 40
        yield Found(_once(text[start:end]), turn.number, start, end, TOLD), strength + moment


def _once(told: str) -> str:
    """"两点二十 下午两点二十": what is said again more fully is said once."""
    words = told.split()
    once = "".join(word for number, word in enumerate(words) if not any(word in later for later in words[number + 1 :]))
    return _NEARLY.sub("", once)


# -- how many, how much ------------------------------------------------------------------------------------------------------

_NUMERAL = r"(?:\d{1,9}(?:\.\d{1,2})?|[零〇一二两三四五六七八九十百千万几半]{1,12})"
_WHO = r"(?:个?(?:人|工人|工友|民工|农民工|老乡|学生|孩子|老人|业主|村民|住户|会员|家长|同事|商户)|名|户(?:人家)?|家(?:人|住户)?|口人|号人)"
_PERSONS = re.compile(rf"(?<![第每另一])(?P<n>{_NUMERAL})[多来几]?[\s]?(?P<who>{_WHO})(?!民币|家|医院|的)")
_BARE_PEOPLE = re.compile(rf"(?P<n>{_NUMERAL})[多来几]?[个位名户]?")
_ROUND = r"(?:[一二两三四五六七八九十几]{1,3}[百千万][零一二两三四五六七八九十百千万几]{0,8}[多来]?)"
_NO_COUNT = r"(?![零一二两三四五六七八九十百千万\d])(?![多来几]?[\s]?[个人户亩米平斤岁年天棵名路号度里公分点工次回趟步])"
_AMOUNT = re.compile(
    rf"(?P<sum>{_NUMERAL}[\s]?[多来几]?[\s]?[万千百]?[多来几]?(?:块钱|块|元|万元)(?!地|砖|板|牌)(?:{_NUMERAL})?)|(?P<round>{_ROUND}){_NO_COUNT}|"
    rf"(?<=[要收扣罚交花退赔垫][我了他她你])(?P<paid>[一二两三四五六七八九十百\d]{{2,5}}){_NO_COUNT}"
)
_MONEY = re.compile(r"[钱元款]|押金|工资|[交欠收扣罚花退赔贷转骗投补涨付还垫票价费]|标准|一共|总共|损失")
_TOTAL = re.compile(r"[一总]共|合计|欠[了着起]?|拖欠|押金|[投骗花][了进]?[去]?|要我")
_RATE = re.compile(r"每|一个?(?:月|人|次|棵|年|家|天|平)|旁边|别人|有的|平时|正常|本来|一般|垫")
_GIVE_BACK = re.compile(r"[\s]?(?:[你他得要]{0,3}(?:退|赔|还)|押金|工资|工钱)")
_ONE = re.compile(r"^一(?!百|千|万|共|[二三四五六七八九十])")


def find_persons(call: Call, bearing: Bearing) -> Found | None:
    return _best(call, bearing, _people, PERSONS)


def _people(turn: Turn) -> Iterator[tuple[Found, float]]:
    asked = PERSONS in turn.asked
    for match in (_PERSONS if not asked else _BARE_PEOPLE).finditer(turn.text):
        whole = _PERSONS.match(turn.text, match.start()) or match
        if len(whole.group()) > 1 and not whole.group().startswith("几个人") and "万" not in whole.group("n") and (asked or not _ONE.match(whole.group("n"))):
            yield Found(whole.group().replace(" ", ""), turn.number, *whole.span(), TOLD), 0.0


def find_amount(call: Call, bearing: Bearing) -> Found | None:
    return _best(call, bearing, _sums, AMOUNT)


def _sums(turn: Turn) -> Iterator[tuple[Found, float]]:
    """Sums of one turn: bare numbers only where money is spoken of; a total before its parts, rates and comparisons last."""
    text, asked = turn.text, AMOUNT in turn.asked
    for match in _AMOUNT.finditer(text):
        said, ahead = match.group(), text[max(0, match.start() - 10) : match.start()]
        plain = bool(re.search("[钱元]", said)) or match.group("paid") or bool(re.search("[千万]", said))
        if not asked and not plain and not _MONEY.search(ahead + text[match.end() : match.end() + 4]):
            continue
        strength = 0.3 * bool(_TOTAL.search(ahead)) - 0.4 * bool(_RATE.search(ahead)) + 0.2 * bool(_GIVE_BACK.match(text, match.end()))
        yield Found(said.replace(" ", ""), turn.number, *match.span(), TOLD), strength


def _best(call: Call, bearing: Bearing, read: Callable[[Turn], Iterator[tuple[Found, float]]], asked: str) -> Found | None:
    """The answer that was asked for, the later one where it was asked twice; else what bears most on the matter, the first of equals."""
    best: Found | None = None
    best_score = 0.0
    for turn in call.citizen:
        answers = asked in turn.asked
        for found, strength in read(turn):
            near = bearing(found.turn, found.start, found.end)
            if near <= 0 and not answers:
                continue
            score = strength + min(near, 1.0) + (2.0 if answers else 0.0)
            if score > best_score + (0.0 if answers else 0.05):
                confidence = ASKED if answers else TOLD if near >= 0.3 else ASIDE
                best, best_score = replace(found, confidence=confidence), score
    return best
