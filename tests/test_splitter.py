"""The splitter of the shipped model: what it divides and what it leaves whole."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.embedded import EmbeddedAssistant
from bot.nlu.borders import Fields, Outline, candidate_borders
from bot.nlu.component import PetitionParser
from bot.nlu.corpus import read_parts
from bot.nlu.splitter import MAX_CHARACTERS, MOST_PARTS, AppealSplitter

ONE_APPEAL = [
    "路灯坏了",
    "我要投诉楼下的烧烤店，油烟直接往上冒，夏天窗户都不敢开，还有他们的桌子摆到人行道上，城管来了就收，走了又摆",
    "关于东湖花园电梯故障的投诉。尊敬的领导：您好！我是东湖花园的业主，小区3号楼电梯自五月以来坏了六次，最长一次停了九天，"
    "楼上有坐轮椅的老人。物业答复说缺配件，开发商答复说过了质保。诉求：1、尽快更换主板；2、公布维保记录；3、追究维保单位责任。"
    "特此投诉，望处理为盼！此致敬礼",
    "想问一下居住证怎么办，要带什么材料，多久能拿到，可以让别人代办吗？谢谢",
    "喂 你好\n我想反映我们村自来水的事\n水是黄的 有沙子\n从上个月就这样了\n找过村里 村里让等\n姓陶 陶瓷的陶\n好的 谢谢",
]
TWO_APPEALS = [
    ("我们巷子的路灯坏了半个月没人修。", "另外我想问一下我爸的养老金这个月怎么少发了两百块"),
    ("反映两个问题。一、文昌路的井盖翘起来了，车压过去咣当响，请市政部门修一下；", "二、社区医院已经一个月没有降压药了，请卫健部门安排配药。"),
    ("你好 我投诉一下楼上装修 早上六点就开始砸\n物业贴了条子也没用\n", "还有个事 我想问一下孩子的医保怎么参保\n要带什么材料"),
]


@pytest.fixture(scope="module")
def splitter(assistant: EmbeddedAssistant) -> AppealSplitter:
    components = [node._component for node in assistant._model.runner._nodes.values()]  # type: ignore[attr-defined]
    (parser,) = [component for component in components if isinstance(component, PetitionParser)]
    found = parser.parts[AppealSplitter]
    assert isinstance(found, AppealSplitter)
    return found


def _pieces(splitter: Any, text: str) -> list[str]:
    return [text[part["start"] : part["end"]] for part in splitter.split(text)]


@pytest.mark.parametrize("text", ONE_APPEAL)
def test_one_appeal_stays_whole(splitter: AppealSplitter, text: str) -> None:
    assert _pieces(splitter, text) == [text]


@pytest.mark.parametrize("pieces", TWO_APPEALS)
def test_two_appeals_are_divided_where_the_second_begins(splitter: AppealSplitter, pieces: tuple[str, str]) -> None:
    assert _pieces(splitter, "".join(pieces)) == list(pieces)


@pytest.mark.parametrize("text", ["", "嗯", "。。。。。。。。", "\n\n\n\n\n\n\n\n", "🙂" * 50, "1、2、3、4、5、6、7、8、", "還有" * 30])
def test_parts_cover_any_text_in_order(splitter: AppealSplitter, text: str) -> None:
    assert "".join(_pieces(splitter, text)) == text


def test_a_text_without_end_is_read_up_to_a_bound(splitter: AppealSplitter) -> None:
    for text in ("一二三 " * 5000, "楼上漏水，物业不管。另外，" * 2000, "，" * 20000):
        parts = splitter.split(text)
        assert len(parts) <= MOST_PARTS and parts[-2:][0]["start"] < MAX_CHARACTERS


def test_sums_of_an_outline_are_those_of_its_stretches() -> None:
    fields = Fields.fit(["路灯不亮"] * 3 + ["医保报销"] * 3, ["01"] * 3 + ["05"] * 3)
    outline = Outline("路灯不亮，醫保報銷", fields)
    assert outline.field(0, 4).argmax() == 0 and outline.field(5, 9).argmax() == 1
    assert outline.shared(0, 5, 9) == 0.0


def test_borders_stand_behind_sentences_and_before_connectives() -> None:
    text = "路灯坏了没人修。公交也不来，还有水费涨了三倍"
    assert [text[border:][:2] for border in candidate_borders(text)] == ["公交", "还有"]


def test_line_breaks_of_a_call_are_read_from_their_mark(tmp_path: Path) -> None:
    (tmp_path / "splits.txt").write_text("喂 你好⏎路灯坏了⏎∥还有 水费涨了\n", encoding="utf-8")
    (example,) = read_parts(tmp_path / "splits.txt")
    assert example.text == "喂 你好\n路灯坏了\n还有 水费涨了"
    assert example.text[slice(*example.parts[1])] == "还有 水费涨了"  # type: ignore[index]
