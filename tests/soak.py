"""Nothing lost: the real server is killed again and again while many residents file appeals and dispatch misbehaves.

`python -m tests.soak [--full] [--conversations N] [--kills N] [--seed S]` ends with 0 when, after all of it, every ticket number
a resident was told is at dispatch exactly once, no appeal has two tickets, and no message went without an answer.
"""
from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import func, select, text

from bot.conversation import APOLOGY_STORAGE
from bot.db import reading
from bot.schema import inbound_messages, outbox, tickets
from bot.services import Services, build_services
from bot.settings import load_settings
from tests.dispatch_server import DROP_AFTER_RECORDING, DROP_BEFORE_RECORDING, ERROR_500, Behaviour, DispatchServer, hang
from tests.servers import Server, settings_as_variables
from tests.wechat_platform import Account, Platform

SECRET = "whsec_" + "c29ha3Rlc3Rzb2FrdGVzdHNvYWt0ZXN0"
ACCOUNT = Account(aes_key="")
TICKET_NUMBER = re.compile(r"20\d{6}-\d{4,}")
# The platform hangs up after five seconds; its retries come sooner here so that copies overlap.
WECHAT_HANG_UP, COPY_DELAYS = 5.0, (0.0, 0.25, 0.6)
# A reply that was left behind by a crash is pushed a minute later, and not before the server is back.
PUSH_SECONDS = 180.0
MAX_TURNS = 14

PROBLEMS = (
    "小区门口的路灯坏了三天了，晚上黑漆漆的",
    "路面塌了一个大坑，电动车差点翻进去",
    "楼下的垃圾桶满了一个星期没人清，臭得不行",
    "下水道堵了，污水往外冒，路都没法走",
    "自来水停了两天了，也没人通知",
    "电梯一天坏好几次，老人上不了楼",
    "井盖不见了，就用一根树枝插着",
    "绿化带里的树被人砍了，枯枝堆在路边",
    "饭店的油烟直接往居民楼里排，窗户都不敢开",
    "公交车站牌倒了，没人来扶",
    "人行道上停满了车，推婴儿车只能走马路",
    "河里漂着死鱼，水都发黑了",
)
PAIRS = (
    "小区门口路灯坏了好几天没人修；另外楼下饭店油烟很大天天往楼上窜",
    "我要反映两件事，一是自来水停了两天没人通知，二是小区垃圾一个星期没人清",
)
EMERGENCIES = ("我家楼道里煤气味很重，有人晕倒了", "楼上着火了，浓烟往下冒，有老人困在里面")
PLACES = ("经开区山阳小区", "清江浦区水门桥小区", "淮安区翔宇花园", "清江浦区桂花新村", "淮阴区长江路小区")
# What a bot's question is about → what the resident says to it. The first that fits counts.
ANSWERS = (
    (r"分开登记", "分开登记"),
    (r"确认提交", "确认提交"),
    (r"留个电话", "不留电话"),
    (r"现在的地址", "健康西路{n}号"),
    (r"位置", "{place}{n}号楼"),
    (r"用人单位", "宏达建筑公司"),
    (r"欠了多少钱", "三万块，五个人，两个月了"),
    (r"什么时候最厉害", "晚上十点到十二点"),
    (r"对方是什么人", "对方是楼上的邻居"),
    (r"[?？]\s*$", "别的我也说不清楚了"),
)


@dataclass(frozen=True)
class Size:
    conversations: int
    kills: int  # while serving
    kills_starting: int  # on top of them, while starting
    seed: int = 1


SHORT, FULL = Size(conversations=40, kills=3, kills_starting=1), Size(conversations=300, kills=30, kills_starting=5)


# -- the world ----------------------------------------------------------------------------------------------------


@dataclass
class Life:
    """One run of the server; both are set as well when it is over."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class World:
    """What residents share: the server and its lives, the stand-ins of dispatch and WeChat, and what was seen."""

    size: Size
    server: Server
    platform: Platform
    lives: list[Life]
    open_requests: int = 0
    confirming: asyncio.Event = field(default_factory=asyncio.Event)
    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    open_at_kill: list[int] = field(default_factory=list)
    laps: list[tuple[str, float]] = field(default_factory=lambda: [("", time.monotonic())])

    def lap(self, name: str) -> None:
        self.laps.append((name, time.monotonic()))

    def fault(self, sentence: str) -> None:
        self.faults.append(sentence)

    async def post(self, path: str, body: bytes, *, content_type: str, timeout: float) -> tuple[int, str]:
        """Status and body. Raises OSError, EOFError or TimeoutError when there is no whole answer."""
        self.open_requests += 1
        try:
            return await asyncio.wait_for(_exchange(self.server.port, path, body, content_type), timeout)
        finally:
            self.open_requests -= 1


async def _exchange(port: int, path: str, body: bytes, content_type: str) -> tuple[int, str]:
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        status, *headers = (await stream.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        lengths = [int(header.split(":")[1]) for header in headers if header.lower().startswith("content-length:")]
        return int(status.split()[1]), (await stream.readexactly(lengths[0])).decode()
    finally:
        writer.close()


NO_ANSWER = (OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError)


def misbehave(chance: random.Random) -> Callable[[str, dict[str, Any]], Behaviour | None]:
    """A third of the time: an error, silence for a while (at times longer than the relay waits), or a dropped connection."""

    def rule(_webhook_id: str, _payload: dict[str, Any]) -> Behaviour | None:
        if chance.random() >= 1 / 3:
            return None
        return chance.choice((ERROR_500, hang(chance.uniform(1, 12)), chance.choice((DROP_BEFORE_RECORDING, DROP_AFTER_RECORDING))))

    return rule


# -- residents ----------------------------------------------------------------------------------------------------


@dataclass
class Resident:
    """One person with one matter. Says the next thing when its life of the server has come."""

    world: World
    number: int
    chance: random.Random
    heard: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)  # message id → the whole answer
    unheard: int = 0
    split: bool = False
    _said: int = 0

    def __post_init__(self) -> None:
        kind = self.chance.random()
        self.pair, self.emergency = kind < 0.15, 0.15 <= kind < 0.3
        first = self.chance.choice(PAIRS if self.pair else EMERGENCIES if self.emergency else PROBLEMS)
        self.first = first if self.emergency else f"{first}，我住{self.number % 30 + 1}楼" if not self.pair else first
        self.place = self.chance.choice(PLACES)
        self.moments = sorted(self.chance.randrange(len(self.world.lives)) for _ in range(5))

    @property
    def sender(self) -> str:
        return f"resident-{self.number:04d}"

    @property
    def channel(self) -> str:
        return "api"

    @property
    def told(self) -> set[str]:
        return {number for reply in self.heard for number in TICKET_NUMBER.findall(reply)}

    async def run(self) -> None:
        words: str | None = self.first
        while words is not None:
            if self._said >= MAX_TURNS:
                return self.world.fault(f"{self.sender}: no end after {MAX_TURNS} turns")
            await self._wait_for_moment()
            reply = await self.say(words)
            words = self.next_words(reply, words)

    async def say(self, words: str) -> str | None:
        self._said += 1
        message_id = f"m{self._said}"
        if words == "确认提交":
            self.world.confirming.set()
            if self.chance.random() < 0.15:  # a finger that taps twice: another message, the same wish
                self.world.seen["double taps"] += 1
                reply, _ = await asyncio.gather(self.send(message_id, words), self.send(f"{message_id}-again", words))
                return reply
        reply = await self.send(message_id, words)
        if self.answers and self.chance.random() < 0.1:
            self.world.seen["late repetitions"] += 1
            await self.repeat(self.chance.choice(list(self.answers)))
        return reply

    def next_words(self, reply: str | None, said: str) -> str | None:
        """None when the matter is settled."""
        if reply is None:  # nobody heard the answer; the resident tries to get on
            return "确认提交" if said != "确认提交" else None
        if "分开登记" in reply:
            self.split = True
        if self.emergency and "确认提交" in reply:  # the address was taken for another matter: not what the resident wants
            self.world.seen["address of an emergency taken for a new matter"] += 1
            return "取消"
        if said in ("不留电话", "取消") and "确认提交" not in reply:
            return None
        for pattern, answer in ANSWERS:
            if re.search(pattern, reply):
                return answer.format(place=self.place, n=self.number + 1)
        return None

    async def _wait_for_moment(self) -> None:
        if self._said < len(self.moments):
            life = self.world.lives[self.moments[self._said]]
            # Some knock while the server is still starting, most while it serves.
            await (life.ready if self.chance.random() < 0.75 else life.begun).wait()
            await asyncio.sleep(self.chance.uniform(0, self.chance.choice((0.5, 5))))  # a rush at the door, or one by one

    # -- the machine API ------------------------------------------------------------------------------------------

    async def send(self, message_id: str, words: str) -> str | None:
        """Up to three copies at overlapping moments; the first goes on until it is answered. All answers must be one answer."""
        copies = [self._ask(message_id, words, 0.0, until_answered=True)]
        for delay in (COPY_DELAYS[1], COPY_DELAYS[2]):
            if self.chance.random() < 0.6:
                self.world.seen["extra copies"] += 1
                copies.append(self._ask(message_id, words, delay * self.chance.random(), until_answered=False))
        answers = [answer for answer in await asyncio.gather(*copies) if answer is not None]
        self.answers[message_id] = answers[0]
        self._words[message_id] = words
        if len(set(answers)) > 1:
            self.world.fault(f"{self.sender} {message_id}: copies of one message got different answers")
        return self._hear(answers[0])

    async def repeat(self, message_id: str) -> None:
        again = await self._ask(message_id, self._words[message_id], 0.0, until_answered=True)
        if again != self.answers[message_id]:
            self.world.fault(f"{self.sender} {message_id}: the answer changed when it was asked for again")

    _words: dict[str, str] = field(default_factory=dict)

    async def _ask(self, message_id: str, words: str, delay: float, *, until_answered: bool) -> str | None:
        body = json.dumps({"sender": self.sender, "text": words, "message_id": message_id}).encode()
        await asyncio.sleep(delay)
        while True:
            try:
                status, answer = await self.world.post("/api/chat", body, content_type="application/json", timeout=30)
                self.world.seen[f"HTTP {status}"] += 1
                if status == 200 and APOLOGY_STORAGE not in answer:
                    return answer
                if status not in (200, 503):
                    self.world.fault(f"{self.sender} {message_id}: HTTP {status}")
            except NO_ANSWER as error:
                self.world.seen["refused" if isinstance(error, ConnectionRefusedError) else "cut off"] += 1
            if not until_answered:
                return None
            await asyncio.sleep(self.chance.uniform(0.5, 2.5))

    def _hear(self, answer: str) -> str:
        messages = json.loads(answer)["messages"]
        reply = "\n".join(" ".join([message["text"], *(button["title"] for button in message["buttons"])]) for message in messages)
        self.heard.append(reply)
        return reply


class WeChatResident(Resident):
    """The same over the official account: the platform retries, and a late answer comes as a customer-service message."""

    messages = said_passively = 0

    @property
    def channel(self) -> str:
        return "wechat"

    def pushes(self) -> list[str]:
        """Texts of customer-service messages to this resident, oldest first."""
        return [send["text"]["content"] for send in list(self.world.platform.sends) if send["touser"] == self.sender]

    async def send(self, message_id: str, words: str) -> str | None:
        fields = {**ACCOUNT.text(words), "FromUserName": self.sender}
        pushed_before = len(self.pushes())
        self.messages += 1
        while True:
            outcomes = await asyncio.gather(*(self._call(fields, delay) for delay in COPY_DELAYS))
            said = {outcome for outcome in outcomes if outcome}
            if len(said) > 1:
                self.world.fault(f"{self.sender} {message_id}: retries of one message got different answers")
            if said:
                self.said_passively += 1
                return self._heard(said.pop())
            if "" in outcomes:
                break
            self.world.seen["WeChat gave up, resident sent again"] += 1
            await asyncio.sleep(self.chance.uniform(0.5, 2.5))
        pushed = await self._pushed(pushed_before)
        if pushed is None:
            self.unheard += 1
        return pushed and self._heard(pushed)

    async def repeat(self, message_id: str) -> None:
        """The platform repeats only what was not answered."""

    async def _call(self, fields: dict[str, str], delay: float) -> str | None:
        """The passive reply; empty for `success`; None when there was no answer."""
        await asyncio.sleep(delay)
        query, body = ACCOUNT.sign_request(fields)
        try:
            path = f"/wechat?{urlencode(query)}"
            status, answer = await self.world.post(path, body, content_type="text/xml", timeout=WECHAT_HANG_UP)
        except NO_ANSWER as error:
            self.world.seen["refused" if isinstance(error, ConnectionRefusedError) else "cut off"] += 1
            return None
        self.world.seen[f"HTTP {status}"] += 1
        if status != 200:
            if status != 503:
                self.world.fault(f"{self.sender}: HTTP {status} on /wechat")
            return None
        reply = ACCOUNT.read_reply(answer)
        return reply["Content"] if reply and APOLOGY_STORAGE not in reply["Content"] else ""

    async def _pushed(self, known: int) -> str | None:
        end = time.monotonic() + PUSH_SECONDS
        while time.monotonic() < end:
            news = self.pushes()[known:]
            if news:
                self.world.seen["answers pushed"] += 1
                return "\n".join(news)
            await asyncio.sleep(0.3)
        return None

    def _heard(self, reply: str) -> str:
        self.heard.append(reply)
        return reply


# -- the killing --------------------------------------------------------------------------------------------------


async def kill_again_and_again(world: World, chance: random.Random) -> None:
    """One life after the other; the last one stays. A third of the kills come right after somebody confirmed."""
    starting = set(chance.sample(range(len(world.lives) - 1), world.size.kills_starting))
    for life, run in enumerate(world.lives):
        world.server.launch()
        run.begun.set()
        if life == len(world.lives) - 1:
            break
        if life in starting:
            await asyncio.sleep(chance.uniform(0.5, 9))
        else:
            await asyncio.to_thread(world.server.wait_ready)
            run.ready.set()
            await _random_moment(world, chance)
            world.open_at_kill.append(world.open_requests)
        await asyncio.to_thread(world.server.kill)
        run.ready.set()
        world.seen["killed while starting" if life in starting else "killed while serving"] += 1
    await asyncio.to_thread(world.server.wait_ready)
    world.lives[-1].ready.set()


async def _random_moment(world: World, chance: random.Random) -> None:
    await asyncio.sleep(chance.uniform(0.5, 6))
    if chance.random() < 1 / 3:
        world.confirming.clear()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(world.confirming.wait(), 2)
            await asyncio.sleep(chance.uniform(0, 0.15))
    for _ in range(20):  # a kill with nothing under way would prove nothing
        if world.open_requests:
            break
        await asyncio.sleep(0.05)


# -- the reckoning ------------------------------------------------------------------------------------------------


async def drain(world: World, services: Services, seconds: float) -> None:
    """Until dispatch has everything, or time is up: what is left is found by check()."""
    end = time.monotonic() + seconds
    pending = select(func.count()).select_from(outbox).where(outbox.c.state == "pending")
    while time.monotonic() < end:
        with reading(services.engine) as connection:
            if connection.execute(pending).scalar_one() == 0:
                return
        await asyncio.sleep(0.5)


def check(world: World, residents: Sequence[Resident], services: Services, dispatch: DispatchServer) -> None:
    """Every promise of the service, against dispatch's books and the database's."""
    at_dispatch, told = dispatch.counts(), {number for resident in residents for number in resident.told}
    with reading(services.engine) as connection:
        filed = connection.execute(select(tickets.c.number, tickets.c.conversation_id, tickets.c.request_key, tickets.c.title)).fetchall()
        unanswered = connection.execute(select(func.count()).where(inbound_messages.c.answered_at.is_(None))).scalar_one()
        states = connection.execute(select(outbox.c.state, func.count()).group_by(outbox.c.state)).fetchall()
        integrity = connection.execute(text("PRAGMA integrity_check")).scalar_one()
    numbers = [row.number for row in filed]
    for number in sorted(told):
        if at_dispatch.get(number) != 1:
            world.fault(f"{number} was told to a resident and is at dispatch {at_dispatch.get(number, 0)} times")
    for number in sorted(set(numbers) - set(at_dispatch)):
        world.fault(f"{number} is in the database and not at dispatch")
    for number in sorted(set(at_dispatch) - set(numbers)):
        world.fault(f"{number} is at dispatch and not in the database")
    for resident in residents:
        mine = services.vault.pseudonym(resident.channel, ACCOUNT.name if resident.channel == "wechat" else "", resident.sender)
        rows = [row for row in filed if row.conversation_id == mine]
        _check_resident(world, resident, [row.number for row in rows], {row.title for row in rows})
    for state, count in states:
        if state != "delivered":
            world.fault(f"{count} messages to dispatch are {state}")
    if unanswered:
        world.fault(f"{unanswered} messages are unanswered")
    if integrity != "ok":
        world.fault("the database fails its integrity check")
    if dispatch.bad_signatures:
        world.fault(f"{dispatch.bad_signatures} bad signatures at dispatch")
    world.seen |= Counter({"tickets": len(numbers), "numbers told": len(told), "requests at dispatch": len(dispatch.requests)})


def _check_resident(world: World, resident: Resident, numbers: list[str], titles: set[str]) -> None:
    expected = {2} if resident.split else {1, 2} if resident.pair and resident.unheard else {1}
    if len(numbers) not in expected or len(titles) != len(numbers):
        world.fault(f"{resident.sender}: {len(numbers)} tickets with {len(titles)} titles instead of {expected}")
    if not resident.told <= set(numbers):
        world.fault(f"{resident.sender} was told a number that is not theirs")
    if not resident.unheard and resident.told != set(numbers):
        world.fault(f"{resident.sender} was not told every number")
    if isinstance(resident, WeChatResident) and len(resident.pushes()) + resident.said_passively > resident.messages:
        world.fault(f"{resident.sender} was pushed an answer that had been given already")
    world.seen["not heard"] += resident.unheard


def summary(world: World, residents: Sequence[Resident]) -> str:
    seen, killed = world.seen, sorted(world.open_at_kill) or [0]
    kinds = Counter("two appeals" if r.pair else "emergency" if r.emergency else "one appeal" for r in residents)
    channels = Counter(r.channel for r in residents)
    matters = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    lines = [
        f"conversations   {len(residents)} ({matters}; {channels['api']} API, {channels['wechat']} WeChat)",
        f"messages        {sum(r._said for r in residents)} said, {seen['extra copies']} extra copies, {seen['double taps']} double taps,"
        f" {seen['late repetitions']} repeated later",
        f"HTTP            {seen['HTTP 200']} answered, {seen['HTTP 503']} apologies (503),"
        f" {seen['refused']} refused, {seen['cut off']} cut off",
        f"SIGKILL         {seen['killed while serving']} while serving, {seen['killed while starting']} while starting;"
        f" requests open at the kill: median {killed[len(killed) // 2]}, most {killed[-1]}, none {killed.count(0)} times",
        f"WeChat          {seen['answers pushed']} answers pushed, {seen['not heard']} not heard,"
        f" {seen['WeChat gave up, resident sent again']} times sent again by the resident",
        f"dispatch        {seen['requests at dispatch']} requests for {seen['tickets']} tickets and their changes",
        f"tickets         {seen['tickets']} filed, {seen['numbers told']} numbers told",
        f"noted           {seen['address of an emergency taken for a new matter']} addresses of emergencies taken for a new matter",
        "time            " + ", ".join(f"{name} {at - before:.0f} s" for (_, before), (name, at) in pairwise(world.laps)),
        f"seed            {world.size.seed}",
    ]
    verdict = ["NOTHING LOST"] if not world.faults else [f"{len(world.faults)} FAULTS", *world.faults[:40]]
    return "\n".join([*lines, *verdict])


async def run(size: Size, directory: Path, *, say: Callable[[str], None] = print) -> list[str]:
    """The faults found; empty when nothing was lost. Says what it did."""
    chance, platform = random.Random(size.seed), Platform()
    api_base = platform.start()
    with DispatchServer(SECRET) as dispatch:
        dispatch._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a killed caller is no news here
        dispatch.rule = misbehave(random.Random(size.seed + 1))
        server = Server(
            directory / "var",
            dispatch_url=dispatch.url,
            dispatch_secret=SECRET,
            wechat_app_id=ACCOUNT.app_id,
            wechat_token=ACCOUNT.token,
            wechat_app_secret=platform.secret,
            wechat_api_base=api_base,
        )
        world = World(size, server, platform, [Life() for _ in range(size.kills + size.kills_starting + 1)])
        residents = [
            (WeChatResident if number % 3 == 0 else Resident)(world, number, random.Random(size.seed * 10_000 + number))
            for number in range(size.conversations)
        ]
        try:
            talking: Awaitable[Any] = asyncio.gather(*(resident.run() for resident in residents))
            await kill_again_and_again(world, chance)
            world.lap("killing")
            dispatch.rule = None
            await talking
            world.lap("last words")
            services = build_services(load_settings(settings_as_variables(server.settings)))
            await drain(world, services, 300)
            world.lap("delivering the rest")
            check(world, residents, services, dispatch)
            services.engine.dispose()
        finally:
            server.stop()
            platform.stop()
    say(summary(world, residents))
    return world.faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="300 conversations, 30 kills (about ten minutes)")
    parser.add_argument("--conversations", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    size = replace(FULL if options.full else SHORT, seed=options.seed)
    size = replace(size, conversations=options.conversations or size.conversations, kills=options.kills or size.kills)
    with tempfile.TemporaryDirectory(prefix="minsheng-soak-") as directory:
        return 1 if asyncio.run(run(size, Path(directory))) else 0


if __name__ == "__main__":
    sys.exit(main())
