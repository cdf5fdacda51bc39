"""From raw spans to the places of a matter: boundaries mended, what is no scene left out, each place once. Pure.

The rules follow the labelling of petitions: the longest continuous run, no generic word, no authority that is only addressed,
no home town, no company that is only named. All spans are (start, end) into one folded text.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Span = tuple[int, int]

# A title is a first sentence of at most so many characters; web petitions have one, and it names the scene.
MAX_TITLE = 45
# So many characters behind the divisions make a name of its own: 天心区丽发新城 is 长沙市丽发新城.
MIN_CORE = 4

_EDGE = re.compile(r"^[\s，。！？；：、,.!?;:~～“”\"'）)的]+|[\s，。！？；：、,.!?;:~～“\"'（(的]+$")
_LEAD = re.compile(
    r"^(?:(?:\d{2,4}年)?\d{1,2}月(?:\d{1,2}[日号])?|\d{2,4}年|"
    r"(?:我们?|本人|市民|群众|来电人)?(?:称|是|住在?|家住|位于|地处|坐落[于在]|投诉|举报|反映|关于|请求|建议|咨询|希望|强烈|要求|针对|因为|由于|造成|导致|"
    r"经过|途经|贯穿|开往|通往|前往|问政|然而|而且?|自从?|就|把|将|使|原(?=.{4}))(?=.{2})|"
    r"[^，。]{0,8}(?:政府|领导|部门|局)(?:帮助|协调|督促|尽快|出面)*(?:解决|处理|落实|整治))+"
)
# A span that ran on: behind the one stands another place, behind the other none.
_NEXT = r"[，。！？；：、]|紧邻|紧靠|紧挨|毗邻|邻近|途经|开往|通往(?!.*的)|前往|以及|(?<=..)及(?=...)|等(?=小区|地|路段)"
_DONE = (
    r"无证|拒绝|迟迟|擅自|非法|设立|成立|增设|增建|安排|取缔|违规|拖欠|拆迁(?!安置|区|小区|办)|严重|存在|发生|占用|进行|封路|环境|治理(?!段)|整治|改造工程"
)
_BREAK = re.compile(f"(?P<next>{_NEXT})|(?P<done>{_DONE})")
_NUMBER = r"[0-9a-z一二三四五六七八九十百甲乙丙丁]{1,5}"
_BEHIND = r"(?:[旁背对后前]面?边?|楼[下上]|门口|附近|边上|交[接叉汇界]处|之间|中间|里面|外面|围墙外)"
_SITE = (
    r"(?:[^，。！？；：、的了有在被是\s]{0,5}?(?:工地|大?[河湖渠溪沟塘港]|大?桥(?:底?下|头|面)?|水库|支流|河道|河段|公园|绿[地化]带?|空地|便道|小路|"
    r"[巷胡][子同]?|停车场|公交站|垃圾[站场桶]|厕所|菜场|市场|楼|[小中]学|学校|医院|幼儿园|广场|厂|店))"
)
# A road goes on with a place only where words say that it lies there: "X边上的健康西路", never "X的供电线路".
_ROAD = r"(?:[^，。！？；：、的了有在被是\s]{1,3}[^，。！？；：、的了有在被是线管电马走过回上网通\s](?:路|街|大道))"
_ROOM = rf"(?:附?第?{_NUMBER}(?:号楼|单元|[组栋幢座号室楼层期区队#](?:楼(?![道上下顶梯])|院|房间)?))+|(?<=[栋幢元楼])\d{{3,4}}"
_GATE = r"[东南西北正后侧]?门(?:口|前|外)?|[东南西北一]侧|(?:工程|项目)?工地(?:[东南西北一]侧)?|路段|路口|河?段(?=[，。、的有])|(?<=\d号)线"
_HOUSE = r"小区|居民楼|教学楼|宿舍楼?|家属[区院]|会议室|派出所|(?<=村)(?:村部|村委会)|(?<=村)[\u4e00-\u9fff]{1,3}组(?!织|长|干|委)"
# What goes on with a place whose span stopped early: its number, its gate, the river behind it.
_TAIL = re.compile(rf"{_ROOM}|{_GATE}|{_HOUSE}|(?:的?{_BEHIND}的?|的)(?!内河|河){_SITE}|的?{_BEHIND}的{_ROAD}|旁边?(?=的)")
_STRIP = re.compile(
    r"(?<=..)(?:(?<=[市县区])(?:城市|市区|城区|县城)|附近|周边|周围|一带|沿线|(?<=[河溪港渠])(?:内河|河道|河水|水系)|"
    r"这[里边]|那[里边]|[内里]|(?<=[站口村桥店])处|(?<=[^0-9a-z])\d{1,2})$"
)
_PLACE_END = re.compile(
    r"[路街巷弄道桥村组屯湾镇乡县市区州楼栋幢号室园苑府里庄院城厦场店馆所站校河湖江渠塘库港厂寺庙]$"
)
_OPEN_TAIL = re.compile(r"(?:[^（()）]{1,30})[)）]")
_GENERIC = re.compile(
    r"(?:我们?|咱们?|本|该|此|这个?|那个?|某|贵|全|整个)?(?:小区|村|镇|县|市|区|乡|街道|社区|公司|学校|医院|单位|家|楼|路段?|河道?|工地|物业|楼[上下]|地下(?:室|车库)|停车场|项目|大桥|水库|居民楼|内河|村委会?|派出所|门口|附近)"
    r"(?:附近|门口|旁边|里面?|内|外|周边|上|下)?|(?:城区|市区|县城|农村|乡下|老家|当地|本地|外地|[市县区镇]政府)|\d{1,4}路(?:公交)?车?"
)
_AUTHORITY = re.compile(r"(?:[局委厅署]|政府|法院|检察院|办事处|信访办|电视台|[大支]队|派出所|管委会|政协|人大|纪检组|[商土务]所)$")
_COMPANY = re.compile(r"(?:公司|集团|银行|地产|置业|控股)$")
_OFFICE_AHEAD = re.compile(
    r"(?:的?(?:各级|各位|相关)?(?:人民)?(?:政府|领导)|[市县区州镇乡省]?委(?:县|市|区)?|人大|政协|信访|电视台|日报|[市县区]长|书记|[^，。！？、；\s]{0,8}(?:局|厅|委|法院|检察院|政府|管委会|办事处|大队|支队)(?!部))"
)
_NO_SCENE_AHEAD = re.compile(r"(?:户口|户籍|籍|人(?=[，。]|在)|牌照|车牌|的?(?:老乡|朋友|亲戚|同学|同事|游客|客人))")
_HOME_BEHIND = re.compile(r"(?:老家(?:是|在)?|来自|原籍|我是|系|籍贯|户口在|从小在|嫁到|毕业于|例如|比如|不如|相比|像|学习|隔壁的?)$")
_DIVISION_HEAD = re.compile(r"^(?:[\u4e00-\u9fff]{2,6}?(?:省|自治[区州县]|[市区县]))+")
_HAN = re.compile(r"[\u4e00-\u9fff]")


def title_end(text: str) -> int:
    """Where the title of a letter ends; 0 for a text without one."""
    match = re.search(r"[。！？!?\n]", text)
    return match.end() if match and 4 < match.end() <= MAX_TITLE and len(text) > match.end() + 20 else 0


def tidy(text: str, spans: Iterable[Span], words: Iterable[Span], divisions: Iterable[Span]) -> list[Span]:
    """Mended spans of a folded text, without what is no scene, each place once, in order of the text.

    `words` are the spans of its words, `divisions` those of the provinces, cities and counties it names.
    """
    words, divisions = list(words), list(divisions)
    whole = (_on_word_borders(text, *span, words) for span in join_over_blanks(text, list(spans)))
    mended = [piece for span in whole for piece in _mend(text, *span)]
    named = [span for span in _disjoint(_under_divisions(span, divisions) for span in mended) if not _is_nothing(text[slice(*span)])]
    return without_repeats(text, _scenes(text, named, divisions))


def _on_word_borders(text: str, start: int, end: int, words: Sequence[Span]) -> Span:
    """A span that cuts a word takes the whole of it; at its end only where it would not stop at a place word without it."""
    for first, last in words:
        if first < start < last:
            start = first
        if first < end < last and first > start:
            if _PLACE_END.search(text, first, last):
                end = last
            elif not _PLACE_END.search(text, start, end):
                end = first if _PLACE_END.search(text, start, first) else last
    return start, end


def _under_divisions(span: Span, divisions: Sequence[Span]) -> Span:
    """With the provinces, cities and counties that stand right before it: "湖南省" + "邵阳市隆回县田庄村"."""
    start, end = span
    for first, last in reversed(divisions):
        if last == start:
            start = first
    return start, end


def is_division(span: Span, divisions: Iterable[Span]) -> bool:
    """Whether a span names a province, city or county and nothing more."""
    start, end = span
    for first, last in divisions:
        if first == start:
            start = last
    return start == end


def join_over_blanks(text: str, spans: Sequence[Span]) -> list[Span]:
    """"芝罘区 毓璜顶街道 大海阳社区" is one place: chat residents put blanks where a letter would have none."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and 0 <= start - joined[-1][1] <= 2 and not text[joined[-1][1] : start].strip():
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def trim(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    stripped = _EDGE.sub("", piece)
    lead = piece.find(stripped) if stripped else 0
    return start + lead, start + lead + len(stripped)


def _mend(text: str, start: int, end: int) -> list[Span]:
    end = _closed(text, start, end)
    pieces: list[Span] = []
    begin, told = start, False
    for match in _BREAK.finditer(text, start, end):
        if not re.search(r"[（(][^）)]*$", text[begin : match.start()]):  # a bracket holds its own
            pieces += [] if told else [(begin, match.start())]
            begin, told = match.end(), match.lastgroup == "done"
    pieces += [] if told else [(begin, end)]
    trimmed = (trim(text, *_led(text, *_bracketed(text, *trim(text, *piece)))) for piece in pieces if piece[1] - piece[0] >= 2)
    return [_shortened(text, *_extended(text, *piece)) for piece in trimmed]


def _bracketed(text: str, start: int, end: int) -> Span:
    """Without what stands before a bracket that only closes inside the span, or after one that only opens."""
    piece = text[start:end]
    closing, opening = max(piece.rfind(")"), piece.rfind("）")), max(piece.rfind("("), piece.rfind("（"))
    if closing >= 0 and not re.search(r"[(（]", piece[:closing]):
        return start + closing + 1, end
    return (start, start + opening) if opening > closing and opening > 1 else (start, end)


def _shortened(text: str, start: int, end: int) -> Span:
    match = _STRIP.search(text[start:end])
    return (start, start + match.start()) if match else (start, end)


def _led(text: str, start: int, end: int) -> Span:
    match = _LEAD.match(text[start:end])
    return (start + match.end(), end) if match else (start, end)


def _closed(text: str, start: int, end: int) -> int:
    """The end of a span with its bracket closed: the rest of a bracket that was cut, or a mark right behind it."""
    piece = text[start:end]
    if max(piece.count("("), piece.count("（")) > max(piece.count(")"), piece.count("）")):
        match = _OPEN_TAIL.match(text, end) if text[end : end + 1] not in (")", "）") else None
        if match or text[end : end + 1] in (")", "）"):
            return match.end() if match else end + 1
    return end


def _extended(text: str, start: int, end: int) -> Span:
    match = _TAIL.match(text, end) if end > start else None
    return (start, match.end()) if match else (start, end)


def _disjoint(spans: Iterable[Span]) -> list[Span]:
    kept: list[Span] = []
    for start, end in sorted(spans):
        if kept and start < kept[-1][1]:
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]))
        elif end - start >= 2:
            kept.append((start, end))
    return kept


def _is_nothing(piece: str) -> bool:
    return bool(_GENERIC.fullmatch(piece)) or not _HAN.search(piece)


def _scenes(text: str, spans: Sequence[Span], divisions: Sequence[Span]) -> list[Span]:
    """Without addressed offices, home towns and companies in passing; a title's or an only place stays."""
    title = title_end(text)
    bare = {span for span in spans if is_division(span, divisions)}
    kept = [span for span in spans if not _is_aside(text, *span, bare=span in bare)]
    precise = [span for span in kept if span not in bare and not _is_body(text, *span)]
    if precise:
        kept = [span for span in kept if span in precise or span[0] < title]
    elif len(kept) > 1 and any(span in bare or span[0] < title for span in kept):
        kept = [span for span in kept if span in bare or span[0] < title]
    return kept


def _is_aside(text: str, start: int, end: int, *, bare: bool) -> bool:
    if _HOME_BEHIND.search(text, max(0, start - 4), start) and bare:
        return True
    return bare and bool(_OFFICE_AHEAD.match(text, end) or _NO_SCENE_AHEAD.match(text, end))


def _is_body(text: str, start: int, end: int) -> bool:
    """An authority or a company: it acts, it is seldom where something happens."""
    piece = text[start:end]
    return bool(_AUTHORITY.search(piece) or _COMPANY.search(piece))


def without_repeats(text: str, spans: Sequence[Span]) -> list[Span]:
    """Each place once, in its fullest writing: "隆回县田庄村" goes where "隆回县黄荆乡田庄村九组" is named too."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s[0] - s[1], s[0])):
        if not any(_is_within(text[slice(*span)], text[slice(*other)]) for other in kept):
            kept.append(span)
    return sorted(kept)


def _is_within(short: str, long: str) -> bool:
    """Whether `short`, perhaps under other divisions, stands in `long`, in at most two runs."""
    core = _DIVISION_HEAD.sub("", short)
    if short in long or len(core) >= MIN_CORE and core in long:
        return True
    return any(short[:cut] in long and short[cut:] in long[long.find(short[:cut]) + cut :] for cut in range(1, len(short)))


# -- the place to send people to ------------------------------------------------------------------------------------------

_KINDS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_NUMBER}(?:号楼?|[栋幢座室#]|单元|楼)",
        r"[村组屯湾队]$",
        r"(?:小区|花园|家园|新村|公寓|社区|[苑府城湾园庭])$",
        r"(?:[路街巷弄]|大道|国道|省道|公路)$",
        r"(?:路口|交[叉汇界]口?处?|路段|段|桥|立交)$",
        r"(?:学校|[小中大]学|学院|医院|幼儿园|市场|超市|酒店|[馆店厂站场])$",
        r"(?:[河湖溪渠沟港塘]|水库|河[道段])$",
        r"(?:工地|项目|门口|[旁背对后前下上]面?|车库|停车场)$",
    )
)
_TOWN = re.compile(r"^[\u4e00-\u9fff]{2,5}?(?:镇|乡|街道)")
_COARSE = re.compile(r"(?:镇|乡|街道|地区|片区|开发区|经开区|高新区|新区|县城|城区)$")
_COUNTED = re.compile(r"\d+|[一二三四五六七八九十]+(?:号|栋|幢|楼|单元|室|组|期)")
# What stands right before a place: it suffers, it is the end of a way, somebody lives there, it is where …
_BEFORE = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:导致|造成|影响|殃及|使得?|致使|波及|淹了?|堵了?)[^，。]{0,3}$",
        r"(?:往|到|至|前往|开往|通往|通向|回|去)$",
        r"(?:我们?是|家住|住在|本人[住是]|我住|我家在|我们住)[^，。]{0,2}$",
        r"(?:位于|地处|坐落[于在]|在|地址[是：:]?|地点[是：:]?)$",
        r"(?:由|被|和|与|跟|及|或|、)$",
        r"(?:从|自|起点是?|始发)$",
        r"(?:请|求|望|恳请|希望|建议|呼吁|要求)$",
        r"(?:关于|投诉|举报|反映|咨询)$",
    )
)
# … and right behind it: its residents write, it is broken, it is a project, the matter is beside it, somebody does something there.
_BEHIND_IT = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:的|小区)?[^，。]{0,2}(?:业主|居民|村民|住户|市民|职工|员工|学生|家长)",
        r"[^，。！？]{0,8}(?:坏|塌|漏|淹|堵|倒|裂|破|臭|脏|晃|噪|吵|黑|亮|缺|断|坑|积水|扰民|脱落|乱)",
        r"[^，。]{0,4}(?:整治|治理|改造|建设|项目|工程|施工|规划)",
        r"的?(?:附近|旁|对面|周边|周围|背后|后面)",
        r"[^，。！？]{0,6}(?:扣|收|排|放|占|建|挖|卖|开|拆)",
        r"(?:要|走|坐车|的路|方向)",
    )
)
_BEFORE_REACH, _BEHIND_REACH, _LONGEST, _LONGEST_CORE = 8, 14, 25, 14


def main_features(text: str, span: Span, spans: Sequence[Span], *, bare: bool) -> list[float]:
    """What speaks for a span as the scene, among `spans` of a folded text; aligned with the weights fitted for it."""
    start, end = span
    piece = text[start:end]
    core = _TOWN.sub("", _DIVISION_HEAD.sub("", piece))
    number = sum(other < span for other in spans)
    before, behind = text[max(0, start - _BEFORE_REACH) : start], text[end : end + _BEHIND_REACH]
    return [
        float(start < title_end(text)),
        float(number == 0),
        float(number == len(spans) - 1),
        number / len(spans),
        min(len(piece), _LONGEST) / _LONGEST,
        min(len(core), _LONGEST_CORE) / _LONGEST_CORE,
        float(not core),
        float(bool(_COARSE.search(piece))),
        min(len(_COUNTED.findall(piece)), 3) / 3,
        min(text.count(piece[-4:]), 4) / 4,
        float(bare),
        float(_is_body(text, start, end)),
        *(float(bool(cue.search(before))) for cue in _BEFORE),
        *(float(bool(cue.match(behind))) for cue in _BEHIND_IT),
        *(float(bool(kind.search(piece))) for kind in _KINDS),
    ]
