"""What a candidate must reach, what is suspicious about data, and the figures both speak of."""
from __future__ import annotations

import random
from typing import Any

import pytest

from bot.data_checks import Reading, Repeats, contradicted_sources, copied_texts, emptied_classes, vanished_classes
from bot.frozen import MUST_PASS, SHIPPED, TEST, FrozenItem
from bot.gate import GateError, failures, load_floors
from bot.report import THRESHOLDS, Answer, build_report, differences
from bot.services import DATA_DIR

FLOORS = load_floors(DATA_DIR)
NAMES = {"01": "城乡建设", "04": "劳动和社会保障", "05": "卫生计生", "08": "政法"}


def model_figures(macro: float = 0.9, recall: float | None = 0.95, passed: int = 60, **critical: float) -> dict[str, Any]:
    per_class = {code[1:]: {"name": NAMES[code[1:]], "f1": f1, "support": 30} for code, f1 in critical.items()}
    return {"macro_f1": macro, "per_class": per_class, "emergency": {"recall": recall}, "must_pass": {"total": 60, "passed": passed}}


# -- the gate -------------------------------------------------------------------------------------------------------------


def test_candidate_as_good_as_the_serving_model_may_serve() -> None:
    assert failures(model_figures(macro=0.891, _05=0.88), model_figures(_05=0.9), FLOORS) == []


@pytest.mark.parametrize(
    ("candidate", "figure", "said"),
    [
        (model_figures(macro=0.88), "macro_f1", ("88.0%", "90.0%")),
        (model_figures(_05=0.8), "f1:05", ("卫生计生", "80.0%", "90.0%")),
        (model_figures(recall=0.94), "emergency_recall", ("94.0%", "95.0%")),
        (model_figures(passed=58), "must_pass", ("60 条", "2 条")),
    ],
)
def test_figure_that_fell_is_named_with_both_numbers(candidate: dict[str, Any], figure: str, said: tuple[str, ...]) -> None:
    failed = failures(candidate, model_figures(_05=0.9), FLOORS)
    assert [failure.figure for failure in failed] == [figure]
    assert all(part in failed[0].sentence for part in said)


def test_few_emergencies_found_keeps_even_a_first_model_out() -> None:
    assert [failure.figure for failure in failures(model_figures(recall=0.85), None, FLOORS)] == ["emergency_recall"]
    assert failures(model_figures(recall=None), None, FLOORS) == []


def test_class_with_few_items_is_not_judged_by_itself() -> None:
    serving = model_figures(_05=0.9)
    serving["per_class"]["05"]["support"] = FLOORS.least_support - 1
    assert failures(model_figures(_05=0.1), serving, FLOORS) == []


def test_gate_file_that_cannot_be_used_is_named(tmp_path: Any) -> None:
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / "gate.yml").write_text("overall_drop: viel", encoding="utf-8")
    with pytest.raises(GateError, match="gate.yml"):
        load_floors(tmp_path)


# -- suspicious data ------------------------------------------------------------------------------------------------------


def readings(wrong: float, source: str = "import:3", count: int = 300, sure: float = 0.93) -> list[Reading]:
    """Of a model that is so sure and right as often, on labels of which a share is wrong on top."""
    chance = random.Random(1)
    found = []
    for _ in range(count):
        label = chance.choice(["01", "04", "05"])
        read = label if chance.random() < sure else "08"
        found.append(Reading(source, "04" if chance.random() < wrong and label != "04" else label, read, sure))
    return found


def test_import_with_flipped_labels_is_suspicious_and_a_sound_one_is_not() -> None:
    assert contradicted_sources(readings(0.0), {}) == []
    found = contradicted_sources([*readings(0.0, "import:1"), *readings(0.3, "import:2")], {"import:2": "九月工单.xlsx"})
    assert [suspicion.source for suspicion in found] == ["import:2"]
    assert "九月工单.xlsx" in found[0].sentence


def test_which_classes_were_exchanged_is_said() -> None:
    (found,) = contradicted_sources(readings(0.3), {}, NAMES)
    assert "读作“城乡建设”、标成“劳动和社会保障”" in found.sentence and "条" in found.sentence


def one_class(label: str, read: str, count: int = 20) -> list[Reading]:
    """A small class in an import that is sound otherwise."""
    return [*readings(0.0, count=280, sure=0.97), *(Reading("import:3", label, read, 0.97) for _ in range(count))]


@pytest.mark.parametrize(("label", "read", "said"), [("01", "08", "读作“政法”"), ("08", "04", "标成“政法”")])
def test_one_small_class_put_under_another_is_suspicious_though_the_whole_is_not(label: str, read: str, said: str) -> None:
    (found,) = contradicted_sources(one_class(label, read), {"import:3": "九月工单.xlsx"}, NAMES)
    assert found.source == "import:3" and "九月工单.xlsx" in found.sentence and said in found.sentence
    assert contradicted_sources(one_class("08", "08"), {}, NAMES) == []


def test_few_rows_accuse_nobody() -> None:
    assert contradicted_sources(readings(1.0, count=20), {}) == []


def test_class_that_vanished_is_named() -> None:
    assert vanished_classes({"01": 50, "04": 3}, {"01": 40, "04": 60}, [], NAMES) == []
    (gone,) = vanished_classes({"01": 50}, {"01": 40, "04": 60}, [], NAMES)
    assert "劳动和社会保障" in gone.sentence and "60" in gone.sentence
    read = [Reading("import:3", "01", "04", 0.95)] * 25
    (merged,) = vanished_classes({"01": 50}, {}, read, NAMES)
    assert "25" in merged.sentence


BEFORE = {"01": 300, "04": 280, "05": 120}


def test_class_that_a_later_import_lacks_is_named_with_what_it_should_have() -> None:
    counts = {"import:1": BEFORE, "import:2": {"01": 380, "04": 320}}
    (found,) = emptied_classes(counts, ["import:2"], {"import:2": "九月工单.xlsx"}, NAMES)
    assert found.source == "import:2" and all(part in found.sentence for part in ("九月工单.xlsx", "“卫生计生”0 条", "120 条"))
    assert "3 条" in emptied_classes({**counts, "import:2": {"01": 380, "04": 320, "05": 3}}, ["import:2"], {}, NAMES)[0].sentence


@pytest.mark.parametrize(
    "later",
    [
        pytest.param({"01": 330, "04": 260, "05": 60}, id="half as many"),
        pytest.param({"01": 20, "04": 22}, id="a small file"),
        pytest.param({"04": 500}, id="a file about one matter"),
    ],
)
def test_import_that_lacks_no_more_than_files_do_accuses_nobody(later: dict[str, int]) -> None:
    assert emptied_classes({"import:1": BEFORE, "import:2": later}, ["import:2"], {}, NAMES) == []
    assert emptied_classes({"import:1": BEFORE}, ["import:1"], {}, NAMES) == []


def test_sentence_said_hundreds_of_times_is_told() -> None:
    assert copied_texts([2, 3, 5], 3000) == []
    assert "500 次" in copied_texts([500, 2], 3000)[0].sentence
    (told,) = copied_texts([500, 2], 3000, of_largest="都标成“卫生计生”")
    assert "500 次（都标成“卫生计生”）" in told.sentence


def test_repeats_of_a_file_are_counted_with_their_labels() -> None:
    repeats = Repeats()
    for row in range(2, 302):
        repeats.add(row, f"第{row}条", "01")
    for row in range(302, 332):
        repeats.add(row, "油烟大", "06" if row % 3 else "13")
    (large,) = repeats.large()
    assert (large.row, large.text, large.count, large.labels) == (302, "油烟大", 30, {"06": 20, "13": 10})


# -- figures --------------------------------------------------------------------------------------------------------------


def item(number: int, kind: str = TEST, source: str = SHIPPED, **labels: Any) -> FrozenItem:
    return FrozenItem(number, kind, f"第{number}条", labels, source)


def answer(category: str, confidence: float = 0.9, **more: Any) -> Answer:
    given = {"request_type": "投诉", "urgency": "一般", "emergency": False, "intent": "report_problem", "milliseconds": 5.0}
    return Answer(category, confidence, **{**given, **more})


ITEMS = [
    item(1, category="01", emergency=False),
    item(2, category="010203", request_type="投诉"),
    item(3, source="import:1", category="04"),
    item(4, source="import:1", category="0401"),
    item(5, kind=MUST_PASS, emergency=True),
    item(6, kind=MUST_PASS, category="0401", intent="report_problem"),
]
GOOD = [
    answer("010101"), answer("010299", 0.7), answer("040101"), answer("040202", 0.6), answer("080101", emergency=True), answer("040101"),
]  # fmt: skip
WORSE = [answer("010101"), answer("040101", 0.8), answer("040101"), answer("040202"), answer("080101"), answer("050101")]


def test_report_counts_classes_sources_and_emergencies() -> None:
    report = build_report(ITEMS, GOOD, WORSE, NAMES)
    ours, theirs = report["candidate"], report["serving"]
    assert ours["macro_f1"] == ours["accuracy"] == 1.0 and theirs["accuracy"] == 0.75
    assert theirs["per_class"]["01"] == {"name": "城乡建设", "precision": 1.0, "recall": 0.5, "f1": 0.6667, "support": 2}
    assert theirs["confusion"] == {"codes": ["01", "04"], "names": ["城乡建设", "劳动和社会保障"], "rows": [[1, 1], [0, 2]]}
    assert theirs["by_source"]["shipped"]["items"] == 2 and theirs["by_source"]["city"]["accuracy"] == 1.0
    assert (ours["emergency"]["recall"], theirs["emergency"]["recall"], theirs["emergency"]["missed"]) == (1.0, 0.0, [5])
    assert ours["must_pass"]["passed"] == 2 and [wrong["id"] for wrong in theirs["must_pass"]["wrong"]] == [5, 6]


def test_report_names_what_only_one_model_reads_right() -> None:
    report = build_report(ITEMS, GOOD, WORSE, NAMES)
    assert [(change["id"], change["new"], change["old"]) for change in report["newly_right"]] == [(6, "04", "05"), (2, "01", "04")]
    assert report["newly_wrong"] == [] and build_report(ITEMS, WORSE, GOOD, NAMES)["newly_wrong_count"] == 2


def test_coverage_says_how_many_are_sure_enough_and_how_many_of_them_right() -> None:
    coverage = build_report(ITEMS, WORSE, None, NAMES)["candidate"]["coverage"]
    assert coverage[0] == [4, 3] and coverage[THRESHOLDS.index(0.85)] == [3, 3] and coverage[-1] == [0, 0]


def test_higher_level_of_a_category_is_met_by_every_class_below_it() -> None:
    assert differences(item(1, category="04"), answer("040202")) == {}
    assert differences(item(1, category="0401", urgency="特急"), answer("040202")) == {"category": "040202", "urgency": "一般"}
