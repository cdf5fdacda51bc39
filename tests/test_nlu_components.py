"""The Rasa components of config.yml on a slice of nlu_data, and the rules beside them: folding, dangers, situations, corpus."""
from __future__ import annotations

import importlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rasa.engine.graph import ExecutionContext, GraphComponent, GraphSchema
from rasa.engine.storage.local_model_storage import LocalModelStorage
from rasa.engine.storage.resource import Resource
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import SlotSet
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData

from bot.catalogue import load_catalogue
from bot.nlu.component import PetitionParser
from bot.nlu.context import ASKED, DRAFTS, RECENT_TICKETS, Situation, phrase_intent, resolve_intent
from bot.nlu.corpus import PLACE_NAMES, CorpusError, Example, read_corpus, read_petitions
from bot.nlu.urgency import CRITICAL, ROUTINE, URGENT, find_dangers, judge_urgency
from bot.settings import PROJECT_ROOT
from bot.text import clauses, fold, strip_marks

DATA = PROJECT_ROOT / "nlu_data"
CONTEXT = ExecutionContext(GraphSchema({}), model_id="slice")
SAID = [
    "经开区山阳小区南门那段路塌了个大坑，昨晚有人骑车摔了",
    "工地拖欠三十多个工人两个月工资，另外食堂的饭吃坏了好几个人",
    "你好",
    "住在8號樓，電梯壞了三天，老人下不了樓",
    "",
    "🙂",
]


# -- the components -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus() -> list[Example]:
    return read_corpus(DATA)


@pytest.fixture(scope="module")
def slice_of_data(corpus: list[Example]) -> TrainingData:
    """Some texts of every kind: enough for each component to learn something, little enough to train in seconds."""
    seen: Counter[object] = Counter()
    chosen = []
    for example in corpus:
        if example.parts is not None:
            kind, limit = "parts", 60
        elif example.category is not None:
            kind, limit = example.category[:2], 20
        else:
            kind, limit = str(example.intent or example.urgency), 20
        seen[kind] += 1
        if seen[kind] <= limit:
            chosen.append(example.to_message())
    return TrainingData([*chosen, Message(data={PLACE_NAMES: ["D:清江浦区", "L:山阳小区", "S:水渡口街道"]})])


@pytest.fixture()
def storage(tmp_path: Path) -> LocalModelStorage:
    return LocalModelStorage.create(tmp_path)


def _class(name: str) -> type[GraphComponent]:
    module, _, attribute = name.rpartition(".")
    found: type[GraphComponent] = getattr(importlib.import_module(module), attribute)
    return found


def _tracker(**slots: Any) -> DialogueStateTracker:
    domain = Domain.load(str(PROJECT_ROOT / "domain.yml"))
    tracker = DialogueStateTracker("resident", domain.slots)
    for name, value in slots.items():
        tracker.update(SlotSet(name, value), domain)
    return tracker


def _outputs(component: Any, tracker: DialogueStateTracker, given_data: dict[str, Any]) -> list[dict[str, Any]]:
    messages = [Message(data={"text": text, **given_data}) for text in SAID]
    return [message.as_dict(only_output_properties=False) for message in component.process(messages, tracker)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, slice_of_data: TrainingData) -> tuple[LocalModelStorage, Resource]:
    storage, resource = LocalModelStorage.create(tmp_path_factory.mktemp("model")), Resource("parser")
    return storage, PetitionParser.create({}, storage, resource, CONTEXT).train(slice_of_data)


@pytest.fixture()
def parser(trained: tuple[LocalModelStorage, Resource]) -> PetitionParser:
    storage, resource = trained
    return PetitionParser.load({}, storage, resource, CONTEXT)


def test_trained_parser_adds_to_a_message_what_each_part_finds_also_beside_a_draft(parser: PetitionParser) -> None:
    free = _outputs(parser, _tracker(), {})
    writing = _outputs(parser, _tracker(drafts=[{"texts": ["山阳小区门口路灯不亮"]}]), {})
    added = {"parts", "intent", "intent_ranking", "reading", "place_spans"}
    assert all(output.keys() >= added and "draft_reading" not in output for output in free)
    assert writing[0]["draft_reading"]["categories"] and [output["reading"] for output in writing] == [output["reading"] for output in free]
    assert free == _outputs(parser, _tracker(), {}), "what is remembered of short texts reads the same"


def test_parts_are_learned_side_by_side_and_say_so(
    storage: LocalModelStorage, slice_of_data: TrainingData, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bot.nlu.component")
    PetitionParser.create({}, storage, Resource("parser"), CONTEXT).train(slice_of_data)
    assert sorted(caplog.messages) == ["learned AppealSplitter", "learned PetitionReader", "learned PlaceReader"]


def test_context_resolver_needs_no_training_and_reads_the_same_after_loading(storage: LocalModelStorage) -> None:
    component_class = _class("bot.nlu.context.ContextResolver")
    created = component_class.create({}, storage, Resource("part"), CONTEXT)
    loaded = component_class.load({}, storage, Resource("part"), CONTEXT)
    read = {"intent": {"name": "inform", "confidence": 0.9}, "intent_ranking": _ranking("inform", 0.9), **_parse(0.9)}
    tracker = _tracker()
    before = _outputs(created, tracker, read)
    assert before == _outputs(loaded, tracker, read)
    assert [output["intent"]["name"] for output in before][:3] == ["report_problem", "report_problem", "greet"]


def test_every_component_of_the_pipeline_is_covered_here() -> None:
    pipeline = yaml.safe_load((PROJECT_ROOT / "config.yml").read_text(encoding="utf-8"))["pipeline"]
    assert [entry["name"] for entry in pipeline] == ["bot.nlu.component.PetitionParser", "bot.nlu.context.ContextResolver"]


def test_offsets_are_offsets_into_the_text(parser: PetitionParser) -> None:
    for output, text in zip(_outputs(parser, _tracker(), {}), SAID, strict=True):
        assert all(text[span["start"] : span["end"]] == span["text"] for span in output["place_spans"])
        assert all(text[span["start"] : span["end"]] == span["text"] for span in output["reading"]["evidence"])
        parts = output["parts"]
        assert parts[0]["start"] == 0 and parts[-1]["end"] == len(text)
        assert all(first["end"] == second["start"] for first, second in zip(parts, parts[1:], strict=False))


def test_first_category_belongs_to_the_likeliest_first_level(parser: PetitionParser) -> None:
    for output in _outputs(parser, _tracker(), {}):
        codes = [category["code"] for category in output["reading"]["categories"]]
        assert len(codes) == len(set(codes)) == 5
        assert 0 < output["reading"]["first_level_confidence"] <= 1


# -- the training texts ---------------------------------------------------------------------------------------------------


def test_every_leaf_of_the_catalogue_has_six_texts(corpus: list[Example]) -> None:
    counts = Counter(example.category for example in corpus if example.category)
    leaves = load_catalogue(DATA, "huaian").categories
    assert set(counts) <= set(leaves)
    assert {code: counts[code] for code in leaves if counts[code] < 6} == {}


def test_every_corpus_file_is_read_and_every_span_lies_in_its_text(corpus: list[Example]) -> None:
    files = {path.name for path in (*DATA.glob("petitions/*.txt"), *DATA.glob("intents/*.txt"))}
    assert {name for name in files if not name.startswith("splits")} == {example.source.split(":")[0] for example in corpus if example.parts is None}
    assert any(example.parts and len(example.parts) > 1 for example in corpus)
    for example in corpus:
        assert example.text.strip(), example.source
        assert "【" not in example.text and "】" not in example.text, example.source
        for start, end in (*(example.places or ()), *(example.parts or ())):
            assert 0 <= start < end <= len(example.text), example.source


def test_labels_of_the_corpus_are_labels_of_the_catalogue(corpus: list[Example]) -> None:
    assert {example.request_type for example in corpus} <= {None, "咨询", "求助", "投诉", "举报", "建议", "表扬"}
    assert {example.urgency for example in corpus} <= {None, ROUTINE, URGENT, CRITICAL}
    declared = set(Domain.load(str(PROJECT_ROOT / "domain.yml")).intents)
    assert {example.intent for example in corpus if example.intent} <= declared


@pytest.mark.parametrize(
    ("line", "what"),
    [("求助 紧急 | 少了一个标签", "request_type"), ("求助 紧急 口语 没有竖线", " | "), ("求助 紧急 口语 | 【没关上的地点", "mark")],
)
def test_corpus_error_names_file_and_line(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "01.txt"
    path.write_text(f"# 010101 城乡建设 > 安全生产 > 事故处理\n\n{line}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"01\.txt:3") as caught:
        read_petitions(path)
    assert what in str(caught.value)


# -- text -----------------------------------------------------------------------------------------------------------------


@given(st.text())
def test_folding_keeps_every_offset(text: str) -> None:
    assert len(fold(text)) == len(text)


@given(st.text(alphabet=st.sampled_from("１２ＡＢａｂ國电壞坏İßŉﬁ㎡，。！\u3000 \n０９Ｚ鬱髮麵😀")))
def test_folding_keeps_every_offset_of_awkward_characters(text: str) -> None:
    assert len(fold(text)) == len(text)
    assert [fold(character) for character in text] == list(fold(text))


def test_folding_makes_one_form_of_traditional_full_width_and_capitals() -> None:
    assert fold("電梯壞了　８號樓Ｂ座ABC") == "电梯坏了 8号楼b座abc"


@given(st.text(alphabet=st.sampled_from("路灯坏，。！？；\n、a1 ")))
def test_clauses_follow_each_other_inside_the_text(text: str) -> None:
    spans = clauses(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))


@given(st.lists(st.tuples(st.text("路灯坏8号", min_size=1), st.booleans()), max_size=6))
def test_marks_come_off_and_leave_spans(pieces: list[tuple[str, bool]]) -> None:
    text, spans = strip_marks("".join(f"【{piece}】" if marked else piece for piece, marked in pieces))
    assert text == "".join(piece for piece, _ in pieces)
    assert [text[start:end] for start, end in spans] == [piece for piece, marked in pieces if marked]


# -- dangers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("fire", "三楼阳台往外冒黑烟，窗帘都着起来了"),
        ("fire", "仓庫失火了，火勢很大"),
        ("fire", "隔壁樓著火了，快來人"),
        ("gas", "厨房一股煤气味，头晕得厉害"),
        ("gas", "楼道天然气泄漏快来人"),
        ("medical", "我爸突然晕倒了叫不醒"),
        ("medical", "工友触电了躺在地上"),
        ("violence", "隔壁男的持刀追着老婆砍"),
        ("violence", "有人在撬我家门"),
        ("suicide", "楼顶有个姑娘要跳楼"),
        ("suicide", "我不想活了，药都买好了"),
        ("trapped", "我被困在电梯里了"),
        ("trapped", "老太太掉进窨井里了"),
        ("trapped", "村里发大水，水都没过一楼了"),
        ("collapse", "后山山体滑坡，把房子冲了"),
        ("collapse", "脚手架塌了下面有人"),
        ("crash", "路口出车祸了，司机卡在里面"),
        ("minor", "邻居又在打孩子，哭得撕心裂肺"),
    ],
)
def test_danger_is_found_with_its_kind(kind: str, text: str) -> None:
    assert kind in [found for found, _, _ in find_dangers(fold(text))]


@pytest.mark.parametrize(
    "text",
    [
        # denied
        "不是着火，是烧烤店的油烟",
        "没有起火，就是灯在闪",
        "楼上并没有打起来，只是吵架",
        "没人晕倒，别担心",
        "电梯没有困人，就是门坏了",
        # over long ago
        "去年我家厨房着火，保险到现在没赔",
        "上个月这里出过车祸，想问责任认定",
        "以前有人在这跳河，希望装护栏",
        # names
        "火锅店油烟太大",
        "消防车通道被私家车占了",
        "火车站广场没有座椅",
        "灭火器过期了没人换",
        "炸鸡店的排烟管对着我家",
        "火花路的路灯坏了",
        "救火英雄纪念馆几点开门",
        # numbers
        "坐110路公交要等半小时",
        "押金120元一直不退",
        "119号楼的电梯坏了",
        "住在120平的房子物业费怎么算",
        # idioms
        "气死我了，排队三小时",
        "跳楼价都是骗人的",
        "热死了空调不开",
        "急得火烧眉毛了",
        "物业电话打爆了也没人接",
        "小区业主群里炸了锅",
        "被踢皮球踢得想死的心都有了",
        # water that runs and drowns nobody
        "水管漏得厉害，水流到一楼门厅了",
        # only feared, only practised
        "万一着火了谁负责",
        "电线这样乱拉，容易起火",
        "怕孩子掉进河里",
        "明天小区消防演练，会放烟",
    ],
)
def test_look_alike_is_no_danger(text: str) -> None:
    assert find_dangers(fold(text)) == []


@given(st.text(alphabet=st.sampled_from("着火没去年怕电梯困人孩子打110路，。不 ")))
def test_dangers_lie_inside_the_text(text: str) -> None:
    assert all(0 <= start < end <= len(text) for _, start, end in find_dangers(fold(text)))


def test_danger_word_and_a_doubtful_reader_make_an_emergency_with_its_words() -> None:
    urgency = judge_urgency("隔壁樓起火了，快來人", {ROUTINE: 0.3, URGENT: 0.3, CRITICAL: 0.4})
    assert (urgency.level, urgency.emergency) == (CRITICAL, True)
    urgency = judge_urgency("楼道天然气泄漏", {ROUTINE: 0.2, URGENT: 0.2, CRITICAL: 0.6})
    assert urgency.kind == "gas" and "天然气泄漏" in urgency.as_dict()["reasons"]


def test_sure_reader_makes_an_emergency_without_a_danger_word() -> None:
    assert judge_urgency("门把手烫手，我们出不去", {ROUTINE: 0.05, URGENT: 0.05, CRITICAL: 0.9}).emergency


def test_a_saying_needs_a_surer_reader_than_words_it_cannot_name() -> None:
    waiting = "为了办个证跑得我两腿冒烟嗓子冒烟，窗口还是说系统不行"
    assert not judge_urgency(waiting, {ROUTINE: 0.1, URGENT: 0.1, CRITICAL: 0.8}).emergency
    assert judge_urgency(waiting, {ROUTINE: 0.02, URGENT: 0.03, CRITICAL: 0.95}).emergency
    assert judge_urgency("等得我嗓子冒烟，我爸突然晕倒了叫不醒", {ROUTINE: 0.1, URGENT: 0.1, CRITICAL: 0.8}).emergency


def test_calm_text_stays_routine() -> None:
    urgency = judge_urgency("路灯不亮", {ROUTINE: 0.95, URGENT: 0.04, CRITICAL: 0.01})
    assert (urgency.level, urgency.emergency, urgency.reasons) == (ROUTINE, False, ())


# -- situations -----------------------------------------------------------------------------------------------------------

FREE = Situation(None, has_draft=False, has_tickets=False)
WITH_TICKET = Situation(None, has_draft=False, has_tickets=True)


def _writing(asked: str) -> Situation:
    return Situation(asked, has_draft=True, has_tickets=False)


def _filed(asked: str) -> Situation:
    return Situation(asked, has_draft=False, has_tickets=True)


def _ranking(name: str, confidence: float) -> list[dict[str, Any]]:
    return [{"name": name, "confidence": confidence}]


def _parse(matter: float = 0.2, *, places: bool = False, emergency: bool = False, known: float = 1.0) -> dict[str, Any]:
    return {
        "reading": {"first_level_confidence": matter, "known": known, "urgency": {"emergency": emergency}},
        "place_spans": [{"text": "山阳小区", "start": 0, "end": 4}] if places else [],
    }


@pytest.mark.parametrize(
    ("text", "read_as", "parse", "situation", "meant"),
    [
        # danger comes before everything
        ("着火了", "chitchat", _parse(emergency=True), FREE, "report_emergency"),
        ("着火了", "inform", _parse(emergency=True), _writing("location"), "report_emergency"),
        # a new matter
        ("小区垃圾堆了一个星期没人清", "report_problem", _parse(0.9), FREE, "report_problem"),
        ("小区垃圾堆了一个星期没人清", "inform", _parse(0.9), FREE, "report_problem"),
        ("物业到现在也不处理垃圾的事情", "urge", _parse(0.9), FREE, "report_problem"),
        ("嘿", "chitchat", _parse(0.1), FREE, "chitchat"),
        ("？？！！", "greet", _parse(), FREE, "nlu_fallback"),
        ("嘛呢啥", "greet", _parse(0.1), FREE, "greet"),
        ("阿斯顿飞过", "report_problem", _parse(0.9, known=0.0), FREE, "nlu_fallback"),
        # while a petition is being written
        ("山阳小区3号楼", "report_problem", _parse(places=True), _writing("location"), "inform"),
        ("就在大门左边", "greet", _parse(0.1), _writing("location"), "greet"),
        ("算了不报了吧，太麻烦", "deny", _parse(0.2), _writing("location"), "cancel"),
        ("好的", "inform", _parse(), _writing("confirm"), "affirm"),
        ("不对，是8号楼", "inform", _parse(), _writing("confirm"), "modify"),
        ("确认", "inform", _parse(), _writing("split"), "split_yes"),
        ("分开办吧", "inform", _parse(), _writing("split"), "split_yes"),
        ("放一起就行", "inform", _parse(), _writing("split"), "split_no"),
        ("帮我转个真人来说", "ask_human", _parse(), _writing("location"), "ask_human"),
        # after filing
        ("13912345678", "chitchat", _parse(), _filed("phone"), "inform"),
        ("算了", "cancel", _parse(), _filed("phone"), "no_phone"),
        ("是的", "affirm", _parse(), _filed("withdraw"), "withdraw"),
        ("先别撤", "deny", _parse(), _filed("withdraw"), "keep"),
        ("还行吧满意", "satisfied", _parse(), _filed("rating"), "satisfied"),
        ("很不满意", "satisfied", _parse(), _filed("rating"), "dissatisfied"),
        ("非常不满意，灯还是不亮", "satisfied", _parse(), _filed("rating"), "dissatisfied"),
        ("20261121-0003 怎么样了", "report_problem", _parse(), WITH_TICKET, "ask_progress"),
        ("20261121-0003 我要撤掉", "withdraw", _parse(), WITH_TICKET, "withdraw"),
    ],
)
def test_what_was_asked_decides_what_a_message_means(
    text: str, read_as: str, parse: dict[str, Any], situation: Situation, meant: str
) -> None:
    assert resolve_intent(text, _ranking(read_as, 0.9), parse, situation) == meant


@pytest.mark.parametrize(
    ("text", "intent"), [("确认。", "affirm"), ("  转人工！", "ask_human"), ("進度", "ask_progress"), ("路灯坏了", None)]
)
def test_button_titles_and_set_phrases_need_no_model(text: str, intent: str | None) -> None:
    assert phrase_intent(text) == intent


def test_situation_slots_are_slots_of_the_domain() -> None:
    names = {slot.name for slot in Domain.load(str(PROJECT_ROOT / "domain.yml")).slots}
    assert {DRAFTS, ASKED, RECENT_TICKETS} <= names
