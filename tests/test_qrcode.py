"""Printed codes: what stands on a sheet, where its code leads, and that a scan fills in the place."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import qrcode
from flask.testing import FlaskClient
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from qrcode.constants import ERROR_CORRECT_Q
from stub_app import create_stub_app, serving, stub_services

from bot.catalogue import Scene, load_catalogue
from bot.cli import EXPECTED
from bot.conversation import InboundMessage
from bot.embedded import EmbeddedAssistant
from bot.fonts import FontError, Typeface, find_typeface
from bot.scene_codes import CodeError, MadeCodes, choose_scenes, file_stem, make_sheets, page_address
from bot.services import DATA_DIR, Services, install_services
from bot.settings import PROJECT_ROOT
from bot.sheets import CODE_SIDE, CODE_TOP, LONGEST_NAME, PAGE, QUIET, SheetError, draw_code, fit_lines
from bot.web.chat import SCANNED
from bot.wechat_http import WeChatError
from tests.wechat_channel import ACCOUNT, Channel, MakeChannel
from tests.wechat_platform import Platform

pytest_plugins = ("tests.wechat_channel",)

SCENES = load_catalogue(DATA_DIR, "huaian").scenes
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def typeface() -> Typeface:
    try:
        return find_typeface(bold=True)
    except FontError as error:
        pytest.skip(f"NOT TESTED: sheets with codes; {error}")


def modules_of(picture: Image.Image, count: int) -> list[list[bool]]:
    """The dark and light squares of a sheet's code, each looked at in its middle; `count` of them a side with the quiet zone."""
    scale = CODE_SIDE // count
    left, top = (PAGE[0] - count * scale) // 2, CODE_TOP + (CODE_SIDE - count * scale) // 2
    grey = picture.convert("L")
    middles = [scale * number + scale // 2 for number in range(count)]
    return [[int(grey.getpixel((left + x, top + y))) < 128 for x in middles] for y in middles]  # type: ignore[arg-type]


def matrix_of(address: str) -> list[list[bool]]:
    code = qrcode.QRCode(error_correction=ERROR_CORRECT_Q, border=QUIET)
    code.add_data(address)
    return code.get_matrix()


def leads_to(path: Path, address: str) -> bool:
    matrix = matrix_of(address)
    with Image.open(path) as picture:
        return modules_of(picture, len(matrix)) == matrix


# -- on the sheet -----------------------------------------------------------------------------------------------------


def test_sheet_is_one_A4_page_for_print(city: Services, typeface: Typeface, tmp_path: Path) -> None:
    [path] = make_sheets(city, ["c:shanyang"], tmp_path / "new" / "folder", base="https://minsheng.example/")
    assert path == tmp_path / "new" / "folder" / "c-shanyang.png"
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (2480, 3508))
        assert [round(value) for value in picture.info["dpi"]] == [300, 300]
        edges = [picture.crop(box).convert("L").getextrema() for box in ((0, 0, 2480, 120), (0, 0, 120, 3508), (2360, 0, 2480, 3508))]
        assert edges == [(255, 255)] * 3, "printers leave a margin"
    assert leads_to(path, "https://minsheng.example/chat?scene=c:shanyang")


def test_every_place_gets_a_sheet_of_its_own(city: Services, typeface: Typeface, tmp_path: Path) -> None:
    paths = list(make_sheets(city, [], tmp_path, base="https://minsheng.example"))
    assert len(set(paths)) == len(paths) == len(SCENES)
    assert all(leads_to(path, f"https://minsheng.example/chat?scene={code}") for path, code in zip(paths, SCENES))


def test_scanner_reads_the_sheet(city: Services, typeface: Typeface, tmp_path: Path) -> None:
    if shutil.which("zbarimg") is None:
        pytest.skip("NOT TESTED: a second reader of the code; run: apt-get install -y zbar-tools")
    [path] = make_sheets(city, ["r:daxiang"], tmp_path, base="https://minsheng.example")
    read = subprocess.run(["zbarimg", "-q", "--raw", str(path)], capture_output=True, text=True, timeout=60)
    assert read.stdout.strip() == "https://minsheng.example/chat?scene=r:daxiang"


@pytest.mark.parametrize("address", ["http://weixin.qq.com/q/02abcdefghijklmnopqrst", "https://a.cn/chat?scene=" + "x" * 300])
def test_code_has_square_modules_and_a_quiet_zone(address: str) -> None:
    code = draw_code(address, CODE_SIDE)
    assert code.width == code.height and 0.85 * CODE_SIDE < code.width <= CODE_SIDE
    scale = code.width // len(matrix_of(address))
    assert code.crop((0, 0, code.width, QUIET * scale)).getextrema() == (255, 255)
    assert code.getpixel((QUIET * scale, QUIET * scale)) == 0


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("山阳小区", ["山阳小区"]),
        ("笪巷村“有事好商量”协商议事室", ["笪巷村“有事好商量”", "协商议事室"]),
        ("清江浦区水渡口街道便民服务中心", ["清江浦区水渡口街道", "便民服务中心"]),
        ("淮安市政务服务中心办事窗口", ["淮安市政务服务中心", "办事窗口"]),
    ],
)
def test_name_breaks_where_a_reader_would(typeface: Typeface, name: str, lines: list[str]) -> None:
    assert fit_lines(name, typeface)[0] == lines


def test_long_names_fit_or_are_refused(typeface: Typeface) -> None:
    lines, font = fit_lines("清江浦区水渡口街道新时代文明实践所暨社区综合服务中心二楼居民议事厅（东区）", typeface)
    assert len(lines) == 3 and max(map(font.getlength, lines)) <= PAGE[0] - 300
    assert not any(line[0] in "）”" or line[-1] in "（“" for line in lines)
    for name in ("长" * 52, "长" * (LONGEST_NAME + 1)):
        with pytest.raises(SheetError, match="the name is too long for a sheet: 长"):
            fit_lines(name, typeface)


# -- fonts ------------------------------------------------------------------------------------------------------------


def test_without_a_chinese_font_the_command_says_how_to_install_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no fontconfig
    with pytest.raises(FontError, match="apt-get install fonts-noto-cjk"):
        find_typeface(known=())
    assert issubclass(FontError, EXPECTED), "exit code 1"


def test_font_without_chinese_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if shutil.which("fc-match") is None:
        pytest.skip("NOT TESTED: asking fontconfig; run: apt-get install -y fontconfig")
    (tmp_path / "fonts.conf").write_text(f"<fontconfig><dir>/usr/share/fonts/truetype/dejavu</dir><cachedir>{tmp_path}</cachedir></fontconfig>")
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "fonts.conf"))
    with pytest.raises(FontError):
        find_typeface(known=())


def test_known_place_is_looked_at_without_fontconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typeface: Typeface) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_typeface(known=(("/nowhere.ttc", 1), (str(typeface.path), typeface.number))) == typeface


def test_character_that_would_be_an_empty_box_is_named(typeface: Typeface) -> None:
    typeface.check("笪巷村“有事好商量” A1")
    with pytest.raises(FontError, match="cannot write \U0010fffd"):
        typeface.check("山\U0010fffd村")


# -- where codes lead -------------------------------------------------------------------------------------------------


def test_account_makes_each_code_once(channel: Channel, platform: Platform, typeface: Typeface, tmp_path: Path) -> None:
    first = list(make_sheets(channel.services, [], tmp_path / "a"))
    again = list(make_sheets(channel.services, ["c:shanyang"], tmp_path / "b"))
    assert platform.code_requests == list(SCENES)
    assert all(leads_to(path, platform.codes[code]) for path, code in zip(first, SCENES))
    assert again[0].read_bytes() == first[list(SCENES).index("c:shanyang")].read_bytes()


def test_run_that_breaks_off_keeps_what_was_made(channel: Channel, platform: Platform, typeface: Typeface, tmp_path: Path) -> None:
    running = make_sheets(channel.services, [], tmp_path)
    next(running)
    platform.errcodes.append(45009)
    with pytest.raises(WeChatError, match="qrcode/create refused with 45009"):
        next(running)
    assert len(list(make_sheets(channel.services, [], tmp_path))) == len(SCENES)
    assert sorted(platform.code_requests) == sorted(SCENES)


def test_another_account_has_codes_of_its_own(tmp_path: Path) -> None:
    scene = SCENES["c:shanyang"]
    mine, other = (MadeCodes(tmp_path / "codes.json", app_id) for app_id in ("wx1", "wx2"))
    assert mine.address(scene, lambda code: f"https://1/{code}") == "https://1/c:shanyang"
    assert other.address(scene, lambda code: f"https://2/{code}") == "https://2/c:shanyang"
    assert mine.address(scene, lambda code: "again") == "https://1/c:shanyang"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"wx1": "x"}', '{"wx1": {"c:shanyang": 5}}'])
def test_damaged_store_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "codes.json").write_text(content)
    with pytest.raises(CodeError, match="codes.json is damaged"):
        MadeCodes(tmp_path / "codes.json", "wx1").address(SCENES["c:shanyang"], lambda code: "made")
    assert (tmp_path / "codes.json").read_text() == content


@pytest.mark.parametrize("errcode", [40053, 48001])
def test_refused_code_writes_no_sheet(channel: Channel, platform: Platform, typeface: Typeface, tmp_path: Path, errcode: int) -> None:
    platform.errcodes.append(errcode)
    with pytest.raises(WeChatError, match=f"qrcode/create refused with {errcode}"):
        list(make_sheets(channel.services, ["c:shanyang"], tmp_path / "out"))
    assert not (tmp_path / "out").exists() and channel.client.can_push()


def test_address_given_goes_before_the_account(channel: Channel, platform: Platform, typeface: Typeface, tmp_path: Path) -> None:
    [path] = make_sheets(channel.services, ["s:qingpu"], tmp_path, base="https://minsheng.example")
    assert leads_to(path, "https://minsheng.example/chat?scene=s:qingpu") and platform.code_requests == []


def test_without_secret_the_public_address_is_used(channel: Channel, typeface: Typeface, tmp_path: Path) -> None:
    services = replace(channel.services, settings=replace(channel.services.settings, wechat_app_secret="", public_url="https://minsheng.example/"))
    [path] = make_sheets(services, ["s:qingpu"], tmp_path)
    assert leads_to(path, "https://minsheng.example/chat?scene=s:qingpu")
    nowhere = replace(services, settings=replace(services.settings, public_url=""))
    with pytest.raises(CodeError, match="where should the codes lead.*MINSHENG_PUBLIC_URL, or give --url"):
        list(make_sheets(nowhere, [], tmp_path))


@pytest.mark.parametrize("base", ["minsheng.example", "ftp://a.cn", "https://", "https://a.cn/?x=1", "https://a.cn/#x", "https://[", " "])
def test_address_that_cannot_work_is_refused(base: str) -> None:
    with pytest.raises(CodeError, match="must look like https://your.host"):
        page_address(base, SCENES["c:shanyang"])


def test_scene_is_escaped_in_an_address() -> None:
    assert page_address("https://a.cn/x/", Scene("c:山&b=1", "community", "山", "")) == "https://a.cn/x/chat?scene=c:%E5%B1%B1%26b%3D1"


def test_places_are_chosen_once_and_unknown_ones_named() -> None:
    assert [scene.code for scene in choose_scenes(SCENES, ["s:qingpu", "c:shanyang", "s:qingpu"])] == ["s:qingpu", "c:shanyang"]
    with pytest.raises(CodeError, match="scenes.csv does not know x:1; it knows .*c:shanyang"):
        choose_scenes(SCENES, ["c:shanyang", "x:1"])
    with pytest.raises(CodeError, match="has no scanned places"):
        choose_scenes({}, [])


@pytest.mark.parametrize(("code", "name"), [("", "山"), ("山" * 22, "山"), ("c: 1", "山"), ("c:\n", "山"), ("c:1", " ")])
def test_place_that_no_code_can_carry_is_refused(code: str, name: str) -> None:
    with pytest.raises(CodeError, match="scene"):
        choose_scenes({code: Scene(code, "community", name, "")}, [])


def test_file_names_are_safe_and_differ() -> None:
    assert file_stem("c:shanyang") == "c-shanyang"
    assert len({file_stem(code) for code in ("a/b", "a\\b", "a_b", "a:b", "山")}) == 5
    assert not set(file_stem("../../etc/passwd")) & set("/\\") and file_stem("..a") == "a"


# -- the command ------------------------------------------------------------------------------------------------------


def run(var_dir: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    given = {"var_dir": var_dir, "city": "huaian", "public_url": "", "wechat_app_id": "", "wechat_app_secret": "", "database_url": "", **settings}
    environment = {**os.environ, **{f"MINSHENG_{name.upper()}": str(value) for name, value in given.items()}}
    command = [sys.executable, "-W", "ignore", "-m", "bot", "qrcode", *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_command_makes_sheets_and_a_second_run_no_new_codes(platform: Platform, typeface: Typeface, tmp_path: Path) -> None:
    account = {"wechat_app_id": ACCOUNT.app_id, "wechat_app_secret": platform.secret, "wechat_api_base": platform.start(), "secret_key": "k" * 20}
    done = [run(tmp_path, "--out", tmp_path / "sheets", **account) for _ in range(2)]
    assert [result.returncode for result in done] == [0, 0], done[0].stderr
    paths = list(map(Path, done[1].stdout.split()))
    assert platform.code_requests == list(SCENES)
    assert all(leads_to(path, platform.codes[code]) for path, code in zip(paths, SCENES))
    stored = json.loads((tmp_path / "wechat_codes.json").read_text())
    assert stored == {ACCOUNT.app_id: platform.codes}


UNKNOWN, NOWHERE, NO_ADDRESS = ["c:nowhere", "--url", "https://a.cn"], list[str](), ["--url", "a.cn"]


@pytest.mark.parametrize(
    ("arguments", "sentence"), [(UNKNOWN, "not know c:nowhere"), (NOWHERE, "where should the codes lead?"), (NO_ADDRESS, "must look like")]
)
def test_command_that_cannot_work_is_one_sentence(typeface: Typeface, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    done = run(tmp_path, *arguments, "--out", tmp_path / "sheets")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1 and sentence in errors[0] and "Traceback" not in done.stderr


def test_folder_that_is_a_file_is_one_sentence(city: Services, typeface: Typeface, tmp_path: Path) -> None:
    (tmp_path / "sheets").write_text("")
    with pytest.raises(CodeError, match="cannot write .*c-shanyang.png"):
        list(make_sheets(city, ["c:shanyang"], tmp_path / "sheets", base="https://a.cn"))


# -- a scan fills in the place ----------------------------------------------------------------------------------------


@pytest.fixture
def talking(make_channel: MakeChannel, assistant: EmbeddedAssistant) -> Channel:
    channel = make_channel(assistant=assistant)
    install_services(channel.services)
    return channel


def scan(code: str, *, follower: bool) -> dict[str, str]:
    return ACCOUNT.event("SCAN" if follower else "subscribe", EventKey=code if follower else f"qrscene_{code}", Ticket="gQ")


def test_every_kind_of_place_is_among_the_scenes() -> None:
    assert {scene.kind for scene in SCENES.values()} == {"room", "community", "street", "window"}


@pytest.mark.parametrize("follower", [True, False], ids=["SCAN", "subscribe"])
@pytest.mark.parametrize("code", SCENES)
def test_scanned_place_is_the_place_of_what_is_told_next(talking: Channel, code: str, follower: bool) -> None:
    welcome = talking.heard(scan(code, follower=follower)) or ""
    assert SCENES[code].name in welcome
    card = talking.say("门口的路灯坏了三盏，晚上看不见路") or ""
    assert f"〔地点〕{SCENES[code].place}" in card, card
    talking.say("确认提交")
    [ticket] = talking.services.tickets.find_of_conversation(talking.conversation_id)
    assert (ticket.petition.scene, (ticket.petition.place or {})["text"]) == (code, SCENES[code].place)


@pytest.mark.parametrize("code", SCENES)
def test_scan_answers_where_it_is(talking: Channel, code: str) -> None:
    assert "位置" in (talking.say("路灯坏了三盏，晚上看不见路") or "")
    card = talking.heard(scan(code, follower=True)) or ""
    assert SCENES[code].name in card and f"〔地点〕{SCENES[code].place}" in card


def test_scan_does_not_move_what_already_has_a_place(talking: Channel) -> None:
    talking.say("清江浦区水渡口大道的路灯坏了三盏，晚上看不见路")
    card = talking.heard(scan("c:shanyang", follower=True)) or ""
    assert "〔地点〕清江浦区水渡口大道" in card


def test_unknown_code_is_welcomed_and_asks_for_the_place(talking: Channel) -> None:
    assert "扫码成功" in (talking.heard(scan("x:nowhere", follower=True)) or "")
    assert "位置" in (talking.say("路灯坏了三盏，晚上看不见路") or "")


# -- the same through the chat page -----------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Services]:
    built = stub_services(tmp_path)
    yield built
    built.engine.dispose()


@pytest.fixture
def client(web: Services) -> FlaskClient:
    return create_stub_app(web).test_client()


@pytest.mark.parametrize("code", SCENES)
def test_chat_page_knows_the_place_it_was_opened_at(client: FlaskClient, code: str) -> None:
    assert f'data-scene="{code}"' in client.get(page_address("http://localhost", SCENES[code]).removeprefix("http://localhost")).text


@pytest.mark.parametrize("query", ["", "?scene=", "?scene=x:nowhere", '?scene="><script>', "?scene=" + "x" * 5000, "?scene=%ff%00"])
def test_chat_page_ignores_a_place_it_does_not_know(client: FlaskClient, query: str) -> None:
    answer = client.get("/chat" + query)
    assert answer.status_code == 200 and "data-scene" not in answer.text


@pytest.mark.parametrize("scene", [None, "", 5, ["c:shanyang"], "x" * 65, "a\u0000", "\ud800"])
def test_scene_that_is_none_is_refused(client: FlaskClient, scene: object) -> None:
    own = {"Origin": "http://localhost", "X-Requested-With": "minsheng"}
    answer = client.post("/chat/messages", json={"kind": "scene", "scene": scene, "message_id": "m1"}, headers=own)
    assert answer.status_code == 400 and "scene" in answer.get_json()["error"]


@pytest.mark.parametrize("code", SCENES)
def test_chat_page_fills_in_the_place(talking: Channel, code: str) -> None:
    talking.conversations.respond(InboundMessage("web", "browser", "m1", SCANNED, "scene", scene=code))
    reply = talking.conversations.respond(InboundMessage("web", "browser", "m2", "门口的路灯坏了三盏，晚上看不见路"))
    assert f"〔地点〕{SCENES[code].place}" in reply.messages[-1].text


@pytest.fixture
def page(web: Services) -> Iterator[Page]:
    if not CHROMIUM.exists():
        pytest.skip(f"NOT TESTED: the scanned chat page needs {CHROMIUM}; run: apt-get install -y chromium fonts-noto-cjk")
    with serving(create_stub_app(web)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(viewport={"width": 360, "height": 740}, base_url=url).new_page()
        tab.set_default_timeout(8000)
        yield tab
        browser.close()


def test_page_opened_by_a_code_tells_the_place_once(page: Page) -> None:
    page.goto("/chat?scene=c:shanyang")
    expect(page.locator(".bot .bubble").last).to_have_text("这里是您扫的地方。")
    assert page.locator(".resident .bubble").all_inner_texts() == ["（扫了二维码）"]
    assert page.url.endswith("/chat"), "a reload is no second scan"
    page.reload()
    expect(page.locator(".resident .bubble")).to_have_count(1)
    expect(page.locator(".bot .bubble").last).to_have_text("这里是您扫的地方。")


def test_page_opened_by_an_unknown_code_greets_as_ever(page: Page) -> None:
    page.goto("/chat?scene=x:nowhere")
    expect(page.locator(".bot .bubble").first).to_contain_text("有事直接说就行")
    expect(page.locator(".resident .bubble")).to_have_count(0)
