"""/studio/data: a city's file with foreign labels and bad rows through real jobs and a real browser; exports; labels in doubt."""
from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openpyxl import Workbook
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bot import db
from bot.annotations import effective_annotations, new_annotation
from bot.exporting import mark_entities
from bot.importing import import_rows, open_batch
from bot.orders import Plan
from bot.review_index import ReviewIndex
from bot.services import Services
from bot.staff import Staff
from bot.staff_schema import annotation_rows, corrections
from bot.web import studio_data, studio_imports, studio_review, uploads
from tests.review_samples import keep_samples
from tests.staff_pages import StaffClient, log_in, log_in_page, staff_app
from tests.stub_app import serving
from tests.test_batch_page import running as running
from tests.test_batch_page import send
from tests.test_chat_page import CHROMIUM, FLAGS

HEADING = ["工单编号", "来电人姓名", "联系电话", "诉求内容", "问题分类", "诉求类型", "来电时间"]
ORDERS = [
    ["A1", "李女士", "13800000000", "桂花新村门口的路灯坏了三天，我电话13800000000", "市政设施坏了", "求助", "2026-11-01 08:00"],
    ["A2", "王先生", "13800000001", "夜里两点工地还在打桩", "噪声扰民", "投诉", "2026-11-02 02:10"],
    ["A3", "赵女士", "13800000002", "", "噪声扰民", "投诉", "2026-11-02 09:00"],
    ["A4", "孙先生", "13800000003", "包工头拖欠我们三个月工资", "劳动和社会保障", "投诉类", "2026-11-03 10:00"],
    ["A5", "周女士", "13800000004", "饭店后厨油烟直接排到楼道里", "噪声扰民", "投诉", "2026-11-04 18:00"],
    ["A6", "吴先生", "13800000005", "想问问公园几点关门", "不用分类", "咨询", "2026-11-05 20:00"],
]  # fmt: skip


@pytest.fixture
def app(services: Services) -> Flask:
    index = ReviewIndex(services)
    pages = (uploads, studio_data, studio_imports)
    return staff_app(services, *(page.create_blueprint(services) for page in pages), studio_review.create_blueprint(services, index))


def workbook(*rows: list[str], heading: list[str] = HEADING) -> bytes:
    book = Workbook()
    for row in (heading, *rows):
        book.active.append(row)
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


def state(person: StaffClient, batch: int) -> dict[str, Any]:
    found: dict[str, Any] = person.get(f"/studio/data/imports/{batch}/state").get_json()
    return found


def at_rest(person: StaffClient, batch: int, seconds: float = 240) -> dict[str, Any]:
    for _ in range(int(seconds * 5)):
        found = state(person, batch)
        if found["job"] is None or found["job"]["ended"]:
            return found
        time.sleep(0.2)
    raise AssertionError(state(person, batch))


def begin(person: StaffClient, name: str, data: bytes) -> int:
    return int(person.post("/studio/data/imports", json={"upload": send(person, name, data, piece=100_000)}).get_json()["batch"])


def labels(services: Services) -> dict[str, Any]:
    with db.reading(services.engine) as connection:
        return {str(services.vault.open(one.text)): one.labels for one in effective_annotations(connection)}


# -- importing ------------------------------------------------------------------------------------------------------------


def test_a_file_is_looked_through_mapped_once_and_brought_in(app: Flask, running: Services, services: Services) -> None:
    person = log_in(app, "supervisor")
    batch = begin(person, "十一月工单.xlsx", workbook(*ORDERS))
    found = at_rest(person, batch)
    preview = found["preview"]
    assert found["state"] == "ready" and preview["rows"] == 6 and found["plan"]["columns"]["诉求内容"] == "text"
    assert "13800000000" not in json.dumps(preview, ensure_ascii=False)
    unknown = {(one["field"], one["label"]): one["guess"] for one in preview["check"]["unknown"]}
    assert unknown.keys() == {("category", "市政设施坏了"), ("category", "噪声扰民"), ("category", "不用分类"), ("request_type", "投诉类")}
    assert unknown["request_type", "投诉类"] == "投诉"
    told = {"市政设施坏了": "0102", "噪声扰民": "130203", "不用分类": "", "投诉类": "投诉"}
    meant = [{"field": field, "label": label, "meaning": told[label]} for field, label in unknown]
    assert person.post(f"/studio/data/imports/{batch}/start", json={"labels": meant, "labelled": True}).status_code == 200
    found = at_rest(person, batch)
    assert found["state"] == "done" and found["problems"] == [[4, "没有诉求内容"]]
    kept = labels(services)
    assert len(kept) == 5 and all("1380000" not in text for text in kept)
    lamp = next(value for text, value in kept.items() if "路灯" in text)
    assert lamp["category"] == "0102" and lamp["order"]["number"] == "A1"
    assert next(value for text, value in kept.items() if "公园" in text) == {"request_type": "咨询", "order": {"number": "A6", "at": "2026-11-05T12:00:00.000000+00:00"}}
    listing = person.get(f"/studio/data/imports/{batch}/problems.csv").data.decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(listing))) == [["行号", "问题"], ["4", "没有诉求内容"]]

    again = begin(person, "十一月工单（副本）.xlsx", workbook(*ORDERS))
    found = at_rest(person, again)
    assert found["preview"]["remembered"] and found["preview"]["check"]["unknown"] == []
    if found["preview"]["same_file"]:  # a workbook holds the time at which it was written
        assert person.post(f"/studio/data/imports/{again}/start", json={"labels": []}).status_code == 409
    person.post(f"/studio/data/imports/{again}/start", json={"labels": [], "again": True})
    assert {one["name"]: one["count"] for one in at_rest(person, again)["outcome"]}["重复"] == 5

    assert person.post(f"/studio/data/imports/{batch}/withdraw").status_code == 200
    assert labels(services) == {}
    assert person.post(f"/studio/data/imports/{batch}/withdraw").status_code == 409


def test_the_same_file_is_recognised(app: Flask, running: Services) -> None:
    person = log_in(app, "supervisor")
    data = "诉求内容,类别\n路灯坏了没人修,城乡建设\n".encode()
    first = begin(person, "a.csv", data)
    at_rest(person, first)
    person.post(f"/studio/data/imports/{first}/start", json={"labels": []})
    at_rest(person, first)
    second = begin(person, "b.csv", data)
    assert at_rest(person, second)["preview"]["same_file"]["id"] == first
    assert person.post(f"/studio/data/imports/{second}/start", json={"labels": []}).status_code == 409


@pytest.mark.parametrize(("name", "data"), [("a.xlsx", b"not a workbook"), ("a.csv", b"\xff\xfe\x00\x81"), ("a.jsonl", b"[1]\n")])
def test_a_file_that_cannot_be_read_is_said_in_words(app: Flask, running: Services, name: str, data: bytes) -> None:
    person = log_in(app, "supervisor")
    found = at_rest(person, begin(person, name, data))
    assert found["state"] == "failed" and "读不了" in found["job"]["problem"]


def test_who_is_bound_to_districts_or_a_department_has_no_part_in_it(app: Flask, services: Services) -> None:
    staff = Staff(services.engine, services.now)
    staff.add("near", "一个足够长的口令", "supervisor", districts=["清江浦区"])
    staff.add("office", "一个足够长的口令", "supervisor", department="市城管局")
    for username in ("agent", "near", "office"):
        person = log_in(app, username)
        for path in ("", "/export?what=labels&form=csv", "/suspects", "/imports/1/state"):
            assert person.get(f"/studio/data{path}").status_code == 403
        assert person.post("/studio/data/imports", json={"upload": "0" * 32}).status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("imports", {"upload": "../../etc"}, 400), ("imports", [], 400), ("imports/7/start", {}, 404), ("imports/7/withdraw", {}, 409),
        ("suspects/7", {"decision": "burn"}, 400), ("suspects/7", {"decision": "keep"}, 409), ("suspects/7", {"decision": "accept", "category": "99x"}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_sentence(app: Flask, path: str, body: Any, status: int) -> None:
    answer = log_in(app, "supervisor").post(f"/studio/data/{path}", json=body)
    assert answer.status_code == status and answer.get_json()["error"]


# -- exporting ------------------------------------------------------------------------------------------------------------

SAID = "=HYPERLINK(1) 我叫李小花，电话13800000000，[桂花新村](x)门口\n路灯坏了"


@pytest.fixture
def kept(services: Services, app: Flask) -> None:
    keep_samples(services, ReviewIndex(services), 3)
    # As a row of before masking was as strict as now: the export masks once more.
    start = SAID.index("桂花新村")
    labels = {"intent": "report_problem", "category": "010204", "request_type": "求助", "places": [[start, start + 4]]}
    row = new_annotation(services.vault, SAID, labels, author="li", source="review", at=services.now())
    seal = services.vault.seal
    change = {"at": db.iso(services.now()), "username": "agent", "source": "call", "subject": "c1", "field": "name", "model": "m1"}
    with db.transaction(services.engine) as connection:
        connection.execute(annotation_rows.insert().values(**row))
        connection.execute(corrections.insert().values(**change, old=seal("李小华"), new=seal("李小花"), evidence=seal("我叫李小花，13800000000")))


def export(app: Flask, what: str, form: str) -> str:
    answer = log_in(app, "supervisor").get(f"/studio/data/export?what={what}&form={form}")
    assert answer.status_code == 200 and "attachment" in answer.headers["Content-Disposition"]
    return str(answer.data.decode())


@pytest.mark.parametrize("what", ["labels", "items", "corrections", "history"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "yaml"])
def test_exports_hold_no_personal_data_and_are_audited(app: Flask, kept: None, services: Services, what: str, form: str) -> None:
    if form == "yaml" and what in ("corrections", "history"):
        assert log_in(app, "supervisor").get(f"/studio/data/export?what={what}&form={form}").status_code == 400
        return
    told = export(app, what, form)
    assert not any(word in told for word in ("13800000000", "小花", "小华")) and len(told) > 50
    with db.reading(services.engine) as connection:
        assert connection.exec_driver_sql("SELECT subject FROM audit WHERE action = 'export'").scalar() == f"{what}.{form}"


def test_csv_cells_are_no_formulas(app: Flask, kept: None) -> None:
    (row,) = csv.DictReader(io.StringIO(export(app, "labels", "csv").lstrip("\ufeff")))
    assert row["text"].startswith("'=HYPERLINK") and row["category"] == "010204" and row["category_name"].startswith("城乡建设")


def test_jsonl_rows_are_whole(app: Flask, kept: None) -> None:
    rows = [json.loads(line) for line in export(app, "items", "jsonl").splitlines()]
    assert len(rows) == 3 and rows[0]["category"] == "010204" and rows[0]["state"] == "open" and rows[0]["places"] == [[0, 4]]


def test_yaml_is_what_rasa_reads(app: Flask, kept: None, tmp_path: Path) -> None:
    from rasa.shared.nlu.training_data.loading import load_data

    path = tmp_path / "nlu.yml"
    for what, count in (("labels", 1), ("items", 3)):
        path.write_text(export(app, what, "yaml"), encoding="utf-8")
        examples = load_data(str(path)).training_examples
        assert len(examples) == count
        entities = [(entity["value"], entity["entity"]) for example in examples for entity in example.get("entities")]
        assert entities == [("桂花新村", "location")] * count
        assert {example.get("intent") for example in examples} == {"report_problem"}
        assert examples[0].get("metadata")["example"]["category"] == "010204"


@pytest.mark.parametrize(
    ("text", "places", "marked"),
    [
        ("桂花新村路灯坏了", [[0, 4]], "[桂花新村](location)路灯坏了"), ("去[这里](那里)看看", [], "去［这里］(那里)看看"),
        ("路灯坏了", [[0, 9]], "路灯坏了"), ("甲乙丙丁", [[0, 3], [1, 2]], "[甲乙丙](location)丁"), ("😀桂花", [[1, 3]], "😀[桂花](location)"),
    ],
)  # fmt: skip
def test_places_are_marked_and_brackets_of_the_text_are_not(text: str, places: list[list[int]], marked: str) -> None:
    assert mark_entities(text, places) == marked


# -- in a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"NOT TESTED: the data page needs {CHROMIUM}")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, app: Flask) -> Iterator[Page]:
    with serving(app) as url, browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        opened = context.new_page()
        opened.set_default_timeout(120_000)
        problems: list[str] = []
        opened.on("pageerror", lambda error: problems.append(str(error)))
        log_in_page(opened, url, "supervisor")
        opened.goto(f"{url}/studio/data")
        yield opened
        assert problems == []


def test_a_file_with_unknown_labels_and_bad_rows_in_the_browser(page: Page, running: Services, services: Services, tmp_path: Path) -> None:
    path = tmp_path / "十一月工单.xlsx"
    path.write_bytes(workbook(*ORDERS))
    expect(page.locator("body")).to_contain_text("还没有导入过")
    page.set_input_files("#import-file", str(path))
    page.click("#import-send")
    page.wait_for_selector("#plan:not([hidden])")
    expect(page.locator("#check-problems")).to_contain_text("第 4 行：没有诉求内容")
    noise = page.locator("#labels tr", has_text="噪声扰民")
    noise.locator("td:nth-child(3) button").click()
    page.keyboard.type("zywr")  # 噪音污染
    page.keyboard.press("Enter")
    expect(noise).to_contain_text("噪音污染")
    page.locator("#labels tr", has_text="不用分类").get_by_text("不学习").click()
    lamp = page.locator("#labels tr", has_text="市政设施坏了")
    lamp.locator("td:nth-child(3) button").click()
    page.keyboard.type("cxjs")
    page.keyboard.press("Enter")
    page.click("#start")
    page.wait_for_selector("#result:not([hidden])")
    expect(page.locator("#problem-list")).to_contain_text("第 4 行：没有诉求内容")
    assert {value.get("category") for value in labels(services).values()} == {"01", "130203", "04", None}


def test_class_that_is_missing_and_a_sentence_that_fills_the_file_are_seen_before_anything_comes_in(
    page: Page, running: Services, services: Services, tmp_path: Path
) -> None:
    before = [*((f"{n}号楼的路灯坏了{n * 37}天", "01") for n in range(60)), *((f"{n * 91}路公交等了{n}分钟", "10") for n in range(30))]
    orders = ((number, {"text": text, "category": code}) for number, (text, code) in enumerate(before, 2))
    batch = open_batch(services, "九月.csv", username="li")
    import_rows(services, orders, Plan({"text": "text", "category": "category"}, keep_twins=True), batch_id=batch, username="li")
    lines = [*(f"{n}号楼的井盖丢了{n * 41}天,城乡建设" for n in range(60)), *(["路边的烧烤摊半夜还很吵,城乡建设"] * 40)]
    path = tmp_path / "十月.csv"
    path.write_text("\n".join(["诉求内容,类别", *lines]), encoding="utf-8")
    page.set_input_files("#import-file", str(path))
    page.click("#import-send")
    page.wait_for_selector("#plan:not([hidden])")
    expect(page.locator("#doubts")).to_contain_text("“十月.csv”共 100 条，其中“交通运输”0 条（别的导入里有 30 条")
    expect(page.locator("#doubts")).to_contain_text("第 62 行的话在文件里一字不差地出现 40 次，标成“城乡建设” 40 次：路边的烧烤摊半夜还很吵")
    expect(page.locator("#no-rows")).to_contain_text("交通运输")
    expect(page.locator("#no-rows")).not_to_contain_text("城乡建设")


def test_changed_columns_are_checked_again_before_anything_comes_in(page: Page, running: Services, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("甲,乙\n路灯坏了没人修,城乡建设\n工资没有发,劳动和社会保障\n", encoding="utf-8")
    page.set_input_files("#import-file", str(path))
    page.click("#import-send")
    page.wait_for_selector("#plan:not([hidden])")
    page.locator("#preview-head select").nth(0).select_option("")
    expect(page.locator("#start")).to_be_disabled()
    page.click("#recheck")
    expect(page.locator("#check")).to_contain_text("还不知道哪一列是诉求内容")
    page.locator("#preview-head select").nth(0).select_option("text")
    page.click("#recheck")
    expect(page.locator("#check")).to_contain_text("可以导入")
    expect(page.locator("#start")).to_be_enabled()


def test_labels_in_doubt_are_found_and_decided(page: Page, running: Services, services: Services) -> None:
    lamp = "我们小区三号楼的电梯从上周开始就坏了，老人上下楼很不方便，物业一直说在等配件"
    with db.transaction(services.engine) as connection:
        for text, category in ((lamp, "010903"), (lamp + "。", "010903"), (lamp + "！", "040305")):
            row = new_annotation(services.vault, text, {"category": category}, author="li", source="review", at=services.now())
            connection.execute(annotation_rows.insert().values(**row))
    expect(page.locator("#suspect-rows")).to_contain_text("还没有查过")
    page.click("#suspect-find")
    expect(page.locator(".suspect")).to_contain_text("几乎相同的另一条", timeout=120_000)
    page.get_by_text("原来的对").click()
    expect(page.locator("#suspect-rows")).to_contain_text("都处理完了")
    expect(page.locator("#suspect-counts")).to_contain_text("已处理 1")
