"""The account's menu: what menu.yml may say, what its buttons do, and how it gets onto the account."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot.embedded import EmbeddedAssistant
from bot.phrases import menu_keys
from bot.services import DATA_DIR, install_services
from bot.settings import PROJECT_ROOT, Settings
from bot.wechat_http import WeChatError
from bot.wechat_menu import Button, Menu, MenuError, compare_menus, load_menu, menu_payload, read_menu
from tests.wechat_channel import ACCOUNT, Channel, MakeChannel
from tests.wechat_platform import Platform, menu_fault

pytest_plugins = ("tests.wechat_channel",)

KEYS = menu_keys()
CITIES = sorted(path.parent for path in (DATA_DIR / "cities").glob("*/menu.yml"))
OURS = load_menu(DATA_DIR / "cities" / "huaian" / "menu.yml", keys=KEYS, public_url="https://minsheng.example")


def load(tmp_path: Path, text: str, *, public_url: str = "") -> Menu:
    path = tmp_path / "menu.yml"
    path.write_text(text, encoding="utf-8")
    return load_menu(path, keys=KEYS, public_url=public_url)


def clicks(menu: Menu) -> list[str]:
    return [button.value for top in menu for button in (top, *top.buttons) if button.kind == "click"]


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("city", CITIES, ids=lambda path: path.name)
@pytest.mark.parametrize("public_url", ["", "https://minsheng.example/"])
def test_menus_we_ship_are_taken_by_the_platform(city: Path, public_url: str) -> None:
    menu = load_menu(city / "menu.yml", keys=KEYS, public_url=public_url)
    assert menu_fault(menu_payload(menu)) == 0
    assert ("https://minsheng.example/chat" in str(menu)) == bool(public_url), "without a public address there is no button to a page"


MISTAKES = {
    "nothing": ("", "the menu needs 1 to 3 buttons, and has no list"),
    "no list": ("name: 查进度", "the menu needs 1 to 3 buttons"),
    "four buttons": ("\n".join(f"- {{name: 第{n}个, key: 查进度}}" for n in range(4)), "1 to 3 buttons, and has 4"),
    "six sub-buttons": ("- name: 工单\n  buttons:\n" + "    - {name: 进度, key: 进度}\n" * 6, "button “工单” needs 1 to 5 buttons, and has 6"),
    "no sub-buttons": ("- {name: 工单, buttons: []}", "button “工单” needs 1 to 5 buttons, and has 0"),
    "six characters": ("- {name: 我要反映问题, key: 你好}", "button “我要反映问题” has a name of 18 bytes; at most 16 fit (5 Chinese"),
    "long sub-button": (f"- {{name: 工单, buttons: [{{name: {'长' * 21}, key: 进度}}]}}", "under “工单” has a name of 63 bytes; at most 60"),
    "unknown key": ("- {name: 工单, key: V1001_TODAY}", "button “工单” sends “V1001_TODAY”, which the service has no fixed answer to; known: "),
    "key out of context": ("- {name: 工单, key: 确认提交}", "button “工单” sends “确认提交”"),
    "no name": ("- {key: 查进度}", "button 1 needs a name"),
    "name is a number": ("- {name: 12345, key: 查进度}", "button 1 needs a name"),
    "no name below": ("- {name: 工单, buttons: [{key: 进度}]}", "button 1 under “工单” needs a name"),
    "no target": ("- {name: 工单}", "button “工单” needs exactly one of"),
    "two targets": ("- {name: 工单, key: 查进度, page: /chat}", "button “工单” needs exactly one of"),
    "sub-sub-buttons": ("- {name: 一, buttons: [{name: 二, buttons: [{name: 三, key: 进度}]}]}", "button “二” under “一” is a sub-button"),
    "unknown field": ("- {name: 工单, keys: 查进度}", "button “工单” has an unknown field: keys"),
    "key is no text": ("- {name: 工单, key: 12345}", "button “工单” needs text as its key"),
    "page elsewhere": ("- {name: 工单, page: //evil.example}", "button “工单” needs a page that begins with /"),
    "address without scheme": ("- {name: 工单, url: www.example.cn}", "button “工单” needs an address that begins with https://"),
    "address too long": (f"- {{name: 工单, url: 'https://a.cn/{'x' * 1024}'}}", "button “工单” has an address of more than 1024 bytes"),
    "broken YAML": ("- {name: 工单", "cannot be read"),
    "only pages": ("- {name: 网页, page: /chat}", "no button is left without MINSHENG_PUBLIC_URL"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_named_with_its_button(tmp_path: Path, case: str) -> None:
    text, sentence = MISTAKES[case]
    with pytest.raises(MenuError, match=r"^menu\.yml") as caught:
        load(tmp_path, text)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_city_without_a_menu_is_told_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(MenuError, match="there is no menu for this city: expected .*menu.yml"):
        load_menu(tmp_path / "menu.yml", keys=KEYS, public_url="")


def test_names_at_the_limit_are_taken(tmp_path: Path) -> None:
    menu = load(tmp_path, f"- name: 五个汉字a\n  buttons:\n    - {{name: {'字' * 20}, url: https://www.example.cn}}")
    assert menu_payload(menu) == {
        "button": [{"name": "五个汉字a", "sub_button": [{"type": "view", "name": "字" * 20, "url": "https://www.example.cn"}]}]
    }


# -- what a click does ------------------------------------------------------------------------------------------------


@pytest.fixture
def talking(make_channel: MakeChannel, assistant: EmbeddedAssistant) -> Channel:
    channel = make_channel(assistant=assistant)
    install_services(channel.services)
    return channel


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_answered_by_the_model_in_service(talking: Channel, key: str) -> None:
    answer = talking.heard(ACCOUNT.event("CLICK", EventKey=key))
    assert answer and "没听明白" not in answer


def test_keys_of_our_menu_do_what_their_buttons_say(talking: Channel) -> None:
    said = {key: talking.heard(ACCOUNT.event("CLICK", EventKey=key)) or "" for key in clicks(OURS)}
    assert "直接说就行" in said["你好"] and "24 小时" in said["帮助"] and "转人工坐席" in said["转人工"]
    assert "姓名电话都不会写" in said["匿名"]
    assert all("没有查到您在这里登记的工单" in said[key] for key in ("查进度", "催办", "补充情况"))


# -- both menus side by side ------------------------------------------------------------------------------------------


def test_what_only_one_menu_has_is_marked() -> None:
    old = (Button("工单", buttons=(Button("查进度", "click", "查进度"), Button("旧的", "click", "X"))),)
    new = (Button("工单", buttons=(Button("查进度", "click", "查进度"), Button("网页", "view", "https://a.cn"))),)
    assert compare_menus(old, new) == (
        ["  工单", "      查进度  [click 查进度]", "-     旧的  [click X]"],
        ["  工单", "      查进度  [click 查进度]", "+     网页  [view https://a.cn]"],
    )


def test_menu_read_back_is_the_menu_that_was_put() -> None:
    answer = {"menu": {"button": [{"sub_button": [], **button} for button in menu_payload(OURS)["button"]]}}
    assert read_menu(answer) == OURS


@pytest.mark.parametrize("answer", [{}, {"menu": None}, {"menu": {"button": "x"}}, {"menu": {"button": [1, {"sub_button": {}}]}}])
def test_odd_answers_are_no_menu(answer: dict[str, object]) -> None:
    assert all(button == Button("") for button in read_menu(answer))


# -- commands ---------------------------------------------------------------------------------------------------------


def menu(settings: Settings, action: str, **changes: str) -> subprocess.CompletedProcess[str]:
    given = {name: getattr(settings, name) for name in ("var_dir", "wechat_app_id", "wechat_app_secret", "wechat_api_base", "secret_key")}
    given |= {"public_url": "https://minsheng.example", "database_url": "", "city": "huaian", **changes}
    environment = {**os.environ, **{f"MINSHENG_{name.upper()}": str(value) for name, value in given.items()}}
    command = [sys.executable, "-W", "ignore", "-m", "bot", "menu", action]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=120)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(sentences) == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "TOKEN-" not in done.stderr and "app-secret" not in done.stderr
    return sentences[0]


def test_menu_is_shown_applied_and_shown_again(wechat_settings: Settings, platform: Platform) -> None:
    before = menu(wechat_settings, "show")
    assert before.returncode == 0, before.stderr
    assert before.stdout.splitlines()[:4] == [
        "on the account now (- goes away):", "  nothing", "asked for by menu.yml (+ comes):", "+ 我要说事  [click 你好]",
    ]  # fmt: skip
    assert platform.menu is None
    applied = menu(wechat_settings, "apply")
    assert applied.returncode == 0 and "menu applied" in applied.stdout
    assert read_menu({"menu": platform.menu}) == OURS
    assert not [line for line in menu(wechat_settings, "show").stdout.splitlines() if line[:1] in "+-"]
    assert len(platform.token_requests) == 1, "commands share the stored token"


@pytest.mark.parametrize(
    ("errcode", "meaning"),
    [
        (40018, "name of a main button is too long"),
        (40023, "more than five sub-buttons"),
        (40055, "not one that the account may open"),
        (48001, "认证服务号"),
        (45009, "try again tomorrow"),
        (99999, "menu/create refused with 99999"),
    ],
)
def test_refusal_is_one_sentence_with_its_meaning(wechat_settings: Settings, platform: Platform, errcode: int, meaning: str) -> None:
    platform.errcodes.append(errcode)
    sentence = refused(menu(wechat_settings, "apply"))
    assert f"WeChat: menu/create refused with {errcode}" in sentence and meaning in sentence
    assert platform.menu is None


def test_account_that_is_not_set_up_is_told_so(wechat_settings: Settings) -> None:
    assert "no WECHAT_APP_SECRET configured" in refused(menu(wechat_settings, "show", wechat_app_secret=""))
    assert "stable_token refused with 40125 (app id or app secret is wrong)" in refused(menu(wechat_settings, "show", wechat_app_secret="no"))


def test_platform_out_of_reach_is_one_sentence(wechat_settings: Settings) -> None:
    assert "/cgi-bin/stable_token failed: ConnectionError" in refused(menu(wechat_settings, "show", wechat_api_base="http://127.0.0.1:9"))


# -- the client -------------------------------------------------------------------------------------------------------


def test_expired_token_is_exchanged_and_a_busy_platform_asked_again(channel: Channel, platform: Platform) -> None:
    channel.client.create_menu(menu_payload(OURS))
    platform.revoke_token()
    platform.errcodes.extend([-1, -1])
    assert read_menu(channel.client.get_menu()) == OURS
    assert len(platform.token_requests) == 2


def test_menu_without_permission_says_nothing_about_messages(channel: Channel, platform: Platform) -> None:
    platform.permitted = False
    with pytest.raises(WeChatError, match="menu/get refused with 48001"):
        channel.client.get_menu()
    assert channel.client.can_push()
