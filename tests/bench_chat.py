"""Conversations per second, ours beside the classic Rasa stack: one run, one machine, the same model, actions and script.

Classic is what Rasa's documentation leads to: Flask forwarding over HTTP to `rasa run`, and `rasa run actions` beside it.
`python -m tests.bench_chat` prints a table and writes reports/bench-chat.json.
"""
from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from bot import db, schema
from bot.models import models_to_serve
from bot.services import Services, build_services
from bot.settings import load_settings
from tests.servers import PROJECT_ROOT, Process, Server, clean_environment, free_port, settings_as_variables

REPORT = PROJECT_ROOT / "reports" / "bench-chat.json"
RESIDENTS = 20
TICKET_NUMBER = re.compile(r"20\d{6}-\d{4,}")
# Every one needs a place and nothing else, so that a conversation is four turns in both stacks.
PROBLEMS = (
    "小区门口的路灯坏了三天了，晚上黑漆漆的",
    "路面塌了一个大坑，电动车差点翻进去",
    "楼下的垃圾桶满了一个星期没人清，臭得不行",
    "下水道堵了，污水往外冒，路都没法走",
    "电梯一天坏好几次，老人上不了楼",
    "饭店的油烟直接往居民楼里排，窗户都不敢开",
    "公交车站牌倒了，没人来扶",
    "人行道上停满了车，推婴儿车只能走马路",
)
PLACES = ("经开区山阳小区", "清江浦区水门桥小区", "淮安区翔宇花园", "清江浦区桂花新村", "淮阴区长江路小区")
TARGET_RATIO, TARGET_P99_MS, TARGET_RSS_MB = 3.0, 250.0, 1200.0

# One turn: sender, number of the turn, words → the text of the answer. Raises on anything but a whole answer.
Ask = Callable[[str, int, str], str]


@dataclass
class Result:
    """One stack under load; times of turns in milliseconds."""

    conversations: int = 0
    turns: int = 0
    errors: int = 0
    without_ticket: int = 0
    seconds: float = 0.0
    conversations_per_second: float = 0.0
    turns_per_second: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_ms_per_turn: float = 0.0
    rss_mb: dict[str, float] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)  # ticket numbers
    odd: list[list[str]] = field(default_factory=list)  # answers of the first conversations that ended without one


# -- load ---------------------------------------------------------------------------------------------------------


@contextmanager
def connection(port: int, path: str, body_of: Callable[[str, int, str], dict[str, Any]]) -> Iterator[Ask]:
    """A kept-alive connection of one resident's phone."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(sender: str, turn: int, words: str) -> str:
        line.request("POST", path, json.dumps(body_of(sender, turn, words)), {"Content-Type": "application/json"})
        answer = line.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise http.client.HTTPException(f"HTTP {answer.status}")
        return text

    try:
        yield ask
    finally:
        line.close()


def ours(port: int) -> Callable[[], Any]:
    return lambda: connection(port, "/api/chat", lambda sender, turn, words: {"sender": sender, "text": words, "message_id": str(turn)})


def classic(port: int) -> Callable[[], Any]:
    return lambda: connection(port, "/chat", lambda sender, _turn, words: {"sender": sender, "message": words})


def load(connect: Callable[[], Any], conversations: int, name: str, stack: Sequence[Process]) -> Result:
    """`conversations` from message to ticket, RESIDENTS of them at any moment, nobody pausing."""
    result, times, lock, numbers = Result(), list[float](), threading.Lock(), iter(range(conversations))

    def resident() -> None:
        with connect() as ask:
            for number in iter(lambda: next(numbers, None), None):
                told = converse(ask, f"{name}-{number}", random.Random(number), times, lock, result)
                with lock:
                    result.conversations += 1
                    result.without_ticket += not told
                    result.told |= told

    threads = [threading.Thread(target=resident) for _ in range(RESIDENTS)]
    cpu, started = sum(process.cpu_seconds() for process in stack), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds = time.perf_counter() - started
    times.sort()
    result.turns = len(times)
    result.conversations_per_second = result.conversations / result.seconds
    result.turns_per_second = result.turns / result.seconds
    result.p50_ms, result.p99_ms = (1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
    result.cpu_ms_per_turn = 1000 * (sum(process.cpu_seconds() for process in stack) - cpu) / max(1, result.turns)
    return result


def converse(ask: Ask, sender: str, chance: random.Random, times: list[float], lock: Any, result: Result) -> set[str]:
    """Four turns; the ticket numbers told."""
    place = f"{chance.choice(PLACES)}{chance.randrange(1, 60)}号楼"
    told, answers = set[str](), list[str]()
    for turn, words in enumerate((chance.choice(PROBLEMS), place, "确认提交", "不留电话")):
        started = time.perf_counter()
        try:
            answer = ask(sender, turn, words)
        except (OSError, http.client.HTTPException):
            with lock:
                result.errors += 1
            continue
        times.append(time.perf_counter() - started)
        answers.append(answer[:400])
        told.update(TICKET_NUMBER.findall(answer))
    if not told and len(result.odd) < 3:
        result.odd.append(answers)
    return told


# -- the two stacks -----------------------------------------------------------------------------------------------


def start_ours(directory: Path, stack: ExitStack) -> list[Process]:
    """The default: one process, its relay delivering into the sandbox."""
    directory.mkdir()
    return [stack.enter_context(Server(directory / "var"))]


def start_classic(directory: Path, stack: ExitStack, model: Path) -> list[Process]:
    directory.mkdir()
    var_dir = directory / "var"
    db.migrate(load_settings({"MINSHENG_VAR_DIR": str(var_dir)}))
    front, rasa, actions = free_port(), free_port(), free_port()
    (directory / "endpoints.yml").write_text(f'action_endpoint:\n  url: "http://127.0.0.1:{actions}/webhook"\n')
    (directory / "credentials.yml").write_text("rest:\n")
    environment = clean_environment(**settings_as_variables({"var_dir": str(var_dir)}), SANIC_WORKERS="1")
    python = (sys.executable, "-W", "ignore", "-m")
    return [
        stack.enter_context(Process(name, (*python, *command), port=port, ready_path=path, environment=environment, directory=directory))
        for name, command, port, path in (
            ("actions", ("rasa", "run", "actions", "--actions", "actions", "--port", str(actions)), actions, "/health"),
            (
                "rasa",
                ("rasa", "run", "--model", str(model), "--endpoints", "endpoints.yml", "--credentials", "credentials.yml")
                + ("--interface", "127.0.0.1", "--port", str(rasa)),
                rasa,
                "/",
            ),
            ("front", ("tests.bench_chat", "--front", str(front), "--rasa", f"http://127.0.0.1:{rasa}"), front, "/healthz"),
        )
    ]


def serve_front(port: int, rasa_url: str) -> None:
    """The classic front end: takes the message, asks Rasa over HTTP, hands the answer on."""
    import requests
    import waitress
    from flask import Flask, Response, jsonify, request

    app, session = Flask(__name__), requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.post("/chat")
    def chat() -> Response:
        message = request.get_json()
        body = {"sender": message["sender"], "message": message["message"]}
        answer = session.post(f"{rasa_url}/webhooks/rest/webhook", json=body, timeout=60)
        answer.raise_for_status()
        return jsonify(messages=answer.json())

    waitress.serve(app, host="127.0.0.1", port=port, threads=64)


def filed_tickets(directory: Path) -> set[str]:
    services: Services = build_services(load_settings({"MINSHENG_VAR_DIR": str(directory / "var")}))
    try:
        with db.reading(services.engine) as connection:
            return set(connection.execute(select(schema.tickets.c.number)).scalars())
    finally:
        services.engine.dispose()


# -- measuring ----------------------------------------------------------------------------------------------------


def rss(stack: Sequence[Process]) -> float:
    return sum(process.rss_mb() for process in stack)


def measure_ours(directory: Path, conversations: int, memory_turns: int) -> Result:
    with ExitStack() as stack:
        processes = start_ours(directory, stack)
        connect = ours(processes[0].port)
        memory = {"start": rss(processes)}
        warm = load(connect, 2 * RESIDENTS, "warm", processes)
        result = load(connect, conversations, "ours", processes)
        turns, told = warm.turns + result.turns, warm.told | result.told
        memory[str(turns)] = rss(processes)
        while turns < memory_turns:  # the same load goes on; only memory is looked at
            more = min(500, -(-(memory_turns - turns) // 4))
            part = load(connect, more, f"more-{turns}", processes)
            turns, told = turns + part.turns, told | part.told
            result.errors, result.without_ticket = result.errors + part.errors, result.without_ticket + part.without_ticket
            result.odd += part.odd
            memory[str(turns)] = rss(processes)
        result.rss_mb = memory
    assert told == filed_tickets(directory), "the numbers told are the tickets filed"
    return result


def measure_classic(directory: Path, conversations: int, model: Path) -> Result:
    with ExitStack() as stack:
        processes = start_classic(directory, stack, model)
        connect = classic(processes[-1].port)
        memory = {"start": rss(processes)}
        warm = load(connect, 2 * RESIDENTS, "warm", processes)
        result = load(connect, conversations, "classic", processes)
        memory[str(warm.turns + result.turns)] = rss(processes)
        result.rss_mb = memory
    assert warm.told | result.told == filed_tickets(directory), "the numbers told are the tickets filed"
    return result


def table(results: dict[str, Result]) -> str:
    rows: list[tuple[str, Callable[[Result], str]]] = [
        ("conversations", lambda r: str(r.conversations)),
        ("conversations/s", lambda r: f"{r.conversations_per_second:.1f}"),
        ("turns/s", lambda r: f"{r.turns_per_second:.1f}"),
        ("p50 per turn, ms", lambda r: f"{r.p50_ms:.0f}"),
        ("p99 per turn, ms", lambda r: f"{r.p99_ms:.0f}"),
        ("CPU per turn, ms", lambda r: f"{r.cpu_ms_per_turn:.1f}"),
        ("errors", lambda r: str(r.errors)),
        ("without ticket", lambda r: str(r.without_ticket)),
        ("RSS MiB (turns)", lambda r: "  ".join(f"{mb:.0f} ({turns})" for turns, mb in list(r.rss_mb.items())[:2] + list(r.rss_mb.items())[2:][-1:])),
    ]
    lines = [f"{'':<20}" + "".join(f"{name:<28}" for name in results)]
    return "\n".join(lines + [f"{label:<20}" + "".join(f"{show(result):<28}" for result in results.values()) for label, show in rows])


def as_json(result: Result) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(result).items() if name != "told"}


def verdict(results: dict[str, Result]) -> dict[str, Any]:
    mine, theirs = results["ours"], results["classic"]
    memory = max(mine.rss_mb.values())
    return {
        "comparable": all(result.errors == result.without_ticket == 0 for result in results.values()),
        "ratio_turns_per_second": round(mine.turns_per_second / theirs.turns_per_second, 2),
        "ratio_cpu_per_turn": round(theirs.cpu_ms_per_turn / mine.cpu_ms_per_turn, 2),
        "at_least_three_times": mine.turns_per_second >= TARGET_RATIO * theirs.turns_per_second,
        "p99_under_250_ms": mine.p99_ms < TARGET_P99_MS,
        "memory_under_1200_mb": memory * 1.048576 < TARGET_RSS_MB,
        "memory_mb_at_most": round(memory * 1.048576),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=400, help="ours")
    parser.add_argument("--classic", type=int, default=150, help="conversations of the classic stack")
    parser.add_argument("--turns", type=int, default=10_000, help="turns after which ours' memory is read")
    parser.add_argument("--front", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rasa", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.front:
        serve_front(options.front, options.rasa)
        return 0
    with tempfile.TemporaryDirectory(prefix="minsheng-bench-") as temporary:
        directory = Path(temporary)
        settings = load_settings({"MINSHENG_VAR_DIR": str(directory / "own")})
        db.migrate(settings)
        model = models_to_serve(build_services(settings))[0]
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {RESIDENTS} residents at a time, model {model.name}", flush=True)
        results = {"ours": measure_ours(directory / "ours", options.conversations, options.turns)}
        results["classic"] = measure_classic(directory / "classic", options.classic, model)
    verdicts = verdict(results)
    print(table(results))
    for name, value in verdicts.items():
        print(f"{name:<28}{value}")
    REPORT.parent.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "load_average": os.getloadavg(), "residents": RESIDENTS, "model": model.name}
    REPORT.write_text(json.dumps({"machine": machine, **{name: as_json(result) for name, result in results.items()}, **verdicts}, indent=1) + "\n")
    return 0 if all(value for value in verdicts.values() if isinstance(value, bool)) else 1


if __name__ == "__main__":
    sys.exit(main())
