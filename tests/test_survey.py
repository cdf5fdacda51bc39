"""How a closed ticket was handled, asked once: taps, numbers and words through the whole service with the trained model."""
from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

import pytest
import requests

from bot.schema import conversations, outbox, surveys
from bot.survey import FOREIGN, MENU_PREFIX
from bot.ticket import RATINGS, Ticket
from tests.wechat_channel import ACCOUNT, ScriptedAssistant, wait_until
from tests.wechat_platform import RESIDENT
from tests.wechat_service import NEIGHBOUR, PUBLIC_URL, Service, StartService

if TYPE_CHECKING:
    from bot.embedded import EmbeddedAssistant

pytest_plugins = ("tests.wechat_service",)

LABELS = list(RATINGS.values())


@pytest.fixture
def service(start_service: StartService, assistant: EmbeddedAssistant) -> Service:
    return start_service(assistant)


@pytest.fixture
def silent(start_service: StartService, assistant: EmbeddedAssistant) -> Service:
    """An account that may not push: what waits is said with the next answer, and by no thread before it."""
    return start_service(assistant, WECHAT_APP_SECRET="")


def close(service: Service, ticket: Ticket, note: str = "灯已换好") -> None:
    service.move(ticket, "closed", note)


def ask(service: Service) -> Ticket:
    """A closed ticket whose resident has the menu before them."""
    service.say("你好")
    ticket = service.file()
    close(service, ticket)
    wait_until(lambda: len(service.platform.menus()) == 1)
    return ticket


def tap(service: Service, ticket: Ticket, score: int, *, openid: str = RESIDENT) -> str:
    return service.say(RATINGS[score], openid=openid, bizmsgmenuid=f"{MENU_PREFIX}{ticket.number}:{score}") or ""


def score_of(service: Service, ticket: Ticket) -> int | None:
    return next(row.score for row in service.table(surveys) if row.ticket_number == ticket.number)


def deliveries(service: Service, ticket: Ticket) -> list[str]:
    """Notes of what dispatch was told after filing."""
    rows = [row for row in service.table(outbox) if row.ticket_number == ticket.number and row.type == "ticket.updated"]
    return [service.services.vault.open(row.body)["data"]["note"] for row in rows]


# -- asked, once ------------------------------------------------------------------------------------------------------


def test_a_closed_ticket_is_asked_about_as_a_menu(service: Service) -> None:
    ticket = ask(service)
    time.sleep(0.5)
    (menu,) = service.platform.menus()
    assert len(service.platform.sends) == 1 and "灯已换好" in menu["head_content"] and "这次办得怎么样" in menu["head_content"]
    assert [item["content"] for item in menu["list"]] == LABELS and "回复数字" not in menu["head_content"]
    assert [item["id"] for item in menu["list"]] == [f"sat:{ticket.number}:{score}" for score in (5, 4, 3, 2, 1)]
    assert menu["tail_content"] == f"办理情况：{service.services.tickets.link(ticket.number, PUBLIC_URL)}"
    assert service.platform.notifications == [] and service.waiting() == []


def test_a_ticket_closed_again_is_not_asked_about_again(service: Service) -> None:
    ticket = ask(service)
    close(service, ticket, "又看了一遍")
    assert len(service.platform.wait_for_sends(2)) == 2
    assert len(service.platform.menus()) == 1 and "办得怎么样" not in service.platform.texts()[1]


def test_who_rated_the_reply_is_not_asked_again(service: Service) -> None:
    service.say("你好")
    ticket = service.file()
    service.services.tickets.rate(ticket.number, satisfied=True, note="满意，路平多了")
    close(service, ticket)
    (text,) = service.platform.wait_for_sends(1)
    assert "已办结" in text and "办得怎么样" not in text and service.table(surveys) == []


@pytest.mark.parametrize("errcode", [40200, 45098])
def test_an_account_without_menus_asks_by_number(service: Service, errcode: int) -> None:
    service.platform.refuse["msgmenu"] = deque([errcode])
    service.say("你好")
    ticket = service.file()
    close(service, ticket)
    (text,) = service.platform.wait_for_sends(1)
    assert "1 非常满意，2 满意，3 基本满意，4 不满意，5 非常不满意" in text and service.platform.menus() == []
    assert "基本满意" in (service.say("３") or "") and score_of(service, ticket) == 3


def test_a_long_answer_is_told_whole_and_asked_about_by_number(service: Service) -> None:
    service.say("你好")
    ticket = service.file()
    close(service, ticket, "灯" * 1200)
    told = "".join(service.platform.wait_for_sends(2))
    assert told.count("灯") == 1201 and "5 非常不满意" in told and service.platform.menus() == []


# -- a tap ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [5, 4, 3])
def test_a_good_mark_is_thanked_for_passively_and_stands_on_the_timeline(service: Service, score: int) -> None:
    ticket = ask(service)
    answer = tap(service, ticket, score)
    assert answer.startswith("谢谢您的评价") and ticket.title in answer and RATINGS[score] in answer
    assert service.kinds(ticket) == [("rated", RATINGS[score])] and score_of(service, ticket) == score
    time.sleep(0.4)
    assert len(service.platform.sends) == 1, "no customer-service message was needed for the thanks"


def test_a_tap_means_its_ticket_whatever_was_said_in_between(service: Service) -> None:
    first = ask(service)
    second = service.file("水岸花园门口的井盖丢了")
    close(service, second, "已补上")
    wait_until(lambda: len(service.platform.menus()) == 2)
    for words in ("查进度", "谢谢"):
        service.say(words)
    assert first.title in tap(service, first, 4) and second.title in tap(service, second, 1)
    assert (score_of(service, first), score_of(service, second)) == (4, 1)


def test_a_tap_while_writing_another_appeal_loses_nothing(service: Service) -> None:
    ticket = ask(service)
    assert "哪" in (service.say("我家门口的井盖丢了，很危险") or "")
    answer = tap(service, ticket, 1)
    assert "对不起" in answer and "哪里没办好" not in answer, "the next words belong to the appeal"
    assert "井盖" in (service.say("清江浦区桂花新村3号楼") or "") and service.kinds(ticket) == [("rated", "非常不满意")]


def test_the_first_answer_counts(service: Service) -> None:
    ticket = ask(service)
    tap(service, ticket, 4)
    answer = tap(service, ticket, 1)
    assert "已经评过“满意”" in answer and service.kinds(ticket) == [("rated", "满意")] and score_of(service, ticket) == 4


def test_the_platforms_retry_of_a_tap_is_one_tap(service: Service) -> None:
    ticket = ask(service)
    message = ACCOUNT.text("满意", bizmsgmenuid=f"sat:{ticket.number}:4")
    said = [service.send(message) for _ in range(3)]
    assert len(set(said)) == 1 and "谢谢您的评价" in (said[0] or "")


def test_taps_at_the_same_moment_leave_one_mark(service: Service) -> None:
    ticket = ask(service)
    answers: list[str] = []
    threads = [threading.Thread(target=lambda score=score: answers.append(tap(service, ticket, score))) for score in RATINGS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 5 and len(service.kinds(ticket)) == 1
    # One answer may carry the words of another that was ready first.
    assert "".join(answers).count("已经评过") == 4 and RATINGS[score_of(service, ticket) or 0] in service.kinds(ticket)[0]


@pytest.mark.parametrize("menu_id", ["sat:20200101-0001:5", "sat::5", "sat:{}:0", "sat:{}:6", "sat:{}:5:5", "sat:", "sat:{}", "sat:'; DROP:5"])
def test_a_menu_id_that_fits_nothing_is_harmless(service: Service, menu_id: str) -> None:
    ticket = ask(service)
    assert service.say("满意", bizmsgmenuid=menu_id.format(ticket.number)) == FOREIGN
    assert service.kinds(ticket) == [] and score_of(service, ticket) is None
    assert "谢谢您的评价" in tap(service, ticket, 5)


def test_only_the_owner_may_rate(service: Service) -> None:
    ticket = ask(service)
    assert tap(service, ticket, 1, openid=NEIGHBOUR) == FOREIGN and service.kinds(ticket) == []


def test_a_ticket_that_was_not_asked_about_cannot_be_rated_by_menu_id(service: Service) -> None:
    service.say("你好")
    ticket = service.file()
    assert tap(service, ticket, 5) == FOREIGN and service.kinds(ticket) == []


def test_other_menus_are_words_as_before(service: Service) -> None:
    ticket = ask(service)
    assert "谢谢您的评价" in (service.say("满意", bizmsgmenuid="101") or "") and score_of(service, ticket) == 4


# -- what was not right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [2, 1])
def test_a_bad_mark_asks_one_thing_and_the_answer_goes_to_the_ticket(service: Service, score: int) -> None:
    ticket = ask(service)
    answer = tap(service, ticket, score)
    assert "对不起" in answer and answer.count("？") == 1 and "哪里没办好" in answer
    answer = service.say("换上去的灯两天又不亮了") or ""
    assert "记下了" in answer and ticket.number in answer
    assert service.kinds(ticket) == [("rated", RATINGS[score]), ("feedback", "换上去的灯两天又不亮了")]
    assert deliveries(service, ticket) == ["居民评价时说没办好的地方：换上去的灯两天又不亮了"]
    service.say("谢谢")
    assert len(service.kinds(ticket)) == 2


def test_what_an_anonymous_resident_says_is_masked_for_dispatch(service: Service) -> None:
    service.say("你好")
    ticket = service.file(anonymous=True)
    close(service, ticket)
    wait_until(lambda: len(service.platform.menus()) == 1)
    tap(service, ticket, 2)
    service.say("根本没来人，打我电话13912345678也没人打")
    assert service.kinds(ticket)[1][0] == "feedback" and "13912345678" not in deliveries(service, ticket)[0]


@pytest.mark.parametrize("words", ["没有", "算了", "不说了"])
def test_nobody_has_to_say_why(service: Service, words: str) -> None:
    ticket = ask(service)
    tap(service, ticket, 2)
    assert "不说也行" in (service.say(words) or "") and service.kinds(ticket) == [("rated", "不满意")]


@pytest.mark.parametrize(("words", "said"), [("查进度", "已办结"), ("转人工", "人工")])
def test_a_command_is_no_reason(service: Service, words: str, said: str) -> None:
    ticket = ask(service)
    tap(service, ticket, 2)
    assert said in (service.say(words) or "") and service.kinds(ticket) == [("rated", "不满意")]
    service.say("桂花新村的井盖丢了")
    assert service.kinds(ticket) == [("rated", "不满意")], "only the very next words were asked for"


def test_danger_goes_before_the_survey(service: Service) -> None:
    ticket = ask(service)
    tap(service, ticket, 1)
    assert "119" in (service.say("着火了，楼里还有人，快来人救命") or "") and service.kinds(ticket) == [("rated", "非常不满意")]


def test_another_matter_becomes_another_ticket(service: Service) -> None:
    ticket = ask(service)
    tap(service, ticket, 2)
    answer = service.say("公司拖欠我三个月工资一直不发，劳动合同也不肯签") or ""
    assert "记下了，已加到" not in answer and service.kinds(ticket) == [("rated", "不满意")]


# -- numbers and words ------------------------------------------------------------------------------------------------


def test_at_the_next_contact_it_is_asked_by_number(silent: Service) -> None:
    silent.say("你好")
    ticket = silent.file()
    silent.leave()
    close(silent, ticket)
    heard = silent.say("在吗") or ""
    assert heard.index("灯已换好") < heard.index("5 非常不满意") and silent.platform.sends == []
    assert "对不起" in (silent.say("4") or "") and score_of(silent, ticket) == 2
    assert "记下了" in (silent.say("灯只亮了一晚上") or "")


@pytest.mark.parametrize("words", ["1", "１", "一", "1。", "非常满意", "“非常满意”", "非常满意！"])
def test_ways_to_write_the_best_mark(start_service: StartService, words: str) -> None:
    service = start_service(ScriptedAssistant())
    ticket = service.file(conversation=service.web_conversation())
    close(service, ticket)
    assert "1 非常满意" in service.chat("在吗")
    assert "谢谢您的评价" in service.chat(words) and score_of(service, ticket) == 5


def test_words_count_later_as_well_and_a_number_does_not(start_service: StartService) -> None:
    service = start_service(ScriptedAssistant())
    ticket = service.file(conversation=service.web_conversation())
    close(service, ticket)
    service.chat("在吗")
    service.chat("门口的路灯几点亮")
    assert service.chat("2") == "收到：2", "it may answer something else by now"
    assert "谢谢您的评价" in service.chat("基本满意") and score_of(service, ticket) == 3
    assert service.chat("满意") == "收到：满意", "nothing is asked any more"


def test_a_number_that_answers_a_question_of_the_form_is_no_mark(silent: Service) -> None:
    silent.say("我家门口的井盖丢了")
    ticket = silent.file()
    silent.leave()
    close(silent, ticket)
    silent.say("在清江浦区桂花新村")
    silent.say("2")
    assert score_of(silent, ticket) is None


def test_beside_other_choices_it_is_asked_in_words(silent: Service) -> None:
    silent.say("你好")
    closed, _ = silent.file(), silent.file("水岸花园门口的井盖丢了")
    silent.leave()
    close(silent, closed)
    heard = silent.say("井盖的事怎么样了") or ""
    assert "回复非常满意、满意、基本满意、不满意、非常不满意都行" in heard and "1 非常满意" not in heard and "1 补充情况" in heard
    assert "谢谢您的评价" in (silent.say("满意") or "") and score_of(silent, closed) == 4


def test_a_number_again_is_told_what_was_recorded(start_service: StartService) -> None:
    service = start_service(ScriptedAssistant())
    ticket = service.file(conversation=service.web_conversation())
    close(service, ticket)
    service.chat("在吗")
    assert "谢谢" in service.chat("2") and service.chat("4") == "收到：4" and score_of(service, ticket) == 4


@pytest.mark.parametrize(("words", "score"), [("满意，灯很亮", 4), ("不满意，昨天晚上又不亮了", 2), ("很不满意呀", 2)])
def test_rating_words_in_a_sentence_keep_working(silent: Service, words: str, score: int) -> None:
    silent.say("清江浦区桂花新村8号楼的路灯坏了三天了，麻烦派人修一下")
    silent.say("确认提交")
    (ticket,) = silent.services.tickets.find_of_conversation(silent.conversation())
    silent.leave()
    close(silent, ticket)
    silent.say("查进度")
    silent.say(words)
    assert score_of(silent, ticket) == score and silent.kinds(ticket) == [("rated", f"{RATINGS[score]}：{words}")]
    assert "已经评过" in tap(silent, ticket, 5)


def test_the_web_page_shows_the_question_and_takes_the_number(start_service: StartService) -> None:
    service = start_service(ScriptedAssistant(), PUBLIC_URL="")
    browser, address = requests.Session(), service.url + "/chat/messages"
    browser.headers["X-Requested-With"] = "minsheng"
    browser.get(service.url + "/chat", timeout=10)

    def say(text: str) -> str:
        answer = browser.post(address, json={"text": text, "message_id": uuid.uuid4().hex}, headers={"Origin": service.url}, timeout=10)
        return str(answer.json()["messages"][0]["text"])

    assert say("你好") == "收到：你好"
    (conversation,) = service.table(conversations)
    ticket = service.file(conversation=conversation.id)
    close(service, ticket)
    shown = browser.get(address, timeout=10).json()["items"][-1]["text"]
    assert "灯已换好" in shown and "5 非常不满意" in shown
    assert "哪里没办好" in say("5") and score_of(service, ticket) == 1
    assert "记下了" in say("没人来看过")
