"""Telling words: the files, where they are found, what they teach a reader that no letter did, and the evidence they give."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bot.catalogue import load_catalogue
from bot.nlu.corpus import CorpusError, read_lexicon
from bot.nlu.evidence import evidence_spans
from bot.nlu.lexicon import Lexicon
from bot.nlu.reader import CategoryReader
from bot.nlu.view import fit_view
from bot.settings import PROJECT_ROOT

DATA = PROJECT_ROOT / "nlu_data"
LEAST_WORDS = 30
LEXICON = Lexicon({"010203": ["路灯", "灯杆"], "040101": ["欠薪", "工钱"], "100301": ["公交", "末班车", "工钱"], "130101": ["工钱", "油烟"]})


def test_every_leaf_has_telling_words() -> None:
    words = read_lexicon(DATA)
    categories = load_catalogue(DATA, "huaian").categories
    assert set(words) == set(categories)
    assert {code: len(own) for code, own in words.items() if len(own) < LEAST_WORDS} == {}


def test_words_before_a_heading_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lexicon").mkdir()
    (tmp_path / "lexicon" / "01.txt").write_text("路灯 灯杆\n# 010203 城乡建设\n井盖\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="01.txt:1"):
        read_lexicon(tmp_path)


def test_words_are_found_where_they_stand_and_words_of_three_classes_nowhere() -> None:
    hits = LEXICON.hits("末班车没了，路灯也不亮，工钱没给")
    assert [(hit.start, hit.end, hit.first_level) for hit in hits] == [(0, 3, "10"), (6, 8, "01")]
    for empty in ({}, {"010203": []}, {code: ["路灯"] for code in ("010203", "040101", "100301")}):
        assert Lexicon(empty).hits("路灯") == []


def test_documents_hold_every_word_and_are_the_same_each_time() -> None:
    documents = LEXICON.documents()
    assert documents == LEXICON.documents()
    told = Counter(code for code, _ in documents)
    assert set(told) == set(LEXICON.words) and len(set(told.values())) == 1
    assert all("路灯" in tokens for code, tokens in documents if code == "010203")


def test_reader_knows_a_matter_that_no_letter_mentioned() -> None:
    letters = ["东门桥头的路灯坏了，请派人来修", "西关菜场晚上路灯不亮", "砖瓦厂拖欠工资不给", "饭店后厨欠薪三个月", "一路公交半天不来", "二路公交又甩站"]
    codes = ["010203", "010203", "040101", "040101", "100301", "100301"]
    view, matrix, aids = fit_view(letters, LEXICON)
    reader = CategoryReader.fit(matrix, codes, aids=aids)
    seen = view.see("末班车走得太早")
    assert reader.best(seen.row)[0][0] == "100301"
    spans = evidence_spans(seen.text, view.vectorizer, reader.first, seen.row, "10", seen.hits)
    assert spans and spans[0]["text"] in ("末班车", "末班")
