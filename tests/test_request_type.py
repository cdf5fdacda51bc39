"""What a resident wants, read from letters: the manner of speaking decides, closing formulas do not."""
from __future__ import annotations

import time

import pytest

from bot.nlu.corpus import Example, read_corpus
from bot.nlu.features import Vectorizer, tokens_of
from bot.nlu.request_type import RequestTypeReader, cues_of, named_request_type
from bot.settings import PROJECT_ROOT

HELD_OUT = "letters_e"


class Reader:
    """The reader with the vectorizer it was trained beside."""

    def __init__(self, examples: list[Example]) -> None:
        tokens = [tokens_of(example.text) for example in examples]
        self.vectorizer = Vectorizer.fit(tokens)
        matrix = self.vectorizer.matrix(tokens)
        self.reader = RequestTypeReader.fit(matrix, [e.text for e in examples], [str(e.request_type) for e in examples])

    def __call__(self, text: str) -> str:
        return self.reader.best(text, self.vectorizer.row(tokens_of(text)))[0]


@pytest.fixture(scope="module")
def typed() -> list[Example]:
    return [example for example in read_corpus(PROJECT_ROOT / "nlu_data") if example.request_type]


@pytest.fixture(scope="module")
def reader(typed: list[Example]) -> Reader:
    letters = [e for e in typed if e.source.startswith("letters") and not e.source.startswith(HELD_OUT)]
    return Reader([*letters, *(e for e in typed if not e.source.startswith("letters"))][::2])


def test_letters_of_an_unseen_file_are_read(reader: Reader, typed: list[Example]) -> None:
    letters = [example for example in typed if example.source.startswith(HELD_OUT)]
    right = sum(reader(example.text) == example.request_type for example in letters)
    assert right / len(letters) >= 0.75


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("柳湾路的路灯全灭了，晚上出门看不见路，请求帮忙修一修，谢谢", "求助"),
        ("物业收了钱什么都不干，电梯坏了一个月还互相推诿，凭什么还要我们交物业费？", "投诉"),
        ("请问退休手续在哪里办理，需要带什么材料？谢谢！", "咨询"),
        ("后街有一家没有营业执照的黑作坊，非法使用工业盐，请执法部门依法查处取缔", "举报"),
        ("建议在医院东门增设红绿灯，方便老人过马路，谢谢领导", "建议"),
        ("感谢街道办的小李同志，冒雨把走失的老人送回家，这样的好干部值得表扬", "表扬"),
    ],
)
def test_every_request_type_is_recognised(reader: Reader, text: str, wanted: str) -> None:
    assert reader(text) == wanted


@pytest.mark.parametrize("closing", ["谢谢！", "不胜感激。", "感谢领导百忙之中关注！", "祝工作顺利，谢谢您！"])
def test_thanks_at_the_end_are_no_praise(reader: Reader, closing: str) -> None:
    assert reader("我们村的水井干了，吃水要到三里外去挑，恳请水利部门帮助解决。" + closing) == "求助"


def test_probabilities_sum_to_one(reader: Reader) -> None:
    text = "小区门口的路坏了"
    assert sum(reader.reader.probabilities(text, reader.vectorizer.row(tokens_of(text))).values()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("你好，我要投诉我们小区的物业", "投诉"),
        ("感谢你们的关心，路灯修好了", "表扬"),
        ("我要舉報有人賭博", "举报"),
        ("楼上天天吵，我已经投诉过三次了", None),
        ("", None),
    ],
)
def test_only_the_very_beginning_names_the_type(text: str, named: str | None) -> None:
    assert named_request_type(text) == named


@pytest.mark.parametrize("text", ["", "🙂", "？？？", "\n\n", "路" * 5000])
def test_cues_are_as_many_for_any_text(text: str) -> None:
    assert cues_of(text).shape == cues_of("请问几时通车？").shape


def test_cues_of_a_letter_take_under_a_millisecond(typed: list[Example]) -> None:
    letters = [example.text for example in typed if len(example.text) >= 120]
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        for text in letters:
            cues_of(text)
        rounds.append((time.perf_counter() - started) / len(letters))
    assert min(rounds) < 0.001
