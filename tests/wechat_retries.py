"""How fast repeated callbacks are acknowledged while turns are slow: 200 requests a second, in an open loop.

`python -m tests.wechat_retries [--rate N] [--seconds N] [--turn N]` prints percentiles from the moment a request was due to its whole answer.
It knows of the service what the platform knows: signs and encrypts as documented, takes a new connection each time.
"""
from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlencode

from tests.servers import Process, clean_environment, free_port, settings_as_variables
from tests.wechat_platform import Account
from tests.wechat_sim.platform import SECRET, WeChatPlatform
from tests.wechat_sim.server import SimulatorServer

RETRIES = (5.0, 10.0)  # when the platform asks again
SETTLE_SECONDS = 1.0
FIRSTS_RATE = 20.0  # new messages a second
GIVE_UP_SECONDS = 5.0  # when it hangs up


@dataclass(frozen=True)
class Call:
    """A request that is due `at` seconds after the start."""

    at: float
    raw: bytes
    retry: bool


def resident(number: int) -> str:
    return f"oResident-{number:05d}"


def eager(number: int) -> str:
    return f"oEager-{number:05d}"


@dataclass
class Measured:
    waits: list[float] = field(default_factory=list)  # of repeated requests, in seconds
    outcomes: Counter[str] = field(default_factory=Counter)  # of the same


def as_the_platform_asks(account: Account, words: str, rate: float, seconds: float) -> list[Call]:
    """One new message for every two that are asked for again, after five and after ten seconds; measured once all three run side by side."""
    calls, new = [], rate / (1 + len(RETRIES))
    for number in range(int(new * (RETRIES[-1] + seconds))):
        message = {**account.text(words), "FromUserName": resident(number)}
        begun = number / new
        calls += [Call(at, _raw(account, message), at > begun) for at in (begun, *(begun + later for later in RETRIES))]
    return sorted((call for call in calls if call.at < RETRIES[-1] + seconds), key=lambda call: call.at)


def at_once(account: Account, words: str, rate: float, seconds: float) -> list[Call]:
    """Fifty messages within two and a half seconds, then each asked for again and again: what the platform does not do, but a test might."""
    messages = [{**account.text(words), "FromUserName": eager(number)} for number in range(50)]
    firsts = [Call(number / FIRSTS_RATE, _raw(account, message), False) for number, message in enumerate(messages)]
    begun = len(firsts) / FIRSTS_RATE
    return firsts + [Call(begun + n / rate, _raw(account, messages[n % len(messages)]), True) for n in range(int(rate * seconds))]


def _raw(account: Account, message: dict[str, Any]) -> bytes:
    query, body = account.sign_request(message)
    head = f"POST /wechat?{urlencode(query)} HTTP/1.1\r\nHost: account\r\nConnection: close\r\nContent-Type: text/xml\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def send_all(calls: list[Call], port: int, *, from_when: float) -> Measured:
    """Each when it is due, however the others fare; what comes before `from_when` is not measured."""
    measured, begun = Measured(), time.monotonic()

    async def send(call: Call) -> None:
        outcome = await _outcome(call.raw, port)
        if call.retry and call.at >= from_when:
            measured.waits.append(time.monotonic() - begun - call.at)
            measured.outcomes[outcome] += 1

    tasks = []
    for call in calls:
        await asyncio.sleep(max(0.0, begun + call.at - time.monotonic()))
        tasks.append(asyncio.create_task(send(call)))
    await asyncio.gather(*tasks)
    return measured


async def _outcome(raw: bytes, port: int) -> str:
    try:
        answer = await asyncio.wait_for(_exchange(raw, port), GIVE_UP_SECONDS)
    except (OSError, asyncio.TimeoutError) as error:
        return type(error).__name__
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode() if b" " in head else "no status"
    return status if status != "200" else "success" if body == b"success" else "passive reply"


async def _exchange(raw: bytes, port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        return await reader.read()
    finally:
        writer.close()


@contextmanager
def service(directory: Path, residents: int) -> Iterator[Process]:
    """The whole service with slow turns, and the platform's API in a process of its own, so that it takes no time from the clock here."""
    platform = WeChatPlatform(f"http://127.0.0.1:{(port := free_port())}")
    for number in range(residents):
        for openid in (resident(number), eager(number)):
            platform.api.interact(openid, "message")
    api = SimulatorServer(platform.api)
    beside = multiprocessing.get_context("fork").Process(target=api.serve_forever, daemon=True)
    beside.start()
    settings = {
        "port": str(port),
        "var_dir": str(directory / "var"),
        "rate_limit": "0",
        "wechat_app_id": platform.account.app_id,
        "wechat_app_secret": SECRET,
        "wechat_token": platform.account.token,
        "wechat_aes_key": platform.account.aes_key,
        "wechat_api_base": api.url,
    }
    command = (sys.executable, "-W", "ignore", "-m", "tests.wechat_sim.slow_service")
    environment = clean_environment(**settings_as_variables(settings))
    running = Process("service", command, port=port, ready_path="/readyz", environment=environment, directory=directory)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        beside.kill()


def report(name: str, measured: Measured, processor: float) -> str:
    cuts, outcomes = quantiles(measured.waits, n=1000), ", ".join(f"{n} {name}" for name, n in measured.outcomes.most_common())
    p50, p99, p999 = (cuts[place] * 1000 for place in (499, 989, 998))
    return (
        f"{name}: {len(measured.waits)} repeated requests: p50 {p50:.1f} ms, p99 {p99:.1f} ms, p99.9 {p999:.1f} ms,"
        f" longest {max(measured.waits) * 1000:.0f} ms; {outcomes}; {processor:.0f} % of a core"
    )


def measure(calls: list[Call], *, from_when: float) -> tuple[Measured, float]:
    """What became of repeated requests, and how much of a core the service needed, in percent."""
    with tempfile.TemporaryDirectory(prefix="minsheng-wechat-retries-") as directory, service(Path(directory), len(calls)) as running:
        time.sleep(SETTLE_SECONDS)
        before, began = running.cpu_seconds(), time.monotonic()
        measured = asyncio.run(send_all(calls, running.port, from_when=from_when))
        return measured, 100 * (running.cpu_seconds() - before) / (time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20, help="how long they are measured")
    parser.add_argument("--turn", type=float, default=12, help="seconds that a turn takes")
    options = parser.parse_args()
    words = f"路灯坏了（想{options.turn}秒）"
    for name, plan, from_when in (("as the platform asks", as_the_platform_asks, RETRIES[-1]), ("at once", at_once, 0.0)):
        calls = plan(Account(), words, options.rate, options.seconds)
        print(report(name, *measure(calls, from_when=from_when)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
