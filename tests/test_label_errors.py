"""Wrong labels are found among own texts: by reading, by near-repeats, and decided by a person."""
from __future__ import annotations

import random

import pytest

from bot import db
from bot.annotations import effective_annotations, new_annotation, text_digest
from bot.importing import DONE, open_batch
from bot.jobs import JobRun, find_job, submit_job
from bot.label_errors import LIKELY, MODEL, TWINS, Labelled, find_suspects
from bot.services import Services
from bot.staff_schema import annotation_rows
from bot.suspects import SuspectGone, Suspects, run_label_errors

# Own sentences put together from parts: enough of each class for a reader, none like another.
PARTS = {
    "010204": (["小区门口", "人民路上", "广场旁边", "学校外面", "菜场东头"], ["路灯", "井盖", "护栏", "路面", "公交站牌"], ["坏了没人修", "破了好几天", "松了很危险", "塌下去一块", "倒在地上"]),
    "040305": (["厂里", "工地上", "饭店老板", "包工头", "公司"], ["拖欠工资", "不发奖金", "克扣加班费", "欠着工钱", "压着两个月工资"], ["找了几次都推", "说没有钱", "一拖再拖", "人都找不到了", "工友都等着过年"]),
    "130203": (["夜里", "楼下", "隔壁", "对面工地", "凌晨"], ["施工噪音", "音响声", "机器轰鸣", "打桩声", "广场舞音乐"], ["吵得睡不着", "影响孩子学习", "老人心脏受不了", "一直响到天亮", "关上窗也没用"]),
}  # fmt: skip


def texts_of(code: str) -> list[str]:
    where, what, how = PARTS[code]
    return [f"{one}{two}，{three}" for one in where for two in what for three in how]


def labelled() -> list[Labelled]:
    rows = [(text, code) for code in PARTS for text in texts_of(code)]
    random.Random(5).shuffle(rows)
    return [Labelled(str(number), text, code) for number, (text, code) in enumerate(rows)]


def test_flipped_labels_come_first_with_the_right_class() -> None:
    rows = labelled()
    wrong = {number: rows[number].category for number in range(0, len(rows), 25)}
    given = [
        Labelled(row.digest, row.text, next(code for code in PARTS if code != row.category) if number in wrong else row.category)
        for number, row in enumerate(rows)
    ]
    first = find_suspects(given)[: len(wrong)]
    assert {suspect.number for suspect in first} == wrong.keys()
    assert all(wrong[suspect.number].startswith(suspect.suggested) for suspect in first)
    assert sum(suspect.score >= LIKELY for suspect in first) > len(first) / 2


def test_right_labels_are_not_suspected() -> None:
    assert [suspect for suspect in find_suspects(labelled()) if suspect.kind == MODEL] == []


def test_near_repeats_with_another_label_are_named_with_their_twin() -> None:
    text = "我们小区三号楼的电梯从上周开始就坏了，老人上下楼很不方便，物业一直说在等配件"
    rows = [Labelled("a", text, "010903"), Labelled("b", text.replace("三号楼", "五号楼"), "010903"), Labelled("c", text + "！", "040305")]
    (suspect,) = find_suspects(rows)
    assert (suspect.number, suspect.kind, suspect.suggested, suspect.twin) == (2, TWINS, "010903", 0)


def test_a_higher_level_of_the_same_class_is_no_error() -> None:
    text = "我们小区三号楼的电梯从上周开始就坏了，老人上下楼很不方便"
    assert find_suspects([Labelled("a", text, "0109"), Labelled("b", text + "。", "010903")]) == []


@pytest.mark.parametrize("rows", [[], [Labelled("a", "路灯坏了", "01")], [Labelled("a", "路灯坏了", "01"), Labelled("b", "工资没发", "04")]])
def test_too_few_texts_give_no_suspects(rows: list[Labelled]) -> None:
    assert find_suspects(rows) == []


# -- decided --------------------------------------------------------------------------------------------------------------


def annotate(services: Services, rows: list[tuple[str, str]]) -> None:
    """As an import would have brought them."""
    source = f"import:{open_batch(services, 'orders.csv', username='li', state=DONE)}"
    with db.transaction(services.engine) as connection:
        for text, category in rows:
            labels = {"category": category, "request_type": "投诉"}
            row = new_annotation(services.vault, text, labels, author="li", source=source, at=services.now())
            connection.execute(annotation_rows.insert().values(**row))


@pytest.fixture
def suspects(services: Services) -> Suspects:
    """One wrong label among 375 right ones."""
    annotate(services, [(row.text, "040305" if row.text == texts_of("010204")[0] else row.category) for row in labelled()])
    look(services)
    return Suspects(services)


def look(services: Services) -> None:
    job = find_job(services, submit_job(services, "label_errors", {}, username="li"))
    assert job is not None
    run_label_errors(JobRun(services, job))


def category_of(services: Services, text: str) -> str | None:
    digest = text_digest(services.vault, text)
    with db.reading(services.engine) as connection:
        return next((str(one.labels["category"]) for one in effective_annotations(connection) if one.digest == digest), None)


@pytest.mark.parametrize(("decision", "category"), [("accept", "01"), ("keep", "040305"), ("remove", None)])
def test_each_decision_is_appended_and_asked_once(services: Services, suspects: Suspects, decision: str, category: str | None) -> None:
    text = texts_of("010204")[0]
    first = suspects.page()[0]
    assert first["text"] == text and first["suggested"] == "01" and first["likely"]
    with db.reading(services.engine) as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM annotation").scalar()
    suspects.decide(first["id"], decision, username="wang")
    with db.reading(services.engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM annotation").scalar() == before + 1
    assert category_of(services, text) == category
    with pytest.raises(SuspectGone):
        suspects.decide(first["id"], decision, username="wang")
    look(services)
    assert text not in [one["text"] for one in suspects.page()]
