"""Parts of a place mention: divisions, what stands below them, names written as they sound, names that several districts have."""
from __future__ import annotations

import time
from dataclasses import replace

import pytest

from bot.catalogue import load_catalogue
from bot.gazetteer import Division, Gazetteer, LocalPlace, load_gazetteer
from bot.services import DATA_DIR

DIVISIONS = [
    Division("32", "江苏省"), Division("3208", "淮安市"), Division("320803", "淮安区"), Division("320812", "清江浦区"),
    Division("320803001", "淮城街道"), Division("33", "浙江省"), Division("3303", "温州市"), Division("330302", "鹿城区"),
    Division("330302008", "松台街道"), Division("3415", "六安市"),
]  # fmt: skip
HOME = {"code": "3208", "district_aliases": {"清江浦": "清江浦区"}}


def _local(name: str, kind: str, district: str, **at: float) -> tuple[str, LocalPlace]:
    return name, LocalPlace(name, kind, district, "", at.get("lat"), at.get("lng"))


@pytest.fixture(scope="module")
def small() -> Gazetteer:
    local = [
        _local("人民路", "道路", "淮安区"), _local("人民路", "道路", "清江浦区"), _local("清晏园", "公园", "清江浦区", lat=33.60, lng=119.02),
        _local("镇淮楼", "景点", "淮安区", lat=33.51, lng=119.14), _local("淮海广场", "景点", "清江浦区"),
    ]  # fmt: skip
    return Gazetteer(DIVISIONS, local, HOME)


@pytest.fixture(scope="module")
def city() -> Gazetteer:
    return load_gazetteer(DATA_DIR, "huaian", load_catalogue(DATA_DIR, "huaian").city)


@pytest.mark.parametrize(
    ("span", "parts"),
    [
        ("朱坝镇政府", {"district": "洪泽区", "street": "朱坝街道", "poi": "朱坝镇政府"}),
        ("淮海南路红豆广场对面的公交站", {"road": "淮海南路", "poi": "红豆广场"}),
        ("桥头超市对面", {"poi": "桥头超市", "building": None}),
        ("桂花新村8号楼2单元301室", {"poi": "桂花新村", "building": "8号楼2单元301室", "road": None}),
        ("笪巷村三组12号", {"community": "笪巷村", "building": "三组12号", "district": "涟水县"}),
        ("运北西路98号-3", {"road": "运北西路98号", "building": "3"}),
        ("花园路小学", {"poi": "花园路小学", "road": None}),
        ("城南公园西路", {"road": "城南公园西路", "poi": None}),
        ("G327国道边", {"road": "g327国道", "building": None}),
        ("金水湾12-3-201", {"poi": "金水湾", "building": "12-3-201"}),
        ("涟水县医院", {"district": "涟水县", "poi": "涟水县医院"}),
        ("淮阴中学", {"district": "清江浦区", "poi": "江苏省淮阴中学"}),
        ("上虞区高新工业园3号厂房", {"district": "上虞区", "poi": "高新工业园"}),
        ("老街道口的桥", {"street": None}),
        ("三号楼", {"building": "三号楼", "poi": None}),
        ("我们家楼下", {"poi": None, "road": None, "community": None}),
    ],
)
def test_parts_of_a_mention(city: Gazetteer, span: str, parts: dict[str, str | None]) -> None:
    place = city.resolve(span).as_dict()
    assert {part: place[part] for part in parts} == parts and place["text"] == span


@pytest.mark.parametrize(
    ("span", "district"),
    [("温州鹿城", "鹿城区"), ("温州市鹿城路", None), ("杭州市江干区凯旋路", "江干区"), ("洪泽县老子山", "洪泽区"), ("铜山县张集", "铜山区")],
)
def test_short_and_former_names_of_districts(city: Gazetteer, span: str, district: str | None) -> None:
    assert city.resolve(span).district == district


@pytest.mark.parametrize(
    ("span", "part", "value"),
    [
        ("刘安", "city", "六安市"), ("清江铺", "district", "清江浦区"), ("清江铺区水门桥", "district", "清江浦区"),
        ("清宴园", "poi", "清晏园"), ("鹿城", "city", None),
    ],
)  # fmt: skip
def test_names_written_as_they_sound(small: Gazetteer, span: str, part: str, value: str | None) -> None:
    place = small.resolve(span)
    assert getattr(place, part) == value and place.text == span


def test_a_known_name_is_never_taken_for_another(city: Gazetteer) -> None:
    for span in ("淮安区", "涟水县", "健康东路", "山阳小区", "淮阴中学", "洪泽湖"):
        assert city.resolve(span).text == span
        assert city._find_by_sound(span, city._find(span, mention=True))[0] == span


def test_a_name_of_two_districts_is_ambiguous_until_one_is_named(small: Gazetteer) -> None:
    unclear = small.resolve("人民路12号")
    assert (unclear.district, unclear.ambiguous, unclear.road) == (None, ("淮安区", "清江浦区"), "人民路12号")
    clear = small.resolve("人民路12号", context="我住清江浦区，人民路12号的灯坏了")
    assert (clear.district, clear.ambiguous) == ("清江浦区", ())
    assert "ambiguous" not in unclear.as_dict()


def test_the_city_s_own_places_do_not_reach_into_other_cities(small: Gazetteer) -> None:
    place = small.resolve("温州市淮海广场")
    assert (place.city, place.district, place.poi) == ("温州市", None, "淮海广场")


def test_nearest_place_within_half_a_kilometre(small: Gazetteer) -> None:
    nearest = small.nearest(33.602, 119.021)
    assert nearest is not None and nearest.name == "清晏园"
    assert small.nearest(33.55, 119.08) is None


@pytest.mark.parametrize("span", ["1" * 20_000, "一" * 20_000, "a1-" * 7_000, "路" * 20_000, "村" * 20_000, "（" * 20_000])
def test_long_runs_cost_no_more_than_short_ones(city: Gazetteer, span: str) -> None:
    started = time.process_time()
    place = city.resolve(span)
    assert time.process_time() - started < 0.1 and place.text == span


def test_one_mention_costs_less_than_a_millisecond(city: Gazetteer) -> None:
    spans = ["清江浦区淮海南路红豆广场对面的公交站", "江苏省淮安市涟水县朱码镇笪巷村三组12号", "桂花新村8号楼2单元301室", "连水县高沟镇"]
    started = time.process_time()
    for _ in range(50):
        for span in spans:
            city.resolve(span)
    assert (time.process_time() - started) / 200 < 0.001


def test_replacing_a_part_keeps_the_rest(city: Gazetteer) -> None:
    place = city.resolve("清江浦区健康东路")
    assert replace(place, poi="清晏园").as_dict() == {**place.as_dict(), "poi": "清晏园"}
