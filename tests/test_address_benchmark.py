"""`benchmark address`: how tagged addresses are read, learned and scored."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bot.address_benchmark import PARTS, benchmark_address, cut_to, parts_of_tags
from bot.cli import main
from bot.gazetteer import Division, Gazetteer
from bot.nlu.address import Lexicon, elect, entities_of, tokens_of

DIVISIONS = [Division("32", "江苏省"), Division("3208", "淮安市"), Division("320812", "清江浦区"), Division("320803", "淮安区")]
ROADS, ESTATES = ["健康东路", "淮海南路", "大同路", "明远路", "交通路", "西安路"], ["桂花园", "荷花苑", "清水湾", "杏林府"]


def _row(*parts: tuple[str, str]) -> dict[str, Any]:
    tags = [f"{'B' if n == 0 else 'I'}-{kind}" for kind, name in parts for n in range(len(tokens_of(name)))]
    return {"text": "".join(name for _, name in parts), "tags": tags}


def _rows() -> list[dict[str, Any]]:
    return [
        _row(("city", "淮安市"), ("district", district), ("road", road), ("roadno", f"{n + 3}号"), ("poi", estate), ("houseno", f"{n + 1}幢"))
        for district in ("清江浦区", "淮安区")
        for n, road in enumerate(ROADS)
        for estate in ESTATES
    ]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "size", "cut"),
    [
        ("大同路34-2号", 5, ["大", "同", "路", "34-2", "号"]),
        ("桂花园101203", 5, ["桂", "花", "园", "1", "01203"]),
        ("C3-4", 4, ["C", "3", "-", "4"]),
    ],
)
def test_a_text_is_cut_into_as_many_tokens_as_it_has_tags(text: str, size: int, cut: list[str]) -> None:
    assert cut in cut_to(tokens_of(text), size)


def test_what_cannot_be_cut_is_left_out() -> None:
    assert cut_to(tokens_of("大同路"), 7) == [] and cut_to(tokens_of("1-" * 400), 2) == []


def test_entities_open_at_b_and_at_a_lost_i() -> None:
    assert entities_of(["B-road", "I-road", "B-road", "I-poi", "O", "I-poi"]) == [
        ("road", 0, 2), ("road", 2, 3), ("poi", 3, 4), ("poi", 5, 6),
    ]  # fmt: skip


def test_voters_elect_parts_that_do_not_overlap() -> None:
    together, apart = ["B-poi", "I-poi", "I-poi"], ["B-poi", "I-poi", "B-subpoi"]
    assert elect([together, together, apart], 3) == together
    assert elect([apart, together, apart], 3) == apart
    assert elect([["B-poi"], ["B-road"]], 1) == ["O"]


def test_an_address_does_not_learn_from_itself() -> None:
    row = _row(("road", "大同路"), ("roadno", "3号"))
    once, twice = Lexicon([(tokens_of(row["text"]), row["tags"])]), Lexicon([(tokens_of(row["text"]), row["tags"])] * 2)
    own = Counter({("road", "大同路"): 1})
    assert list(once.matches("大同路", own)) == []
    assert list(twice.matches("大同路", own)) == [(0, 3, [("road", 1)])]
    assert list(once.matches("大同路", Counter())) == [(0, 3, [("road", 1)])]


def test_their_tags_as_our_parts() -> None:
    row = _row(("district", "淮安区"), ("road", "大同路"), ("roadno", "3号"), ("poi", "桂花园"), ("subpoi", "二期"), ("houseno", "2幢"), ("roomno", "301"))
    assert parts_of_tags(tokens_of(row["text"]), row["tags"]) == {
        "district": {"淮安区"}, "road": {"大同路3号"}, "poi": {"桂花园", "桂花园二期"}, "building": {"2幢301"},
    }  # fmt: skip


def test_benchmark_scores_reader_and_shipped_rules(tmp_path: Path) -> None:
    test = [_row(("city", "淮安市"), ("district", "淮安区"), ("road", "水门路"), ("roadno", "8号"), ("poi", "桂花园"), ("houseno", "7幢"))]
    unreadable = {"text": "大同路", "tags": ["B-road"] * 9}
    gazetteer = Gazetteer(DIVISIONS, [], {"code": "3208"})
    report = benchmark_address([_write(tmp_path / "a.jsonl", _rows())], _write(tmp_path / "b.jsonl", [*test, unreadable]), gazetteer)
    assert (report["entity_f1"], report["precision"], report["recall"], report["token_f1"]) == (1.0, 1.0, 1.0, 1.0)
    assert (report["rows"], report["rows_left_out"], report["train_rows"]) == (1, 1, 48)
    assert report["per_tag"]["road"] == {"f1": 1.0, "support": 1} and report["predict_ms_p50"] > 0
    assert report["shipped_parts"]["f1"] == 1.0 and set(report["shipped_parts"]["per_part"]) == set(PARTS)


def test_benchmark_refuses_rows_without_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINSHENG_VAR_DIR", str(tmp_path / "var"))
    good, bad = _write(tmp_path / "a.jsonl", _rows()), _write(tmp_path / "b.jsonl", [{"text": "大同路", "tags": "B-road"}])
    files = [str(item) for item in ("--train", bad, "--test", good, "--json", tmp_path / "report.json")]
    assert main(["benchmark", "address", *files]) == 1
    assert "b.jsonl line 1 needs a text and a list of tags" in capsys.readouterr().err
