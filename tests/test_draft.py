"""From the turns of a call to the draft of its work order, module by module: no model, no database."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from bot.call import AGENT, CITIZEN, Call, kinds_asked, read_call
from bot.call_appeals import Appeal, find_matter, raised_urgency, read_appeals, separate_parts
from bot.call_care import called_before
from bot.call_facts import find_amount, find_name, find_persons, find_when, wishes_of_secrecy
from bot.call_phone import find_phone
from bot.call_place import find_place
from bot.call_urgency import read_urgency
from bot.catalogue import Catalogue, load_catalogue
from bot.draft import build_draft, empty_draft
from bot.gazetteer import Gazetteer, load_gazetteer
from bot.headline import build_title, short_place, statement_of
from bot.petition import MAX_TITLE, Petition, title_of
from bot.services import DATA_DIR
from bot.story import read_story
from bot.summary import MAX_SUMMARY, build_summary
from bot.wording import official, third_person


def turns_of(*lines: str) -> list[dict[str, str]]:
    """"坐席：…" and "市民：…" as turns."""
    speakers = {"坐席": AGENT, "市民": CITIZEN}
    return [{"speaker": speakers[line[:2]], "text": line[3:]} for line in lines]


def call_of(*lines: str) -> Call:
    return read_call(turns_of(*lines))


def reading_of(call: Call, *known: str, request_type: str = "投诉", category: str = "010215", level: str = "一般") -> dict[str, Any]:
    """What the readers would make of a call in which they know these words."""
    text = call.said.text
    spans = [(text.find(word), text.find(word) + len(word)) for word in known]
    return {
        "categories": [{"code": category, "confidence": 0.9}],
        "first_level_confidence": 0.9,
        "request_type": {"name": request_type, "confidence": 0.9},
        "urgency": {"level": level, "confidence": 0.9, "emergency": level == "特急", "kind": None, "reasons": [], "spans": []},
        "evidence": [{"text": text[start:end], "start": start, "end": end, "weight": 0.4} for start, end in spans],
        "telling": [list(span) for span in spans],
    }


def place_spans(call: Call, *names: str) -> list[dict[str, Any]]:
    text = call.said.text
    return [{"start": text.find(name), "end": text.find(name) + len(name), "text": name, "weight": 2.0, "confidence": 0.9} for name in names]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(DATA_DIR, "huaian")


@pytest.fixture(scope="module")
def gazetteer(catalogue: Catalogue) -> Gazetteer:
    return load_gazetteer(DATA_DIR, "huaian", catalogue.city)


# -- who speaks ------------------------------------------------------------------------------------------------------------


def test_labels_of_a_plain_call_stand() -> None:
    call = call_of("坐席：您好请讲", "市民：我们小区停水三天了", "坐席：请问是哪个小区", "市民：桂花新村", "坐席：好的", "市民：嗯")
    assert call.speakers == [AGENT, CITIZEN, AGENT, CITIZEN, AGENT, CITIZEN]
    assert call.text == "我们小区停水三天了\n桂花新村\n嗯"


def test_a_citizens_turn_under_the_agents_label_is_read_as_the_citizens() -> None:
    call = call_of("坐席：您好请讲", "市民：我要投诉物业", "坐席：请问什么事情", "坐席：我家楼上漏水 漏了半个月了 物业不管 我打了好几次电话", "坐席：请问您在哪个小区", "市民：桂花新村")
    assert call.speakers[3] == CITIZEN and "漏水" in call.text


def test_an_agents_question_under_the_citizens_label_is_not_the_citizens_word() -> None:
    call = call_of("坐席：您好请讲", "市民：路灯坏了", "市民：请问您贵姓 留一下您的电话", "市民：姓桂 幺三八零零零零零零零零")
    assert call.speakers[2] == AGENT and "贵姓" not in call.text


def test_a_call_with_all_labels_swapped_is_turned() -> None:
    call = call_of(
        "市民：您好请问有什么可以帮您", "坐席：我投诉一个修车铺 乱收费", "市民：请问在哪里", "坐席：文汇路上", "市民：请问您贵姓 联系电话", "坐席：姓桂",
        "市民：给您登记了 五个工作日内答复",
    )  # fmt: skip
    assert call.speakers == [AGENT, CITIZEN] * 3 + [AGENT]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("请问您贵姓", "name"), ("留一下联系方式", "phone"), ("您在哪个小区", "place"), ("什么时候的事", "when"), ("一共多少钱", "amount"),
        ("涉及多少人", "persons"), ("您的诉求是什么", "wish"), ("支书叫什么", "others"),
    ],
)  # fmt: skip
def test_questions_say_what_their_answers_are(question: str, kind: str) -> None:
    assert kind in kinds_asked(question)


@pytest.mark.parametrize("question", ["您打电话问过吗", "支书姓什么", "老板叫什么名字"])
def test_questions_about_others_ask_nothing_of_the_caller(question: str) -> None:
    assert not kinds_asked(question) & {"name", "phone"}


# -- what is said ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "cleaned"),
    [
        ("喂 喂 那个 就是我们村那个路坏了", "我们村路坏了"),
        ("高龄 高龄津贴没发", "高龄津贴没发"),
        ("显示未通过 未通过", "显示未通过"),
        ("我想问能不能 能不能提前办", "我想问能不能提前办"),
        ("请联系户籍地 不对 请联系居住地", "请联系居住地"),
        ("我去办那个 办那个落户", "我去办落户"),
        ("嗯 呃 对对 好的 谢谢啊", ""),
        ("电话是幺三八零零零零幺二三四", ""),
        ("他把修路那个钱 给他弟弟了", "他把修路钱给他弟弟了"),
    ],
)
def test_fillers_repetitions_and_words_taken_back_are_left_out(said: str, cleaned: str) -> None:
    assert call_of("坐席：请讲", f"市民：{said}").said.text == cleaned


def test_cleaned_text_knows_where_it_stands() -> None:
    call = call_of("坐席：请讲", "市民：喂 那个 泰安花园那个三期", "坐席：嗯", "市民：嗯 停水了")
    at = call.said.text.index("三期")
    start, end = call.said.span(at, at + 2)
    assert call.text[start:end] == "三期" and call.locate(start) == (1, 11)
    at = call.said.text.index("停水")
    assert call.locate(call.said.span(at, at + 2)[0]) == (3, 2)


def test_a_run_without_pauses_is_cut_where_new_thoughts_begin() -> None:
    call = call_of("坐席：请讲", "市民：我要投诉啊我们楼下那个饭店他天天晚上放音乐放到两点你说我们怎么睡觉然后找他他还骂人")
    assert len(call.pieces) > 3 and all(len(piece.text) < 25 for piece in call.pieces)


def test_reading_a_long_call_costs_time_in_proportion() -> None:
    turns = turns_of(*["坐席：请问还有吗", "市民：我们小区停水三天了没人管"] * 240)
    assert len(read_call(turns).pieces) == 240


# -- the number --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "digits"),
    [
        (["坐席：您的电话", "市民：幺三八零零零零幺二三四"], "13800001234"),
        (["坐席：您的电话", "市民：一八零 零零零零 五五七一"], "18000005571"),
        (["坐席：您的电话", "市民：１３８００００１２３４"], "13800001234"),
        (["坐席：您的电话", "市民：1 3 8 0 0 0 0 1 2 3 4"], "13800001234"),
        (["坐席：留个电话", "市民：幺三八", "坐席：嗯", "市民：零零零零", "坐席：嗯", "市民：幺二三四"], "13800001234"),
        (["坐席：留个电话", "市民：幺三八 零零零零", "坐席：嗯", "市民：四四幺六 不对 四四幺七 尾号四四幺七"], "13800004417"),
        (["坐席：留个电话", "市民：幺三七零零零零八八四六", "坐席：幺三七零零零零八八六四是吗", "市民：不是 八八四六 四六"], "13700008846"),
        (["坐席：留个电话", "市民：幺三八零零零零幺二三四", "坐席：幺三八零零零零幺二四三对吧", "市民：不对 尾号是三四"], "13800001234"),
        (["坐席：电话是", "市民：幺三幺 不 幺三二 零零零零 四五六七"], "13200004567"),
        (["坐席：手机号", "市民：前面幺三七 中间四个零 后面幺二三四"], "13700001234"),
        (["坐席：手机号", "市民：幺三五 四个零 二八二八"], "13500002828"),
        (["坐席：手机号", "市民：幺五九 零零零零 六零七", "坐席：幺五九零零零零六零七幺是吗", "市民：对"], "15900006071"),
        (["坐席：留个电话", "市民：座机 零五幺七 八三零零零零幺二 转 八零二"], "051783000012"),
        (["坐席：留个电话", "市民：没手机 我给你念 零五幺六 八零零零 二三幺四"], "051680002314"),
        (["坐席：电话多少", "市民：八三九零 零零幺二"], "83900012"),
        (["坐席：您的号码", "市民：幺八六 零零零零 零零幺幺 也可以打我爱人的幺三三零零零零零零二二"], "18600000011"),
        (["坐席：电话是这个吗", "市民：不是 这是我爱人的 你记我的 幺八九 零零零零 九九零二"], "18900009902"),
        (["坐席：请讲", "市民：我是幺三八零零零零五六七八 昨天打过电话的"], "13800005678"),
        (["坐席：车牌号记得吗", "市民：苏H T三零六八"], None),
        (["坐席：身份证号", "市民：三二零八二六一九七零零一零一零零零零"], None),
        (["坐席：电话", "市民：就打这个号"], None),
        (["坐席：请讲", "市民：我打一二三四五打了八个电话 今年八十六了"], None),
        (["坐席：电话", "市民：幺三八零零零零"], None),
    ],
)
def test_number_is_put_together_and_put_right(lines: Sequence[str], digits: str | None) -> None:
    found = find_phone(call_of(*lines))
    assert (found.digits if found else None) == digits


def test_number_knows_its_turn_its_words_and_its_extension() -> None:
    call = call_of("坐席：留个电话", "市民：座机 零五幺七 八三零零零零幺二 转 八零二")
    found = find_phone(call)
    assert found and (found.turn, found.extension) == (1, "802")
    assert call.turns[1].text[found.start : found.end].startswith("零五幺七")


# -- who calls ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (["坐席：您贵姓", "市民：免贵姓 陈"], "陈"),
        (["坐席：您贵姓", "市民：免贵姓程 耳东陈"], "陈"),
        (["坐席：您贵姓", "市民：姓渠 渠道的渠"], "渠"),
        (["坐席：您贵姓", "市民：姓公 公家的公 我们那边姓这个的多"], "公"),
        (["坐席：怎么称呼您", "市民：亢 亢奋的亢"], "亢"),
        (["坐席：您贵姓", "市民：门 大门的门"], "门"),
        (["坐席：您贵姓", "市民：姓逯 就那个走之旁 右边一个录音的录的右边"], "逯"),
        (["坐席：您叫什么 电话", "市民：我叫桂小兰 桂花的桂"], "桂小兰"),
        (["坐席：您怎么称呼", "市民：詹先生"], "詹先生"),
        (["坐席：请讲", "市民：我姓殷 今年七十三"], "殷"),
        (["坐席：留个电话", "市民：幺三八零零零零幺二三四", "坐席：幺三八零零零零幺二三四", "市民：对 姓束"], "束"),
        (["坐席：支书姓什么", "市民：姓龚 全村都知道"], None),
        (["坐席：老板叫什么", "市民：包工头姓郑"], None),
        (["坐席：车牌号记得吗", "市民：师傅姓 姓什么来着 姓丛"], None),
        (["坐席：您贵姓", "市民：姓就不说了吧"], None),
        (["坐席：您贵姓", "市民：不方便说"], None),
    ],
)
def test_name_is_the_callers_own(lines: Sequence[str], name: str | None) -> None:
    found = find_name(call_of(*lines))
    assert (found.value if found else None) == name


@pytest.mark.parametrize(
    ("lines", "anonymous", "confidential"),
    [
        (["坐席：方便留姓名吗", "市民：不留 不敢留"], True, False),
        (["坐席：请留称呼和电话", "市民：这个就不用了吧"], True, False),
        (["坐席：请讲", "市民：你们别记我名字 千万别让厂里晓得"], True, True),
        (["坐席：请讲", "市民：你们去查的时候别说是我说的"], False, True),
        (["坐席：请讲", "市民：莫给他晓得是我打的"], False, True),
        (["坐席：您贵姓", "市民：姓桂"], False, False),
        (["坐席：支书姓什么", "市民：不知道"], False, False),
    ],
)
def test_secrecy_is_heard(lines: Sequence[str], anonymous: bool, confidential: bool) -> None:
    call = call_of(*lines)
    assert tuple(map(bool, wishes_of_secrecy(call, find_name(call)))) == (anonymous, confidential)


# -- when, how many, how much ------------------------------------------------------------------------------------------------


def plainly(_turn: int, _start: int, _end: int) -> float:
    return 0.4


@pytest.mark.parametrize(
    ("lines", "when"),
    [
        (["坐席：什么时候的事", "市民：上礼拜三"], "上礼拜三"),
        (["坐席：什么时候占的", "市民：前年 前年腊月就占了"], "前年腊月"),
        (["坐席：什么时间去的", "市民：两点二十 下午两点二十到的"], "下午两点二十"),
        (["坐席：什么时候的事", "市民：不是上个月 是这个月五号"], "这个月五号"),
        (["坐席：请讲", "市民：停水停三天了 家里还有个今年八十六的老人"], "三天"),
        (["坐席：请讲", "市民：我今年七十三 井坏了有半个月了"], "半个月"),
        (["坐席：请讲", "市民：系统后天下午五点就截止了"], "后天下午五点"),
        (["坐席：地址", "市民：青年路 一百零六号"], None),
    ],
)
def test_when_is_the_time_of_the_matter(lines: Sequence[str], when: str | None) -> None:
    found = find_when(call_of(*lines), plainly)
    assert (found.value if found else None) == when


@pytest.mark.parametrize(
    ("lines", "amount"),
    [
        (["坐席：多少钱", "市民：三千六"], "三千六"),
        (["坐席：请讲", "市民：一共欠起十八万多 每人一天三百"], "十八万多"),
        (["坐席：请讲", "市民：交了两万块钱押金不退"], "两万块钱"),
        (["坐席：请讲", "市民：平时也就十八九块钱 他要我八十"], "八十"),
        (["坐席：请讲", "市民：我坐三百零五路 摔得青了一块"], None),
        (["坐席：请讲", "市民：三百多户够谁用的"], None),
    ],
)
def test_amount_is_money_of_the_matter(lines: Sequence[str], amount: str | None) -> None:
    found = find_amount(call_of(*lines), plainly)
    assert (found.value if found else None) == amount


@pytest.mark.parametrize(
    ("lines", "persons"),
    [
        (["坐席：几个人", "市民：七八个"], "七八个"),
        (["坐席：一共多少人 欠了多少", "市民：二十三个人 一共欠十八万多"], "二十三个人"),
        (["坐席：涉及几户", "市民：我们那一块 十一户 都没给"], "十一户"),
        (["坐席：请讲", "市民：就我一个人 她一个人住"], None),
    ],
)
def test_persons_are_those_concerned(lines: Sequence[str], persons: str | None) -> None:
    found = find_persons(call_of(*lines), plainly)
    assert (found.value if found else None) == persons


def test_what_is_told_by_the_way_is_no_fact() -> None:
    call = call_of("坐席：请讲", "市民：我去年刚做的手术 花了三万块钱")
    assert find_amount(call, lambda *_: 0.0) is None and find_when(call, lambda *_: 0.0) is None


# -- the place ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "read", "value"),
    [
        (["坐席：您家是哪个村的", "市民：赵家洼 赵家洼村", "坐席：哪个镇呢", "市民：王沟嘛 王沟镇 丰县王沟镇"], ["赵家洼村", "丰县王沟镇"], "丰县王沟镇赵家洼村"),
        (["坐席：哪个小区", "市民：云锦苑 云锦苑七栋", "坐席：七栋对吧", "市民：不是 十七 十七栋"], ["云锦苑七栋"], "云锦苑十七栋"),
        (["坐席：哪里", "市民：平江县三墩乡 枫香坪村二组", "坐席：二组", "市民：哦不不 他家是二组 我是三组"], ["枫香坪村二组"], "平江县三墩乡枫香坪村三组"),
        (["坐席：是哪个小区", "市民：涟水县 水木清华 十一号楼二单元"], [], "涟水县水木清华十一号楼二单元"),
        (["坐席：您是什么位置", "市民：锦华里 三号楼 嗯 五零二 他家是五零一"], ["锦华"], "锦华里三号楼五零二"),
        (["坐席：哪个镇哪个村", "市民：烽火镇 杨树沟", "坐席：烽火镇是礼泉县的吧", "市民：对对"], ["杨树沟"], "礼泉县烽火镇杨树沟"),
        (["坐席：在哪儿", "市民：高港区 口岸街道 口岸菜场旁边那个家乐惠"], ["口岸菜场"], "高港区口岸街道口岸菜场旁边家乐惠"),
        (["坐席：请讲", "市民：我从火车站出来 南广场上的车 到翠屏山庄"], ["南广场", "翠屏山庄"], "火车站南广场"),
        (["坐席：请讲", "市民：三十七路到职业技术学院那个方向的 末班车太早了"], [], "职业技术学院"),
        (["坐席：哪个乡镇", "市民：我是英山县的 我人在东莞"], ["英山县", "人在东莞"], "英山县"),
        (["坐席：请讲", "市民：我要投诉"], [], None),
    ],
)
def test_place_is_put_together_and_put_right(lines: Sequence[str], read: Sequence[str], value: str | None) -> None:
    call = call_of(*lines)
    found = find_place(call, place_spans(call, *read))
    assert (found.value if found else None) == value


@pytest.mark.parametrize(
    ("said", "where", "telling", "title"),
    [
        ("山阳小区南门里面的路塌了一块，晚上看不见，老人差点摔倒", "山阳小区南门里面的路", "晚上", "山阳小区南门里面的路塌了一块"),
        ("你们好，我在清江浦区 桂花新村8号楼，路灯坏了三天", "清江浦区 桂花新村8号楼", "路灯", "路灯坏了三天"),
        ("桂花新村没水", "桂花新村", "没水", "桂花新村没水"),
        ("我现在在万达一楼", "万达一楼", "", "居民反映事项"),
    ],
)
def test_title_of_a_message_is_what_is_wrong_there(said: str, where: str, telling: str, title: str) -> None:
    evidence = [{"text": telling, "weight": 0.3}] if telling else []
    assert title_of(Petition(id="p1", texts=(said,), place={"text": where}, evidence=evidence)) == title


# -- title and summary -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("我那个低保咋给我停了", "低保停发"), ("一个人影没有", "无人"), ("一分钱没给", "一分未给"), ("停水停了三天了", "停水三天了"), ("喊她她不答应", "喊不答应"),
        ("能不能提前办", "能否提前办"), ("他起屋了", "他建房了"), ("没法走", "无法走"), ("冇得证", "没有证"),
    ],
)  # fmt: skip
def test_colloquial_words_are_written_officially(said: str, written: str) -> None:
    assert official(said).removeprefix("我").removeprefix("那个") in (written, f"我{written}")


@pytest.mark.parametrize(
    ("said", "written"),
    [("让我明天再来", "让其明天再来"), ("我妈一个人", "其母亲一个人"), ("我们小区停水", "该小区停水"), ("我儿子回来", "其儿子回来"), ("占了我的地", "占了其地")],
)
def test_the_first_person_becomes_the_third(said: str, written: str) -> None:
    assert third_person(said) == written


@pytest.mark.parametrize(
    ("piece", "statement"),
    [
        ("我要投诉我隔壁的狗", "隔壁的狗"), ("他起屋把我的宅基地占了", "建房占宅基地"), ("公司把我辞退了", "被公司辞退"), ("我爸好像被人骗了", "父亲好像被人骗"),
        ("去年腊月起井就坏了", "起井就坏"), ("我要提前还房贷", "提前还房贷"), ("坏了有一个礼拜了", "坏了一个星期"),
    ],
)  # fmt: skip
def test_a_piece_becomes_a_statement(piece: str, statement: str) -> None:
    assert statement_of(piece) == statement


TITLES = [
    (["市民：停水 停水停三天了 三天", "坐席：哪个小区", "市民：云锦苑"], ["停水"], "投诉", "云锦苑", "云锦苑停水三天"),
    (["市民：那个押金 押金他不给退 今儿推明儿"], ["押金"], "投诉", "松鹤老年公寓", "松鹤老年公寓押金不给退"),
    (["市民：我要表扬一个出租车司机 我把包忘在车上了"], ["出租车司机"], "表扬", "东站", "表扬东站出租车司机"),
    (["市民：我想咨询一下 就是异地看病报销的 要带哪些材料"], ["看病报销"], "咨询", "", "咨询异地看病报销要带哪些材料"),
    (["市民：我提个建议 末班车七点半就没了 能不能延长到九点半"], ["末班车"], "建议", "", "建议末班车：延长到九点半"),
    (["市民：一单元的电梯 修了坏 修了坏 没个完"], [], "投诉", "梧桐里", "梧桐里电梯修了坏"),
    (["市民：我是学生家长", "坐席：您说", "市民：报补课班还要交保底费 是不是乱收费"], ["补课班"], "投诉", "", "补课班乱收费"),
    (["市民：加开一趟夜班公交吧 能不能给我回个电话"], [], "建议", "", "建议加开一趟夜班公交"),
    (["市民：小区门口有个坑 晚上看不清 我差点摔了"], ["有个坑", "晚上看不清"], "投诉", "", "小区门口有个坑"),
    (["市民：就是我上班的那个厂 宏泰化工 他晚上往河里放废水"], ["废水"], "举报", "宏泰化工", "举报宏泰化工晚上往河里放废水"),
]


@pytest.mark.parametrize(("lines", "known", "request_type", "place", "title"), TITLES)
def test_title_names_matter_and_place_in_the_callers_words(
    lines: Sequence[str], known: Sequence[str], request_type: str, place: str, title: str
) -> None:
    call = call_of("坐席：您好请讲", *lines)
    story = read_story(call, reading_of(call, *known, request_type=request_type))
    assert build_title(story, request_type, place, "")[0] == title


def test_talk_by_the_way_gives_way_to_the_topic_or_the_class() -> None:
    call = call_of("坐席：您好请讲", "市民：我家的鸡昨晚丢了两只 先不说鸡", "市民：我是问那个退休金 少算了年头", "坐席：退休金少算了")
    assert build_title(read_story(call, reading_of(call, "退休金")), "投诉", "河口镇", "养老保险")[0].startswith("河口镇退休金")
    told = call_of("坐席：您好请讲", "市民：昨晚炖鸡来着")
    assert build_title(read_story(told, reading_of(told)), "投诉", "河口镇", "养老保险")[0] in ("养老保险", "河口镇养老保险")


def test_a_trouble_told_far_from_the_topic_is_no_title() -> None:
    call = call_of("坐席：您好请讲", "市民：我那手机昨天又丢了 找了半天", "坐席：您要反映什么", "市民：说的是厂里给我算少了工龄这回事")
    assert "丢" not in build_title(read_story(call, reading_of(call)), "投诉", "河口镇", "养老保险")[0]


def test_division_the_agent_names_is_named_without_the_word_before_it() -> None:
    call = call_of("坐席：您好请讲", "市民：干部公示的事", "坐席：是清水镇的公示是吧", "市民：对 清水镇")
    place = find_place(call, [])
    assert place is not None and place.value == "清水镇"


def test_words_of_danger_may_begin_in_the_piece_before() -> None:
    call = call_of("坐席：您好请讲", "市民：老伴躺着 喊她吃饭 喊不应")
    reading, start = reading_of(call, level="特急"), call.said.text.find("喊她")
    reading["urgency"]["spans"] = [[start, len(call.said.text)]]
    assert build_title(read_story(call, reading), "求助", "", "急救")[0] == "老伴喊不应"


def test_title_of_a_call_that_tells_nothing_is_no_invention() -> None:
    call = call_of("坐席：您好请讲", "市民：喂 你是小王吗", "坐席：您打错了", "市民：哦 打错了")
    assert build_title(read_story(call, reading_of(call)), "咨询", "", "来电人未说明事项") == ("来电人未说明事项", None)


def test_no_statement_is_put_upon_somebody_it_was_not_said_of() -> None:
    call = call_of("坐席：请讲", "市民：我要举报我们村的支书 他把修路那个钱给他弟弟了", "坐席：嗯", "市民：真的困难的那家老婆婆一分钱没得")
    title, _ = build_title(read_story(call, reading_of(call, "支书", request_type="举报")), "举报", "", "")
    assert "支书一分" not in title


@pytest.mark.parametrize(
    ("core", "short"),
    [("上蔡县朱里镇大吕庄", "大吕庄"), ("云锦苑七栋", "云锦苑"), ("老体育场边上育新中学", "育新中学"), ("彭城街道便民服务中心", "彭城街道便民服务中心"), ("枫香坪村二组", "枫香坪村")],
)
def test_title_calls_a_place_by_its_name(core: str, short: str) -> None:
    assert short_place(core, {}) == short


def test_summary_leaves_out_what_is_told_by_the_way() -> None:
    call = call_of(
        "坐席：您好请讲", "市民：我今年八十六了 属虎的 耳朵不好", "坐席：什么事", "市民：高龄津贴二月就没了 打在存折上的 我儿子在外地 一年回来一趟",
        "坐席：电话", "市民：幺三八零零零零幺二三四", "坐席：您的诉求", "市民：把钱补给我",
    )  # fmt: skip
    summary = build_summary(read_story(call, reading_of(call, "高龄津贴")), "赵家洼村")
    assert summary == "市民反映：赵家洼村，高龄津贴二月就没了，打在存折上。诉求：把钱补给其。" or summary.startswith("市民反映：赵家洼村，高龄津贴二月")
    assert not any(word in summary for word in ("八十六", "属虎", "儿子", "1380000", "幺三八")) and len(summary) <= MAX_SUMMARY


def test_a_wish_the_agent_sums_up_counts_when_the_caller_says_yes() -> None:
    call = call_of("坐席：请讲", "市民：押金不给退", "坐席：您希望全额退还是吧", "市民：对")
    assert "诉求：全额退还" in build_summary(read_story(call, reading_of(call, "押金")), "", "全额退还")


# -- urgency -----------------------------------------------------------------------------------------------------------------


def urgency(level: str, **more: Any) -> dict[str, Any]:
    return {"level": level, "confidence": 0.8, "emergency": level == "特急", "kind": None, "reasons": [], "spans": [], **more}


def test_a_cry_in_one_turn_is_heard_in_a_long_complaint() -> None:
    call = call_of("坐席：请讲", "市民：路上有个坑 修完管子没填", "坐席：在哪", "市民：哎呀有人栽进去了 头上全是血 人躺那儿不动弹")
    story = read_story(call, reading_of(call, "坑"))

    def read(text: str) -> dict[str, Any]:
        at = text.find("全是血")
        return urgency("特急", reasons=["全是血"], spans=[[at, at + 3]], kind="medical") if at >= 0 else urgency("一般")

    found = read_urgency(call, story, urgency("一般"), read)
    (start, end), *_ = found["spans"]
    assert found["emergency"] and call.said.text[start:end] == "全是血"


def test_an_agent_who_sends_for_rescuers_has_heard_an_emergency() -> None:
    lines = ["坐席：请讲", "市民：楼上老太太三天没下楼了 敲门没人开"]
    quiet, called = call_of(*lines, "坐席：好的"), call_of(*lines, "坐席：您赶紧打120 我这边马上联系")
    for call, emergency in ((quiet, False), (called, True)):
        assert read_urgency(call, read_story(call, reading_of(call)), urgency("紧急"), lambda _: urgency("一般"))["emergency"] is emergency


def test_a_hint_at_the_fraud_line_is_no_emergency() -> None:
    call = call_of("坐席：请讲", "市民：我爸被骗了两万", "坐席：您马上打96110或者110")
    assert not read_urgency(call, read_story(call, reading_of(call)), urgency("紧急"), lambda _: urgency("一般"))["emergency"]


def test_what_is_well_again_is_not_raised() -> None:
    call = call_of("坐席：请讲", "市民：孩子喝了过期的酸奶 半夜拉肚子", "坐席：现在呢", "市民：现在没事了")
    assert read_urgency(call, read_story(call, reading_of(call)), urgency("一般"), lambda _: urgency("紧急"))["level"] == "一般"


# -- the whole draft ---------------------------------------------------------------------------------------------------------


def draft_of(call: Call, catalogue: Catalogue, gazetteer: Gazetteer, *known: str, places: Sequence[str] = (), **reading: Any) -> dict[str, Any]:
    data = {"reading": reading_of(call, *known, **reading), "place_spans": place_spans(call, *places), "parts": []}
    appeals = read_appeals(call, data, gazetteer, lambda _: urgency("一般"))
    return build_draft(call, appeals, find_matter(catalogue, call.said.text, appeals[0]), catalogue)


def test_every_field_points_at_its_words(catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = call_of(
        "坐席：您好请讲", "市民：我们家停水 停三天了", "坐席：哪个小区", "市民：桂花新村三号楼", "坐席：您贵姓 电话", "市民：姓桂 幺三八零零零零幺二三四",
    )  # fmt: skip
    draft = draft_of(call, catalogue, gazetteer, "停水", places=["桂花新村三号楼"])
    words = {name: call.turns[field["turn"]].text[field["start"] : field["end"]] for name, field in draft.items() if isinstance(field, dict) and "turn" in field}
    assert {"phone": "幺三八零零零零幺二三四", "name": "桂", "when": "三天", "place": "桂花新村三号楼"}.items() <= words.items()
    assert draft["title"]["value"].startswith("桂花新村停水") and draft["questions"] == []
    assert [call.turns[source["turn"]].text[source["start"] : source["end"]] for source in draft["sources"]["category"]] == ["停水"]


def test_only_what_is_missing_for_the_category_is_asked(catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = call_of("坐席：您好请讲", "市民：老板不给我们发工钱")
    draft = draft_of(call, catalogue, gazetteer, "工钱", category="040305")
    assert [question["slot"] for question in draft["questions"]] == ["location", "employer", "amount", "phone", "name"]
    assert all(question["text"].endswith("？") for question in draft["questions"])


def test_in_an_emergency_where_comes_first(catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = call_of("坐席：您好请讲", "市民：快来人 着火了")
    draft = draft_of(call, catalogue, gazetteer, "着火", category="080709", level="特急")
    assert draft["questions"] and all(question["slot"] != "name" for question in draft["questions"][:1])


def test_who_withholds_the_name_is_not_asked_again(catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = call_of("坐席：您好请讲", "市民：我们厂夜里排废水 别记我名字 别让厂里知道")
    draft = draft_of(call, catalogue, gazetteer, "废水", request_type="举报", category="130209")
    assert not {"name", "phone"} & {question["slot"] for question in draft["questions"]}
    assert draft["anonymous"]["value"] and draft["confidential"]["value"]
    assert [case["kind"] for case in draft["sensitive"]] == ["whistleblowing"]


def test_a_hurt_minor_is_a_case_of_care(catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = call_of("坐席：您好请讲", "市民：我家孩子在学校被打了 身上有伤")
    draft = draft_of(call, catalogue, gazetteer, "学校", category="060205")
    assert [case["kind"] for case in draft["sensitive"]] == ["minor"] and draft["confidential"]["value"]


@pytest.mark.parametrize(("said", "kind"), [("他们说明天要去堵大门", "mass_incident"), ("不给钱我就不想活了", "suicide")])
def test_cases_of_care_are_found(said: str, kind: str, catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = call_of("坐席：您好请讲", f"市民：{said}")
    assert kind in {case["kind"] for case in draft_of(call, catalogue, gazetteer, level="特急")["sensitive"]}


@pytest.mark.parametrize(("said", "before"), [("我上个礼拜就打过电话 还是没修", True), ("工单号我没记", True), ("我给物业打电话没人接", False), ("路灯坏了", False)])
def test_callers_who_called_before_are_known(said: str, before: bool) -> None:
    assert bool(called_before(call_of("坐席：请讲", f"市民：{said}"))) is before


def test_two_appeals_have_a_draft_each(catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = call_of("坐席：请讲", "市民：第一个是电梯坏了一个礼拜", "坐席：嗯", "市民：第二个是凤栖路菜场后门垃圾没人拉")
    text = call.said.text
    border = text.index("第二个")
    parts = [
        {"start": 0, "end": border, "reading": reading_of(call, "电梯", category="010903")},
        {"start": border, "end": len(text), "reading": _from(reading_of(call, "垃圾", category="010213"), border)},
    ]
    data = {"reading": reading_of(call, "电梯"), "place_spans": place_spans(call, "凤栖路菜场后门"), "parts": separate_parts(parts, text)}
    appeals = read_appeals(call, data, gazetteer, lambda _: urgency("一般"))
    first, second = build_draft(call, appeals, None, catalogue)["parts"]
    assert "电梯坏了一个星期" in first["title"]["value"] and "垃圾无人拉" in second["title"]["value"]
    assert call.text[second["start"] : second["end"]].startswith("第二个") and second["place"]["value"] == "凤栖路菜场后门"


def _from(reading: dict[str, Any], by: int) -> dict[str, Any]:
    """A reading with offsets in its own part, as the readers give them."""
    evidence = [{**span, "start": span["start"] - by, "end": span["end"] - by} for span in reading["evidence"]]
    return {**reading, "evidence": evidence, "telling": [[start - by, end - by] for start, end in reading["telling"]]}


def test_what_comes_back_to_its_matter_is_one_appeal(gazetteer: Gazetteer) -> None:
    call = call_of("坐席：请讲", "市民：银行不让我提前还房贷", "坐席：嗯", "市民：多收的利息得给我个说法 一个月一千二呢")
    border = call.said.text.index("多收")
    parts = [
        {"start": 0, "end": border, "reading": reading_of(call, "房贷", category="090504")},
        {"start": border, "end": len(call.said.text), "reading": reading_of(call, "利息", category="090502")},
    ]
    assert len(separate_parts(parts, call.said.text)) == 1


@pytest.mark.parametrize(("persons", "raised"), [("二十三个人", True), ("几十号人", True), ("12个工人", True), ("三个人", False), (None, False)])
def test_many_people_without_wages_are_urgent(persons: str | None, raised: bool, catalogue: Catalogue) -> None:
    matter = catalogue.find_matter("老板不给我们发工钱 一分钱没拿到")
    assert bool(raised_urgency(matter, {"value": persons} if persons else None)) is raised


def test_a_matter_far_from_what_the_readers_see_is_none(catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = call_of("坐席：请讲", "市民：他把救助钱给他弟弟报了 真困难的一分钱没得")
    data = {"reading": reading_of(call, category="160302"), "place_spans": [], "parts": []}
    (appeal,) = read_appeals(call, data, gazetteer, lambda _: urgency("一般"))
    wages = replace(appeal, reading=reading_of(call, category="040305"))
    assert find_matter(catalogue, call.said.text, appeal) is None and find_matter(catalogue, call.said.text, wages)


def test_nobody_has_spoken_yet() -> None:
    assert call_of("坐席：您好请讲").text == "" and empty_draft()["title"] is None and empty_draft()["parts"] == []


@pytest.mark.parametrize("text", ["", " ", "\n", "，。！", "喂" * 3000, "幺" * 5000, "不对 " * 2000, "我" * 4000, "a1 " * 3000, "😀🀄" * 500])
def test_odd_turns_are_read_without_harm(text: str, catalogue: Catalogue, gazetteer: Gazetteer) -> None:
    call = read_call([{"speaker": "agent", "text": text}, {"speaker": "citizen", "text": text}, {"speaker": "citizen", "text": "路灯坏了"}])
    draft = draft_of(call, catalogue, gazetteer, "路灯")
    assert len(draft["title"]["value"]) <= MAX_TITLE and (draft["summary"] is None or len(draft["summary"]["value"]) <= MAX_SUMMARY)


def test_an_appeal_knows_its_class_and_kind(gazetteer: Gazetteer) -> None:
    call = call_of("坐席：请讲", "市民：停水了")
    data = {"reading": reading_of(call, "停水"), "place_spans": [], "parts": []}
    (appeal,) = read_appeals(call, data, gazetteer, lambda _: urgency("一般"))
    assert isinstance(appeal, Appeal) and (appeal.category, appeal.request_type) == ("010215", "投诉")
