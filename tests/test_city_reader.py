"""How a city's own labels teach the category: higher levels, weights, and a reading of their own for messages like its sample."""
from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from bot.nlu.city import ENOUGH, CityText, counts_of, fit_city_reading
from bot.nlu.features import Vectorizer, tokens_of
from bot.nlu.linear import LinearReader
from bot.nlu.reader import CategoryReader

# The project's letters know three classes; the city's short orders know two of them, and call a broken lamp something else.
OURS = {
    "010203": "{place}的路灯坏了，晚上一片漆黑，请派人来修",
    "040101": "{place}拖欠工资，老板一直躲着不见人，家里等钱用",
    "100301": "{place}的公交车等了一个钟头还不来，上班天天迟到",
}
THEIRS = {"04": "市民来电：{place}欠薪，要求协调", "10": "市民来电：{place}路灯不亮影响行车，要求处理"}
PLACES = [f"{first}{second}" for first in "东西南北中" for second in ("门桥头", "关菜场", "园后巷", "塘小学", "心花园", "站广场", "街口", "河沿")]


def texts(templates: dict[str, str], count: int, origin: str | None) -> list[tuple[str, str, str | None]]:
    chance = random.Random(len(templates))
    return [
        (template.format(place=f"{chance.choice(PLACES)}{number}号"), code, origin)
        for code, template in templates.items()
        for number in range(count)
    ]


def fit(rows: Sequence[tuple[str, str, str | None]]) -> tuple[Vectorizer, csr_matrix, CategoryReader]:
    vectorizer, matrix = Vectorizer.fit_matrix([tokens_of(text) for text, _, _ in rows])
    city = [CityText(text, origin, 1.0) for text, _, origin in rows]
    given = city if any(one.origin for one in city) else None
    return vectorizer, matrix, CategoryReader.fit(matrix, [code for _, code, _ in rows], city=given)


def best(vectorizer: Vectorizer, reader: CategoryReader, text: str) -> tuple[str, float]:
    return reader.best(vectorizer.row(tokens_of(text)), text)[0]


@pytest.fixture(scope="module")
def sampled() -> tuple[Vectorizer, CategoryReader]:
    vectorizer, _, reader = fit([*texts(OURS, 20, None), *texts(THEIRS, ENOUGH // 2 + 20, "sampled")])
    return vectorizer, reader


def test_label_of_the_first_level_teaches_the_first_level_and_names_a_leaf(sampled: tuple[Vectorizer, CategoryReader]) -> None:
    vectorizer, reader = sampled
    code, confidence = best(vectorizer, reader, "市民来电：东街口9号路灯不亮影响行车，要求处理")
    assert code == "100301" and confidence > 0.8
    assert set(reader.leaves) == {"01", "04", "10"} and all(len(leaf.classes[0]) == 6 for leaf in reader.leaves.values())


def test_messages_unlike_the_sample_keep_every_class_open(sampled: tuple[Vectorizer, CategoryReader]) -> None:
    vectorizer, reader = sampled
    assert reader.city is not None
    assert best(vectorizer, reader, "南园后巷的路灯坏了，晚上一片漆黑，请派人来修")[0] == "010203"


def test_probabilities_of_the_first_levels_sum_to_one(sampled: tuple[Vectorizer, CategoryReader]) -> None:
    vectorizer, reader = sampled
    for text in ("市民来电：东街口9号欠薪，要求协调", "公交车半天不来", ""):
        row = vectorizer.row(tokens_of(text))
        leading = reader.best(row, text, count=3)
        assert sum(confidence for _, confidence in leading[:3]) == pytest.approx(1.0, abs=0.01)


def test_few_labels_and_picked_ones_make_no_sample() -> None:
    few = [*texts(OURS, 20, None), *texts(THEIRS, 10, "sampled")]
    picked = [*texts(OURS, 20, None), *texts(THEIRS, ENOUGH, "picked")]
    assert fit(few)[2].city is None and fit(picked)[2].city is None


def test_without_a_city_the_readers_are_what_they_were() -> None:
    rows = texts(OURS, 12, None)
    _, matrix, reader = fit(rows)
    plain = LinearReader.fit(matrix, [code[:2] for _, code, _ in rows], blend=True)
    assert np.array_equal(reader.first.weights, plain.weights) and reader.first.temperature == plain.temperature


def test_one_corrected_message_outweighs_the_letters_it_resembles() -> None:
    said = "西关菜场的路灯坏了，晚上一片漆黑，公交车等了一个钟头"
    before = fit(texts(OURS, 12, None))
    assert best(before[0], before[2], said)[0][:2] != "04"
    after = fit([*texts(OURS, 12, None), (said, "040101", "picked")])
    assert best(after[0], after[2], said)[0] == "040101"


def test_weights_of_annotations_count() -> None:
    counts = counts_of([CityText("甲", None, 1.0), CityText("乙", "sampled", 1.0), CityText("丙", "picked", 2.0)])
    assert counts[0] == 1.0 and counts[2] > counts[1] >= 1.0


def test_sample_of_one_class_is_no_sample() -> None:
    rows = [*texts(OURS, 6, None), *texts({"04": THEIRS["04"]}, ENOUGH + 10, "sampled")]
    matrix = Vectorizer.fit_matrix([tokens_of(text) for text, _, _ in rows])[1]
    truth, city = np.array([code[:2] for _, code, _ in rows]), [CityText(text, origin, 1.0) for text, _, origin in rows]
    assert fit_city_reading(matrix, truth, city, np.zeros((len(rows), 3), np.float32)) is None
