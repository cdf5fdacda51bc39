"""The five seconds under pressure: order, retries without customer-service messages, bounded waiting, many processes, crashes."""
from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from bot.background import pushing
from bot.conversation import InboundMessage
from bot.db import iso, transaction
from bot.history import read_history
from bot.ordered_pool import OrderedPool
from bot.schema import inbound_messages, wechat_accounts
from bot.web import wechat as wechat_view
from bot.web.wechat import STILL_WORKING
from bot.wechat_http import WeChatError
from tests.wechat_channel import ACCOUNT, Channel, MakeChannel, wait_until
from tests.wechat_platform import RESIDENT, Platform

pytest_plugins = ("tests.wechat_channel",)


# -- compatibility mode -----------------------------------------------------------------------------------------------


def test_in_compatibility_mode_only_the_encrypted_part_counts(channel: Channel) -> None:
    """The platform sends the plain elements beside Encrypt; they are not signed, so anybody could have changed them."""
    query, body = ACCOUNT.sign_request(ACCOUNT.text("路灯坏了"))
    plain = "<FromUserName>oForged</FromUserName><MsgType>text</MsgType><Content>改过的</Content><MsgId>1</MsgId><Encrypt>"
    response = channel.http.post("/wechat", query_string=query, data=body.decode().replace("<Encrypt>", plain).encode())
    assert ACCOUNT.said(response) == "收到：路灯坏了"


def test_replayed_request_changes_nothing(channel: Channel) -> None:
    query, body = ACCOUNT.sign_request(ACCOUNT.text("路灯坏了"))
    answers = [ACCOUNT.said(channel.http.post("/wechat", query_string=query, data=body)) for _ in range(3)]
    assert answers == ["收到：路灯坏了"] * 3 and len(channel.assistant.turns) == 1 and len(channel.rows()) == 1


def test_two_residents_may_share_a_message_id(channel: Channel) -> None:
    message = ACCOUNT.text("路灯坏了")
    other = {**message, "FromUserName": "oOther", "Content": "井盖没了"}
    assert channel.heard(message) == "收到：路灯坏了"
    assert ACCOUNT.read_reply(channel.post(other).get_data(as_text=True))["Content"] == "收到：井盖没了"


# -- order ------------------------------------------------------------------------------------------------------------


def test_messages_of_a_resident_are_answered_in_the_order_they_came(make_channel: MakeChannel, platform: Platform) -> None:
    channel = make_channel(seconds=0.2)
    channel.assistant.seconds = 0.4
    platform.delay = 0.2
    texts = [f"第{number}句" for number in range(4)]
    assert [channel.say(text) for text in texts] == [None] * 4
    assert platform.wait_for_sends(4) == [f"收到：{text}" for text in texts]
    assert [turn.text for turn in channel.assistant.turns] == texts


def test_quick_answer_does_not_overtake_the_late_one_before_it(make_channel: MakeChannel, platform: Platform) -> None:
    channel = make_channel(seconds=1.5)
    platform.permitted = False
    late = InboundMessage("wechat", RESIDENT, "m1", "路灯坏了", account=ACCOUNT.name)
    channel.conversations.respond(late)  # and nobody delivered it
    message = ACCOUNT.text("还没修")
    assert [channel.heard(message) for _ in range(2)] == ["收到：路灯坏了\n\n收到：还没修"] * 2
    assert [row.delivery for row in channel.rows()] == ["passive", "passive"]
    assert make_channel().heard(message) == "收到：路灯坏了\n\n收到：还没修", "a restarted process says the same"


def test_answer_waits_while_the_one_before_is_being_pushed(make_channel: MakeChannel, platform: Platform) -> None:
    channel = make_channel(seconds=0.3)
    channel.assistant.seconds, platform.delay = 0.5, 0.5
    assert channel.say("第一句") is None
    wait_until(lambda: [row.delivery for row in channel.rows()] == ["pushing"])
    channel.assistant.seconds = 0.0
    assert channel.say("第二句") is None
    assert platform.wait_for_sends(2) == ["收到：第一句", "收到：第二句"]


def test_tasks_of_one_key_never_overlap_and_keep_their_order() -> None:
    pool, running, seen = OrderedPool(8, "test"), set[str](), list[tuple[str, int]]()

    def task(key: str, number: int) -> int:
        assert key not in running
        running.add(key)
        time.sleep(0.002)
        seen.append((key, number))
        running.remove(key)
        if number == 3:
            raise ValueError
        return number

    def submit(key: str, number: int) -> Any:
        return pool.submit(key, lambda: task(key, number))

    futures = [submit(key, number) for number in range(20) for key in "abcd"]
    assert [future.exception() and 3 or future.result() for future in futures[::4]] == list(range(20))
    for key in "abcd":
        wait_until(lambda key=key: [n for k, n in seen if k == key] == list(range(20)))


# -- accounts without customer-service messages -----------------------------------------------------------------------


@pytest.fixture
def unverified(make_channel: MakeChannel, platform: Platform) -> Channel:
    platform.permitted = False
    return make_channel(seconds=0.3, hang_up=0.5, wechat_app_secret="")


def test_platforms_own_retries_fetch_the_answer(unverified: Channel) -> None:
    unverified.assistant.may_answer.clear()
    message, started = ACCOUNT.text("路灯坏了"), time.monotonic()
    first = unverified.post(message)
    assert first.status_code == 503 and time.monotonic() - started > 0.45, "the platform has hung up by then"
    unverified.assistant.may_answer.set()
    wait_until(lambda: unverified.rows()[0].answered_at is not None)
    assert unverified.heard(message) == "收到：路灯坏了"
    assert unverified.heard(message) == "收到：路灯坏了" and len(unverified.assistant.turns) == 1


def test_answer_later_than_all_retries_comes_with_the_next_contact(unverified: Channel) -> None:
    unverified.assistant.may_answer.clear()
    message = ACCOUNT.text("路灯坏了")
    assert [unverified.post(message).status_code for _ in range(2)] == [503, 503]
    assert unverified.heard(message) == STILL_WORKING
    unverified.assistant.may_answer.set()
    wait_until(lambda: unverified.rows()[0].answered_at is not None)
    assert unverified.say("1") == "收到：路灯坏了\n\n收到：1"


def test_refused_permission_is_remembered_by_all_processes(make_channel: MakeChannel, platform: Platform) -> None:
    platform.permitted = False
    channel = make_channel(seconds=0.2, hang_up=0.3)
    channel.assistant.may_answer.clear()
    assert channel.say("路灯坏了") is None
    channel.assistant.may_answer.set()
    wait_until(lambda: channel.open_notices() == ["收到：路灯坏了"])
    assert not channel.client.can_push() and not make_channel().client.can_push()
    channel.assistant.may_answer.clear()
    second = ACCOUNT.text("在吗")
    assert channel.post(second).status_code == 503
    channel.assistant.may_answer.set()
    wait_until(lambda: channel.rows()[1].answered_at is not None)
    assert channel.heard(second) == "收到：路灯坏了\n\n收到：在吗"
    with transaction(channel.services.engine) as connection:
        connection.execute(update(wechat_accounts).values(push_refused_at="2026-01-01"))
    assert make_channel().client.can_push(), "asked again after a while"


# -- bounded waiting --------------------------------------------------------------------------------------------------


def test_retries_are_acknowledged_at_once_while_the_turn_is_slow(make_channel: MakeChannel, platform: Platform) -> None:
    channel = make_channel(seconds=0.2)
    channel.assistant.may_answer.clear()
    message = ACCOUNT.text("路灯坏了")
    assert [channel.heard(message) for _ in range(100)] == [None] * 100
    channel.assistant.may_answer.set()
    assert platform.wait_for_sends(1) == ["收到：路灯坏了"] and len(channel.assistant.turns) == 1


def test_when_every_place_is_taken_the_answer_is_pushed(
    make_channel: MakeChannel, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wechat_view, "FIRST_PLACES", 2)
    channel = make_channel(seconds=2.0)
    channel.assistant.seconds = 0.8
    messages = [{**ACCOUNT.text(f"第{n}句"), "FromUserName": f"o{n}"} for n in range(5)]

    def ask(fields: dict[str, Any]) -> tuple[str | None, float]:
        started = time.monotonic()
        reply = ACCOUNT.read_reply(channel.post(fields).get_data(as_text=True))
        return reply and reply["Content"], time.monotonic() - started

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(ask, messages))
    assert sum(text is not None for text, _ in answers) == 2
    assert max(seconds for text, seconds in answers if text is None) < 0.6
    assert len(platform.wait_for_sends(3)) == 3


def test_retries_do_not_count_against_the_rate_limit(make_channel: MakeChannel) -> None:
    asked: list[str] = []
    channel = make_channel(allow=lambda openid: not asked.append(openid) and len(asked) <= 1)
    message = ACCOUNT.text("路灯坏了")
    assert [channel.heard(message) for _ in range(5)] == ["收到：路灯坏了"] * 5 and len(asked) == 1


# -- crashes ----------------------------------------------------------------------------------------------------------


def test_messages_left_by_a_crash_are_answered_side_by_side_and_in_order(make_channel: MakeChannel, platform: Platform) -> None:
    crashed = make_channel()
    residents = [f"o{number}" for number in range(6)]
    for text in ("一", "二", "三"):
        for openid in residents:
            crashed.conversations.receive(InboundMessage("wechat", openid, f"m{text}", text, account=ACCOUNT.name))
    restarted = make_channel()
    restarted.assistant.seconds = 0.1
    started = time.monotonic()
    for _ in range(3):
        restarted.turns.resume()
    platform.wait_for_sends(18)
    assert time.monotonic() - started < 18 * 0.1 + 3
    for openid in residents:
        assert [send["text"]["content"] for send in platform.sends if send["touser"] == openid] == ["收到：一", "收到：二", "收到：三"]
    assert len(restarted.assistant.turns) == 18


def test_message_kept_by_a_newer_version_is_answered_after_a_roll_back(channel: Channel) -> None:
    channel.say("路灯坏了")
    (row,) = channel.rows()
    newer = {**channel.services.vault.open(row.body), "mood": "calm"}
    with transaction(channel.services.engine) as connection:
        connection.execute(
            update(inbound_messages).values(body=channel.services.vault.seal(newer), reply=None, answered_at=None)
        )
    ((_, message, reply),) = channel.conversations.recover(older_than=timedelta(0))
    assert message.text == "路灯坏了" and reply.messages[0].text == "收到：路灯坏了"
    assert read_history(channel.services, channel.conversation_id)[0].text == "路灯坏了"


def test_push_that_died_with_its_process_does_not_block_the_next_answers(channel: Channel, platform: Platform) -> None:
    channel.conversations.respond(InboundMessage("wechat", RESIDENT, "m1", "路灯坏了", account=ACCOUNT.name))
    with transaction(channel.services.engine) as connection:
        connection.execute(update(inbound_messages).values(delivery="pushing", delivery_at=iso(channel.services.now().replace(year=2025))))
    assert channel.say("在吗") == "收到：在吗"


@pytest.mark.parametrize("ago", [9, 21])
def test_answer_behind_a_push_that_died_comes_within_seconds(make_channel: MakeChannel, platform: Platform, ago: int) -> None:
    channel = make_channel(seconds=0.3)
    channel.conversations.respond(InboundMessage("wechat", RESIDENT, "m1", "路灯坏了", account=ACCOUNT.name))
    with transaction(channel.services.engine) as connection:
        at = iso(channel.services.now() - timedelta(seconds=ago))
        connection.execute(update(inbound_messages).values(delivery="pushing", delivery_at=at))
    said = channel.say("在吗")
    assert (said, platform.wait_for_sends(int(said is None), seconds=20 - ago + 3)) in (("收到：在吗", []), (None, ["收到：在吗"]))


def test_answer_that_a_crash_left_unsaid_is_pushed_once_the_service_is_back(make_channel: MakeChannel, platform: Platform) -> None:
    crashed = make_channel()
    for number, text in enumerate(("路灯坏了", "还没修")):
        crashed.conversations.respond(InboundMessage("wechat", RESIDENT, f"m{number}", text, account=ACCOUNT.name))
    restarted = make_channel()
    round_of_the_thread = pushing(restarted.delivery.deliver_notices)
    round_of_the_thread()
    assert platform.wait_for_sends(2) == ["收到：路灯坏了", "收到：还没修"]
    restarted.conversations.respond(InboundMessage("wechat", RESIDENT, "m3", "在吗", account=ACCOUNT.name))
    round_of_the_thread()
    assert len(platform.wait_for_sends(2)) == 2, "whoever works on it now says it"


def test_answer_that_a_crash_cut_off_is_not_overtaken(make_channel: MakeChannel, platform: Platform) -> None:
    cut_off, later = ACCOUNT.text("路灯坏了"), ACCOUNT.text("还没修")
    make_channel().heard(cut_off)  # claimed, and never arrived
    restarted = make_channel(seconds=0.3)
    assert restarted.heard(later) is None, "waits for the platform's retry"
    assert platform.texts() == [] and restarted.heard(cut_off) == "收到：路灯坏了"
    assert platform.wait_for_sends(1) == ["收到：还没修"]
    assert restarted.say("在吗") == "收到：在吗"


def test_nothing_waits_for_a_retry_that_is_over(make_channel: MakeChannel) -> None:
    channel = make_channel()
    channel.say("路灯坏了")
    with transaction(channel.services.engine) as connection:
        at = iso(channel.services.now() - timedelta(seconds=12))
        connection.execute(update(inbound_messages).values(delivery_at=at))
    assert make_channel().say("还没修") == "收到：还没修"


# -- one token for all ------------------------------------------------------------------------------------------------


def test_processes_share_one_token(make_channel: MakeChannel, platform: Platform) -> None:
    platform.token_delay = 0.3
    clients = [make_channel().client for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        states = {result.state for result in pool.map(lambda n: clients[n % 4].send_text(RESIDENT, f"第{n}条"), range(16))}
        assert states == {"sent"} and len(platform.token_requests) == 1
        platform.revoke_token()
        assert {result.state for result in pool.map(lambda n: clients[n % 4].send_text(RESIDENT, f"第{n}条"), range(16))} == {"sent"}
    assert len(platform.token_requests) == 2 and len(platform.sends) == 32


def test_lease_of_a_dead_process_runs_out(make_channel: MakeChannel, platform: Platform) -> None:
    channel = make_channel()
    channel.client.send_text(RESIDENT, "甲")
    with transaction(channel.services.engine) as connection:
        values = {"token": None, "lease_until": iso(channel.services.now().replace(year=2025))}
        connection.execute(update(wechat_accounts).values(**values))
    assert make_channel().client.send_text(RESIDENT, "乙").state == "sent"


def test_token_is_sealed_in_the_database(channel: Channel, platform: Platform) -> None:
    channel.client.send_text(RESIDENT, "甲")
    (row,) = channel.table(wechat_accounts)
    assert platform.token.encode() not in row.token and channel.services.vault.open(row.token) == platform.token


def test_unreachable_token_server_is_not_asked_by_everybody_who_waits(channel: Channel, platform: Platform) -> None:
    wrong = replace(channel.services, settings=replace(channel.services.settings, wechat_app_secret="wrong"))
    client = type(channel.client)(wrong)
    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(client.send_text, RESIDENT, "你好") for _ in range(10)]
        assert all(isinstance(future.exception(), WeChatError) for future in futures)
    assert len(platform.token_requests) == 1


def test_busy_platform_is_asked_three_times(channel: Channel, platform: Platform) -> None:
    platform.errcodes.extend([-1, -1])
    assert channel.client.send_text(RESIDENT, "甲").state == "sent"
    platform.errcodes.extend([-1, -1, -1])
    with pytest.raises(WeChatError):
        channel.client.send_text(RESIDENT, "乙")
    assert platform.attempts == 6


# -- everything at once -----------------------------------------------------------------------------------------------


def test_every_message_is_heard_once_and_in_order(make_channel: MakeChannel, platform: Platform) -> None:
    """Duplicates in parallel, slow turns, two processes: passively or by push, each text once."""
    replicas = [make_channel(seconds=0.25) for _ in range(2)]
    for replica in replicas:
        replica.assistant.seconds = 0.05
    passive: dict[str, list[str]] = {}

    def post(number: int, fields: dict[str, Any]) -> str:
        return replicas[number % 2].post(fields).get_data(as_text=True)

    def talk(openid: str) -> None:
        for number in range(4):
            fields = {**ACCOUNT.text(f"第{number}句"), "FromUserName": openid}
            with ThreadPoolExecutor(3) as pool:
                copies = list(pool.map(post, range(3), [fields] * 3))
            texts = {reply["Content"] for reply in map(ACCOUNT.read_reply, copies) if reply}
            assert len(texts) <= 1, "the copies of one message say the same"
            passive.setdefault(openid, []).extend(texts)

    residents = [f"o{number}" for number in range(20)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(talk, residents))
    wait_until(lambda: all(row.delivery in ("passive", "pushed") for row in replicas[0].rows()), seconds=20)
    for openid in residents:
        pushed = [send["text"]["content"] for send in platform.sends if send["touser"] == openid]
        ways = ["\n\n".join(passive[openid]).split("\n\n"), "\n\n".join(pushed).split("\n\n")]
        assert all(way == sorted(way) for way in ways)
        assert sorted(text for way in ways for text in way if text) == [f"收到：第{number}句" for number in range(4)]
