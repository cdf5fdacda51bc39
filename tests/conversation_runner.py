"""Drives residents' conversations over HTTP against a running server and compares how they end with what the scenario expects.

A scenario is data (tests/conversations/*.yml, or lines of a .jsonl): `messages` the resident says whatever the bot asks in
between, `answers` to its questions, `expect` how it must end, `then` what happens after filing.
`expect` has kind, kind_also, category (first level), request_type, urgency, emergency, location_contains, location_excludes,
district, appeals, confidential; our own stories also lead, co, says, never, anonymous, asked_at_most, may_split. A list means any
of them (for places, co, says, never: each, with "|" between alternatives in says); empty is not checked.
Steps of `then`: {say, says, never}, {status, department, note} (a signed event for the first ticket), {ticket: {field: value}},
{dispatch: change}, {neighbour: scenario}.

    python -m tests.conversation_runner FILE… --url http://127.0.0.1:5005 [--secret DISPATCH_SECRET] [--only ID…] [--verbose]
"""
from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from standardwebhooks.webhooks import Webhook

from tests.dispatch_server import DispatchServer

ROOT = Path(__file__).resolve().parent.parent
MOST_ANSWERS = 10
DISPATCH_PATIENCE = 15.0
START_PATIENCE = 120.0
SECRET = "whsec_c3RvcmllcyBvZiByZXNpZGVudHMsIGRyaXZlbg=="

# Which of the resident's answers a question is after; the first pattern found applies, `other` if none does.
ASKED_FOR = (
    ("location", re.compile(r"位置|地址|哪里|在哪|哪个小区|什么地方|哪条路|哪个村")),
    ("phone", re.compile(r"电话|手机号|联系方式")),
    ("name", re.compile(r"怎么称呼|贵姓|姓名")),
    ("when", re.compile(r"什么时候|几点|什么时间")),
)
_ASKS = re.compile(r"[？?]|请问|告诉我|请说|请再|再发一遍")
# An open invitation is no question to somebody who has said it all.
_INVITES = re.compile(r"告诉我是什么事|直接说就行|回复“登记”")
# Buttons a resident with nothing to change would tap, in this order. "不留电话" is not among them: the phone is given in words.
_TAPS = ("确认提交", "确定撤回")
_EMERGENCY = re.compile(r"打[^。]{0,8}1(?:10|19|20|22)(?!\d)")
_DIVERTED = re.compile(r"12368|12309|12388|仲裁委员会|复议机关|受理的信访部门|依申请公开|我不能查也不能说")
_HANDED_OVER = re.compile(r"转人工坐席")


class Unreachable(RuntimeError):
    """The server does not answer as the contract says."""


@dataclass
class Outcome:
    """How one conversation went."""

    id: str
    transcript: list[str] = field(default_factory=list)
    replies: list[list[str]] = field(default_factory=list)
    tickets: list[dict[str, Any]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    offered_split: bool = False

    @property
    def heard(self) -> str:
        return "\n".join(text for reply in self.replies for text in reply)

    def report(self) -> str:
        return "\n".join([f"{self.id}: " + "; ".join(self.faults), *self.transcript, *map(_line, self.tickets)])


def _line(ticket: Mapping[str, Any]) -> str:
    what = f"{ticket['kind']} {'/'.join(ticket['category']['path'])} {ticket['request_type']} {ticket['urgency']}"
    place, department = ticket["location"], ticket["department"]
    return f"{ticket['ticket_number']} {what} @{place.get('text')} [{place.get('district')}] -> {department['lead']} + {department['co']}"


@dataclass
class Conversation:
    """One resident at /api/chat."""

    url: str
    outcome: Outcome
    sender: str = field(default_factory=lambda: f"resident-{uuid.uuid4().hex}")
    buttons: list[str] = field(default_factory=list)

    def say(self, message: str | Mapping[str, Any]) -> list[str]:
        body = {"text": message} if isinstance(message, str) else dict(message)
        answer = requests.post(f"{self.url}/api/chat", json={"sender": self.sender, "message_id": uuid.uuid4().hex, **body}, timeout=30)
        if answer.status_code != 200:
            raise Unreachable(f"/api/chat answered {answer.status_code}: {answer.text[:200]}")
        data = answer.json()
        texts = [str(bubble["text"]) for bubble in data["messages"]]
        self.buttons = [str(button["title"]) for bubble in data["messages"] for button in bubble["buttons"]]
        self.outcome.replies.append(texts)
        self.outcome.offered_split |= "分开登记" in self.buttons
        self.outcome.transcript.append(f"  居民：{body.get('text') or body}")
        self.outcome.transcript += [f"  小民：{text}" for text in texts]
        self.outcome.transcript += [f"        [{'] ['.join(self.buttons)}]"] if self.buttons else []
        for filed in data["tickets"]:
            self.outcome.tickets.append(self.ticket(filed["ticket_number"]))
        return texts

    def ticket(self, number: str) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.url}/api/tickets/{number}", timeout=10).json()
        return found


@dataclass(frozen=True)
class Runner:
    """Runs scenarios. `secret` signs status events; `dispatch` is the stand-in the server delivers to, where there is one."""

    url: str
    secret: str = ""
    dispatch: DispatchServer | None = None

    def run(self, scenario: Mapping[str, Any]) -> Outcome:
        outcome = Outcome(str(scenario["id"]))
        talk = Conversation(self.url, outcome)
        expect = scenario.get("expect") or {}
        for message in scenario["messages"]:
            talk.say(message)
        answer_questions(talk, scenario.get("answers") or {}, appeals=int(expect.get("appeals") or 1))
        outcome.tickets = [talk.ticket(ticket["ticket_number"]) for ticket in outcome.tickets]
        outcome.faults += compare(expect, outcome)
        if self.dispatch is not None:
            outcome.faults += list(self._undelivered(outcome))
        for step in scenario.get("then") or ():
            outcome.faults += self._take_step(step, talk)
        return outcome

    def _undelivered(self, outcome: Outcome) -> Iterator[str]:
        """What dispatch received must be what the service tells about the ticket."""
        assert self.dispatch is not None
        for ticket in outcome.tickets:
            number = ticket["ticket_number"]
            if not _wait(lambda number=number: number in self.dispatch.counts()):
                yield f"dispatch never received {number}"
                continue
            for key in ("category", "department"):  # what changed after filing comes as an update, a moment later
                wanted = ticket[key]
                if not _wait(lambda number=number, key=key, wanted=wanted: self.dispatch.tickets()[number][key] == wanted):
                    yield f"dispatch has another {key}"
            if self.dispatch.counts()[number] != 1:
                yield f"dispatch received {number} more than once"

    def _take_step(self, step: Mapping[str, Any], talk: Conversation) -> list[str]:
        faults: list[str] = []
        number = talk.outcome.tickets[0]["ticket_number"] if talk.outcome.tickets else ""
        if "status" in step:
            self._send_status(number, step)
        if "say" in step:
            heard = "\n".join(talk.say(step["say"]))
            faults += [f"after {step['say']!r}: {fault}" for fault in _texts(step, heard)]
        if "neighbour" in step:
            faults += self._ask_neighbour(step["neighbour"], talk.outcome)
        if "ticket" in step:
            now = talk.ticket(number)
            faults += [f"{key} is {now.get(key)!r}, not {wanted!r}" for key, wanted in step["ticket"].items() if now.get(key) != wanted]
        if "dispatch" in step and self.dispatch is not None and not _wait(lambda: self._got_change(number, step["dispatch"])):
            faults.append(f"dispatch never heard {step['dispatch']!r}")
        return faults

    def _ask_neighbour(self, scenario: Mapping[str, Any], outcome: Outcome) -> list[str]:
        """Another resident speaks; what they hear and file is compared like a story of its own."""
        told = self.run({"id": f"{outcome.id}, neighbour", **scenario})
        outcome.transcript += ["  --- neighbour", *told.transcript]
        return [f"neighbour: {fault}" for fault in told.faults]

    def _got_change(self, number: str, change: str) -> bool:
        assert self.dispatch is not None
        return any(e.ticket_number == number and e.payload["data"].get("change") == change for e in self.dispatch.events)

    def _send_status(self, number: str, step: Mapping[str, Any]) -> None:
        now = datetime.now(timezone.utc)
        told = {key: step[key] for key in ("status", "department", "note") if key in step}
        data = {"ticket_number": number, "at": now.isoformat(), **told}
        body = json.dumps({"type": "ticket.status", "timestamp": now.isoformat(), "data": data}, ensure_ascii=False)
        webhook_id = f"evt_{uuid.uuid4().hex}"
        # The library takes a naive time as UTC and a secret without prefix as base64.
        secret = self.secret if self.secret.startswith("whsec_") else base64.b64encode(self.secret.encode()).decode()
        signature = Webhook(secret).sign(webhook_id, now.replace(tzinfo=None), body)
        headers = {"webhook-id": webhook_id, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
        answer = requests.post(f"{self.url}/dispatch/events", data=body.encode(), headers=headers, timeout=10)
        if answer.status_code >= 300:
            raise Unreachable(f"/dispatch/events answered {answer.status_code}: {answer.text[:200]}")


def answer_questions(talk: Conversation, answers: Mapping[str, str], *, appeals: int = 1) -> None:
    """Goes on answering as long as the bot's last reply asks for something."""
    for _ in range(MOST_ANSWERS):
        tap = button_to_tap(talk.buttons, appeals)
        if tap is not None:
            talk.say(tap)
            continue
        asked = asked_for(talk.outcome.replies[-1] if talk.outcome.replies else [])
        if asked is None:
            return
        if talk.outcome.replies[-3:] == [talk.outcome.replies[-1]] * 3:
            talk.outcome.faults.append("says the same for the third time")
            return
        talk.outcome.questions.append(asked)
        talk.say(answers.get(asked) or answers.get("other") or "没有了")
    talk.outcome.faults.append(f"still asking after {MOST_ANSWERS} answers")


def button_to_tap(buttons: Sequence[str], appeals: int) -> str | None:
    if "分开登记" in buttons:
        return "分开登记" if appeals > 1 else "合成一件"
    return next((title for title in _TAPS if title in buttons), None)


def asked_for(reply: Iterable[str]) -> str | None:
    """The key of `answers` that the newest question of a reply is after; None when it asks nothing."""
    question = next((text for text in reversed(list(reply)) if _ASKS.search(text) and not _INVITES.search(text)), None)
    if question is None:
        return None
    # What stands before the question (an echo, an address already known) must not be taken for the question.
    sentence = next((part for part in reversed(re.split(r"[。！!\n]", question)) if _ASKS.search(part)), question)
    return next((key for key, pattern in ASKED_FOR if pattern.search(sentence)), "other")


# -- comparing --------------------------------------------------------------------------------------------------------


def compare(expect: Mapping[str, Any], outcome: Outcome) -> list[str]:
    """Every way in which the conversation did not end as it should."""
    faults = list(_kinds(expect, outcome))
    faults += _emergencies(expect, outcome)
    faults += _texts(expect, outcome.heard)
    if outcome.offered_split and expect.get("appeals") == 1 and not expect.get("may_split"):
        faults.append("offered to split one appeal")
    if expect.get("asked_at_most") is not None and len(outcome.questions) > int(expect["asked_at_most"]):
        faults.append(f"asked {len(outcome.questions)} questions: {outcome.questions}")
    if outcome.tickets:
        faults += _ticket_fields(expect, outcome.tickets)
        faults += _places(expect, outcome.tickets)
    return faults


def kinds_of(outcome: Outcome) -> set[str]:
    """What the conversation came to: the kinds of its tickets, else how the bot answered."""
    kinds = {ticket["kind"] if ticket["kind"] in ("need", "topic") else "ticket" for ticket in outcome.tickets}
    kinds |= {ticket["kind"] for ticket in outcome.tickets}
    if not kinds:
        kinds.add("answer")
    if _HANDED_OVER.search(outcome.heard):
        kinds.add("handover")
    if _DIVERTED.search(outcome.heard):
        kinds.add("divert")
    return kinds


def _kinds(expect: Mapping[str, Any], outcome: Outcome) -> Iterator[str]:
    wanted = {expect["kind"], *(expect.get("kind_also") or ())} if expect.get("kind") else set()
    came = kinds_of(outcome)
    if wanted and not wanted & came:
        yield f"kind is {sorted(came)}, not {sorted(wanted)}"
    elif wanted and outcome.tickets and not wanted & {"ticket", "need", "topic", *(t["kind"] for t in outcome.tickets)}:
        yield f"filed {len(outcome.tickets)} ticket(s) where none was wanted"
    elif outcome.tickets and expect.get("appeals") and len(outcome.tickets) != int(expect["appeals"]):
        yield f"{len(outcome.tickets)} ticket(s) for {expect['appeals']} appeal(s)"


def _emergencies(expect: Mapping[str, Any], outcome: Outcome) -> Iterator[str]:
    if expect.get("emergency") is None:
        return
    first_sentences = [re.split(r"[。！!；]", reply[0])[0] for reply in outcome.replies if reply]
    warned = [sentence for sentence in first_sentences if _EMERGENCY.search(sentence)]
    if expect["emergency"]:
        if not warned:
            yield "no reply begins with an emergency number"
        if not any(ticket["emergency"] for ticket in outcome.tickets):
            yield "no emergency ticket"
    elif warned or any(ticket["emergency"] for ticket in outcome.tickets):
        yield "false emergency"


def _ticket_fields(expect: Mapping[str, Any], tickets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Several tickets: each must have one of the wanted values."""
    got = {
        "category": [ticket["category"]["path"][0] for ticket in tickets],
        "request_type": [ticket["request_type"] for ticket in tickets],
        "urgency": [ticket["urgency"] for ticket in tickets],
        "lead": [ticket["department"]["lead"] for ticket in tickets],
    }
    for name, values in got.items():
        wanted = _list(expect.get(name))
        if wanted and not all(_any_in(wanted, value) if name == "lead" else value in wanted for value in values):
            yield f"{name} is {values}, not {wanted}"
    together = [name for ticket in tickets for name in ticket["department"]["co"]]
    yield from (f"co is {together}, without {name}" for name in _list(expect.get("co")) if not any(name in other for other in together))
    if expect.get("confidential") and not all(ticket["reporter"]["confidential"] for ticket in tickets):
        yield "not confidential"
    if expect.get("anonymous") and not all(ticket["reporter"]["anonymous"] for ticket in tickets):
        yield "not anonymous"


def _places(expect: Mapping[str, Any], tickets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    places = [_plain(str(ticket["location"].get("text") or "")) for ticket in tickets]
    for piece in _list(expect.get("location_contains")):
        if not any(_plain(piece) in place for place in places):
            yield f"place {places} lacks {piece!r}"
    for piece in _list(expect.get("location_excludes")):
        if any(_plain(piece) in place for place in places):
            yield f"place {places} must not name {piece!r}"
    districts = [ticket["location"].get("district") for ticket in tickets]
    if expect.get("district") and expect["district"] not in districts:
        yield f"district is {districts}, not {expect['district']!r}"


def _texts(expect: Mapping[str, Any], heard: str) -> Iterator[str]:
    yield from (f"never heard {piece!r}" for piece in _list(expect.get("says")) if not _any_in(piece.split("|"), heard))
    yield from (f"heard {piece!r}" for piece in _list(expect.get("never")) if piece in heard)


def _plain(text: str) -> str:
    return re.sub(r"\s", "", text)


def _any_in(pieces: Iterable[str], text: str) -> bool:
    return any(piece in text for piece in pieces)


def _list(value: Any) -> list[str]:
    return [] if value in (None, "", []) else [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _wait(condition: Any) -> bool:
    end = time.monotonic() + DISPATCH_PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


# -- a server of one's own ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving() -> Iterator[Runner]:
    """The whole service as a process of its own, with an empty VAR_DIR, delivering to a dispatch stand-in on loopback."""
    with DispatchServer(SECRET) as dispatch, tempfile.TemporaryDirectory() as directory:
        url = f"http://127.0.0.1:{_free_port()}"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MINSHENG_") or name == "MINSHENG_MODELS_DIR"},
            "MINSHENG_VAR_DIR": directory,
            "MINSHENG_PORT": url.rsplit(":", 1)[1],
            "MINSHENG_DISPATCH_URL": dispatch.url,
            "MINSHENG_DISPATCH_SECRET": SECRET,
            "MINSHENG_RATE_LIMIT": "0",
        }
        log = Path(directory) / "server.log"
        command = [sys.executable, "-W", "ignore", "webhook.py"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            _wait_until_ready(url, process, log)
            yield Runner(url, SECRET, dispatch)
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="session")
def live() -> Iterator[Runner]:
    """One server for all test modules that name this module in `pytest_plugins`."""
    with serving() as runner:
        yield runner


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise Unreachable("the server does not get ready:\n" + log.read_text(errors="replace")[-2000:])


# -- files ------------------------------------------------------------------------------------------------------------


def read_scenarios(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    found: list[dict[str, Any]] = yaml.safe_load(text)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:5005")
    parser.add_argument("--secret", default="")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    runner = Runner(given.url.rstrip("/"), given.secret)
    scenarios = [s for path in given.files for s in read_scenarios(path) if not given.only or s["id"] in given.only]
    outcomes = [runner.run(scenario) for scenario in scenarios]
    for outcome in outcomes:
        if outcome.faults or given.verbose:
            print(outcome.report(), end="\n\n")
    failed = [outcome.id for outcome in outcomes if outcome.faults]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} as they should" + (f"; not: {' '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
