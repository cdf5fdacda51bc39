"""Single behaviours of the dialogue over HTTP: repetition, misunderstanding, emergency, correction, buttons, limits, odd writing."""
from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
import requests

from tests.conversation_runner import Conversation, Outcome, Runner, answer_questions

pytest_plugins = ["tests.conversation_runner"]

STREET_LIGHT = "清江浦区水渡口大道的路灯坏了三盏，晚上看不见路"


@pytest.fixture
def talk(live: Runner) -> Conversation:
    return Conversation(live.url, Outcome("dialogue"))


def post(live: Runner, **body: Any) -> requests.Response:
    return requests.post(f"{live.url}/api/chat", json=body, timeout=30)


def first_sentence(replies: list[str]) -> str:
    return re.split(r"[。！!]", replies[0])[0]


def last_ticket(talk: Conversation) -> dict[str, Any]:
    return talk.ticket(talk.outcome.tickets[-1]["ticket_number"])


# -- repetition -------------------------------------------------------------------------------------------------------


def test_repeated_message_is_answered_with_the_first_answer(live: Runner) -> None:
    sender = uuid.uuid4().hex
    post(live, sender=sender, text=STREET_LIGHT, message_id="1")
    first = post(live, sender=sender, text="确认提交", message_id="2").json()
    again = post(live, sender=sender, text="确认提交", message_id="2").json()
    other_words = post(live, sender=sender, text="取消", message_id="2").json()
    assert len(first["tickets"]) == 1
    assert first == again == other_words


def test_same_message_id_of_another_sender_is_another_message(live: Runner) -> None:
    mine, theirs = (post(live, sender=uuid.uuid4().hex, text=text, message_id="1").json() for text in ("你好", STREET_LIGHT))
    assert mine != theirs


def test_confirming_twice_files_once(talk: Conversation) -> None:
    talk.say(STREET_LIGHT)
    talk.say("确认提交")
    talk.say("确认提交")
    assert len(talk.outcome.tickets) == 1


# -- misunderstanding and a person ------------------------------------------------------------------------------------


def test_two_misunderstandings_in_a_row_hand_over(talk: Conversation) -> None:
    assert "转人工坐席" not in "".join(talk.say("嘎嘎嘎嘎呱呱"))
    assert "转人工坐席" in "".join(talk.say("噗噜噗噜嘟嘟"))


def test_a_person_is_called_in_the_middle_of_a_form_and_nothing_is_lost(talk: Conversation) -> None:
    talk.say("楼道里的声控灯全坏了")
    assert "转人工坐席" in "".join(talk.say("转人工"))
    assert "请核对" in "".join(talk.say("清江浦区锦绣花园3栋"))


@pytest.mark.parametrize("said", ["我要投诉", "我要提建议", "我要反映问题", "我要举报！"])
def test_who_only_announces_a_matter_is_asked_to_tell_it(talk: Conversation, said: str) -> None:
    assert "直接说" in "".join(talk.say(said))
    assert "请核对" in "".join(talk.say(STREET_LIGHT))


# -- emergency first --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("清江浦区淮海东路12号三楼着火了，窗户在冒黑烟", "119"),
        ("一屋子煤气味，我头晕得站不住", "119"),
        ("我爸突然倒地上叫不醒了", "120"),
        ("有人拿着刀在菜场里追着人砍", "110"),
        ("她站在楼顶边上说不想活了", "110"),
        ("门口两辆车撞一起了，司机卡在里面满脸是血", "120"),
        ("有个小孩掉河里了还在扑腾", "119"),
        ("对门男的拿皮带往死里抽他闺女，孩子在惨叫", "110"),
    ],
)
def test_emergency_names_the_number_in_the_first_sentence_and_files_at_once(talk: Conversation, said: str, number: str) -> None:
    replies = talk.say(said)
    assert number in first_sentence(replies), replies
    assert len(talk.outcome.tickets) == 1
    assert last_ticket(talk)["urgency"] == "特急"
    assert "确认提交" not in talk.buttons


@pytest.mark.parametrize(
    "said",
    [
        "不是着火，就是火锅店油烟大，熏得开不了窗",
        "去年我们楼着过火，现在想问问灭火器多久换一次",
        "110那边让我打你们的，楼下太吵",
        "我家120平的房子物业费怎么收",
        "119路公交车老是不准点",
        "楼下天天跳广场舞吵死了",
        "商场跳楼价甩卖的羽绒服是假货",
        "怕哪天电线短路起火，想请人来看看线路",
    ],
)
def test_what_only_sounds_alike_is_no_emergency(talk: Conversation, said: str) -> None:
    replies = talk.say(said)
    assert not re.search(r"打 ?1(?:10|19|20|22)(?!\d)", first_sentence(replies)), replies
    assert talk.outcome.tickets == []


def test_address_told_after_an_emergency_joins_its_ticket(talk: Conversation) -> None:
    talk.say("我爸突然倒地上叫不醒了")
    talk.say("清江浦区淮海西路阳光花园6号楼1102")
    assert len(talk.outcome.tickets) == 1
    assert "阳光花园" in last_ticket(talk)["location"]["text"]


def test_place_told_after_an_emergency_goes_to_its_ticket(talk: Conversation) -> None:
    talk.say("儿子丢了，六岁，刚才还在万达一楼")
    talk.say("清江浦区万达广场")
    assert len(talk.outcome.tickets) == 1
    assert "清江浦区万达广场" in last_ticket(talk)["location"]["text"]
    assert "丢" in last_ticket(talk)["title"]


def test_place_of_a_filed_ticket_is_corrected(talk: Conversation) -> None:
    talk.say("翡翠城7栋2单元着火了，楼道里全是烟")
    assert "9栋" in "".join(talk.say("不对，是9栋"))
    assert len(talk.outcome.tickets) == 1
    text = last_ticket(talk)["location"]["text"]
    assert "9栋" in text and "7栋" not in text


def test_what_joins_two_matters_belongs_to_neither(talk: Conversation) -> None:
    talk.say("还有个事，楼道里的灯全不亮，另外下水道堵了一个星期没人通")
    talk.say("分开登记")
    card = "".join(talk.say("翡翠城3栋"))
    assert "〔诉求〕楼道里的灯全不亮" in card and "〔诉求〕下水道堵了" in card and "不亮，" not in card


def test_place_told_while_the_split_is_asked_is_kept_for_all(talk: Conversation) -> None:
    talk.say("三个事 第一个路灯坏了，第二个楼下烧烤摊油烟熏人，第三个下水道堵了")
    talk.say("翡翠城3栋")
    assert "请核对" in "".join(talk.say("都要"))
    talk.say("确认提交")
    assert len(talk.outcome.tickets) == 3
    assert all("翡翠城" in talk.ticket(ticket["ticket_number"])["location"]["text"] for ticket in talk.outcome.tickets)


# -- corrections ------------------------------------------------------------------------------------------------------


def test_not_this_but_that_exchanges_the_building(talk: Conversation) -> None:
    talk.say("楼道里的声控灯全坏了，清江浦区锦绣花园3栋")
    card = "".join(talk.say("不是3栋，是8栋"))
    assert "锦绣花园8栋" in card
    assert "〔地点〕清江浦区锦绣花园3栋" not in card


@pytest.mark.parametrize(
    ("said", "place"),
    [("不对，是南门", "锦绣花园南门"), ("错了，是东北门", "锦绣花园东北门"), ("说错了 应该是西门。", "锦绣花园西门"), ("不是，是正门", "锦绣花园正门")],
)
def test_only_the_right_gate_is_told_and_exchanged(talk: Conversation, said: str, place: str) -> None:
    talk.say("烧烤店油烟呛死人，清江浦区锦绣花园北门")
    card = "".join(talk.say(said))
    assert f"〔地点〕清江浦区{place}" in card, card


def test_what_is_no_part_of_the_place_exchanges_nothing(talk: Conversation) -> None:
    talk.say("楼道里的声控灯全坏了，清江浦区锦绣花园3栋")
    assert "哪里要改" in "".join(talk.say("不对，是全坏了"))


def test_a_phone_number_is_no_goodbye(talk: Conversation) -> None:
    talk.say("楼道里的声控灯全坏了，清江浦区锦绣花园3栋")
    said = "".join(talk.say("那先留着吧，13900000012"))
    assert "再见" not in said and "请核对" in said


def test_a_correction_inside_the_answer_counts(talk: Conversation) -> None:
    talk.say("家里停水两天了")
    card = "".join(talk.say("桂花新村8号楼。不对，3号楼"))
    assert re.search(r"〔地点〕桂花新村 ?3号楼", card), card


def test_urgency_and_place_may_be_changed_on_the_card(talk: Conversation) -> None:
    talk.say(STREET_LIGHT)
    assert "哪里要改" in "".join(talk.say("修改"))
    assert "〔地点〕健康西路" in "".join(talk.say("地点是健康西路"))


def test_a_digression_is_answered_and_the_form_goes_on(talk: Conversation) -> None:
    talk.say("家里停水两天了")
    replies = talk.say("你们几点下班啊")
    assert re.search(r"全天|24 ?小时", replies[0])
    assert "停水" in replies[-1] and "位置" in replies[-1]


# -- buttons ----------------------------------------------------------------------------------------------------------


def test_buttons_say_what_a_tap_sends(live: Runner) -> None:
    message = post(live, sender=uuid.uuid4().hex, text=STREET_LIGHT).json()["messages"][-1]
    assert [button["title"] for button in message["buttons"]] == ["确认提交", "修改", "匿名提交"]
    assert all(button["payload"] == button["title"] for button in message["buttons"])


def test_buttons_of_two_appeals(talk: Conversation) -> None:
    talk.say("水渡口大道路灯坏了一大半，还有菜场门口的垃圾三四天没人拉了")
    assert talk.buttons == ["分开登记", "合成一件"]


def test_buttons_of_progress(talk: Conversation) -> None:
    talk.say(STREET_LIGHT)
    answer_questions(talk, {"phone": "13900009001"})
    talk.say("进度")
    assert talk.buttons == ["补充情况", "催办", "撤回"]


def test_anonymous_button_files_without_a_name(talk: Conversation) -> None:
    talk.say("我叫王小明，" + STREET_LIGHT)
    talk.say("匿名提交")
    reporter = last_ticket(talk)["reporter"]
    assert reporter["anonymous"] and reporter["name"] is None and reporter["phone"] is None


def test_phone_left_after_filing_reaches_the_ticket(talk: Conversation) -> None:
    talk.say(STREET_LIGHT)
    talk.say("确认提交")
    talk.say("13900009002，我姓李")
    assert last_ticket(talk)["reporter"]["phone"] == "13900009002"


def test_whistle_blower_stays_unknown_to_dispatch(talk: Conversation, live: Runner) -> None:
    talk.say("我是里面的工人，13900009003，举报淮安区振兴路宏源化工半夜往河里偷排，千万别让厂里知道")
    answer_questions(talk, {"location": "淮安区振兴路宏源化工", "when": "半夜", "phone": "不留", "other": "没有了"})
    ticket = last_ticket(talk)
    assert ticket["reporter"] == {"name": None, "phone": None, "anonymous": ticket["reporter"]["anonymous"], "confidential": True}
    assert "13900009003" not in str(ticket)


# -- limits and broken input ------------------------------------------------------------------------------------------


def test_longest_message_is_taken_and_a_longer_one_refused_plainly(live: Runner) -> None:
    sender = uuid.uuid4().hex
    text = (STREET_LIGHT + "。") * 400
    assert post(live, sender=sender, text=text[:4000]).status_code == 200
    refused = post(live, sender=sender, text=text[:4001])
    assert 400 <= refused.status_code < 500 and refused.json()["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b'"text"', b"\xff\xfe", b'{"text":"\xe4\xbd\xa0"}', b'{"sender":"","text":"a"}', b'{"sender":"a","text":7}',
     b'{"sender":["a"],"text":"a"}', b'{"sender":"a","text":"a","location":{"lat":"x","lng":1}}', b"[" * 100_000],
)  # fmt: skip
def test_broken_request_is_refused_plainly(live: Runner, body: bytes) -> None:
    answer = requests.post(f"{live.url}/api/chat", data=body, headers={"Content-Type": "application/json"}, timeout=10)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]


def test_oversized_body_is_refused(live: Runner) -> None:
    answer = requests.post(f"{live.url}/api/chat", data=b" " * 600_000, headers={"Content-Type": "application/json"}, timeout=10)
    assert answer.status_code == 413


@pytest.mark.parametrize("text", ["", "   ", "。。。", "？？？", "😀😀", "\u200b", "/restart", "/report_problem", "/session_start{}"])
def test_message_without_words_or_with_a_command_gets_a_plain_answer(talk: Conversation, text: str) -> None:
    replies = talk.say(text)
    assert replies and all(replies)
    assert talk.outcome.tickets == []


# -- odd writing ------------------------------------------------------------------------------------------------------


def test_traditional_characters(talk: Conversation) -> None:
    talk.say("清江浦區水渡口大道的路燈壞了三盞，晚上看不見路")
    answer_questions(talk, {"location": "清江浦區水渡口大道", "phone": "13900009004"})
    ticket = last_ticket(talk)
    assert ticket["category"]["path"][0] == "城乡建设"
    assert ticket["location"]["district"] == "清江浦区"


def test_full_width_digits_in_place_phone_and_ticket_number(talk: Conversation) -> None:
    talk.say("楼道里的声控灯全坏了，清江浦区锦绣花园３栋")
    talk.say("确认提交")
    talk.say("１３９００００９００５")
    ticket = last_ticket(talk)
    assert ticket["reporter"]["phone"] == "13900009005"
    number = ticket["ticket_number"].translate({ord(str(digit)): chr(0xFF10 + digit) for digit in range(10)})
    assert ticket["ticket_number"] in "".join(talk.say(f"查一下 {number} 的进度"))


def test_rambling_without_punctuation(talk: Conversation) -> None:
    talk.say("喂你好那个就是我们家楼下那个那个窨井啊盖子没有了哎呀晚上黑我老伴差点踩进去嘛就是说能不能来个人给它盖上")
    answer_questions(talk, {"location": "清江浦区健康西路东风小区2号楼楼下", "phone": "13900009006", "other": "没有了"})
    ticket = last_ticket(talk)
    assert ticket["category"]["path"][0] == "城乡建设"
    assert ticket["urgency"] == "紧急"
    assert "东风小区" in ticket["location"]["text"]


def test_spoken_phone_number(talk: Conversation) -> None:
    talk.say(STREET_LIGHT)
    talk.say("确认提交")
    talk.say("幺三九零零零零九零零七")
    assert last_ticket(talk)["reporter"]["phone"] == "13900009007"


def test_markup_and_braces_are_only_words(talk: Conversation) -> None:
    talk.say("清江浦区水渡口大道路灯坏了 <b>{number}</b> {echo} {{x}} %s")
    talk.say("确认提交")
    assert "{number}" in last_ticket(talk)["description"]


def test_unknown_code_is_welcomed_all_the_same(talk: Conversation) -> None:
    assert talk.say({"text": "", "scene": "../../etc/passwd"})
    assert talk.outcome.tickets == []


# -- what people really say -------------------------------------------------------------------------------------------


def test_cry_at_the_end_of_a_complaint_is_heard(talk: Conversation) -> None:
    first = talk.say("楼上漏水把我家天花板泡了，找了物业好几次都不管，我都快崩溃了不想活了")
    assert "110" in first_sentence(first) or "120" in first_sentence(first)
    assert talk.outcome.tickets[-1]["emergency"]


def test_words_before_the_matter_are_no_matter_of_their_own(talk: Conversation) -> None:
    talk.say("那个 你们能不能顺便管管我们楼下烧烤摊 烟呛得窗户都不敢开")
    assert "分开登记" not in talk.buttons


def test_praise_is_not_taken_for_a_wish(talk: Conversation) -> None:
    talk.say("我想表扬一下公交8路的司机师傅，昨天帮我把轮椅抬上车")
    talk.say("确认提交")
    assert (last_ticket(talk)["kind"], last_ticket(talk)["request_type"]) == ("appeal", "表扬")


def test_who_insists_on_filing_is_asked_no_more(talk: Conversation) -> None:
    assert "多少钱" in "".join(talk.say("我在饭店端盘子，老板欠我一个月工资不给，清江浦区淮海南路老码头饭店"))
    assert "请核对" in "".join(talk.say("提交"))
    talk.say("确认提交")
    assert talk.outcome.tickets


def test_supplement_is_kept_however_it_sounds(talk: Conversation) -> None:
    talk.say(STREET_LIGHT)
    answer_questions(talk, {"phone": "13900009011"})
    talk.say("补充情况")
    assert last_ticket(talk)["ticket_number"] in "".join(talk.say("旁边还有个大坑"))


def test_bribery_goes_to_discipline_inspection_whatever_else_it_mentions(talk: Conversation) -> None:
    talk.say("我要举报柳树湾街道办主任收人家钱安排低保，能不能别让人知道是我说的")
    talk.say("确认提交")
    ticket = last_ticket(talk)
    assert ticket["category"]["path"][0] == "纪检监察" and ticket["reporter"]["confidential"]
