"""The category reader's parts: opening tokens, one-pass counting, two views stacked, twins, ranks, evidence measure."""
from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from bot.benchmark import Labelled, said_twice
from bot.evaluation import _evidence_carries
from bot.nlu.features import FIRST_MARK, VERY_FIRST_WORDS, WORD_MARK, Vectorizer, opening_tokens, tokens_from_words, tokens_of
from bot.nlu.linear import LinearReader, StackedReader
from bot.nlu.reader import CategoryReader

LIGHTS = [f"{place}的路灯坏了，晚上一片漆黑，请派人来修" for place in ("东门桥头", "西关菜场", "南园后巷", "北塘小学", "中心花园", "老车站")]
WAGES = [f"{place}拖欠工资，老板一直躲着不见人，家里等钱用" for place in ("服装厂", "砖瓦厂", "物流公司", "饭店后厨", "装修队", "养猪场")]
BUSES = [f"{place}的公交车等了一个钟头还不来，上班天天迟到" for place in ("一路", "二路", "八路", "十路", "环线", "夜班线")]
CODES = ["010203"] * 3 + ["010204"] * 3 + ["040101"] * 6 + ["100301"] * 6
TEXTS = [*LIGHTS, *WAGES, *BUSES]


def _matrices(texts: list[str]) -> tuple[Vectorizer, csr_matrix, Vectorizer, csr_matrix]:
    tokens = [tokens_of(text) for text in texts]
    return *Vectorizer.fit_matrix(tokens), *Vectorizer.fit_matrix([opening_tokens(row) for row in tokens])


def test_opening_holds_the_first_words_and_nothing_after_them() -> None:
    words = [f"词{number}" for number in range(40)]
    opening = opening_tokens(tokens_from_words(words))
    assert [token[1:] for token in opening if token[0] == WORD_MARK] == words[:15]
    assert [token[1:] for token in opening if token[0] == FIRST_MARK] == words[:VERY_FIRST_WORDS]
    assert not any("词15" in token for token in opening)
    assert opening_tokens(tokens_of("")) == []


def test_documents_counted_once_weigh_what_rows_weigh_one_by_one() -> None:
    documents = [tokens_of(text) for text in [*TEXTS, "", "！！"]]
    vectorizer, matrix = Vectorizer.fit_matrix(documents)
    assert (matrix != vectorizer.matrix(documents)).nnz == 0
    assert Vectorizer.fit(documents).vocabulary == vectorizer.vocabulary
    unknown, weights = vectorizer.row(["从未见过"])
    assert len(unknown) == len(weights) == 0


def test_stacked_reader_reads_both_views_and_its_probabilities_sum_to_one() -> None:
    whole, matrix, opening, opening_matrix = _matrices(TEXTS)
    reader = StackedReader.fit(matrix, opening_matrix, [code[:2] for code in CODES])
    for text, code in (("小区门口路灯坏了", "01"), ("厂里拖欠工资三个月", "04"), ("公交车半天不来", "10")):
        tokens = tokens_of(text)
        views = whole.row(tokens), opening.row(opening_tokens(tokens))
        assert reader.best(*views)[0] == code
        assert reader.probabilities(*views).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("labels", [["甲"] * 6 + ["乙"] * 12, ["甲"] * 17 + ["乙"], ["甲"] * 18])
def test_stacked_reader_fits_two_classes_a_lonely_text_and_a_single_class(labels: list[str]) -> None:
    whole, matrix, opening, opening_matrix = _matrices(TEXTS)
    reader = StackedReader.fit(matrix, opening_matrix, labels)
    tokens = tokens_of(TEXTS[0])
    name, confidence = reader.best(whole.row(tokens), opening.row(opening_tokens(tokens)))
    assert name == "甲" and 0.3 < confidence <= 1.0


def test_a_message_in_both_forms_is_told_once() -> None:
    raw = [Labelled("", row, "".join(row)) for row in (text.split() for text in ("东门 桥头 路灯 坏了 漆黑 摔跤 老人", "砖瓦厂 拖欠 工资 老板 躲 家里"))]
    given = [Labelled("", row, None) for row in (["东门", "桥头", "路灯", "坏了", "漆黑", "老人"], ["公交车", "钟头", "迟到", "上班"])]
    rows = [*raw, *given]
    _, matrix = Vectorizer.fit_matrix([tokens_from_words(row.words) for row in rows])
    assert said_twice(matrix, np.array([row.characters is None for row in rows])).tolist() == [False, False, True, False]
    assert not said_twice(matrix, np.zeros(4, np.bool_)).any()


def test_best_leaf_stands_for_its_first_level_and_doubt_lists_several() -> None:
    tokens = [tokens_of(text) for text in TEXTS]
    vectorizer, matrix = Vectorizer.fit_matrix(tokens)
    reader = CategoryReader.fit(matrix, CODES)
    row = vectorizer.row(tokens_of("路灯坏了，公交车也不来"))
    ranked = reader.best(row)
    assert ranked[0][1] == pytest.approx(float(reader.first.probabilities(row).max()))
    assert len(ranked) == 4 and {code[:2] for code, _ in ranked[:3]} == {"01", "04", "10"}


def test_reader_of_few_texts_reads_features_it_never_saw() -> None:
    _, matrix, _, _ = _matrices(TEXTS)
    reader = LinearReader.fit(matrix[:12], CODES[:12], calibrate=False)
    assert reader.probabilities((np.array([matrix.shape[1] - 1], np.int32), np.ones(1, np.float32))).sum() == pytest.approx(1.0, abs=1e-5)


class _Reads:
    """An assistant that is sure of street lights as long as they are named."""

    def parse(self, text: str) -> dict[str, object]:
        return {"reading": {"categories": [{"code": "010203", "confidence": 0.9 if "路灯" in text else 0.2}]}}


@pytest.mark.parametrize(("evidence", "carries"), [((4, 6), True), ((0, 2), False), (None, False)])
def test_evidence_is_what_the_reading_falls_without(evidence: tuple[int, int] | None, carries: bool) -> None:
    text = "门口的的路灯坏了好久"
    spans = [{"start": evidence[0], "end": evidence[1]}] if evidence else []
    assistant = _Reads()
    reading = assistant.parse(text)["reading"]
    parse = {"text": text, "evidence": spans}
    assert _evidence_carries(parse, reading, assistant, random.Random(1)) is carries  # type: ignore[arg-type]
