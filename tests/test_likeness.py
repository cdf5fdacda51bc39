"""Near-repeats and neighbours among own texts."""
from __future__ import annotations

import random

import pytest

from bot.likeness import Index, find_twins

LAMP = "小区门口的路灯坏了三天了，晚上黑漆漆的，老人孩子出门都怕摔着，请尽快派人来修"
WAGES = "厂里拖欠我们三个月的工资，找老板要就说没钱，我们二十几个工友等着钱过年"
BUS = "202路公交车晚高峰半个小时才来一趟，站台上挤满了人，建议加几班车"


def test_a_text_with_a_few_other_characters_is_a_twin() -> None:
    assert find_twins([LAMP, WAGES, LAMP.replace("三天", "五天"), "您好！" + WAGES, BUS]).tolist() == [0, 1, 0, 1, 4]


def test_another_matter_at_the_same_place_is_no_twin() -> None:
    other = "小区门口的垃圾桶满了三天了，夏天味道很大，老人孩子路过都捂着鼻子，请尽快派人来清"
    assert find_twins([LAMP, other]).tolist() == [0, 1]


def test_width_script_and_blanks_make_no_difference() -> None:
    assert find_twins([LAMP, LAMP.replace("，", "， ").replace("门", "門")]).tolist() == [0, 0]


def test_five_hundred_copies_have_one_leader() -> None:
    chance = random.Random(0)
    copies = []
    for _ in range(500):
        at = chance.randrange(len(LAMP))
        copies.append(LAMP[:at] + chance.choice("啊呀哦嗯") + LAMP[at:])
    assert set(find_twins([BUS, *copies]).tolist()) == {0, 1}


@pytest.mark.parametrize("texts", [[], [""], ["", "", "？"]])
def test_texts_that_say_nothing_are_like_nothing(texts: list[str]) -> None:
    assert find_twins(texts).tolist() == list(range(len(texts)))


def test_the_nearest_come_first_and_what_is_gone_does_not_come() -> None:
    index = Index()
    index.add([1, 2, 3], [LAMP, WAGES, "门口路灯不亮三天了，晚上看不见路"])
    assert [key for key, _ in index.nearest("路灯坏了晚上看不见", 3, at_least=0.05)][0] == 3
    assert index.nearest(LAMP, 1, at_least=0.5)[0] == (1, 1.0)
    index.discard([1])
    assert [key for key, _ in index.nearest(LAMP, 3, at_least=0.9)] == [] and 1 not in index


def test_a_key_is_taken_once() -> None:
    index = Index()
    index.add([1], [LAMP])
    index.add([1, 2], [WAGES, BUS])
    assert len(index) == 2 and index.containing(["路灯"]) == [1]


def test_search_wants_every_word_and_reads_other_scripts() -> None:
    index = Index()
    index.add([1, 2, 3], [LAMP, WAGES, BUS])
    assert index.containing(["老人", "路燈"]) == [1]
    assert index.containing(["老人", "工资"]) == []
    assert index.containing(["２０２路"]) == [3]


def test_an_empty_index_finds_nothing() -> None:
    assert Index().nearest(LAMP, 5, at_least=0.1) == []


def test_many_additions_are_still_found() -> None:
    index = Index()
    for number in range(200):
        index.add([number], [f"{LAMP}第{number}号楼"])
    assert len(index.nearest(LAMP, 300, at_least=0.3)) == 200
