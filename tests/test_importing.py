"""Imports: nothing half brought in, repeats recognised, small writes beside living turns, a share frozen, withdrawn again."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from bot import db
from bot.annotations import effective_annotations
from bot.frozen import list_frozen
from bot.importing import (
    MAX_ROWS,
    ImportRefused,
    Outcome,
    find_columns,
    import_rows,
    open_batch,
    remember_columns,
    remember_labels,
    withdraw_batch,
)
from bot.orders import Plan, Problem
from bot.services import Services
from bot.settings import child_environment
from bot.staff_schema import import_batches, test_items

COLUMNS = {"text": "text", "category": "category", "request_type": "request_type"}
Rows = list[dict[str, str]]


def rows(count: int, category: str = "0102") -> Rows:
    """Sentences that no two share most of."""
    things = ["路灯", "井盖", "护栏", "公交站牌", "垃圾桶", "健身器材", "红绿灯", "下水道", "电梯", "围墙"]
    places = ["人民路", "解放街", "桂花新村", "长江小区", "北门菜场", "第三中学", "儿童公园", "水厂宿舍", "老汽车站", "纺织厂"]
    faults = ["坏了三天没人修", "倒在地上挡着路", "松动了很危险", "堵住了污水往外冒", "被人偷走了一半", "生锈得厉害", "晚上一直响", "裂开一条大缝", "歪在一边", "不见了"]
    every = [f"{place}的{thing}{fault}，请尽快处理" for place in places for thing in things for fault in faults]
    return [{"text": text, "category": category} for text in every[:: max(1, 1000 // count)][:count]]


def bring(services: Services, given: Rows, *, keep_twins: bool = False) -> tuple[Outcome, list[Problem]]:
    batch = open_batch(services, "orders.csv", username="li")
    return import_rows(services, enumerate(given, 2), Plan(COLUMNS, keep_twins), batch_id=batch, username="li")


def labels(services: Services) -> dict[str, dict[str, Any]]:
    with db.reading(services.engine) as connection:
        return {str(services.vault.open(one.text)): one.labels for one in effective_annotations(connection)}


def test_good_rows_come_in_and_bad_ones_are_named(services: Services) -> None:
    given = [*rows(3), {"text": "", "category": "0102"}, {"text": "路灯坏了", "category": "天文"}]
    outcome, problems = bring(services, given)
    assert (outcome.imported, outcome.refused) == (3, 2)
    assert [problem.row for problem in problems] == [5, 6] and "天文" in problems[1].sentence
    assert len(labels(services)) == 3


def test_the_same_rows_again_bring_nothing(services: Services) -> None:
    bring(services, rows(20))
    outcome, _ = bring(services, rows(20))
    assert (outcome.imported, outcome.repeated) == (0, 20)


def test_the_same_words_with_other_labels_in_one_file_are_a_bad_row(services: Services) -> None:
    given = rows(1)
    outcome, problems = bring(services, [*given, given[0], {**given[0], "category": "0602"}])
    assert (outcome.imported, outcome.repeated, outcome.refused) == (1, 1, 1)
    assert problems[0].row == 4 and "第 2 行" in problems[0].sentence


@pytest.mark.parametrize(("keep_twins", "imported"), [(False, 1), (True, 2)])
def test_near_repeats_are_left_out_unless_wanted(services: Services, keep_twins: bool, imported: int) -> None:
    text = "我们小区三号楼的电梯从上周开始就坏了，老人上下楼很不方便，物业一直说在等配件"
    given = [{"text": text, "category": "0109"}, {"text": text + "！！", "category": "0109"}, {"text": text.replace("三号", "五号"), "category": "0109"}]
    outcome, _ = bring(services, given[:2] if keep_twins else given, keep_twins=keep_twins)
    assert outcome.imported == imported and outcome.twins == (0 if keep_twins else 2)


def test_near_repeats_with_another_label_come_in_and_are_listed(services: Services) -> None:
    text = "我们小区三号楼的电梯从上周开始就坏了，老人上下楼很不方便，物业一直说在等配件"
    outcome, problems = bring(services, [{"text": text, "category": "0109"}, {"text": text + "！！", "category": "0602"}])
    assert (outcome.imported, outcome.differing, problems) == (2, 1, [])
    with db.reading(services.engine) as connection:
        told = json.loads(connection.exec_driver_sql("SELECT problems FROM import_batch").scalar() or "")
    assert told == [[3, "已导入：与第 2 行几乎相同而标签不同"]]


def test_sentence_that_fills_a_file_is_told_with_its_row(services: Services) -> None:
    text = "楼下的烧烤店半夜还在炒菜，油烟和噪音特别大，孩子睡不着觉，希望有人来管"
    copies = [{"text": text + "！" * (n % 3), "category": "0602"} for n in range(60)]
    outcome, problems = bring(services, [*rows(3), *copies])
    assert (outcome.imported, outcome.repeated + outcome.twins, problems) == (4, 59, [])
    assert outcome.notes == [(5, "已导入：这句话（连同几乎一字不差的）在文件里出现 60 次，只算一次")] and outcome.differing == 0


def test_an_import_that_stops_half_way_has_changed_nothing(services: Services) -> None:
    def stop(share: float, step: str) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    batch = open_batch(services, "orders.csv", username="li")
    with pytest.raises(KeyboardInterrupt):
        import_rows(services, enumerate(rows(1000), 2), Plan(COLUMNS), batch_id=batch, username="li", tell=stop)
    assert labels(services) == {}
    with db.reading(services.engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM annotation").scalar() == 0
        assert connection.execute(import_batches.select()).one().state == "failed"


KILLED = """
import os, signal, sys
from bot.importing import import_rows
from bot.orders import Plan
from bot.services import build_services
from bot.settings import settings_from_environment
from tests.test_importing import COLUMNS, rows
services = build_services(settings_from_environment())
def die(share, step):
    if share > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
import_rows(services, enumerate(rows(1000), 2), Plan(COLUMNS), batch_id=int(sys.argv[1]), username="li", tell=die)
"""


def test_an_import_whose_process_is_killed_counts_only_when_it_was_run_again(services: Services) -> None:
    batch = open_batch(services, "orders.csv", username="li")
    environment = {**child_environment(services.settings), "PYTHONPATH": os.getcwd()}
    died = subprocess.run([sys.executable, "-c", KILLED, str(batch)], env=environment, capture_output=True)
    assert died.returncode == -9
    with db.reading(services.engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM annotation").scalar() > 0
    assert labels(services) == {}
    import_rows(services, enumerate(rows(1000), 2), Plan(COLUMNS), batch_id=batch, username="li")
    assert len(labels(services)) == len({row["text"] for row in rows(1000)})


def test_others_write_while_an_import_is_staged(services: Services) -> None:
    """Each write is short: a turn that waits for the whole of it would be refused."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            services.tickets.log_diversion("conversation", "court")
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        bring(services, rows(1000))
    finally:
        stop.set()
        writer.join()
    with db.reading(services.engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM diversion").scalar() > 0


def test_too_many_rows_are_refused_whole(services: Services) -> None:
    with pytest.raises(ImportRefused, match=str(MAX_ROWS)):
        bring(services, [{"text": "路灯坏了", "category": "01"}] * (MAX_ROWS + 1))
    assert labels(services) == {}


def test_a_share_of_every_class_is_frozen_and_the_import_can_be_withdrawn(services: Services) -> None:
    outcome, _ = bring(services, rows(100))
    with db.reading(services.engine) as connection:
        frozen = connection.execute(test_items.select()).fetchall()
        batch = connection.execute(import_batches.select()).one()
    assert outcome.frozen == len(frozen) > 0
    assert withdraw_batch(services, batch.id) and labels(services) == {}


def test_what_was_withdrawn_comes_in_again_whole_with_its_labels_put_right(services: Services) -> None:
    wrong, _ = bring(services, rows(100, "0602"))
    assert withdraw_batch(services, 1)
    right, _ = bring(services, rows(100))
    assert (right.imported, right.twins, right.differing) == (wrong.imported, wrong.twins, 0) and right.frozen == wrong.frozen > 0
    assert {item.labels["category"] for item in list_frozen(services)} == {"0102"}


def test_of_texts_that_all_but_repeat_each_other_at_most_one_is_a_test_item(services: Services) -> None:
    text = "楼下的烧烤店半夜还在炒菜，油烟和噪音特别大，孩子睡不着觉，希望有人来管"
    bring(services, [*rows(50), *({"text": f"{text}{'！' * n}", "category": "0602"} for n in range(50))], keep_twins=True)
    with db.reading(services.engine) as connection:
        frozen = [str(services.vault.open(row.text)) for row in connection.execute(test_items.select())]
    assert sum(one.startswith(text) for one in frozen) <= 1 and len(frozen) >= 10


def test_columns_and_labels_are_asked_once(services: Services) -> None:
    headings = ["内容", "类"]
    with db.transaction(services.engine) as connection:
        remember_columns(connection, headings, {"内容": "text", "类": "category"}, username="li", at="2026-11-20")
        remember_labels(connection, {("category", "扰民"): "130203"}, username="li", at="2026-11-20")
        remember_labels(connection, {("category", "扰民"): "1302"}, username="wang", at="2026-11-21")
    with db.reading(services.engine) as connection:
        assert find_columns(connection, headings) == {"内容": "text", "类": "category"}
        assert find_columns(connection, ["内容", "类别"]) is None
    outcome, _ = bring(services, [{"text": "隔壁装修太吵", "category": "扰民"}])
    assert outcome.imported == 1 and labels(services)["隔壁装修太吵"] == {"category": "1302"}
