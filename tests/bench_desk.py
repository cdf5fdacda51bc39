"""The call desk under load: 50 calls at once, each with a page that waits for news of it, people talking.

Measured is what the agent feels: from the telephone system's POST of a turn until the page's own route gives a form that was read
with that turn. `python -m tests.bench_desk` prints p50, p95 and p99 and writes reports/bench-desk.json.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from bot import db
from bot.services import build_services
from bot.settings import load_settings
from bot.staff import Staff
from tests.own_calls import CALLS
from tests.servers import PROJECT_ROOT, Server

REPORT = PROJECT_ROOT / "reports" / "bench-desk.json"
PASSWORD = "bench-desk-password"
TARGET_P95_MS = 300.0
# People take two to four seconds for a turn.
PAUSE = (2.0, 4.0)
# Loading the model takes long on a busy machine.
READY_SECONDS = 600.0


@dataclass
class Result:
    calls: int = 0
    turns: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    never_read: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    post_p95_ms: float = 0.0
    cpu_ms_per_turn: float = 0.0
    rss_mb: float = 0.0


@dataclass
class Shared:
    """What all calls of a run write into."""

    until: float
    times: list[float] = field(default_factory=list)
    posts: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    never_read: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Line:
    """A kept-alive connection; a logged-in one carries the session."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Accept": "application/json", **({"Cookie": cookie} if cookie else {})}

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {**self._headers, **({"Content-Type": "application/json"} if body is not None else {})}
        self._http.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"{method} {path.split('?')[0]}: HTTP {answer.status}")
        found: dict[str, Any] = json.loads(text)
        return found


def log_in(port: int, username: str) -> str:
    """The session cookie of an agent."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    line.request("GET", "/login")
    page = line.getresponse()
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.read().decode())
    cookie = (page.getheader("Set-Cookie") or "").split(";")[0]
    assert token is not None
    form = urlencode({"csrf_token": token.group(1), "username": username, "password": PASSWORD})
    line.request("POST", "/login", form, {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"})
    answer = line.getresponse()
    answer.read()
    assert answer.status == 302, answer.status
    return (answer.getheader("Set-Cookie") or cookie).split(";")[0]


@dataclass
class OneCall:
    """A call and the page open on it: one thread talks, one waits for news."""

    port: int
    cookie: str
    username: str
    number: int
    shared: Shared

    def __post_init__(self) -> None:
        self.call_id, self.sent, self.over = "", dict[int, float](), False
        self.chance = random.Random(self.number)

    def run(self) -> None:
        """One call after another until the time is over."""
        time.sleep(self.chance.uniform(0, PAUSE[1]))
        turn = 0
        while time.monotonic() < self.shared.until:
            self.call_id, self.sent, self.over = f"bench-{self.number}-{turn}", {}, False
            page = threading.Thread(target=self._page)
            self._talk(page)
            if page.ident is not None:
                page.join()
            turn += 1

    def _talk(self, page: threading.Thread) -> None:
        line = Line(self.port)
        script = CALLS[self.chance.randrange(len(CALLS))]
        for number, (who, text) in enumerate(script):
            body = {"turns": [{"turn_id": str(number), "speaker": who, "text": text}], "agent": self.username, "caller": "13900000077"}
            started = self.sent[number + 1] = time.perf_counter()
            try:
                line.ask("POST", f"/api/calls/{self.call_id}/turns", body)
            except (OSError, http.client.HTTPException) as error:
                self.over = True
                self._note(str(error))
                return
            with self.shared.lock:
                self.shared.posts.append(time.perf_counter() - started)
            if number == 0:
                page.start()
            time.sleep(self.chance.uniform(*PAUSE))
            if time.monotonic() > self.shared.until:
                break
        self.over = True
        line.ask("POST", f"/api/calls/{self.call_id}/turns", {"turns": [], "ended": True})

    def _page(self) -> None:
        line, have, read, looked = Line(self.port, self.cookie), "", 0, ""
        while not (self.over and read >= max(self.sent, default=0)):
            try:
                state = line.ask("GET", f"/desk/calls/{self.call_id}/state{f'?have={quote(have)}' if have else ''}")
            except (OSError, http.client.HTTPException) as error:
                self._note(str(error))
                return
            if "token" not in state:
                continue
            now, have, newest = time.perf_counter(), state["token"], state["reading"]["turns"]
            with self.shared.lock:
                self.shared.times += [now - self.sent[turn] for turn in range(read + 1, newest + 1)]
            read = max(read, newest)
            values = state["forms"][0]["fields"]
            key = json.dumps([values[name]["value"] for name in ("place", "category", "phone", "anonymous")])
            if key != looked:  # the right column, as the page asks for it
                looked = key
                line.ask("GET", f"/desk/calls/{self.call_id}/aside?form=0")
        with self.shared.lock:
            self.shared.never_read += max(0, max(self.sent, default=0) - read)

    def _note(self, error: str) -> None:
        with self.shared.lock:
            self.shared.errors.append(error)


def share(times: list[float], part: float) -> float:
    return 1000 * sorted(times)[int(part * (len(times) - 1))] if times else 0.0


def measure(directory: Path, calls: int, seconds: float) -> Result:
    settings = load_settings({"MINSHENG_VAR_DIR": str(directory / "var")})
    db.migrate(settings)
    services = build_services(settings)
    staff = Staff(services.engine, services.now)
    names = [f"agent{number}" for number in range(calls)]
    for name in names:
        staff.add(name, PASSWORD, "agent")
    services.engine.dispose()
    server = Server(directory / "var")
    server.launch()
    try:
        server.wait_ready(READY_SECONDS)
        cookies = [log_in(server.port, name) for name in names]
        run(server, names, cookies, 10.0)  # people begin to talk; nothing is counted yet
        cpu, started = server.cpu_seconds(), time.monotonic()
        shared = run(server, names, cookies, seconds)
        spent, taken = server.cpu_seconds() - cpu, time.monotonic() - started
        return Result(
            calls=calls, turns=len(shared.times), seconds=taken, errors=sorted(set(shared.errors)), never_read=shared.never_read,
            p50_ms=share(shared.times, 0.5), p95_ms=share(shared.times, 0.95), p99_ms=share(shared.times, 0.99),
            post_p95_ms=share(shared.posts, 0.95), cpu_ms_per_turn=1000 * spent / max(1, len(shared.times)), rss_mb=server.rss_mb(),
        )  # fmt: skip
    finally:
        server.stop()


def run(server: Server, names: list[str], cookies: list[str], seconds: float) -> Shared:
    shared = Shared(time.monotonic() + seconds)
    stamp = int(time.time()) % 100_000 * 1000
    talks = [OneCall(server.port, cookies[n], names[n], stamp + n, shared) for n in range(len(names))]
    threads = [threading.Thread(target=talk.run) for talk in talks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return shared


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=50, help="at once")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    load = os.getloadavg()
    print(f"{os.cpu_count()} cores, load {load[0]:.1f} before, {options.calls} calls at once, {options.seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="minsheng-bench-desk-") as temporary:
        result = measure(Path(temporary), options.calls, options.seconds)
    for name, value in asdict(result).items():
        print(f"{name:<20}{value:.1f}" if isinstance(value, float) else f"{name:<20}{value}")
    met = result.p95_ms < TARGET_P95_MS and not result.errors and not result.never_read
    print(f"form filled within {TARGET_P95_MS:.0f} ms of a turn (p95): {'yes' if met else 'no'}")
    REPORT.parent.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()}
    REPORT.write_text(json.dumps({"machine": machine, **asdict(result), "met": met}, ensure_ascii=False, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
