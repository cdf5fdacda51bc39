"""What a caller's pieces are worth: what bears on the matter, what is wished for, what others are said to have said, what is told by the way.

Pure. The readers' evidence and telling words weigh most; words of trouble count in any matter; age, health, work and relatives
are told by the way unless the matter is about them.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bot.call import NAME, PHONE, PLACE, WISH, Call, Piece, Turn

# What is wrong, in any matter: the predicate of a complaint. The strong ones say it whatever stands around them.
STRONG = re.compile(
    r"停[水电气暖工运诊课发了]|断[水电气暖路供了]|[没无][水电气暖]|漏[水电气油]|不[亮通热来退给修管办批认制理让]|坏|堵|塌|裂|脱落|掉(?:下|落|砖|皮)|臭|噪|吵|扰民|漆黑|全黑|油烟|冒[烟水火]|积水|淹|"
    r"给了?一半|少[给发算]|[没未]有?(?:给|发|修|退|办|装|接|通|拉|清|来|到|结|打表|兑现|盖章|通过|报销|安排|处理|解决|交房|收到|拿到|得到)|没有?(?:了|人管|一)|没了$|无人|不到(?:钱|账|位|人)|要不到|欠|拖|扣[了钱]?|多收|乱收|乱扣|加[价钱]|涨价|骗|"
    r"打(?:人|了(?=[我他她你人一两]|孩|老|起来)(?!.{0,4}(?:电话|客服|热线|个))|他|她|孩子|妻子|老婆|架|骂)|大坑|有一?个?坑|坑洼|窟窿|井盖|乱收费|给.{1,6}报了|到期|打桩|咚咚|轰隆|震得|辞退|开除|不公示|没公示过|被打|没填|围挡|喊不[应醒]|叫不[应醒]|不答应|不动弹|是血|煤气|[被让叫挨]人?打|威胁|辱骂|报复|占[了用道]?|偷|排[放污水到进]|放.{0,2}废?水|倾倒|违|套取|骗取|贪|受贿|假[冒的货]|过期|中毒|超载|拒载|绕路|宰|关门|跑路|拉黑|失联|绝收|排队|踢皮球|推诿|推来推去|"
    r"态度(?:恶劣|差|不好|太)|爱[办坐]不[办坐]|飞线|充电|截止|提交不|打不通|联系不上|取不出|办不了|过不[来去]|走不了|停发|异味|煤气味|刺鼻|不到账|跳闸|起火|着火|倒了|摔|撞|砸|咬|丢了?|不放|乱[停扔丢堆倒]|堆[了放在满]|满了|封[了住]|锁[了着]|卡[住在了]|欺负|欺凌|体罚"
)
TROUBLE = re.compile(STRONG.pattern + r"|断|漏|冒|烂|砸|拒|缺|伤|不[能开停准动答认给敢]|没|未|乱|推|收费|找不[到着]|骂|冲|掏空|灌|升级|卷叶|盖章|不上|拦|封|卡|晚点|取消|超标|味|跑了.{1,2}趟|趟了?$|违约")
_WISH = re.compile(
    r"^(?:就?是?希望|要求|建议|请求|请你们?|请(?:领导|部门|帮)|让(?:领导|他们|公司|物业|学校|医院|部门)|把(?!我).{2,}(?:退|修|清|拆|弄|处理|公示|解决|换)|要么|最好|能不能|可不可以|想(?!死|不开|咨询|问|投诉|反映|举报|表扬)|得(?:给|把|处理|有|保证)|给我(?:退|修|个|解决|处理|换)|赶紧|快点|"
    r"应该|公示|退(?:我|剩|还|钱)|给他们|尽快|必须|全额|又要退|以后别)|给我(?:个|一个)说法|今[天晚].{0,3}必须|^[^不没]{0,4}(?<!给)(?:退|赔|还|修|处理|解决)(?:给|一下)?我?$|就[行中]了?$|也行$|该.的.$|有人来$"
)
_ANNOUNCES = re.compile(r"投诉|举报|反映|咨询|问一?下|想问|表扬|夸|感谢|建议|求助|请教")
_PRAISES = re.compile(r"表扬|夸|锦旗")
_QUOTES = re.compile(r"^我?(?:也|都|就)?(?:打|找|问|报|反映|投诉)(?:了|过)|^[^说讲]{0,8}(?:[说讲](?!法)|叫我|让我|告诉我)|合同|告示|通知|^(?:客服|物业|社区|派出所|公证处|班主任|医院|学校|商场|村里|镇上|会计|支书)(?:就|也|又)?")
_QUESTION = re.compile(r"能不能|可不可以|能否|怎么|如何|咋|是不是|有没有|算不算|多少|哪些|哪个|什么(?:条件|材料|手续|时候|标准|规定|流程)|[吗呢]$|需要什么|还是")
# Age, zodiac, former work, where relatives are, one's own health, and what is said to the agent about the call itself.
_ASIDE = re.compile(
    r"今年[零一二三四五六七八九十\d]{2,3}|^[六七八九]十[零一二三四五六七八九]?[多岁]?了?$|[零一二三四五六七八九十\d]{2,3}岁了?$|属[鼠牛虎兔龙蛇马羊猴鸡狗猪]的?|当过?兵|年轻(?:时候|的时候|那会)|退休|种了一辈子|"
    r"(?:儿子|女儿|孩儿|孙子|孙女|闺女|老伴|对象|媳妇|老头子|姑娘)[^，]{0,6}(?:在.{2,4}|外地|国外|听话|一年|开车|打工|上班|出国|忙)|一年回|"
    r"我这?个?(?:腿|膝盖|耳朵|腰|血压|心脏|眼睛|身体)|手术|天一阴|不碍事|不要紧|都好了|就青了|摔了一跤|小学文化|不识字|没文化|文化不高|我们?(?:都)?是.{2,4}(?:来的|人|的)$|喜丧|打工.{0,4}年|"
    r"吃饭没|作业|上夜班|晚上打|大点声|听得到|信号|录音|[你您]听我说|说急了|[你您]看着办|理解|我跟[你您]|我(?:给|念给)[你您]|我(?:翻|看|找)[翻看找]|姑娘[你您]|闺女[你您]|说到哪|打错了|声音不对|我先打个电话|我小声|"
    r"我爱人的|没手机|是幺二三四五|没法说|拍了照|我怕$|我不敢|^(?:[他她你]|他自己)[^，]{0,4}[咋怎]么?不|^我?(?:咋办|怎么办|咋整)$|凭(?:什么|啥)|这种人|天理|良心|不敢发|我说了$|要我去打官司|回个?(?:话|电话|信儿?)(?:就行)?$"
)
# What matters are about in so many classes that the word speaks for none of them.
_THINGS = re.compile(
    "电梯|路灯|井盖|广场舞|暖气|自来水|天然气|煤气|下水道|化粪池|污水|油烟|噪音|灰尘|垃圾桶|垃圾站|停车位|车位|充电桩|电动车|公交车?|地铁|出租车|快递|驿站|学费|补课|押金|定金|工资|工龄|养老金|退休金|医保|社保|低保|"
    "公积金|契税|首付|房产证|产权证|物业费|取暖费|水费|电费|水表|电表|燃气表|救护车|床位费|补偿款|宅基地|青苗|水渠|机井|泵站|抽水|灌溉|大棚|化肥|种子|路面|绿化带|行道树|红绿灯|斑马线|护栏|外墙|保温层|墙皮|楼顶|屋顶|车库|门禁|监控|宠物|流浪狗|"
    "收费|营业执照|身份证|户口|驾驶证|居住证|派出所|民警|网贷|健身房|驾校|培训班|预付卡|会员卡|年卡"
)
_WHO = re.compile(r"^我?就?是.{0,6}(?:家长|业主|居民|村民|学生|员工|群众)$")
# An agent who sums up asks for a yes, not for a wish.
_SUMS_UP = re.compile(r"(?:是吧|对吧|是吗|对吗|吧|吗)$")
_HOLLOW = re.compile(r"^(?:我?(?:想|要|来|着急|先)?(?:投诉|举报|反映|咨询|问|说|表扬|夸|求助|请教|提)(?:一下|个|一个|[一两]个)?(?:事儿?|问题|事情|建议|人)?|.{1,2}|咋.{0,4}|可不咋的|(?:打|找|问|跟|给|到)了?[^，]{0,6}(?:客服|电话|热线|村里|镇上|社区|物业|他们)|找了|打了|报了|说了|告知个啥|办了个啥|那必须的|哪知道|可以可以|应该是|到时候再说|净瞎整|[^，]{0,4}(?:我|你)说)$")
_OWN = re.compile(r"^(?:我|俺|咱)(?!们?(?:家|村|小区|厂|楼|单位|学校|工地|公司|那|这|的|要|想|投诉|举报|咨询|反映|妈|爸))")
EVIDENCE, TELLING, TROUBLED, ANNOUNCED, DANGER = 1.0, 0.12, 0.3, 0.3, 0.4
LEAST = 0.05
LONGEST_TOPIC = 8


@dataclass(frozen=True)
class Topic:
    """A known word in a piece (offsets in the piece), and how much the readers' evidence stands on it."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Part:
    """One piece of the story. `weight` 0: told by the way."""

    piece: Piece
    start: int  # in the cleaned text
    weight: float
    wish: bool
    quote: bool
    question: bool
    announces: bool
    danger: bool
    topics: tuple[Topic, ...]

    @property
    def aside(self) -> bool:
        return self.weight <= 0


@dataclass(frozen=True)
class Story:
    call: Call
    parts: tuple[Part, ...]

    @property
    def praises(self) -> bool:
        return any(_PRAISES.search(part.piece.text) for part in self.parts if part.announces)

    @cached_property
    def by_turn(self) -> Mapping[int, Sequence[Part]]:
        found: dict[int, list[Part]] = {}
        for part in self.parts:
            found.setdefault(part.piece.turn, []).append(part)
        return found

    def bearing(self, turn: int, start: int, end: int) -> float:
        """How much the words at start…end of a turn are about the matter; words next to the matter a little."""
        own = self.by_turn.get(turn, ())
        here = [part for part in own if part.piece.span[0] < end and start < part.piece.span[1]]
        if not here:
            return LEAST
        if any(part.aside for part in here):
            return 0.0
        best = max(part.weight for part in here)
        beside = max((part.weight for part in own if abs(part.start - here[0].start) < 30), default=0.0)
        return max(best, beside / 2, LEAST)

    def core(self, pieces: int, length: int) -> str:
        """The weightiest pieces in the order they were told, at most so many characters of them."""
        heaviest = sorted((part for part in self.parts if not part.aside), key=lambda part: -part.weight)[:pieces]
        return "，".join(part.piece.text for part in sorted(heaviest, key=lambda part: part.start))[:length]

    def within(self, start: int, end: int) -> Story:
        """The part of the story between two offsets of the cleaned text."""
        return Story(self.call, tuple(part for part in self.parts if start <= part.start < end))


def read_story(call: Call, reading: Mapping[str, Any]) -> Story:
    """`reading` is the readers' view of `call.said.text`."""
    known = [(int(span["start"]), int(span["end"]), float(span["weight"])) for span in reading["evidence"]]
    known += [(int(start), int(end), 0.0) for start, end in reading.get("telling", ())]
    known += [(*found.span(), 0.0) for found in _THINGS.finditer(call.said.text)]
    urgency = reading["urgency"]
    dangers = [(int(start), int(end)) for start, end in urgency.get("spans", ())] if urgency["emergency"] else []
    turns = {turn.number: turn for turn in call.citizen}
    parts = (_part(piece, start, known, dangers, turns[piece.turn]) for piece, start in zip(call.pieces, call.said.starts))
    return Story(call, tuple(parts))


def _part(piece: Piece, start: int, known: Sequence[tuple[int, int, float]], dangers: Sequence[tuple[int, int]], turn: Turn) -> Part:
    text, end = piece.text, start + len(piece.text)
    inside = [(first - start, last - start, weight) for first, last, weight in known if start <= first and last <= end]
    topics = _topics(text, inside)
    carried = sum(weight for _, _, weight in inside)
    danger = any(start < last <= end for _, last in dangers)  # words that tell of danger may begin in the piece before
    carried += DANGER * danger
    announces = bool(_ANNOUNCES.search(text))
    weight = EVIDENCE * min(carried, 1.0) + TELLING * len(topics) + TROUBLED * bool(TROUBLE.search(text)) + ANNOUNCED * announces
    aside = bool(_ASIDE.search(text)) and carried < 0.3 or bool(_HOLLOW.match(text)) and not topics and not STRONG.search(text)
    aside = aside or bool(_WHO.search(text))
    only_who = bool(turn.asked & {NAME, PHONE}) and not announces and carried < 0.1 and not STRONG.search(text)
    wish = bool(_WISH.search(text)) or WISH in turn.asked and not _QUOTES.match(text) and not _SUMS_UP.search(turn.question)
    weight = 0.0 if aside or only_who else max(weight, LEAST if PLACE not in turn.asked else 0.01)
    return Part(piece, start, weight, wish, bool(_QUOTES.search(text)), bool(_QUESTION.search(text)), announces, danger, topics)


def _topics(text: str, inside: Iterable[tuple[int, int, float]]) -> tuple[Topic, ...]:
    """The known words of a piece, the longest of those that overlap; those that touch are one ("公务员" "服务期")."""
    kept: list[Topic] = []
    for start, end, weight in sorted(inside, key=lambda word: (word[0], -word[1])):
        if kept and start < kept[-1].end:
            last = kept[-1]
            kept[-1] = Topic(last.start, max(last.end, end), last.weight + weight)
        elif kept and start == kept[-1].end and end - kept[-1].start <= LONGEST_TOPIC:
            kept[-1] = Topic(kept[-1].start, end, kept[-1].weight + weight)
        else:
            kept.append(Topic(start, end, weight))
    return tuple(kept)
