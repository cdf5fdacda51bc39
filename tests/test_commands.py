"""The commands of DESIGN §7 as operators type them: subprocesses of `python -m bot` on the model that is there."""
from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from argon2 import PasswordHasher
from openpyxl import Workbook, load_workbook

from bot.assistant import AssistantError
from bot.batch import classify_file
from bot.benchmark import benchmark_category
from bot.embedded import EmbeddedAssistant
from bot.models import archive_path, register_model
from bot.nlu.place_finder import is_readable
from bot.petition import Petition
from bot.processes import BATCH, spread
from bot.services import Services, build_services
from bot.settings import PROJECT_ROOT, load_settings
from bot.tables import FLAT_COLUMNS, open_table

PARSE_KEYS = {
    "text", "model", "intent", "request_type", "categories", "urgency", "locations", "main_location", "evidence", "parts",
}  # fmt: skip
SAID = [
    "清江浦区山阳小区三号楼路灯坏了一个月没人修",
    "工地拖欠我们三十多个人两个月工资，明天就要过年了",
    "表扬水渡口街道窗口的小李，办事又快又耐心",
]
FIRST, SECOND = "20260101-000000", "20260102-000000"


@pytest.fixture(scope="session")
def archive() -> Path:
    """The newest trained model. There is no test without one: `make test` sets one up."""
    models = sorted((PROJECT_ROOT / "models").glob("*.tar.gz"))
    assert models, "no model in models/: run `make setup` first"
    return models[-1]


@pytest.fixture()
def environment(tmp_path: Path, archive: Path) -> dict[str, str]:
    """A fresh installation with one model, the archive of this checkout under a name of its own."""
    home = tmp_path / "installation"
    (home / "models").mkdir(parents=True)
    (home / "var").mkdir()
    (home / "models" / f"{FIRST}.tar.gz").symlink_to(archive)
    ours = {"VAR_DIR": home / "var", "MODELS_DIR": home / "models", "DISPATCH_URL": "", "DATABASE_URL": "", "REDIS_URL": "", "RASA_URL": ""}
    return {**os.environ, **{f"MINSHENG_{name}": str(value) for name, value in ours.items()}}


def run(environment: dict[str, str], *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bot", *map(str, arguments)],
        cwd=PROJECT_ROOT, env=environment, input=stdin, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def succeed(environment: dict[str, str], *arguments: object, stdin: str = "") -> str:
    done = run(environment, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def refuse(environment: dict[str, str], *arguments: object, stdin: str = "") -> str:
    """The one sentence on standard error."""
    done = run(environment, *arguments, stdin=stdin)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(sentences) == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    return sentences[0]


def services_of(environment: dict[str, str]) -> Services:
    return build_services(load_settings(environment))


@pytest.fixture()
def database(environment: dict[str, str]) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(Path(environment["MINSHENG_VAR_DIR"]) / "minsheng.db")
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


# -- parse and classify ---------------------------------------------------------------------------------------------------


def test_parse_prints_the_parse_of_the_contract(environment: dict[str, str]) -> None:
    parse = json.loads(succeed(environment, "parse", SAID[0]))
    assert parse.keys() >= PARSE_KEYS
    assert (parse["text"], parse["model"]) == (SAID[0], FIRST)
    assert 1 <= len(parse["categories"]) <= 5
    assert all(SAID[0][place["start"] : place["end"]] == place["text"] for place in parse["locations"])


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        book = Workbook()
        for values in [list(rows[0]), *(list(row.values()) for row in rows)]:
            book.active.append(values)
        book.save(path)
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".csv":
        with open(path, encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    heading, *rows = load_workbook(path).active.iter_rows(values_only=True)
    return [dict(zip(heading, row, strict=True)) for row in rows]


@pytest.mark.parametrize(("source", "target"), [("csv", "jsonl"), ("xlsx", "csv"), ("jsonl", "xlsx")])
def test_classify_repeats_every_column_and_adds_the_parse(
    environment: dict[str, str], tmp_path: Path, source: str, target: str
) -> None:
    given = [{"编号": f"A{number}", "text": text, "备注": "无"} for number, text in enumerate([*SAID, ""])]
    output = tmp_path / f"out.{target}"
    said = succeed(environment, "classify", _write(tmp_path / f"in.{source}", given), "--out", output)
    rows = _read(output)
    assert said.startswith("4 rows") and len(rows) == 4
    assert [(row["编号"], row["text"] or "", row["备注"]) for row in rows] == [tuple(row.values()) for row in given]
    if target == "jsonl":
        assert all(row["parse"].keys() >= PARSE_KEYS for row in rows[:3]) and rows[3]["parse"] is None
    else:
        assert list(rows[0])[-len(FLAT_COLUMNS) :] == list(FLAT_COLUMNS)
        assert all(row["category_1"] and row["request_type"] and row["model"] == FIRST for row in rows[:3])
        assert not any(rows[3][name] for name in FLAT_COLUMNS)


@pytest.mark.parametrize(
    ("name", "content", "out", "sentence"),
    [
        ("in.txt", "text\n路灯坏了\n", "out.csv", "only .csv, .xlsx and .jsonl"),
        ("in.csv", "text\n路灯坏了\n", "out.doc", "write to .csv, .xlsx or .jsonl"),
        ("in.csv", "内容\n路灯坏了\n", "out.csv", "no column or key called text or turns"),
        ("in.jsonl", '{"text": "路灯坏了"}\n{"text": \n', "out.csv", "line 2 is not a JSON object"),
        ("in.xlsx", "not a workbook", "out.csv", "not a readable xlsx"),
        ("in.csv", "", "out.csv", "is empty"),
    ],
)
def test_unreadable_file_is_refused_in_one_sentence(
    environment: dict[str, str], tmp_path: Path, name: str, content: str, out: str, sentence: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assistant = _Unused()
    with pytest.raises(ValueError, match=".+") as caught:
        classify_file(tmp_path / name, tmp_path / out, assistant, services_of(environment))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / out).exists() and not list(tmp_path.glob(".*.part"))


class _Unused:
    """No row of an unreadable file may reach the assistant."""

    concurrency: ClassVar[int] = 8

    def parse(self, text: str) -> Any:
        raise AssertionError("the file should have been refused first")

    prepare = parse

    def serving_model(self) -> str:
        return "none"


def test_missing_file_is_refused_in_one_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    assert "is not a file" in refuse(environment, "import", tmp_path / "nowhere.csv")


@pytest.fixture(scope="session")
def assistant(archive: Path) -> EmbeddedAssistant:
    return EmbeddedAssistant(archive)


@pytest.fixture()
def classify(environment: dict[str, str], tmp_path: Path, assistant: EmbeddedAssistant) -> Callable[[Path, str], list[dict[str, Any]]]:
    def classify(source: Path, target: str) -> list[dict[str, Any]]:
        classify_file(source, tmp_path / target, assistant, services_of(environment))
        return _read(tmp_path / target)

    return classify


Classify = Callable[[Path, str], list[dict[str, Any]]]


def test_gb18030_csv_is_read(classify: Classify, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(f"text,区\n{SAID[0]},清江浦\n".encode("gb18030"))
    assert [(row["text"], row["区"]) for row in classify(source, "out.csv")] == [(SAID[0], "清江浦")]


def test_spreadsheet_runs_no_cell_of_ours(classify: Classify, tmp_path: Path) -> None:
    given = [{"text": "=cmd|'/C calc'!A0 路灯坏了", "备注": "@SUM(1)", "数": "-5", "单号": "+1+1"}]
    (row,) = classify(_write(tmp_path / "in.jsonl", given), "out.csv")
    assert (row["text"], row["备注"], row["数"], row["单号"]) == ("'=cmd|'/C calc'!A0 路灯坏了", "'@SUM(1)", "-5", "'+1+1")
    classify(tmp_path / "in.jsonl", "out.xlsx")
    cell = load_workbook(tmp_path / "out.xlsx").active["A2"]
    assert (cell.data_type, cell.value) == ("s", given[0]["text"])


def test_column_of_the_input_is_never_overwritten(classify: Classify, tmp_path: Path) -> None:
    given = [{"text": SAID[0], "urgency": "人工判断", "category_1": "人工"}]
    (row,) = classify(_write(tmp_path / "in.csv", given), "out.csv")
    assert (row["urgency"], row["category_1"]) == ("人工判断", "人工")
    assert row["parse_urgency"] in ("一般", "紧急", "特急") and row["parse_category_1"]


def test_uneven_rows_and_repeated_headings_lose_nothing(classify: Classify, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"text,备注,备注\n{SAID[0]},甲,乙,多出来的\n{SAID[1]}\n", encoding="utf-8")
    first, second = classify(tmp_path / "in.csv", "out.jsonl")
    assert list(first.values())[:4] == [SAID[0], "甲", "乙", "多出来的"]
    assert second["text"] == SAID[1] and second["parse"]["categories"]


def test_output_may_replace_its_input(classify: Classify, tmp_path: Path) -> None:
    rows = classify(_write(tmp_path / "same.csv", [{"text": text} for text in SAID]), "same.csv")
    assert [row["text"] for row in rows] == SAID and all(row["category_code"] for row in rows)


@pytest.mark.parametrize(
    "turns",
    [
        [{"speaker": "agent", "text": "您好，请讲"}, {"speaker": "citizen", "text": "我姓王，山阳小区三号楼电梯坏了"}],
        '[{"speaker": "agent", "text": "您好，请讲"}, {"speaker": "citizen", "text": "我姓王，山阳小区三号楼电梯坏了"}]',
        "坐席：您好，请讲\n市民：我姓王，山阳小区三号楼电梯坏了",
    ],
)
def test_turns_of_a_call_are_read_with_their_draft(classify: Classify, tmp_path: Path, turns: Any) -> None:
    (row,) = classify(_write(tmp_path / "in.jsonl", [{"id": 7, "turns": turns}]), "out.jsonl")
    assert (row["id"], row["turns"]) == (7, turns)
    assert row["parse"]["text"] == "我姓王，山阳小区三号楼电梯坏了"
    name = row["parse"]["draft"]["name"]
    assert (name["value"], name["turn"], name["start"], name["end"]) == ("王", 1, 2, 3)


def test_broken_row_is_named_and_the_others_are_read(classify: Classify, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [{"turns": "[{broken", "text": ""}, {"turns": "", "text": "\ud800路灯坏了"}, {"turns": [{"speaker": "agent", "text": "喂"}]}]
    lines = "".join(json.dumps(row) + "\n" for row in given)
    (tmp_path / "in.jsonl").write_text(lines, encoding="utf-8")
    rows = classify(tmp_path / "in.jsonl", "out.jsonl")
    assert [row["parse"] is None for row in rows] == [True, False, True]
    assert "row 1: turns is not valid JSON" in capsys.readouterr().err


def test_several_processes_keep_rows_in_order(
    environment: dict[str, str], tmp_path: Path, assistant: EmbeddedAssistant, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": number, "text": f"{number}号楼的路灯坏了"} for number in range(3 * BATCH + 5)]
    rows[40] = {"id": 40, "turns": "[not json"}
    source = _write(tmp_path / "in.jsonl", rows)
    services = services_of(environment)
    for name, processes in (("one.jsonl", 1), ("two.jsonl", 2)):
        assert classify_file(source, tmp_path / name, assistant, services, processes=processes) == len(rows)
        assert "row 41" in capsys.readouterr().err
    assert _read(tmp_path / "two.jsonl") == _read(tmp_path / "one.jsonl")
    assert [row["id"] for row in _read(tmp_path / "two.jsonl")] == list(range(len(rows)))


def test_process_that_dies_is_said_and_not_waited_for() -> None:
    with pytest.raises(AssistantError, match="died"):
        list(spread(lambda texts: os._exit(9), ["路灯坏了"], str, processes=2))


def test_nesting_without_end_spoils_one_row(classify: Classify, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = classify(_write(tmp_path / "in.csv", [{"turns": "[" * 100_000}, {"turns": "市民：路灯坏了"}]), "out.jsonl")
    assert rows[0]["parse"] is None and rows[1]["parse"]["text"] == "路灯坏了"
    assert "row 2" in capsys.readouterr().err


def test_damaged_workbook_is_said_in_one_sentence(classify: Classify, tmp_path: Path) -> None:
    whole = _write(tmp_path / "in.xlsx", [{"text": f"{number}号楼的路灯坏了"} for number in range(300)]).read_bytes()
    place = whole.index(b"sheet1.xml") + 400
    (tmp_path / "in.xlsx").write_bytes(whole[:place] + bytes(64) + whole[place + 64 :])
    with pytest.raises(ValueError, match="in.xlsx"):
        classify(tmp_path / "in.xlsx", "out.csv")


def test_thousands_of_nameless_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text("text" + "," * 16_000 + "\n路灯坏了\n", encoding="utf-8")
    assert len(open_table(tmp_path / "wide.csv").headings) == 16_001


def test_awkward_texts_pass(classify: Classify, tmp_path: Path) -> None:
    texts = ["/路灯坏了", "🙂", "？", "a", "\u0000路灯", "路灯坏了" * 5000, " ", "１２３", "http://x.cn/?a=1&b=2"]
    rows = classify(_write(tmp_path / "in.jsonl", [{"text": text} for text in texts]), "out.xlsx")
    assert len(rows) == len(texts)
    assert [bool(row["category_code"]) for row in rows] == [bool(text.strip()) for text in texts]


@pytest.mark.parametrize("text", ["/greet", "  \n清江浦区山阳小区三号楼路灯坏了"])
def test_leading_slash_and_blanks_are_part_of_the_text(classify: Classify, tmp_path: Path, text: str) -> None:
    (row,) = classify(_write(tmp_path / "in.jsonl", [{"text": text}]), "out.jsonl")
    parse = row["parse"]
    assert parse["text"] == text and parse["parts"][-1]["end"] == len(text)
    assert all(text[span["start"] : span["end"]] == span["text"] for span in (*parse["locations"], *parse["evidence"]))


# -- evaluate and benchmark -----------------------------------------------------------------------------------------------


def test_evaluate_takes_any_annotator_s_label_and_quotes_no_text(environment: dict[str, str], tmp_path: Path) -> None:
    everything = ["咨询", "求助", "投诉", "举报", "建议", "表扬"]
    gold = [
        {
            "id": "e1", "text": SAID[0], "category": ["城乡建设", "其他"], "request_type": everything, "urgency": "一般",
            "emergency": [False], "locations": [["清江浦区山阳小区三号楼"], ["山阳小区"]],
            "main_location": ["清江浦区山阳小区三号楼", None], "district": ["清江浦区"], "appeals": [1, 2],
        },
        {"id": "e2", "text": SAID[2], "request_type": ["没有这个"], "emergency": True},
    ]  # fmt: skip
    succeed(environment, "evaluate", _write(tmp_path / "gold.jsonl", gold), "--json", tmp_path / "report.json")
    written = (tmp_path / "report.json").read_text(encoding="utf-8")
    report = json.loads(written)
    assert (report["rows"], report["request_type_accuracy"], report["emergency_recall"]) == (2, 0.5, 0.0)
    assert report["emergency_false_alarms"] == 0.0 and report["appeals_accuracy"] == 1.0
    assert report["mistakes"]["request_type"][0]["id"] == "e2"
    assert report["mistakes"]["emergency"] == [{"id": "e2", "gold": [True], "predicted": False}]
    assert not any(text in written for text in (*SAID, "山阳小区"))


PLACES = ["东门", "西门", "南路", "北街", "中学旁", "河边", "菜场", "车站", "三号楼", "五区"]


MATTERS = {"城乡建设": "的 路灯 坏 了 一直 没有 维修", "劳动": "的 工资 拖欠 了 老板 不 给"}
STOP_WORDS = frozenset(("的", "了", "不", "给", "没有"))


def _labelled(tokens: bool) -> list[dict[str, str]]:
    """The same matters as raw texts, or as words without stop words."""
    rows = []
    for place in PLACES:
        for label, matter in MATTERS.items():
            words = [place, *matter.split()]
            kept = " ".join(word for word in words if word not in STOP_WORDS)
            rows.append({"tokens": kept, "label": label} if tokens else {"text": "".join(words), "label": label})
    return rows


def test_benchmark_learns_from_texts_and_tokens_together(environment: dict[str, str], tmp_path: Path) -> None:
    texts, tokens = _write(tmp_path / "texts.csv", _labelled(False)), _write(tmp_path / "tokens.csv", _labelled(True))
    test = _write(tmp_path / "test.csv", [{"text": "公园的路灯坏了", "label": "城乡建设"}, {"text": "厂里拖欠工资", "label": "劳动"}])
    succeed(environment, "benchmark", "category", "--train", texts, "--train", tokens, "--test", test, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["macro_f1"], report["accuracy"], report["rows"], report["train_rows"]) == (1.0, 1.0, 2, 40)
    assert report["per_class"]["劳动"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert 0 < report["predict_ms_p50"] <= report["predict_ms_p99"] and report["train_seconds"] >= 0 and 0 <= report["ece"] <= 1


@pytest.mark.parametrize(("train", "test"), [(True, True), (True, False), (False, True), (False, False)])
def test_either_form_can_train_and_test(tmp_path: Path, train: bool, test: bool) -> None:
    report = benchmark_category([_write(tmp_path / "a.csv", _labelled(train))], _write(tmp_path / "b.csv", _labelled(test)))
    assert report["macro_f1"] == 1.0


def test_benchmark_refuses_a_file_without_labels(environment: dict[str, str], tmp_path: Path) -> None:
    good, bad = _write(tmp_path / "good.csv", _labelled(False)), _write(tmp_path / "bad.csv", [{"text": "路灯坏了"}])
    arguments = ("benchmark", "category", "--train", good, "--test", bad, "--json", tmp_path / "report.json")
    assert "needs the columns text,label or tokens,label" in refuse(environment, *arguments)


# -- import ---------------------------------------------------------------------------------------------------------------



def _order(text: str, category: str = "", request_type: str = "", urgency: str = "", location: str = "") -> dict[str, str]:
    return {"text": text, "category": category, "request_type": request_type, "urgency": urgency, "location": location}


ORDERS = [
    _order("山阳小区门口路灯不亮，电话13912345678", "010204", "求助", "一般", "山阳小区门口"),
    _order("工资三个月没发", "劳动和社会保障", "投诉"),
    _order("路灯不亮", "城乡建设>城市建设和市政管理 / 城市公共设施"),
    _order("", "01"),
    _order("没有这个类别", "天文"),
    _order("没有这个类型", request_type="唠叨"),
    _order("什么标签也没有"),
]


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "jsonl"])
def test_import_keeps_good_rows_masked_and_sealed_and_names_the_others(
    environment: dict[str, str], tmp_path: Path, suffix: str
) -> None:
    orders = _write(tmp_path / f"orders.{suffix}", ORDERS)
    done = run(environment, "import", orders)
    assert done.returncode == 0 and "3 rows imported, 4 refused" in done.stdout
    first = 4 if suffix == "jsonl" else 5
    assert [f"orders.{suffix} row {first + n}:" in done.stderr for n in range(4)] == [True] * 4
    services = services_of(environment)
    with services.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM annotation ORDER BY id").fetchall()
    assert [services.vault.open(row.text) for row in rows][:2] == ["山阳小区门口路灯不亮，电话139****5678", "工资三个月没发"]
    assert [json.loads(row.labels) for row in rows] == [
        {"category": "010204", "request_type": "求助", "urgency": "一般", "places": [[0, 6]]},
        {"category": "04", "request_type": "投诉"},
        {"category": "010204"},
    ]
    stored = (Path(environment["MINSHENG_VAR_DIR"]) / "minsheng.db").read_bytes()
    assert not any(word.encode() in stored for word in ("13912345678", "山阳小区", "工资三个月"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "路灯不亮", "category": "01"}\n{"text": \n'),
        ("b.csv", "内容,category\n路灯不亮,01\n"),
        ("c.csv", "text,备注\n路灯不亮,01\n"),
    ],
)
def test_unreadable_file_imports_nothing(environment: dict[str, str], tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    refuse(environment, "import", tmp_path / name)
    with services_of(environment).engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM annotation").scalar() == 0


def test_leading_zero_lost_in_a_spreadsheet_is_put_back(environment: dict[str, str], tmp_path: Path) -> None:
    succeed(environment, "import", _write(tmp_path / "orders.xlsx", [{"text": "路灯不亮", "category_code": 10204}]))
    with services_of(environment).engine.connect() as connection:
        assert json.loads(connection.exec_driver_sql("SELECT labels FROM annotation").scalar()) == {"category": "010204"}


# -- models ---------------------------------------------------------------------------------------------------------------


@pytest.fixture()
def two_models(environment: dict[str, str], archive: Path) -> dict[str, str]:
    """FIRST serves, SECOND waits as a candidate."""
    succeed(environment, "models", "list")  # brings the database up
    services = services_of(environment)
    shutil.copy(archive, services.settings.models_dir / f"{SECOND}.tar.gz")
    for version in (FIRST, SECOND):
        register_model(services, archive_path(services.settings.models_dir, version), trained_at=services.now(), metrics={})
    return environment


def _states(environment: dict[str, str]) -> dict[str, str]:
    listed = json.loads(succeed(environment, "models", "list", "--json"))
    assert all(model.keys() == {"version", "state", "trained_at", "metrics"} for model in listed)
    return {model["version"]: model["state"] for model in listed}


def test_promote_and_rollback_change_which_model_serves(two_models: dict[str, str]) -> None:
    assert _states(two_models) == {FIRST: "promoted", SECOND: "candidate"}
    succeed(two_models, "models", "promote", SECOND)
    assert _states(two_models) == {FIRST: "retired", SECOND: "promoted"}
    assert json.loads(succeed(two_models, "parse", SAID[0]))["model"] == SECOND
    assert FIRST in succeed(two_models, "models", "rollback")
    assert _states(two_models) == {FIRST: "promoted", SECOND: "retired"}


def test_a_serving_model_that_cannot_be_read_does_not_keep_its_successor_out(two_models: dict[str, str], archive: Path) -> None:
    broken = archive_path(Path(two_models["MINSHENG_MODELS_DIR"]), FIRST)
    broken.unlink()
    with tarfile.open(broken, "w:gz") as other:  # as an earlier version may have packed it
        other.add(PROJECT_ROOT / "config.yml", "components/train_Other1/state.pkl.gz")
    assert not is_readable(broken) and is_readable(archive)
    succeed(two_models, "models", "promote", SECOND)
    assert _states(two_models) == {FIRST: "retired", SECOND: "promoted"}


def test_model_that_misses_emergencies_is_not_promoted(environment: dict[str, str], two_models: dict[str, str], database: Any) -> None:
    good = {"macro_f1": 0.9, "accuracy": 0.9, "per_class": {}, "emergency": {"recall": 1.0}, "must_pass": {"total": 1, "passed": 1}}
    report = {"candidate": {**good, "emergency": {"recall": 0.5}}, "serving": good, "serving_model": FIRST}
    database.execute("UPDATE model SET report = ? WHERE version = ?", (json.dumps(report), SECOND))
    database.commit()
    assert "紧急情况只认出" in refuse(two_models, "models", "promote", SECOND)
    assert _states(two_models) == {FIRST: "promoted", SECOND: "candidate"}


def test_promoting_what_is_not_there_is_refused(two_models: dict[str, str]) -> None:
    assert "no archive" in refuse(two_models, "models", "promote", "20990101-000000")
    assert "which version" in refuse(two_models, "models", "promote")
    assert "no earlier model" in refuse(two_models, "models", "rollback")


def test_parse_without_any_model_says_what_to_do(environment: dict[str, str], tmp_path: Path) -> None:
    assert "train" in refuse({**environment, "MINSHENG_MODELS_DIR": str(tmp_path / "empty")}, "parse", SAID[0])


# -- relay and user -------------------------------------------------------------------------------------------------------


def test_relay_once_delivers_what_is_due(environment: dict[str, str], database: sqlite3.Connection) -> None:
    assert succeed(environment, "relay", "--once").startswith("0 deliveries")
    services = services_of(environment)
    ticket = services.tickets.open_ticket(Petition(id="p1", texts=(SAID[0],)), request_key="p1", conversation_id=None)
    assert succeed(environment, "relay", "--once").startswith("1 deliveries")
    assert [row["state"] for row in database.execute("SELECT state FROM outbox")] == ["delivered"]
    assert [row["ticket_number"] for row in database.execute("SELECT ticket_number FROM sandbox_delivery")] == [ticket.number]


def test_user_add_keeps_only_a_hash_of_the_password(environment: dict[str, str], database: sqlite3.Connection) -> None:
    add = ("user", "add", "zhang", "--role", "supervisor", "--districts", "清江浦区, 淮阴区")
    done = run(environment, *add, stdin="correct horse\n")
    assert done.returncode == 0 and "correct horse" not in done.stdout + done.stderr
    row = database.execute("SELECT * FROM staff_user").fetchone()
    assert (row["username"], row["role"], json.loads(row["districts"])) == ("zhang", "supervisor", ["清江浦区", "淮阴区"])
    assert PasswordHasher().verify(row["password_hash"], "correct horse")
    assert "已经有用户 zhang" in refuse(environment, *add, stdin="another password\n")
    assert "8 个字符" in refuse(environment, "user", "add", "li", stdin="short\n")


def test_wrong_usage_exits_with_2(environment: dict[str, str]) -> None:
    assert run(environment, "classify").returncode == 2
    assert run(environment, "benchmark", "weather", "--train", "a", "--test", "b", "--json", "c").returncode == 2
