"""A demonstration: the real service and the simulated platform, as a page or in the terminal. `make wechat-sim` starts it."""
from __future__ import annotations

import argparse
import base64
import contextlib
import mimetypes
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tests.servers import Server, ServerError, free_port
from tests.wechat_sim.demo import RESIDENTS, BadAction, Demo, describe
from tests.wechat_sim.platform import SECRET, WeChatPlatform
from tests.wechat_sim.server import SimulatorServer
from tests.wechat_sim.web import SCRIPT

HELP = "直接打字就是发消息。/位置  /图片 文件名  /扫码 c:shanyang  /关注  /取消关注  /菜单  /菜单 1  /选 1  /换 2  /退出"
Item = TypeVar("Item")
_ACTIONS = {"/位置": "location", "/扫码": "scan", "/关注": "subscribe", "/取消关注": "unsubscribe"}


@contextlib.contextmanager
def demonstration(port: int) -> Iterator[tuple[Demo, str, Server]]:
    """Service on a temporary var with the newest model, and the platform beside it; both end with the block."""
    platform = WeChatPlatform(f"http://127.0.0.1:{(own_port := free_port())}")
    demo = Demo(platform)
    simulator = SimulatorServer(platform.api, platform.web.pages, demo.pages, port=port)
    simulator.start()
    with tempfile.TemporaryDirectory(prefix="minsheng-wechat-sim-") as directory:
        account = platform.account
        server = Server(
            Path(directory) / "var",
            port=own_port,
            wechat_app_id=account.app_id,
            wechat_app_secret=SECRET,
            wechat_token=account.token,
            wechat_aes_key=account.aes_key,
            wechat_api_base=simulator.url,
            wechat_open_base=simulator.url,
            wechat_jssdk_url=simulator.url + SCRIPT,
            public_url=platform.service,
        )
        try:
            print("正在启动服务，大约半分钟……", flush=True)
            server.start()
            yield demo, simulator.url, server
        finally:
            server.stop()
            simulator.stop()


class Terminal:
    """A plain chat: one resident at a time, what arrives is printed as it comes."""

    def __init__(self, demo: Demo) -> None:
        self._demo, self._openid = demo, next(iter(RESIDENTS))

    def run(self) -> None:
        print(HELP)
        for openid in RESIDENTS:
            threading.Thread(target=self._listen, args=(openid,), daemon=True).start()
        for line in sys.stdin:
            if line.strip() == "/退出":
                return
            try:
                self._obey(line.strip())
            except BadAction as error:
                print(error, flush=True)

    def _listen(self, openid: str) -> None:
        known, phones = 0, self._demo.platform.phones
        while True:
            phones.wait_for_more(openid, known, seconds=60)
            for seen in phones.of(openid, after=known):
                known += 1
                if seen.way != "said":
                    name = "" if openid == self._openid else f"［{RESIDENTS[openid]}］"
                    print(f"{name}{describe(seen)}", flush=True)

    def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if not line.startswith("/"):
            return self._demo.act(self._openid, "text", line) if line else None
        if command in _ACTIONS:
            return self._demo.act(self._openid, _ACTIONS[command], rest)
        if command == "/图片":
            return self._demo.act(self._openid, "picture", _data_address(rest))
        if command == "/菜单":
            return self._press(rest)
        if command == "/选":
            offered = [seen.choices for seen in self._demo.platform.phones.of(self._openid) if seen.choices]
            return self._demo.act(self._openid, "tap", list(_chosen(rest, offered[-1] if offered else ())))
        if command == "/换":
            self._openid = _chosen(rest, tuple(RESIDENTS))
            return print(f"现在是{RESIDENTS[self._openid]}", flush=True)
        raise BadAction(HELP)

    def _press(self, number: str) -> None:
        buttons = [button for top in self._demo.menu for button in (top.buttons or (top,))]
        if not number:
            return print("\n".join(f"/菜单 {place} {button.name}" for place, button in enumerate(buttons, start=1)), flush=True)
        chosen = _chosen(number, buttons)
        return self._demo.act(self._openid, "click", chosen.value) if chosen.kind == "click" else print(chosen.value, flush=True)


def _chosen(number: str, items: Sequence[Item]) -> Item:
    if not items:
        raise BadAction("现在没有可选的")
    if not number.isdecimal() or not 1 <= int(number) <= len(items):
        raise BadAction(f"请写 1 到 {len(items)} 的数字")
    return items[int(number) - 1]


def _data_address(name: str) -> str:
    try:
        content = Path(name).expanduser().read_bytes()
    except OSError:
        raise BadAction("没有这个文件") from None
    return f"data:{mimetypes.guess_type(name)[0]};base64,{base64.b64encode(content).decode()}"


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--terminal", action="store_true", help="chat here instead of in the browser")
    parser.add_argument("--port", type=int, default=5015, help="of the page; 0 = any")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        with demonstration(options.port) as (demo, url, server):
            if options.terminal:
                Terminal(demo).run()
            else:
                print(f"手机页面：{url}/    派单收件箱：{server.url}/sandbox    Ctrl-C 结束", flush=True)
                threading.Event().wait()
    except KeyboardInterrupt:
        print("\n结束。")
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"启动不了：{error.strerror}（换个端口试试：--port 0）", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
