"""The city's rules and words: saved as versions, refused when they cannot work, shown before they count, and followed by every process."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from bot.city_rules import EMPTY, RulesError, RulesFollower, build_with, check_content, current_content, lay_over, save_content
from bot.nlu.corpus import read_lexicon
from bot.petition import Petition
from bot.rules_preview import preview
from bot.services import Services, build_services
from bot.web import studio_rules
from tests.staff_pages import StaffClient, log_in, staff_app

LIGHTS = "010213"  # 城市公共设施, led by 城管 as shipped
PLACE = {"name": "望湖花园", "kind": "小区", "district": "清江浦区", "street": "", "aliases": "望湖、望湖苑", "lat": "33.61", "lng": "119.02"}


@pytest.fixture
def app(services: Services) -> Flask:
    return staff_app(services, studio_rules.create_blueprint(services, RulesFollower(services)))


def content(**parts: Any) -> dict[str, Any]:
    return {**EMPTY, **parts}


def save(person: StaffClient, parts: dict[str, Any], version: int = 0, note: str = "热线常接到") -> Any:
    return person.post("/studio/rules", json={"content": parts, "version": version, "note": note})


def file_ticket(services: Services, text: str, **more: Any) -> str:
    petition = Petition(id=text, texts=(text,), category=LIGHTS, **more)
    return services.tickets.open_ticket(petition, request_key=text, conversation_id=None).number


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"words": {"999999": ["词语"]}}, "没有类别"),
        ({"words": {LIGHTS: ["a b"]}}, "词要有"),
        ({"places": [{**PLACE, "district": "玄武区"}]}, "区县"),
        ({"places": [{**PLACE, "lat": "东经"}]}, "经纬度"),
        ({"places": [{**PLACE, "lat": "nan"}]}, "经纬度"),
        ({"routes": {LIGHTS: {"lead": "外星事务部"}}}, "没有部门"),
        ({"routes": {"77": {"lead": "城管"}}}, "没有类别"),
        ({"limits": [{"request_type": "投诉", "urgency": "一般", "workdays": 0}]}, "工作日"),
        ({"limits": [{"request_type": "投诉", "urgency": "一般", "hours": True}]}, "工作日"),
        ({"categories": [{"code": LIGHTS, "name": "路灯"}]}, "已经是"),
        ({"categories": [{"code": "779901", "name": "路灯"}]}, "二级类别"),
        ({"words": []}, None),
        ({"places": "x"}, "内容不完整"),
    ],
)
def test_content_that_cannot_work_is_refused_in_words(services: Services, parts: dict[str, Any], says: str | None) -> None:
    if says is None:
        assert check_content(parts, services)["words"] == {}
        return
    with pytest.raises(RulesError, match=says):
        check_content(content(**parts), services)


def test_route_and_limit_count_in_every_process_within_one_look(services: Services) -> None:
    other = build_services(services.settings, now=services.now)
    follower = RulesFollower(other)
    parts = content(routes={LIGHTS: {"lead": "供电"}}, limits=[{"request_type": "求助", "urgency": "一般", "workdays": 1}])
    save_content(services, parts, based_on=0, username="supervisor", note="供电接管路灯")
    holder = other.tickets.catalogue  # held since before: it must see the new version too
    follower.follow()
    assert holder.route(LIGHTS, None)[0] == "供电"
    assert holder.due_at(other.now(), request_type="求助", urgency="一般", matter=None)[1] == "1 个工作日"
    other.engine.dispose()


def test_new_place_is_resolved_by_name_and_alias(services: Services) -> None:
    save_content(services, content(places=[PLACE]), based_on=0, username="supervisor", note="新交付")
    before = services.gazetteer.resolve("望湖花园")
    RulesFollower(services).follow()
    place = services.gazetteer.resolve("望湖花园3栋")
    assert before.district is None and (place.district, place.poi, place.lat) == ("清江浦区", "望湖花园", 33.61)
    assert services.gazetteer.resolve("望湖苑").district == "清江浦区"


def test_new_category_and_its_words_reach_training(services: Services, tmp_path: Path) -> None:
    added = {"code": LIGHTS[:4] + "77", "name": "智慧灯杆"}
    parts = check_content(content(categories=[added], words={added["code"]: ["智慧灯杆", "灯杆充电"]}), services)
    catalogue, _ = build_with(services, parts, tmp_path / "data")
    assert catalogue.get_category(added["code"]).path[-1] == "智慧灯杆"
    (tmp_path / "full" / "lexicon").mkdir(parents=True)
    for name in ("catalogue", "cities"):
        (tmp_path / "data" / name).rename(tmp_path / "full" / name)
    (tmp_path / "full" / "lexicon" / "01.txt").write_text("# 010101\n工地事故\n", encoding="utf-8")
    lay_over({**EMPTY, "words": parts["words"]}, tmp_path / "full", services.settings.city)
    assert read_lexicon(tmp_path / "full")[added["code"]] == ["智慧灯杆", "灯杆充电"]


def test_preview_names_the_tickets_that_would_go_elsewhere(services: Services) -> None:
    number = file_ticket(services, "小区门口路灯不亮", place={"text": "望湖花园", "district": None})
    file_ticket(services, "只想问问", kind="need")
    parts = content(routes={LIGHTS: {"lead": "供电"}}, places=[PLACE], words={"010212": ["路灯不亮"]})
    shown = preview(services, parts, may_read=lambda _district, _confidential: True)
    effects = {effect["title"]: effect for effect in shown["effects"]}
    assert effects["主办部门会变"]["examples"][0]["number"] == number and effects["地点会读成别的"]["count"] == 1
    assert shown["looked_at"] == 2
    words = next(effect for title, effect in effects.items() if "新词" in title)
    assert words["count"] == 1 and "训练新模型后" in words["note"]
    assert current_content(services)[0] == 0


def test_preview_shows_nothing_that_the_person_may_not_read(services: Services) -> None:
    file_ticket(services, "小区门口路灯不亮", confidential=True)
    parts = content(routes={LIGHTS: {"lead": "供电"}})
    assert preview(services, parts, may_read=lambda _district, confidential: not confidential)["looked_at"] == 0


def test_page_saves_a_version_with_its_reason_and_keeps_the_earlier(app: Flask) -> None:
    person = log_in(app, "supervisor")
    assert save(person, content(), note=" ").status_code == 400
    assert save(person, content(places=[PLACE])).get_json() == {"version": 1}
    assert save(person, content(), version=1, note="撤掉").get_json() == {"version": 2}
    assert person.get("/studio/rules/versions/1").get_json()["content"]["places"][0]["name"] == "望湖花园"
    assert "第 2 版" in person.get("/studio/rules").text


def test_two_people_do_not_overwrite_each_other(app: Flask) -> None:
    person = log_in(app, "supervisor")
    save(person, content(places=[PLACE]))
    answer = save(log_in(app, "admin"), content(), version=0)
    assert answer.status_code == 400 and "刷新" in answer.get_json()["error"]


@pytest.mark.parametrize("body", [{}, {"content": []}, {"content": None}, []])
def test_rubbish_is_refused(app: Flask, body: Any) -> None:
    person = log_in(app, "supervisor")
    assert person.post("/studio/rules/preview", json=body).status_code == 400
    assert person.post("/studio/rules", json=body).status_code == 400


def test_agents_have_no_rules_page(app: Flask) -> None:
    assert log_in(app, "agent").get("/studio/rules").status_code == 403
