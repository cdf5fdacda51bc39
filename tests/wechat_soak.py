"""Every message answered exactly once and in order: residents on the simulated WeChat platform, the service killed again and again.

`python -m tests.wechat_soak [--short] [--messages N] [--residents N] [--kills N] [--seed S]` ends with 0 when that held.
Times are the platform's own (tries after 0, 5 and 10 s), nothing is scaled. Only Rasa is replaced (tests/wechat_sim/slow_service.py).
"""
from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from sqlalchemy import func, select

from bot.db import reading
from bot.schema import inbound_messages
from bot.services import Services, build_services
from bot.settings import load_settings
from tests.servers import Process, clean_environment, free_port, settings_as_variables
from tests.wechat_sim.phone import Seen
from tests.wechat_sim.platform import SECRET, Delivery, WeChatPlatform
from tests.wechat_sim.server import SimulatorServer

MARK = re.compile(r"答：(第\d+句)")
LAST_ANSWER_SECONDS = 50.0
# Not counting when the service was away: ten seconds of tries, two turns of eight, and a push before it that died (twenty).
PATIENCE_SECONDS = 48.0
# Two HTTP answers given one right after the other travel on connections of their own.
CROSSING_SECONDS = 0.05
DOWN = {"refused", "cut"}


@dataclass(frozen=True)
class Size:
    messages: int
    residents: int
    kills: int
    pause: float  # the longest, in seconds, between an answer and the next message
    seed: int = 1


SHORT, FULL = Size(messages=60, residents=10, kills=2, pause=0.5), Size(messages=2000, residents=200, kills=12, pause=40.0)


@dataclass
class Said:
    mark: str
    at: float
    message_id: str
    delivery: Delivery


@dataclass
class Soak:
    size: Size
    platform: WeChatPlatform
    service: Process
    settings: dict[str, str]
    said: dict[str, list[Said]] = field(default_factory=dict)
    downtimes: list[tuple[float, float]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    talking: threading.Event = field(default_factory=threading.Event)  # set when everybody has finished


# -- residents --------------------------------------------------------------------------------------------------------


def talk(soak: Soak, openid: str, chance: random.Random) -> None:
    """Mostly waits for an answer; at times says the next thing at once, or while the answer is still being thought about."""
    soak.said[openid] = []
    time.sleep(chance.uniform(0, soak.size.pause))
    for number in range(1, soak.size.messages // soak.size.residents + 1):
        said = _say(soak, openid, f"第{number}句", chance)
        if chance.random() < 0.25:
            time.sleep(chance.uniform(0, 1.5))
        else:
            said.delivery.done.wait()
            mark = said.mark
            soak.platform.phones.wait(openid, lambda seen, mark=mark: mark in _marks(seen), seconds=15)  # type: ignore[misc]
            time.sleep(chance.uniform(0, soak.size.pause))
    for said in soak.said[openid]:
        said.delivery.done.wait()


def _say(soak: Soak, openid: str, mark: str, chance: random.Random) -> Said:
    words = mark
    if chance.random() < 0.3:
        words += f"（想{chance.choice((chance.uniform(0.1, 2), chance.uniform(3, 8))):.2f}秒）"
    copies = 2 if chance.random() < 0.15 else 1
    tap = chance.random() < 0.1
    account = soak.platform.account
    fields = account.event("CLICK", EventKey=words) if tap else account.text(words)
    soak.seen["extra copies"] += copies - 1
    soak.seen["menu taps"] += tap
    delivery = soak.platform.begin(openid, fields, shown=words)
    message_id = fields.get("MsgId") or f"{fields['CreateTime']}:CLICK:{words}"
    said = Said(mark, time.monotonic(), message_id, delivery)
    soak.said[openid].append(said)
    threading.Thread(target=soak.platform.deliver, args=(delivery, fields), kwargs={"copies": copies}, daemon=True).start()
    return said


def _marks(seen: list[Seen]) -> list[str]:
    return [mark for line in seen if line.way in ("passive", "push") for mark in MARK.findall(line.text)]


# -- killing ----------------------------------------------------------------------------------------------------------


def kill_again_and_again(soak: Soak, chance: random.Random, spacing: float) -> None:
    """SIGKILL while people talk; every third time the service stays away longer, at times longer than all three tries."""
    for number in range(soak.size.kills):
        soak.talking.wait(chance.uniform(0.3, 1.0) * spacing)
        before = time.monotonic()
        soak.service.kill()
        if number % 3 == 2:
            time.sleep(chance.uniform(2, 12))
        soak.service.launch()
        soak.service.wait_ready()
        soak.downtimes.append((before, time.monotonic()))
        soak.seen["kills while people talked"] += not soak.talking.is_set()


def wait_for_answers(soak: Soak, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(_missing(soak, openid) for openid in soak.said):
        time.sleep(0.5)
    time.sleep(1.0)  # one answer too many shows as well


def _missing(soak: Soak, openid: str) -> list[str]:
    marks = set(_marks(soak.platform.phones.of(openid)))
    return [said.mark for said in soak.said[openid] if said.mark not in marks and not said.delivery.faulty]


# -- the reckoning ----------------------------------------------------------------------------------------------------


def check(soak: Soak, services: Services) -> None:
    for openid, said in soak.said.items():
        answered = Counter(_marks(soak.platform.phones.of(openid)))
        for one in said:
            _check_one(soak, openid, one, answered[one.mark])
        _check_order(soak, openid, {one.mark: one for one in said}, _places(soak, services, openid))
    for reason, count in soak.platform.phones.violations.items():
        soak.faults.append(f"{count} times against the platform's rules: {reason}")
    with reading(services.engine) as connection:
        left = connection.execute(select(func.count()).where(inbound_messages.c.answered_at.is_(None))).scalar_one()
    if left:
        soak.faults.append(f"{left} messages are unanswered in the database")


def _places(soak: Soak, services: Services, openid: str) -> dict[str, int]:
    """Message id → place in the order in which the service got this resident's messages."""
    mine = services.vault.pseudonym("wechat", soak.platform.account.name, openid)
    with reading(services.engine) as connection:
        found = connection.execute(
            select(inbound_messages.c.message_id, inbound_messages.c.id).where(inbound_messages.c.conversation_id == mine)
        )
        return {row.message_id: row.id for row in found}


def _check_one(soak: Soak, openid: str, said: Said, times: int) -> None:
    outcomes = [one.outcome for one in said.delivery.tries]
    soak.seen |= Counter({f"try {outcome}": soak.seen[f"try {outcome}"] + count for outcome, count in Counter(outcomes).items()})
    if said.delivery.faulty and not (set(outcomes) <= DOWN and all(_down(soak, one.started, one.ended) for one in said.delivery.tries)):
        soak.faults.append(f"{openid} {said.mark}: fault sentence while the service was up: {outcomes}")
    if times > 1:
        soak.faults.append(f"{openid} {said.mark}: answered {times} times ({outcomes})")
    if times == 0 and not said.delivery.faulty:
        soak.faults.append(f"{openid} {said.mark}: not answered ({outcomes})")
    soak.seen["answered"] += times == 1
    soak.seen["fault sentences, service down for all three tries"] += said.delivery.faulty
    soak.seen["of these answered all the same"] += said.delivery.faulty and times == 1


def _check_order(soak: Soak, openid: str, said: dict[str, Said], places: dict[str, int]) -> None:
    """Answers keep the order in which the service got the messages: what it never saw before it died comes after its retry."""
    _check_patience(soak, openid, said)
    lines = soak.platform.phones.of(openid)
    heard = [(said[mark], line) for line in lines for mark in _marks([line]) if mark in said]
    for (one, seen), (following, seen_after) in pairwise(heard):
        gap = seen_after.at - seen.at
        if places[one.message_id] > places[following.message_id]:
            if seen.way == seen_after.way == "passive" and 0 < gap < CROSSING_SECONDS:
                soak.seen["crossed"] += 1
            else:
                outcomes = [one.outcome for one in following.delivery.tries]
                soak.faults.append(f"{openid} {following.mark} {outcomes} {seen_after.way}: {gap:.3f} s after {one.mark} {seen.way}")
        elif one.at > following.at:
            soak.seen["overtaken"] += 1


def _check_patience(soak: Soak, openid: str, said: dict[str, Said]) -> None:
    since = time.time() - time.monotonic()  # phones show the time of day
    for line in soak.platform.phones.of(openid):
        for mark in _marks([line]):
            begun, heard = said[mark].at, line.at - since
            away = sum(max(0.0, min(end, heard) - max(begin, begun)) for begin, end in soak.downtimes)
            soak.waits.append(heard - begun - away)
            if soak.waits[-1] > PATIENCE_SECONDS:
                outcomes = [one.outcome for one in said[mark].delivery.tries]
                soak.faults.append(f"{openid} {mark} {outcomes}: answered by {line.way} after {soak.waits[-1]:.0f} s with the service up")


def _down(soak: Soak, started: float, ended: float) -> bool:
    return any(begin <= ended and started <= end for begin, end in soak.downtimes)


def summary(soak: Soak, seconds: float) -> str:
    seen, total = soak.seen, sum(map(len, soak.said.values()))
    away = sum(end - begin for begin, end in soak.downtimes)
    ways = Counter(line.way for openid in soak.said for line in soak.platform.phones.of(openid))
    tries = ", ".join(f"{count} {name.removeprefix('try ')}" for name, count in sorted(seen.items()) if name.startswith("try "))
    lines = [
        f"messages    {total} of {len(soak.said)} residents ({seen['menu taps']} menu taps, {seen['extra copies']} copies in parallel)",
        f"SIGKILL     {len(soak.downtimes)} ({seen['kills while people talked']} while people talked), away {away:.0f} s in all",
        f"tries       {tries}",
        f"seen        {seen['answered']} answered once: {ways['passive']} passive replies, {ways['push']} pushes; {ways['typing']} typing signs",
        f"down        {seen['fault sentences, service down for all three tries']} fault sentences with the service down for all three tries,"
        f" {seen['of these answered all the same']} of them answered later",
        f"order       as the service got them; {seen['overtaken']} overtaken while it was down and had not got them; {seen['crossed']} crossed on the wire",
        f"waits       median {median(soak.waits or [0]):.1f} s, longest {max(soak.waits or [0]):.0f} s, without the time it was down",
        f"time        {seconds:.0f} s, not scaled; seed {soak.size.seed}",
    ]
    verdict = ["EVERY MESSAGE ANSWERED ONCE, IN ORDER"] if not soak.faults else [f"{len(soak.faults)} FAULTS", *soak.faults[:40]]
    return "\n".join([*lines, *verdict])


def run(
    size: Size, directory: Path, *, say: Callable[[str], None] = print, begun: Callable[[Process], None] = lambda _: None
) -> list[str]:
    """The faults found. Says what it did. `begun` is told the service that it will kill."""
    chance, port, began = random.Random(size.seed), free_port(), time.monotonic()
    platform = WeChatPlatform(f"http://127.0.0.1:{port}")
    server = SimulatorServer(platform.api)
    server.start()
    platform.api.latency = lambda: random.uniform(0, 0.4)
    settings = _settings(platform, server.url, port, directory)
    soak = Soak(size, platform, _service(settings, port, directory), settings)
    begun(soak.service)
    try:
        soak.service.start()
        _let_everybody_talk(soak, chance)
        wait_for_answers(soak, LAST_ANSWER_SECONDS)
        services = build_services(load_settings(soak.settings))
        check(soak, services)
        services.engine.dispose()
    finally:
        soak.service.stop()
        server.stop()
    say(summary(soak, time.monotonic() - began))
    return soak.faults


def _let_everybody_talk(soak: Soak, chance: random.Random) -> None:
    spacing = min(14.0, 1.5 * soak.size.messages / soak.size.residents)
    with ThreadPoolExecutor(soak.size.residents + 1) as pool:
        killing = pool.submit(kill_again_and_again, soak, chance, spacing)
        seeds = [chance.random() for _ in range(soak.size.residents)]
        residents = [pool.submit(talk, soak, f"oResident-{n:04d}", random.Random(seed)) for n, seed in enumerate(seeds)]
        for resident in residents:
            resident.result()
        soak.talking.set()
        killing.result()


def _settings(platform: WeChatPlatform, api: str, port: int, directory: Path) -> dict[str, str]:
    return settings_as_variables(
        {
            "port": str(port),
            "var_dir": str(directory / "var"),
            "rate_limit": "0",
            "wechat_app_id": platform.account.app_id,
            "wechat_app_secret": SECRET,
            "wechat_token": platform.account.token,
            "wechat_aes_key": platform.account.aes_key,
            "wechat_api_base": api,
        }
    )


def _service(settings: dict[str, str], port: int, directory: Path) -> Process:
    command = (sys.executable, "-W", "ignore", "-m", "tests.wechat_sim.slow_service")
    return Process("service", command, port=port, ready_path="/readyz", environment=clean_environment(**settings), directory=directory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="60 messages of 10 residents, 2 kills")
    for name in ("messages", "residents", "kills"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    size = SHORT if options.short else FULL
    given = {name: getattr(options, name) for name in ("messages", "residents", "kills", "seed") if getattr(options, name)}
    with tempfile.TemporaryDirectory(prefix="minsheng-wechat-soak-") as directory:
        return 1 if run(replace(size, **given), Path(directory), begun=lambda service: end_with(service, directory)) else 0


def end_with(service: Process, directory: str) -> None:
    """Ctrl-C ends all at once: hundreds of threads would talk on to the end."""

    def end(*_: object) -> None:
        if service.running:
            service.kill()
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(130)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


if __name__ == "__main__":
    sys.exit(main())
