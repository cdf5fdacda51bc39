"""News of a ticket reaches a WeChat resident by the best way open, once: the whole service between platform and dispatch."""
from __future__ import annotations

import time
from collections import deque
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from bot import wechat_http, wechat_notify
from bot.db import iso, transaction
from bot.schema import notices, wechat_notifications, wechat_subscriptions
from bot.services import utc_now
from bot.settings import SettingsError
from bot.ticket import RATINGS
from bot.wechat_notify import fit, parse_template
from tests.wechat_channel import ACCOUNT, ScriptedAssistant, wait_until
from tests.wechat_platform import RESIDENT, Platform, _is_valid
from tests.wechat_service import PUBLIC_URL, Service, StartService

pytest_plugins = ("tests.wechat_service",)

KEYS = "number=character_string1 matter=thing2 status=phrase3 time=time4"
TEMPLATE = f"T-progress {KEYS}"
SUBSCRIPTION = "S-progress number=character_string5 status=phrase6"


@pytest.fixture
def service(start_service: StartService) -> Service:
    return start_with(start_service, WECHAT_TEMPLATE=TEMPLATE)


def start_with(start_service: StartService, **settings: str) -> Service:
    service = start_service(ScriptedAssistant(), **settings)
    service.platform.templates = {
        "T-progress": {"character_string1", "thing2", "phrase3", "time4"},
        "S-progress": {"character_string5", "phrase6"},
    }
    assert service.say("你好") == "收到：你好"
    return service


def settle(service: Service) -> None:
    """Some rounds of the threads, so that one message too many would show."""
    time.sleep(0.6)


def subscribe(service: Service, choice: str = "accept") -> None:
    item = {"TemplateId": "S-progress", "SubscribeStatusString": choice, "PopupScene": "1"}
    before = len(service.table(wechat_subscriptions))
    service.send(ACCOUNT.event("subscribe_msg_popup_event", SubscribeMsgPopupEvent={"List": item}))
    assert len(service.table(wechat_subscriptions)) >= max(before, 1)
    if choice == "accept":
        service.platform.subscribed.add((RESIDENT, "S-progress"))


def values(notification: dict[str, Any]) -> dict[str, str]:
    return {key: value["value"] for key, value in notification["data"].items()}


def test_inside_the_window_it_is_a_message_with_the_link(service: Service) -> None:
    ticket = service.file()
    service.move(ticket, "accepted")
    link = service.services.tickets.link(ticket.number, PUBLIC_URL)
    (text,) = service.platform.wait_for_sends(1)
    assert "市城管局已签收" in text and text.endswith(f"\n办理情况：{link}")
    settle(service)
    assert len(service.platform.sends) == 1 and service.platform.notifications == [] and service.waiting() == []
    assert service.say("谢谢") == "收到：谢谢"


@pytest.mark.parametrize(
    ("status", "word"),
    [("accepted", "已签收"), ("in_progress", "办理中"), ("replied", "已答复"), ("returned", "重新派单中"), ("rejected", "不予受理"), ("extended", "已延期")],
)
def test_after_the_window_it_is_a_template_message(service: Service, status: str, word: str) -> None:
    ticket = service.file("桂花新村8号楼的路灯坏了，晚上黑漆漆的，老人孩子都不敢出门，希望早点来修")
    service.leave()
    service.move(ticket, status)
    wait_until(lambda: len(service.platform.notifications) == 1)
    settle(service)
    (sent,) = service.platform.notifications
    told = values(sent)
    assert (told["character_string1"], told["phrase3"]) == (ticket.number, word)
    assert len(told["thing2"]) <= 20 and told["thing2"].rstrip("…") in ticket.title and "年" in told["time4"]
    assert sent["touser"] == RESIDENT and sent["url"] == service.services.tickets.link(ticket.number, PUBLIC_URL)
    assert service.platform.sends == [] and service.waiting() == [] and service.say("在吗") == "收到：在吗", "heard once"


@pytest.mark.parametrize("errcode", [45047, 45015, 43101, 43004, 43019])
def test_a_message_the_platform_does_not_take_becomes_a_template_message(service: Service, errcode: int) -> None:
    service.platform.errcodes.append(errcode)
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.platform.notifications) == 1)
    settle(service)
    assert len(service.platform.notifications) == 1 and service.platform.attempts == 1 and service.waiting() == []


@pytest.mark.parametrize("errcode", [43101, 43004, 43019, 47003])
def test_a_refused_template_message_waits_for_the_next_contact(service: Service, errcode: int) -> None:
    service.leave()
    service.platform.refuse["template"] = deque([errcode])
    service.move(service.file(), "accepted")
    wait_until(lambda: service.platform.notification_attempts == 1)
    settle(service)
    assert service.platform.notification_attempts == 1 and service.platform.notifications == [], "not tried again"
    heard = service.hear("在吗")
    assert heard.count("已签收") == 1 and heard.endswith("收到：在吗") and service.hear("在吗").strip() == "收到：在吗"


@pytest.mark.parametrize("errcode", [45009, 45011, 48001, 40037])
def test_what_is_refused_to_the_whole_account_uses_up_nobodys_try(service: Service, monkeypatch: pytest.MonkeyPatch, errcode: int) -> None:
    monkeypatch.setattr(wechat_notify, "_REST_SECONDS", 1.0)
    service.leave()
    service.platform.refuse["template"] = deque([errcode])
    for _ in range(3):
        service.move(service.file(), "accepted")
    wait_until(lambda: service.platform.notification_attempts == 1)
    settle(service)
    assert service.platform.notification_attempts == 1, "asked once for all three"
    wait_until(lambda: len(service.platform.notifications) == 3)
    settle(service)
    assert service.platform.notification_attempts == 4 and service.waiting() == []


def test_a_way_closed_to_the_account_leaves_the_other_one_open(start_service: StartService) -> None:
    service = start_with(start_service, WECHAT_TEMPLATE=TEMPLATE, WECHAT_SUBSCRIPTION=SUBSCRIPTION)
    subscribe(service)
    service.leave()
    service.platform.refuse["subscription"] = deque([48001])
    for _ in range(2):
        service.move(service.file(), "accepted")
    wait_until(lambda: len(service.platform.notifications) == 2)
    settle(service)
    assert [sent["kind"] for sent in service.platform.notifications] == ["template"] * 2
    assert service.platform.notification_attempts == 3 and service.waiting() == []


def test_a_refused_person_is_not_asked_again_because_the_other_way_is_closed(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wechat_notify, "_REST_SECONDS", 0.3)
    service = start_with(start_service, WECHAT_TEMPLATE=TEMPLATE, WECHAT_SUBSCRIPTION=SUBSCRIPTION)
    subscribe(service)
    service.leave()
    service.platform.refuse = {"subscription": deque([48001]), "template": deque([43004])}
    service.move(service.file(), "accepted")
    wait_until(lambda: service.platform.notification_attempts == 2)
    settle(service)
    settle(service)
    assert service.platform.notification_attempts == 2 and "已签收" in service.hear("在吗")


def test_refused_template_messages_leave_customer_service_messages_alone(service: Service) -> None:
    service.leave()
    service.platform.refuse["template"] = deque([48001])
    service.move(service.file(), "accepted")
    wait_until(lambda: service.platform.notification_attempts == 1 and len(service.waiting()) == 1)
    service.say("在吗")
    service.move(service.file(), "accepted")
    assert len(service.platform.wait_for_sends(1)) == 1


def test_without_a_template_it_waits(start_service: StartService) -> None:
    service = start_with(start_service)
    service.leave()
    service.move(service.file(), "accepted")
    settle(service)
    assert service.platform.attempts == service.platform.notification_attempts == 0
    assert "已签收" in service.hear("在吗")


def test_who_subscribed_gets_the_subscription_notification(start_service: StartService) -> None:
    service = start_with(start_service, WECHAT_TEMPLATE=TEMPLATE, WECHAT_SUBSCRIPTION=SUBSCRIPTION)
    subscribe(service)
    ticket = service.file()
    service.leave()
    service.move(ticket, "accepted")
    wait_until(lambda: len(service.platform.notifications) == 1)
    (sent,) = service.platform.notifications
    assert sent["kind"] == "subscription" and values(sent) == {"character_string5": ticket.number, "phrase6": "已签收"}
    assert sent["page"] == service.services.tickets.link(ticket.number, PUBLIC_URL)


@pytest.mark.parametrize("choice", ["reject", None])
def test_who_did_not_subscribe_gets_the_template_message(start_service: StartService, choice: str | None) -> None:
    service = start_with(start_service, WECHAT_TEMPLATE=TEMPLATE, WECHAT_SUBSCRIPTION=SUBSCRIPTION)
    if choice:
        subscribe(service, choice)
    service.leave()
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.platform.notifications) == 1)
    assert [sent["kind"] for sent in service.platform.notifications] == ["template"] and service.platform.notification_attempts == 1


def test_a_used_up_subscription_gives_way_to_the_template_message_and_is_left_alone(start_service: StartService) -> None:
    service = start_with(start_service, WECHAT_TEMPLATE=TEMPLATE, WECHAT_SUBSCRIPTION=SUBSCRIPTION)
    subscribe(service)
    service.platform.subscribed.clear()
    service.leave()
    for number in (1, 2):
        service.move(service.file(), "accepted")
        wait_until(lambda number=number: len(service.platform.notifications) == number)  # type: ignore[misc]
    assert [sent["kind"] for sent in service.platform.notifications] == ["template"] * 2
    assert service.platform.notification_attempts == 3, "refused once, then not tried before they subscribe again"
    subscribe(service)
    service.leave()
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.platform.notifications) == 3)
    assert service.platform.notifications[-1]["kind"] == "subscription"


@pytest.mark.parametrize("status", ["failed:user block", "failed: system failed"])
def test_what_did_not_arrive_is_written_down_and_said_at_the_next_contact(service: Service, status: str) -> None:
    service.leave()
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.table(wechat_notifications)) == 1)
    (row,) = service.table(wechat_notifications)
    report = ACCOUNT.event("TEMPLATESENDJOBFINISH", MsgID=row.message_id, Status=status)
    assert service.send(report) is None
    assert [found.result for found in service.table(wechat_notifications)] == [status]
    settle(service)
    assert service.platform.notification_attempts == 1
    assert "已签收" in service.hear("在吗")
    service.send(report)
    assert service.say("在吗") == "收到：在吗", "a report that comes again changes nothing"


def test_what_arrived_is_written_down(service: Service) -> None:
    service.leave()
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.table(wechat_notifications)) == 1)
    (row,) = service.table(wechat_notifications)
    service.send(ACCOUNT.event("TEMPLATESENDJOBFINISH", MsgID=row.message_id, Status="success"))
    assert [found.result for found in service.table(wechat_notifications)] == ["success"] and service.waiting() == []
    service.send(ACCOUNT.event("TEMPLATESENDJOBFINISH", MsgID="999", Status="failed:user block"))
    assert service.waiting() == [], "somebody else's report"


def test_reports_of_messages_that_another_program_sent_are_dropped_after_an_hour(service: Service) -> None:
    def report(message_id: str) -> None:
        service.send(ACCOUNT.event("TEMPLATESENDJOBFINISH", MsgID=message_id, Status="success"))

    service.leave()
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.table(wechat_notifications)) == 1)
    (mine,) = service.table(wechat_notifications)
    report("998")
    long_ago = iso(utc_now() - timedelta(minutes=61))
    with transaction(service.services.engine) as connection:
        connection.execute(update(wechat_notifications).values(at=long_ago))
    report("999")
    assert {row.message_id for row in service.table(wechat_notifications)} == {mine.message_id, "999"}


def test_a_report_that_comes_before_the_call_returns_counts(service: Service) -> None:
    service.leave()
    service.platform.delay = 1.0
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.platform.notifications) == 1)
    message_id = str(2_400_000_000 + service.platform._serial)
    service.send(ACCOUNT.event("TEMPLATESENDJOBFINISH", MsgID=message_id, Status="failed:user block"))
    assert service.waiting() == []
    wait_until(lambda: len(service.waiting()) == 1)


def test_a_call_that_may_have_worked_is_not_made_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wechat_http, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(wechat_notify, "_PAUSE_SECONDS", 0.1)
    service.leave()
    service.platform.delay = 0.8
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.platform.notifications) == 1)
    time.sleep(1.5)
    assert service.platform.notification_attempts == 1 and service.say("在吗") == "收到：在吗"


def test_a_busy_platform_is_asked_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wechat_notify, "_PAUSE_SECONDS", 0.2)
    service.leave()
    service.platform.refuse["template"] = deque([-1, -1])
    service.move(service.file(), "accepted")
    wait_until(lambda: len(service.platform.notifications) == 1)
    settle(service)
    assert service.platform.notification_attempts == 3 and service.waiting() == []


def test_two_processes_notify_once(service: Service, start_service: StartService) -> None:
    start_service(ScriptedAssistant(), WECHAT_TEMPLATE=TEMPLATE)
    service.leave()
    for _ in range(5):
        service.move(service.file(), "accepted")
    wait_until(lambda: len(service.platform.notifications) == 5)
    settle(service)
    assert service.platform.notification_attempts == 5
    assert len({sent["client_msg_id"] for sent in service.platform.notifications}) == 5


def test_who_unsubscribed_hears_nothing(service: Service) -> None:
    ticket = service.file()
    service.send(ACCOUNT.event("unsubscribe"))
    service.move(ticket, "accepted")
    settle(service)
    assert service.platform.attempts == service.platform.notification_attempts == 0 and len(service.waiting()) == 1


def test_a_childs_matter_does_not_show_on_a_locked_phone(service: Service) -> None:
    ticket = service.file("孩子在学校被同学打了", kind="minor")
    service.leave()
    service.move(ticket, "accepted")
    wait_until(lambda: len(service.platform.notifications) == 1)
    assert values(service.platform.notifications[0])["thing2"] == "您反映的一件事"


def test_of_a_closed_ticket_the_state_is_notified_and_the_answer_waits_with_the_question(service: Service) -> None:
    ticket = service.file()
    service.leave()
    service.move(ticket, "closed", "灯已换好")
    wait_until(lambda: len(service.platform.notifications) == 1)
    settle(service)
    assert service.platform.notification_attempts == 1 and values(service.platform.notifications[0])["phrase3"] == "已办结"
    heard = service.hear("在吗")
    assert ticket.number in heard and "灯已换好" in heard, "a notification has no room for the answer"
    assert all(words in heard for words in RATINGS.values()), "numbered in a passive reply, taps of a menu in a push"
    assert service.say("在吗") == "收到：在吗"
    (row,) = service.table(notices)
    assert row.asks and row.delivered_at


@pytest.mark.parametrize(
    ("key", "value", "fitted"),
    [
        ("thing2", "路灯坏了", "路灯坏了"),
        ("thing2", "字" * 21, "字" * 19 + "…"),
        ("thing2", "路灯坏了\n三天了🙏", "路灯坏了 三天了"),
        ("character_string1", "20261128-0001", "20261128-0001"),
        ("character_string1", "单号 2026" + "1" * 40, "2026" + "1" * 28),
        ("phrase3", "重新派单中", "重新派单中"),
        ("phrase3", "已办结！OK", "已办结"),
        ("time4", "2026年11月28日 09:40", "2026年11月28日 09:40"),
        ("short_thing5", "字" * 11, "字" * 9 + "…"),
    ],
)
def test_values_fit_what_their_key_admits(key: str, value: str, fitted: str) -> None:
    assert fit(key, value) == fitted
    assert key == "short_thing5" or _is_valid(key, {"value": fitted})


@pytest.mark.parametrize(
    "setting", ["T-1", "number=character_string1", "T-1 colour=thing1", "T-1 number", "T-1 number=phrase1", "T-1 status=phrase", "T-1 matter=keyword1"]
)
def test_a_template_that_cannot_work_stops_the_start(setting: str, start_service: StartService) -> None:
    with pytest.raises(SettingsError, match="MINSHENG_WECHAT_TEMPLATE"):
        start_service(ScriptedAssistant(), WECHAT_TEMPLATE=setting)


def test_no_template_is_no_mistake() -> None:
    assert parse_template("WECHAT_TEMPLATE", "  ", "/") is None


def test_nothing_of_the_resident_stands_in_the_log(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    service.leave()
    service.platform.refuse["template"] = deque([47003])
    service.move(service.file(), "accepted")
    wait_until(lambda: service.platform.notification_attempts == 1)
    settle(service)
    assert "template/send refused with 47003" in caplog.text
    assert RESIDENT not in caplog.text and "TOKEN-" not in caplog.text and "路灯" not in caplog.text


def test_the_platform_of_the_tests_checks_values() -> None:
    platform = Platform(templates={"T": {"thing1"}})
    assert platform._notification_refusal("template", {"template_id": "T", "data": {"thing1": {"value": "字" * 21}}}) == 47003
    assert platform._notification_refusal("template", {"template_id": "T", "data": {"thing1": {"value": "字"}}}) == 0
