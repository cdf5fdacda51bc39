"""The frozen test set: a share of every import, the project's own items, and nothing of either in training."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bot import db
from bot.dataset import build_dataset
from bot.frozen import (
    MUST_PASS,
    SHARE,
    SHIPPED,
    EvaluationError,
    count_frozen,
    freeze_share,
    list_frozen,
    read_evaluation,
    retire_source,
    seed_shipped,
)
from bot.importing import import_file, withdraw_batch
from bot.leaks import Frozen
from bot.nlu.corpus import read_corpus
from bot.services import DATA_DIR, Services
from bot.staff_schema import import_batches

MATTERS = {"01": "路灯坏了没人来修", "04": "老板拖着工资不发", "13": "工厂半夜往河里排黑水"}


def orders(count: int = 40) -> list[tuple[str, dict[str, str]]]:
    return [
        (f"{place}{number}号院{number * 7}单元，{matter}，打了{number + 3}次电话", {"category": code})
        for code, matter in MATTERS.items()
        for number, place in zip(range(count), ["东门街", "西关里", "南园路", "北塘村"] * count, strict=False)
    ]


def file_of(rows: list[tuple[str, dict[str, str]]], path: Path) -> Path:
    lines = ["text,category_code", *(f"{text.replace(',', '，')},{labels['category']}" for text, labels in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_share_of_each_class_is_frozen_and_the_same_one_again(services: Services) -> None:
    rows = orders()
    frozen = freeze_share(services, rows, source="import:1", author="supervisor")
    assert Counter(rows[number][1]["category"] for number in frozen) == {code: round(SHARE * 40) for code in MATTERS}
    assert freeze_share(services, rows[::-1], source="import:2", author="supervisor") == {len(rows) - 1 - number for number in frozen}
    assert len(list_frozen(services)) == len(frozen)


def test_retired_items_count_no_more_and_stay_where_they_are(services: Services) -> None:
    freeze_share(services, orders(), source="import:1", author="supervisor")
    assert retire_source(services, "import:1") == 24
    assert list_frozen(services) == [] and retire_source(services, "import:1") == 0
    assert freeze_share(services, orders(), source="import:2", author="supervisor") == set()


def test_import_freezes_its_share_and_training_sees_none_of_it(services: Services, tmp_path: Path) -> None:
    imported, problems = import_file(file_of(orders(), tmp_path / "orders.csv"), services)
    assert problems == []
    frozen = [item.text for item in list_frozen(services)]
    trained = [row.text for row in build_dataset(services).annotations]
    assert frozen and trained and not set(frozen) & set(trained)
    gate = Frozen.of(frozen)
    assert not any(gate.is_repeated_by(text) for text in trained)
    counts = build_dataset(services).counts
    assert counts["annotated"] == imported == counts["used"] + counts["frozen"] + counts["repeats"]


def test_withdrawn_import_is_neither_trained_on_nor_examined(services: Services, tmp_path: Path) -> None:
    import_file(file_of(orders(), tmp_path / "orders.csv"), services)
    with db.reading(services.engine) as connection:
        batch = connection.execute(import_batches.select()).one()
    withdraw_batch(services, batch.id)
    assert list_frozen(services) == [] and build_dataset(services).counts["annotated"] == 0


def test_shipped_items_follow_the_version_of_the_software(services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    folder.mkdir()
    lines = [{"text": "路灯坏了", "category": "01"}, {"text": "着火了快来人", "emergency": True}]
    (folder / "test.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    seed_shipped(services, tmp_path)
    seed_shipped(services, tmp_path)
    first = {item.text: item.id for item in list_frozen(services)}
    (folder / "test.jsonl").write_text(json.dumps(lines[0], ensure_ascii=False), encoding="utf-8")
    (folder / "must_pass.jsonl").write_text(json.dumps(lines[1], ensure_ascii=False), encoding="utf-8")
    seed_shipped(services, tmp_path)
    assert first.keys() == {"路灯坏了", "着火了快来人"}
    assert {item.text: item.id for item in list_frozen(services)}["路灯坏了"] == first["路灯坏了"]
    assert {(row["kind"], row["source"], row["count"]) for row in count_frozen(services)} == {("test", SHIPPED, 1), (MUST_PASS, SHIPPED, 1)}


@pytest.mark.parametrize("line", ['{"category": "01"}', '{"text": "路灯坏了"}', '{"text": "路灯坏了", "colour": "red"}', "路灯坏了"])
def test_line_that_cannot_be_examined_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "test.jsonl").write_text(f"\n{line}", encoding="utf-8")
    with pytest.raises(EvaluationError, match="test.jsonl:2"):
        list(read_evaluation(tmp_path))


def test_shipped_items_are_not_in_the_training_texts() -> None:
    """Whole phrases that rules know ("转人工") are in both: there is nothing else to say."""
    trained = Frozen.of([example.text for example in read_corpus(DATA_DIR)])
    asked = [(text, labels) for _, text, labels in read_evaluation(DATA_DIR)]
    assert [text for text, labels in asked if "intent" not in labels and trained.is_repeated_by(text)] == []
    assert len(asked) > 400 and sum(bool(labels.get("emergency")) for _, labels in asked) > 80


def test_copies_are_found_and_a_phrase_inside_a_long_letter_is_none() -> None:
    letter = "我们小区从去年秋天开始就没有人管，" + "物业换了三家，绿化都枯死了，大家很有意见，请有关部门出面协调解决。" * 2
    gate = Frozen.of([letter, "路灯坏了没人修"])
    assert gate.is_repeated_by(letter.replace("三家", "两家")) and gate.is_repeated_by("小区路灯坏了没人修")
    assert not gate.is_repeated_by("东边的路口有一个很大的坑，夜里看不见，前天有人骑车摔断了胳膊，加上路灯坏了没人修，大家都绕着走")
    assert not gate.is_repeated_by("完全说的是另一件事情")
