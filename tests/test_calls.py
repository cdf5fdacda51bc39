"""A call from its first turn to its tickets: the machine API, what the model suggests and a person sets, filing, who may see it."""
from __future__ import annotations

import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Clock
from desk_calls import ModelSwitch, Telephone, as_turns, call_app, file_call, shown, state_of, switched_model
from flask import Flask
from own_calls import ROAD, SECOND
from sqlalchemy import select
from staff_pages import StaffClient, log_in

from bot import db
from bot.calls import Calls, NewTurn
from bot.schema import outbox, tickets
from bot.services import Services, build_services
from bot.settings import load_settings
from bot.staff_schema import audit_log, calls, corrections

if TYPE_CHECKING:
    from bot.embedded import EmbeddedAssistant

CALL = "c-1"


@pytest.fixture
def app(services: Services, assistant: EmbeddedAssistant) -> Flask:
    return call_app(services, assistant)


@pytest.fixture
def telephone(app: Flask) -> Telephone:
    return Telephone(app)


@pytest.fixture
def agent(app: Flask) -> StaffClient:
    return log_in(app, "agent")


def rows(services: Services, table: Any) -> list[Any]:
    with services.engine.connect() as connection:
        return list(connection.execute(select(table)))


def fields(state: dict[str, Any], number: int = 0) -> dict[str, Any]:
    return {name: entry["value"] for name, entry in state["forms"][number]["fields"].items()}


def set_field(client: StaffClient, name: str, value: Any, *, form: int = 0, call_id: str = CALL) -> Any:
    return client.post(f"/desk/calls/{call_id}/form", json={"form": form, "field": name, "value": value})


# -- turns arrive ----------------------------------------------------------------------------------------------------------


def test_first_turn_opens_a_call_that_fills_its_form(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, as_turns(ROAD[:2]), caller="+86 139 0000 0077")
    form = fields(state_of(agent, CALL))
    assert form["phone"] == "13900000077" and form["category"] and form["title"]
    telephone.say(CALL, as_turns(ROAD[2:], 2))
    form = fields(state_of(agent, CALL, lambda state: len(state["turns"]) == len(ROAD)))
    assert "水门桥小区" in form["place"] and form["name"].startswith("万") and form["urgency"] == "紧急"
    assert form["phone"] == "13800000012", "the number told counts more than the one shown"


def test_every_suggestion_shows_the_words_it_came_from(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, as_turns(ROAD))
    state = state_of(agent, CALL)
    for name in ("title", "category", "request_type", "urgency", "place", "phone", "name"):
        sources = state["forms"][0]["fields"][name]["sources"]
        assert sources, name
        assert all(state["turns"][s["turn"]]["text"][s["start"] : s["end"]] == s["text"] for s in sources), name


def test_repeated_turn_is_one_turn_and_may_be_revised(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, as_turns(ROAD[:3]))
    again = telephone.say(CALL, as_turns(ROAD[:3]))
    assert again["turns"] == 3
    version = again["version"]
    revised = telephone.say(CALL, [{"turn_id": "t1", "speaker": "citizen", "text": "我们小区的路灯不亮"}])
    assert revised["turns"] == 3 and revised["version"] > version
    assert state_of(agent, CALL)["turns"][1]["text"] == "我们小区的路灯不亮"


def test_late_turn_stands_where_it_was_said(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, [{"turn_id": "b", "speaker": "citizen", "text": "路灯坏了", "at": "2026-11-20T09:00:20+08:00"}])
    telephone.say(CALL, [{"turn_id": "a", "speaker": "agent", "text": "您好请讲", "at": "2026-11-20T09:00:10+08:00"}])
    telephone.say(CALL, [{"turn_id": "c", "speaker": "agent", "text": "在哪里"}])
    assert [turn["id"] for turn in state_of(agent, CALL)["turns"]] == ["a", "b", "c"]


def test_turns_delivered_side_by_side_are_all_kept_once(telephone: Telephone, services: Services) -> None:
    said = [{"turn_id": str(number), "speaker": "citizen", "text": f"第{number}句"} for number in range(20)]
    threads = [threading.Thread(target=telephone.say, args=(CALL, [turn])) for turn in said * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turn.text for turn in Calls(services).get(CALL).turns) == sorted(turn["text"] for turn in said)


def test_unknown_agent_costs_no_words(telephone: Telephone) -> None:
    assert telephone.say(CALL, as_turns(ROAD[:2]), agent="nobody")["agent"] is None
    assert telephone.say(CALL, [], agent="agent")["agent"] == "agent"
    assert telephone.say(CALL, [], agent="outsider")["agent"] == "agent", "who has it keeps it"


def test_turns_after_the_end_are_kept(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, as_turns(ROAD), ended=True)
    file_call(agent, CALL)
    assert telephone.say(CALL, as_turns(SECOND, 20))["state"] == "filed"
    assert len(state_of(agent, CALL)["turns"]) == len(ROAD) + len(SECOND)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([], 400),
        ({}, 400),
        ({"turns": "x"}, 400),
        ({"turns": [{"speaker": "robot", "text": "x"}]}, 400),
        ({"turns": [{"speaker": "citizen"}]}, 400),
        ({"turns": [{"speaker": "citizen", "text": "x", "turn_id": ""}]}, 400),
        ({"turns": [{"speaker": "citizen", "text": "x", "turn_id": ["a"]}]}, 400),
        ({"turns": [{"speaker": "citizen", "text": "x", "at": "昨天"}]}, 400),
        ({"turns": [{"speaker": "citizen", "text": "x", "at": "2026-11-20T09:00:00"}]}, 400),
        ({"turns": [{"speaker": "citizen", "text": "x", "at": 17}]}, 400),
        ({"turns": [], "ended": "yes"}, 400),
        ({"turns": [], "caller": 13900000077}, 400),
        ({"turns": [], "agent": "x" * 41}, 400),
        ({"turns": [{"speaker": "citizen", "text": "长" * 4001}]}, 413),
    ],
)
def test_bad_turns_are_refused_whole(app: Flask, services: Services, body: Any, status: int) -> None:
    answer = app.test_client().post(f"/api/calls/{CALL}/turns", json=body)
    assert answer.status_code == status and answer.get_json()["error"]
    assert rows(services, calls) == []


def test_call_ids_are_plain(app: Flask) -> None:
    for call_id in ("a b", "x" * 65, "电话"):
        assert app.test_client().post(f"/api/calls/{call_id}/turns", json={"turns": []}).status_code == 400


def test_odd_text_is_stored_as_it_can_be(app: Flask, agent: StaffClient) -> None:
    body = '{"turns": [{"speaker": "citizen", "text": "路灯\\ud83d坏了\\u0000"}, {"speaker": "citizen", "text": "  "}]}'
    answer = app.test_client().post(f"/api/calls/{CALL}/turns", data=body, content_type="application/json")
    assert answer.get_json()["turns"] == 1
    assert state_of(agent, CALL)["turns"][0]["text"] == "路灯?坏了"


def test_only_known_machines_may_post(services: Services, app: Flask) -> None:
    client = app.test_client()
    refused = client.post(f"/api/calls/{CALL}/turns", json={"turns": []}, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    assert refused.status_code == 401
    forwarded = client.post(f"/api/calls/{CALL}/turns", json={"turns": []}, headers={"X-Forwarded-For": "127.0.0.1"})
    assert forwarded.status_code == 401


def test_the_interface_is_described(app: Flask) -> None:
    assert "/api/calls/{call_id}/turns" in app.test_client().get("/openapi.json").get_json()["paths"]


def test_words_numbers_and_forms_are_sealed(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD), caller="13900000077")
    set_field(agent, "summary", "水门桥小区北门路面塌陷")
    stored = (services.settings.var_dir / "minsheng.db").read_bytes() + (services.settings.var_dir / "minsheng.db-wal").read_bytes()
    for secret in ("水门桥", "13900000077", "塌了一大块", "差点栽"):
        assert secret.encode() not in stored, secret


# -- the form --------------------------------------------------------------------------------------------------------------


def test_what_a_person_set_survives_later_turns(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, as_turns(ROAD[:2]))
    assert set_field(agent, "title", "北门道路塌陷").status_code == 200
    telephone.say(CALL, as_turns(ROAD[2:], 2))
    state = state_of(agent, CALL, lambda state: len(state["turns"]) == len(ROAD))
    entry = state["forms"][0]["fields"]["title"]
    assert entry["value"] == "北门道路塌陷" and entry["touched"] and entry["suggested"] != entry["value"]
    assert "水门桥" in fields(state)["place"], "the others go on being suggested"
    agent.post(f"/desk/calls/{CALL}/form", json={"form": 0, "field": "title", "release": True})
    entry = state_of(agent, CALL)["forms"][0]["fields"]["title"]
    assert entry["value"] == entry["suggested"] and not entry["touched"]


def test_due_time_and_departments_follow_category_and_urgency(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, as_turns(ROAD))
    before = state_of(agent, CALL)["forms"][0]
    set_field(agent, "urgency", "特急")
    set_field(agent, "category", "060501")
    after = state_of(agent, CALL)["forms"][0]
    assert after["due"] != before["due"] and "2 小时" in after["due"]["promise"]
    assert after["fields"]["lead"]["value"] == "市教育局" != before["fields"]["lead"]["value"]
    set_field(agent, "lead", "市水利局")
    set_field(agent, "co", ["市教育局", "市水利局"])
    last = fields(state_of(agent, CALL))
    assert (last["lead"], last["co"]) == ("市水利局", ["市教育局"])


def test_next_question_is_what_is_missing(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, as_turns(ROAD[:2]))
    asked = [question["field"] for question in state_of(agent, CALL)["forms"][0]["questions"]]
    assert asked[0] == "place" and {"phone", "name"} <= set(asked)
    set_field(agent, "place", "清江浦区水门桥小区")
    set_field(agent, "phone", "幺三八零零零零零零幺二")
    state = state_of(agent, CALL)
    assert fields(state)["phone"] == "13800000012"
    assert [question["field"] for question in state["forms"][0]["questions"]] == ["name"]
    set_field(agent, "anonymous", True)
    assert state_of(agent, CALL)["forms"][0]["questions"] == []


def test_emergency_says_what_to_do(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, [("agent", "您好"), ("citizen", "快点快点 我们楼着火了 水门桥小区五号楼三楼冒好大的烟")])
    form = state_of(agent, CALL)["forms"][0]
    assert form["emergency"]["numbers"] == ["119"] and "离开" in form["emergency"]["say"]
    assert form["fields"]["lead"]["value"] == "市消防救援支队"
    set_field(agent, "urgency", "一般")
    assert state_of(agent, CALL)["forms"][0]["emergency"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "一" * 21), ("category", "999998"), ("urgency", "马上"), ("request_type", "问"), ("summary", 7), ("co", "市水利局"),
        ("nothing", "x"),
    ],
)  # fmt: skip
def test_value_that_does_not_fit_is_refused_in_words(telephone: Telephone, agent: StaffClient, field: str, value: Any) -> None:
    telephone.say(CALL, as_turns(ROAD[:2]))
    before = state_of(agent, CALL)
    answer = set_field(agent, field, value)
    assert answer.status_code == 422 and answer.get_json()["error"]
    assert fields(state_of(agent, CALL)) == fields(before)


# -- filing ----------------------------------------------------------------------------------------------------------------


def test_filed_ticket_is_what_the_agent_saw(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD), agent="agent", ended=True)
    seen = fields(state_of(agent, CALL))
    (number,) = file_call(agent, CALL)
    ticket = services.tickets.get_ticket(number)
    petition = ticket.petition
    assert (ticket.title, petition.description, petition.category) == (seen["title"], seen["summary"], seen["category"])
    assert (petition.name, petition.phone, petition.source, petition.urgency) == (seen["name"], "13800000012", "hotline", "紧急")
    assert ticket.lead_department == seen["lead"] and list(ticket.co_departments) == seen["co"]
    (row,) = rows(services, tickets)
    assert row.request_key == f"call:{CALL}" and row.district == "清江浦区" and row.confidence > 0 and row.model
    assert row.person_key == services.vault.person_key("13800000012")
    assert [entry.actor for entry in services.tickets.timeline(number)] == ["agent"]
    assert rows(services, corrections) == [], "nothing was corrected"


def test_suggestion_that_came_while_filing_changes_nothing(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD))
    seen = state_of(agent, CALL)
    telephone.say(CALL, as_turns(SECOND, 20))
    state_of(agent, CALL, lambda state: len(state["turns"]) > len(ROAD))
    (number,) = agent.post(f"/desk/calls/{CALL}/file", json=shown(seen)).get_json()["numbers"]
    assert services.tickets.get_ticket(number).title == fields(seen)["title"]
    assert rows(services, corrections) == []


def test_filing_twice_gives_the_same_number(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD))
    assert file_call(agent, CALL) == file_call(agent, CALL)
    assert len(rows(services, tickets)) == 1
    assert set_field(agent, "title", "改一下").status_code == 409


def test_two_appeals_become_two_tickets_together(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns((*ROAD, *SECOND)))
    state = state_of(agent, CALL)
    assert len(state["forms"]) == 2
    assert fields(state, 0)["category"][:2] != fields(state, 1)["category"][:2] and fields(state, 1)["phone"] == "13800000012"
    numbers = file_call(agent, CALL)
    assert len(set(numbers)) == 2
    assert sorted(row.request_key for row in rows(services, tickets)) == [f"call:{CALL}", f"call:{CALL}:2"]
    assert all(row.person_key for row in rows(services, tickets))


def test_person_decides_how_many_appeals_there_are(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, as_turns((*ROAD, *SECOND)))
    agent.post(f"/desk/calls/{CALL}/appeals", json={"count": 1})
    state = state_of(agent, CALL)
    assert len(state["forms"]) == 1 and "油烟" in fields(state)["summary"]
    agent.post(f"/desk/calls/{CALL}/appeals", json={"count": 3})
    assert len(state_of(agent, CALL)["forms"]) == 3
    agent.post(f"/desk/calls/{CALL}/appeals", json={"count": None})
    assert len(state_of(agent, CALL)["forms"]) == 2
    assert agent.post(f"/desk/calls/{CALL}/appeals", json={"count": 99}).status_code == 422


def test_what_is_missing_is_said_and_nothing_is_filed(agent: StaffClient, services: Services) -> None:
    url = agent.post("/desk/calls", json={"text": ""}).get_json()["url"]
    call_id = url.rpartition("/")[2]
    answer = agent.post(f"/desk/calls/{call_id}/file", json=shown(state_of(agent, call_id)))
    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.get_json()["problems"]] == ["title", "summary", "category", "request_type"]
    set_field(agent, "phone", "12", call_id=call_id)
    assert "phone" in [problem["field"] for problem in state_of(agent, call_id)["forms"][0]["problems"]]
    assert rows(services, tickets) == []


def test_corrections_are_kept_as_proposals(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD))
    read = state_of(agent, CALL)["forms"][0]["fields"]
    set_field(agent, "category", "010101")
    set_field(agent, "amount", "三千元")
    set_field(agent, "urgency", read["urgency"]["value"])
    file_call(agent, CALL)
    kept = {row.field: row for row in rows(services, corrections)}
    assert set(kept) == {"category", "amount"}, "a value that was set to what was read is no correction"
    opened = services.vault.open
    row = kept["category"]
    assert (opened(row.old), opened(row.new)) == (read["category"]["value"], "010101")
    assert opened(row.evidence) == "；".join(source["text"] for source in read["category"]["sources"])
    assert (row.username, row.source, row.subject) == ("agent", "call", CALL) and row.model
    assert opened(kept["amount"].old) is None


def test_anonymous_caller_leaves_neither_name_nor_number(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD), caller="13900000077")
    set_field(agent, "anonymous", True)
    (number,) = file_call(agent, CALL)
    petition = services.tickets.get_ticket(number).petition
    assert petition.anonymous and petition.name is None and petition.phone is None
    assert rows(services, tickets)[0].person_key is None
    (call,) = rows(services, calls)
    assert call.caller is None and call.person_key is None
    telephone.say(CALL, as_turns(SECOND, 20), caller="13900000077")
    assert rows(services, calls)[0].caller is None


def test_confidential_report_hides_who_spoke(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns((*ROAD, ("citizen", "千万别让物业知道是我说的 给我保密"))))
    assert fields(state_of(agent, CALL))["confidential"] is True
    (number,) = file_call(agent, CALL)
    assert rows(services, tickets)[0].confidential
    body = json.dumps(services.vault.open(rows(services, outbox)[0].body), ensure_ascii=False)
    assert number in body and "13800000012" not in body
    state = state_of(agent, CALL)
    assert state["withheld"] and state["turns"] == [] and state["forms"] == [], "an agent who is not cleared reads it no longer"


def test_dropped_call_is_gone_from_the_list(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD[:2]))
    assert agent.post(f"/desk/calls/{CALL}/drop", json={}).status_code == 200
    assert agent.get("/desk/queue").get_json()["waiting"] == []
    assert agent.post(f"/desk/calls/{CALL}/file", json={"forms": []}).status_code in (409, 422)
    assert rows(services, tickets) == []


# -- the same trouble ------------------------------------------------------------------------------------------------------


def earlier_ticket(telephone: Telephone, client: StaffClient, call_id: str = "c-0") -> str:
    said = tuple((who, text.replace("零零幺二", "零零九九").replace("姓万 万万的万", "姓齐 整齐的齐")) for who, text in ROAD)
    telephone.say(call_id, as_turns(said))
    (number,) = file_call(client, call_id)
    return number


def test_same_place_and_matter_joins_and_can_be_parted_again(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    first = earlier_ticket(telephone, agent)
    telephone.say(CALL, as_turns(ROAD))
    state_of(agent, CALL)
    (similar,) = agent.get(f"/desk/calls/{CALL}/aside").get_json()["similar"]
    assert similar["number"] == first and similar["auto"] and similar["same_matter"]
    (number,) = file_call(agent, CALL)
    assert services.tickets.get_ticket(number).cluster == first and services.tickets.get_ticket(first).cluster_size == 2
    answer = agent.post(f"/desk/calls/{CALL}/undo", json={"form": 0})
    assert answer.status_code == 200 and answer.get_json()["filed"][0]["appellants"] == 1
    assert services.tickets.get_ticket(first).cluster_size == 1


def test_agent_may_say_that_it_is_another_matter(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    first = earlier_ticket(telephone, agent)
    telephone.say(CALL, as_turns(ROAD))
    agent.post(f"/desk/calls/{CALL}/relation", json={"form": 0, "kind": "alone"})
    (number,) = file_call(agent, CALL)
    assert services.tickets.get_ticket(number).cluster == number and services.tickets.get_ticket(first).cluster_size == 1


def test_merged_call_is_added_to_the_ticket_and_can_be_taken_back(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    first = earlier_ticket(telephone, agent)
    before = services.tickets.get_ticket(first).petition.texts
    telephone.say(CALL, as_turns(ROAD))
    agent.post(f"/desk/calls/{CALL}/relation", json={"form": 0, "kind": "merge", "number": first})
    assert file_call(agent, CALL) == [first] and len(rows(services, tickets)) == 1
    added = services.tickets.get_ticket(first).petition.texts
    assert added[:-1] == before and "13800000012" in added[-1]
    agent.post(f"/desk/calls/{CALL}/undo", json={"form": 0})
    assert services.tickets.get_ticket(first).petition.texts == before
    assert len(rows(services, tickets)) == 2
    (filed,) = state_of(agent, CALL)["filed"]
    assert filed["number"] != first


def test_ticket_that_ended_takes_nothing_more(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    first = earlier_ticket(telephone, agent)
    telephone.say(CALL, as_turns(ROAD))
    agent.post(f"/desk/calls/{CALL}/relation", json={"form": 0, "kind": "merge", "number": first})
    services.tickets.withdraw(first)
    answer = agent.post(f"/desk/calls/{CALL}/file", json=shown(state_of(agent, CALL)))
    assert answer.status_code == 409 and "单独登记" in answer.get_json()["error"]
    assert Calls(services).get(CALL).state == "open"


def test_callers_earlier_tickets_are_shown(telephone: Telephone, agent: StaffClient) -> None:
    first = earlier_ticket(telephone, agent)
    telephone.say(CALL, [("agent", "您好"), ("citizen", "我上次说的那个事怎么样了")], caller="13800000099")
    state_of(agent, CALL)
    assert [ticket["number"] for ticket in agent.get(f"/desk/calls/{CALL}/aside").get_json()["earlier"]] == [first]


def test_knowledge_and_counters_answer_a_question(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, [("agent", "您好"), ("citizen", "我想问下身份证丢了在哪里补 我住在清江浦区")])
    state_of(agent, CALL)
    aside = agent.get(f"/desk/calls/{CALL}/aside").get_json()
    assert aside["knowledge"][0]["title"] == "身份证补领换领" and aside["points"][0]["name"] == "清江浦区政务服务中心"


# -- who may -----------------------------------------------------------------------------------------------------------------


def test_next_call_goes_to_one_agent_only(app: Flask, telephone: Telephone, services: Services, clock: Clock) -> None:
    for number in range(3):
        telephone.say(f"q-{number}", as_turns(ROAD[:2]))
        clock.forward(seconds=1)
    desk = Calls(services)
    taken: list[str | None] = []
    threads = [threading.Thread(target=lambda name=f"a{n}": taken.append(desk.take_next(name))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(filter(None, taken)) == ["q-0", "q-1", "q-2"]


def test_next_call_is_the_one_that_waited_longest(app: Flask, telephone: Telephone, agent: StaffClient, clock: Clock) -> None:
    for number in range(2):
        telephone.say(f"q-{number}", as_turns(ROAD[:2]))
        clock.forward(seconds=1)
    assert agent.post("/desk/next", json={}).get_json()["url"].endswith("/q-0")
    assert agent.post("/desk/next", json={}).get_json()["url"].endswith("/q-0"), "first one's own that is still open"
    file_call_after_place(agent, "q-0")
    assert agent.post("/desk/next", json={}).get_json()["url"].endswith("/q-1")


def test_somebody_in_danger_does_not_wait_for_their_turn(telephone: Telephone, agent: StaffClient, clock: Clock) -> None:
    telephone.say("q-road", as_turns(ROAD[:2]))
    clock.forward(seconds=1)
    telephone.say("q-fire", [("agent", "您好"), ("citizen", "快来人啊，我家楼下着火了，烟好大，有人困在三楼")])
    state_of(agent, "q-fire")
    waiting = agent.get("/desk/queue").get_json()["waiting"]
    assert [(call["id"], call["urgent"]) for call in waiting] == [("q-fire", True), ("q-road", False)]
    assert agent.post("/desk/next", json={}).get_json()["url"].endswith("/q-fire")


def file_call_after_place(client: StaffClient, call_id: str) -> None:
    set_field(client, "place", "清江浦区水门桥小区", call_id=call_id)
    file_call(client, call_id)


ROUTES = (
    ("GET", ""), ("GET", "/state"), ("GET", "/aside"), ("POST", "/form"), ("POST", "/appeals"), ("POST", "/relation"), ("POST", "/turns"),
    ("POST", "/take"), ("POST", "/file"), ("POST", "/undo"), ("POST", "/drop"),
)  # fmt: skip
BODY = {"form": 0, "field": "title", "value": "x", "text": "市民：x", "count": 1, "kind": None, "forms": []}


@pytest.mark.parametrize(("method", "rule"), ROUTES)
def test_calls_of_a_colleague_do_not_exist(app: Flask, telephone: Telephone, method: str, rule: str) -> None:
    telephone.say(CALL, as_turns(ROAD), agent="agent")
    outsider = log_in(app, "outsider")
    answer = outsider.get(f"/desk/calls/{CALL}{rule}") if method == "GET" else outsider.post(f"/desk/calls/{CALL}{rule}", json=BODY)
    assert answer.status_code == 404
    assert app.test_client().open(f"/desk/calls/{CALL}{rule}", method=method, json=BODY).status_code in (302, 400, 401)


def test_supervisor_sees_all_calls(app: Flask, telephone: Telephone) -> None:
    telephone.say(CALL, as_turns(ROAD), agent="agent")
    supervisor = log_in(app, "supervisor")
    assert state_of(supervisor, CALL)["turns"]
    assert [call["id"] for call in supervisor.get("/desk/queue").get_json()["others"]] == [CALL]
    assert log_in(app, "outsider").get("/desk/queue").get_json() | {"filed_today": 0} == {
        "mine": [], "waiting": [], "others": [], "filed_today": 0,
    }  # fmt: skip


def test_agent_learns_nothing_of_another_districts_tickets(app: Flask, telephone: Telephone, agent: StaffClient) -> None:
    first = earlier_ticket(telephone, agent)
    outsider = log_in(app, "outsider")
    telephone.say(CALL, as_turns(ROAD), agent="outsider", caller="13800000099")
    state_of(outsider, CALL)
    aside = outsider.get(f"/desk/calls/{CALL}/aside").get_json()
    assert aside["similar"] == [] and aside["earlier"] == []
    answer = outsider.post(f"/desk/calls/{CALL}/relation", json={"form": 0, "kind": "merge", "number": first})
    assert answer.status_code == 404


def test_reading_a_call_is_written_down_once(telephone: Telephone, agent: StaffClient, services: Services) -> None:
    telephone.say(CALL, as_turns(ROAD))
    for _ in range(3):
        agent.get(f"/desk/calls/{CALL}/state")
    file_call(agent, CALL)
    noted = [(row.action, row.subject) for row in rows(services, audit_log) if row.username == "agent" and row.action != "login"]
    assert noted.count(("read_call", CALL)) == 1
    assert [action for action, _ in noted] == ["read_call", "file_ticket"]


def test_list_shows_no_number_in_the_clear(telephone: Telephone, agent: StaffClient) -> None:
    telephone.say(CALL, [("citizen", "我的电话是13800000012 路灯坏了")], caller="13900000077")
    shown_text = json.dumps(agent.get("/desk/queue").get_json(), ensure_ascii=False) + agent.get("/desk").text
    assert "13900000077" not in shown_text and "13800000012" not in shown_text and "139****0077" in shown_text


# -- brought by hand ---------------------------------------------------------------------------------------------------------

PASTED = "坐席：您好，请讲\n市民：清江浦区水门桥小区的路灯坏了三天了，\n晚上看不见\n[00:12] 坐席：好的"


def test_pasted_call_is_read_like_a_live_one(agent: StaffClient) -> None:
    call_id = agent.post("/desk/calls", json={"text": PASTED}).get_json()["url"].rpartition("/")[2]
    state = state_of(agent, call_id)
    assert [turn["said_by"] for turn in state["turns"]] == ["agent", "citizen", "agent"]
    assert "水门桥" in fields(state)["place"] and state["call"]["username"] == "agent" and state["call"]["ended"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("call.txt", PASTED.encode("gb18030")),
        ("call.json", json.dumps({"turns": [{"speaker": "citizen", "text": "水门桥小区路灯坏了"}]}).encode()),
        ("call.csv", "说话人,内容\n坐席,您好\n市民,水门桥小区路灯坏了\n".encode()),
        ("call.jsonl", b'{"speaker": "citizen", "text": "\xe8\xb7\xaf\xe7\x81\xaf\xe5\x9d\x8f\xe4\xba\x86"}\n'),
    ],
)
def test_uploaded_file_becomes_a_call(agent: StaffClient, name: str, data: bytes) -> None:
    answer = agent.post("/desk/calls", data={"file": (io.BytesIO(data), name)}, content_type="multipart/form-data")
    assert answer.status_code == 201
    state = state_of(agent, answer.get_json()["url"].rpartition("/")[2])
    assert "路灯" in json.dumps(state["turns"], ensure_ascii=False)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("call.docx", b"PK"), ("call.json", b"{"), ("call.json", b'[1]'), ("call.csv", b"a,b\n1,2\n"), ("call.txt", b" \n"), ("call.xlsx", b"x"),
    ],
)  # fmt: skip
def test_file_that_is_no_call_is_refused_in_words(agent: StaffClient, services: Services, name: str, data: bytes) -> None:
    answer = agent.post("/desk/calls", data={"file": (io.BytesIO(data), name)}, content_type="multipart/form-data")
    assert answer.status_code == 400 and answer.get_json()["error"]
    assert rows(services, calls) == []


# -- without the model -------------------------------------------------------------------------------------------------------


@pytest.fixture
def switch(assistant: EmbeddedAssistant) -> Any:
    with switched_model(assistant) as running:
        yield running


def test_form_works_by_hand_while_the_model_is_away(services: Services, switch: ModelSwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.call_reading.RETRY_SECONDS", 0.1)
    app = call_app(services, switch.client(services))
    telephone, agent = Telephone(app), log_in(app, "agent")
    switch.up = False
    telephone.say(CALL, as_turns(ROAD))
    state = state_of(agent, CALL, lambda state: state["reading"]["state"] == "away")
    assert "手工" in state["reading"]["note"] and fields(state)["title"] is None
    for name, value in (("title", "北门道路塌陷"), ("category", "010213"), ("request_type", "投诉")):
        assert set_field(agent, name, value).status_code == 200
    switch.up = True
    state = state_of(agent, CALL, lambda state: state["reading"]["state"] == "ready")
    assert fields(state)["title"] == "北门道路塌陷" and "水门桥" in fields(state)["place"], "suggestions come when it is back"
    switch.up = False
    set_field(agent, "summary", "小区北门路面塌陷一米多宽")
    (number,) = file_call(agent, CALL)
    assert services.tickets.get_ticket(number).petition.category == "010213"


def test_ticket_written_wholly_by_hand(services: Services, switch: ModelSwitch) -> None:
    switch.up = False
    app = call_app(services, switch.client(services))
    agent = log_in(app, "agent")
    call_id = agent.post("/desk/calls", json={"text": ""}).get_json()["url"].rpartition("/")[2]
    by_hand = {"title": "路灯不亮", "summary": "小区路灯不亮", "category": "010214", "request_type": "求助", "phone": "13800000012"}
    for name, value in by_hand.items():
        set_field(agent, name, value, call_id=call_id)
    (number,) = file_call(agent, call_id)
    ticket = services.tickets.get_ticket(number)
    assert ticket.title == "路灯不亮" and ticket.petition.model == "" and rows(services, corrections) == []


def test_slow_model_is_said_and_holds_nothing_up(services: Services, switch: ModelSwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.call_reading.SLOW_SECONDS", 0.05)
    switch.free.clear()
    app = call_app(services, switch.client(services))
    telephone, agent = Telephone(app), log_in(app, "agent")
    telephone.say(CALL, as_turns(ROAD))
    state = agent.get(f"/desk/calls/{CALL}/state?have=").get_json()
    while state.get("reading", {}).get("state") != "slow":
        state = agent.get(f"/desk/calls/{CALL}/state").get_json()
    assert "手工" in state["reading"]["note"]
    assert set_field(agent, "title", "北门道路塌陷").status_code == 200
    switch.free.set()
    assert fields(state_of(agent, CALL))["title"] == "北门道路塌陷"


def test_turns_that_pile_up_are_read_once(services: Services, switch: ModelSwitch) -> None:
    switch.free.clear()
    app = call_app(services, switch.client(services))
    telephone, agent = Telephone(app), log_in(app, "agent")
    for number, turn in enumerate((*ROAD, *SECOND)):
        telephone.say(CALL, as_turns([turn], number))
    switch.free.set()
    state_of(agent, CALL, lambda state: state["reading"]["turns"] == len(ROAD) + len(SECOND))
    assert switch.asked <= 5, "one reading was under way, one read all the rest"


# -- both databases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_life_of_a_call_on_both_databases(request: pytest.FixtureRequest, tmp_path: Any, clock: Clock, kind: str) -> None:
    chosen = {"MINSHENG_DATABASE_URL": request.getfixturevalue("postgres_url")} if kind == "postgresql" else {}
    settings = load_settings({"MINSHENG_VAR_DIR": str(tmp_path / "v"), **chosen})
    db.migrate(settings)
    services = build_services(settings, now=clock)
    desk, call_id = Calls(services), f"both-{kind}"
    desk.take_turns(call_id, [NewTurn("citizen", "一", "1"), NewTurn("citizen", "二", "2")], caller="13900000077")
    threads = [threading.Thread(target=desk.take_turns, args=(call_id, [NewTurn("citizen", str(n), str(n))])) for n in range(1, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    call = desk.get(call_id)
    assert len(call.turns) == 11 and call.caller == "13900000077"
    assert desk.take(call_id, "a") and not desk.take(call_id, "b")
    desk.set_field(call_id, 1, "title", "标题", username="a")
    assert desk.get(call_id).set_by_person(1) == {"title": "标题"} and desk.get(call_id).set_by_person(0) == {}
    desk.drop(call_id, username="a")
    assert desk.get(call_id).state == "dropped"
    services.engine.dispose()
