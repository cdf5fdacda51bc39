"""Columns and labels of a city's own files: guessed, understood, refused with the number of the row."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from bot.catalogue import Catalogue, load_catalogue
from bot.nlu.corpus import read_lexicon
from bot.nlu.lexicon import Lexicon
from bot.order_guess import guess_label, look_at
from bot.orders import LEAVE_OUT, Meanings, Order, Plan, Problem, category_names, parse_time, read_orders
from bot.services import DATA_DIR
from bot.settings import Settings
from bot.tables import open_table


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(DATA_DIR, Settings().city)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(read_lexicon(DATA_DIR))


def workbook(path: Path, heading: list[str], *rows: list[Any]) -> Path:
    book = Workbook()
    for row in (heading, *rows):
        book.active.append(row)
    book.save(path)
    return path


def read(rows: list[dict[str, Any]], columns: dict[str, str], meanings: Meanings) -> list[Order | Problem]:
    return list(read_orders(iter(list(enumerate(rows, 2))), Plan(columns), meanings))


# -- columns --------------------------------------------------------------------------------------------------------------

SAID = ["小区门口的路灯坏了三天没人修", "工地夜里两点还在打桩，吵得睡不着", "饭店老板拖欠工资两个月"]


def test_columns_of_a_hotline_export_are_recognised(tmp_path: Path, catalogue: Catalogue) -> None:
    heading = ["工单编号", "来电人姓名", "联系电话", "诉求内容", "问题分类", "诉求类型", "缓急程度", "事发地址", "来电时间", "答复内容"]
    rows = [[f"A{n}", "李女士", "13800000000", text, "噪音污染", "投诉", "一般", "桂花小区", "2026-11-02 08:30", "已处理，谢谢您的反映，请监督"] for n, text in enumerate(SAID)]
    kept: list[int] = []
    look = look_at(open_table(workbook(tmp_path / "a.xlsx", heading, *rows)), Meanings(catalogue), lambda number, cells: kept.append(number))
    assert look.roles == {
        "工单编号": "number", "诉求内容": "text", "问题分类": "category", "诉求类型": "request_type", "缓急程度": "urgency",
        "事发地址": "location", "来电时间": "time",
    }  # fmt: skip
    assert look.rows == 3 and kept == [2, 3, 4]
    assert "13800000000" not in str(look.first) and "李女士" not in str(look.first)


def test_content_says_what_headings_do_not(tmp_path: Path, catalogue: Catalogue) -> None:
    rows = [[text, "环境保护", "投诉", "紧急"] for text in SAID]
    look = look_at(open_table(workbook(tmp_path / "a.xlsx", ["甲", "乙", "丙", "丁"], *rows)), Meanings(catalogue), lambda number, cells: None)
    assert look.roles == {"甲": "text", "乙": "category", "丙": "request_type", "丁": "urgency"}


def test_levels_in_three_columns_are_one_class(catalogue: Catalogue) -> None:
    path = catalogue.categories["010204"].path
    columns = {"内容": "text", "一级": "category", "二级": "category", "三级": "category"}
    (order,) = read([{"内容": SAID[0], "一级": path[0], "二级": path[1], "三级": path[2]}], columns, Meanings(catalogue))
    assert isinstance(order, Order) and order.labels["category"] == "010204"


# -- labels ---------------------------------------------------------------------------------------------------------------


def test_a_name_that_one_class_alone_has_is_known(catalogue: Catalogue) -> None:
    names = category_names(catalogue)
    assert names["噪音污染"] == "130203" and names["环境保护"] == "13"
    assert "其他" not in names or names["其他"].startswith("17")


@pytest.mark.parametrize(("label", "begins"), [("物业管理", "0109"), ("噪声扰民", "130203"), ("拖欠工资", "0403"), ("环保类", "13"), ("教育", "06")])
def test_foreign_labels_are_guessed_by_their_words(catalogue: Catalogue, lexicon: Lexicon, label: str, begins: str) -> None:
    assert (guess_label("category", label, [], catalogue, lexicon) or "").startswith(begins)


def test_a_label_that_says_nothing_is_guessed_by_its_texts(catalogue: Catalogue, lexicon: Lexicon) -> None:
    texts = ["工地夜里施工噪音很大", "烧烤店油烟直排", "河水发黑发臭，污水直排"]
    assert guess_label("category", "K7", texts, catalogue, lexicon) == "13"
    assert guess_label("category", "K7", [], catalogue, lexicon) is None


@pytest.mark.parametrize(("field", "label", "meaning"), [("request_type", "投诉类", "投诉"), ("urgency", "特急件", "特急"), ("urgency", "平", None)])
def test_types_and_levels_are_guessed_by_the_word_in_them(catalogue: Catalogue, lexicon: Lexicon, field: str, label: str, meaning: str | None) -> None:
    assert guess_label(field, label, [], catalogue, lexicon) == meaning


def test_what_a_label_means_is_told_once(catalogue: Catalogue) -> None:
    columns, row = {"内容": "text", "类": "category"}, {"内容": SAID[1], "类": "扰民"}
    (problem,) = read([row], columns, Meanings(catalogue))
    assert isinstance(problem, Problem) and problem.unknown == ("category", "扰民") and problem.row == 2
    (order,) = read([row], columns, Meanings(catalogue, {("category", "扰民"): "130203"}))
    assert isinstance(order, Order) and order.labels == {"category": "130203"}


def test_a_label_to_be_left_out_leaves_the_others(catalogue: Catalogue) -> None:
    told = {("category", "其它诉求"): LEAVE_OUT}
    columns = {"内容": "text", "类": "category", "型": "request_type"}
    both, alone = read([{"内容": SAID[0], "类": "其它诉求", "型": "求助"}, {"内容": SAID[1], "类": "其它诉求"}], columns, Meanings(catalogue, told))
    assert isinstance(both, Order) and both.labels == {"request_type": "求助"} and not both.left_out
    assert isinstance(alone, Order) and alone.left_out


# -- rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "says"),
    [({"内容": "", "类": "01"}, "没有诉求内容"), ({"内容": SAID[0]}, "没有任何标签"), ({"内容": "坏" * 20_001, "类": "01"}, "超过"), ({"内容": SAID[0], "类": "天文"}, "天文")],
)
def test_a_bad_row_says_what_is_wrong(catalogue: Catalogue, row: dict[str, Any], says: str) -> None:
    (problem,) = read([row], {"内容": "text", "类": "category"}, Meanings(catalogue))
    assert isinstance(problem, Problem) and says in problem.sentence and SAID[0] not in problem.sentence


def test_texts_are_masked_and_places_found_in_what_is_left(catalogue: Catalogue) -> None:
    row = {"内容": "我电话13800000000，桂花小区路灯坏了", "类": "01", "地": "桂花小区", "号": "A1", "时": "2026/11/2 8:05"}
    columns = {"内容": "text", "类": "category", "地": "location", "号": "number", "时": "time"}
    (order,) = read([row], columns, Meanings(catalogue))
    assert isinstance(order, Order)
    ((start, end),) = order.labels["places"]
    assert order.text[start:end] == "桂花小区" and "13800000000" not in order.text
    assert order.labels["order"] == {"number": "A1", "at": "2026-11-02T00:05:00.000000+00:00"}


def test_without_labels_only_the_text_counts(catalogue: Catalogue) -> None:
    (order,) = read_orders(iter([(2, {"内容": SAID[0], "类": "天文"})]), Plan({"内容": "text", "类": "category"}), Meanings(catalogue), labelled=False)
    assert isinstance(order, Order) and order.labels == {}


@pytest.mark.parametrize("text", ["", "上周", "2026-13-45", "20261102"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_time(text) is None
