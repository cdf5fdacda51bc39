"""Place mentions: mended spans, what is no scene, each place once, and which one people are sent to."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot.nlu.corpus import CorpusError, read_places
from bot.nlu.place_spans import Span, main_features, tidy, title_end, without_repeats
from bot.petition import main_span

DIVISIONS = re.compile("桐乡市|湖南省|邵阳市|隆回县")


def _tidied(text: str, *pieces: str) -> list[str]:
    """The pieces of `text` as tidy() leaves them; each is looked for behind the one before."""
    spans: list[Span] = []
    for piece in pieces:
        start = text.index(piece, spans[-1][1] if spans else 0)
        spans.append((start, start + len(piece)))
    words = [match.span() for match in re.finditer("煤业|学生|.", text)]
    return [text[slice(*span)] for span in tidy(text, spans, words, [match.span() for match in DIVISIONS.finditer(text)])]


@pytest.mark.parametrize(
    ("text", "found", "kept"),
    [
        ("锦绣家园3栋楼道没灯", ["锦绣家园"], ["锦绣家园3栋"]),
        ("新桥村第七组停水", ["新桥村"], ["新桥村第七组"]),
        ("梅园路(东段至桥头)积水", ["梅园路(东段至桥头"], ["梅园路(东段至桥头)"]),
        ("住在梅园小区的人都知道", ["住在梅园小区"], ["梅园小区"]),
        ("桃源小区紧邻白马河", ["桃源小区紧邻白马河"], ["桃源小区", "白马河"]),
        ("红星路与光明路交界处的白马河发臭", ["红星路与光明路交界处"], ["红星路与光明路交界处的白马河"]),
        ("桃源小区附近有人放炮", ["桃源小区附近"], ["桃源小区"]),
        ("阳光小区的供电线路老化", ["阳光小区"], ["阳光小区"]),
        ("金湖小区的老人过马路危险", ["金湖小区"], ["金湖小区"]),
        ("就在119路公交站边上的健康西路", ["119路公交站"], ["119路公交站边上的健康西路"]),
        ("芝罘区 毓璜顶街道停水", ["芝罘区", "毓璜顶街道"], ["芝罘区 毓璜顶街道"]),
        ("湖南省邵阳市隆回县田庄村没路灯", ["邵阳市隆回县田庄村"], ["湖南省邵阳市隆回县田庄村"]),
        ("投诉丰华煤业放炮", ["丰华煤"], ["丰华煤业"]),
        ("桐乡市医学院学生宿舍漏水", ["桐乡市医学院学"], ["桐乡市医学院"]),
        ("编号2017-10-216的标", ["2017-10-216"], []),
    ],
)
def test_spans_reach_as_far_as_the_place(text: str, found: list[str], kept: list[str]) -> None:
    assert _tidied(text, *found) == kept


@pytest.mark.parametrize("generic", ["我们小区", "该路段", "小区门口", "县城", "附近", "845路公交车"])
def test_generic_words_are_no_places(generic: str) -> None:
    assert _tidied(f"{generic}天天有人吵", generic) == []


@pytest.mark.parametrize("text", ["请桐乡市政府答复", "尊敬的桐乡市领导", "我老家桐乡市，现在在外地", "本人桐乡市户口"])
def test_a_division_that_is_only_addressed_or_a_home_is_no_scene(text: str) -> None:
    assert _tidied(text, "桐乡市") == []


def test_a_bare_division_stays_when_it_is_all_there_is() -> None:
    assert _tidied("咨询桐乡市出租车起步价", "桐乡市") == ["桐乡市"]


def test_beside_a_precise_place_offices_and_companies_go() -> None:
    text = "翠湖路的路灯坏了。打给桐乡市路灯管理局没人接，明辉照明有限公司说不归他们管，我们已经等了快一个月了。"
    assert _tidied(text, "翠湖路", "桐乡市路灯管理局", "明辉照明有限公司") == ["翠湖路"]


def test_each_place_once_in_its_fullest_writing() -> None:
    text = "泗洪县田家村没路灯。我住泗洪县青阳镇田家村，田家村晚上漆黑"
    spans = [(0, 6), (12, 21), (22, 25)]
    assert [text[slice(*span)] for span in without_repeats(text, spans)] == ["泗洪县青阳镇田家村"]


def test_only_a_short_first_sentence_is_a_title() -> None:
    assert title_end("翠湖路路灯坏了一个多月。" + "我们小区的人晚上都不敢出门，" * 4) == 12
    assert title_end("翠湖路路灯坏了。") == 0


def test_features_of_the_scene_have_one_length() -> None:
    lengths = {len(main_features("翠湖路3号院", span, [(0, 3), (0, 6)], bare=False)) for span in [(0, 3), (0, 6)]}
    assert len(lengths) == 1


def test_people_are_sent_to_the_weightiest_place() -> None:
    spans = [{"text": "桐乡市", "start": 0, "end": 3, "weight": 0.1}, {"text": "翠湖路3号院", "start": 9, "end": 15, "weight": 1.2}]
    assert main_span(spans, "桐乡市的领导你们好，翠湖路3号院没水") == "翠湖路3号院"
    assert main_span([], "没水") is None


def test_a_correction_counts_only_where_somebody_corrects_himself() -> None:
    spans = [{"text": "翠湖路", "start": 0, "end": 3, "weight": 1.0}, {"text": "梅园路", "start": 8, "end": 11, "weight": 0.0}]
    assert main_span(spans, "翠湖路，不对，是梅园路") == "梅园路"
    assert main_span(spans, "翠湖路你们这么做不对，梅园路") == "翠湖路"


@pytest.mark.parametrize("line", ["来信 | 没有序号", "来信 2 | 只有【一处】", "来信 - | 有【一处】却说没有", "来信 1 | 一处也没有"])
def test_a_place_text_names_one_of_its_marks(tmp_path: Path, line: str) -> None:
    path = tmp_path / "places.txt"
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"places\.txt:1"):
        read_places(path)


def test_a_place_text_knows_its_scene(tmp_path: Path) -> None:
    path = tmp_path / "places.txt"
    path.write_text("来信 2 | 【桐乡市】的【翠湖路】没灯\n来信 - | 退休证怎么补办\n", encoding="utf-8")
    named, silent = read_places(path)
    assert named.places and named.main_place == 1 and named.text[slice(*named.places[1])] == "翠湖路"
    assert silent.places == () and silent.main_place is None
