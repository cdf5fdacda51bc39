"""The whole service with the simulated platform over HTTP, residents' phones and a browser: what tests of pages inside WeChat drive."""
from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from bot import background
from bot.assistant import PreparedTurn, Turn
from bot.services import Services, current_services, install_services
from bot.settings import load_settings
from tests.servers import free_port
from tests.stub_app import EchoTurn, serving
from tests.wechat_sim.platform import SECRET, WeChatPlatform
from tests.wechat_sim.server import SimulatorServer
from tests.wechat_sim.web import SCRIPT, USER_AGENT, Web
from webhook import create_app

_residents = itertools.count(1)
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OWN = {"X-Requested-With": "minsheng"}


class EchoingAssistant:
    """In Rasa's place; 确认提交 files a ticket."""

    concurrency: ClassVar[int] = 8

    def prepare(self, turn: Turn) -> PreparedTurn:
        return EchoTurn(current_services(), turn)

    def parse(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def serving_model(self) -> str:
        return "echo"


class Phone(requests.Session):
    """A resident's WeChat, or another browser: cookies of its own, goes where it is sent."""

    def __init__(self, url: str, agent: str = USER_AGENT) -> None:
        super().__init__()
        self.url, self.headers["User-Agent"] = url, agent

    def open(self, path: str, *, follow: bool = True) -> requests.Response:
        return self.get(path if path.startswith("http") else self.url + path, allow_redirects=follow, timeout=10)

    def press(self, path: str, action: str, **form: str) -> requests.Response:
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.open(path).text)
        data = {"csrf_token": token.group(1) if token else "", **form}
        return self.post(f"{self.url}{path}/{action}", data=data, timeout=10)


@dataclass
class World:
    platform: WeChatPlatform
    simulator: SimulatorServer
    services: Services
    url: str
    who: str = field(default_factory=lambda: f"oResident-{next(_residents):04d}")
    neighbour: str = field(default_factory=lambda: f"oNeighbour-{next(_residents):04d}")

    def phone(self, openid: str = "", *, agent: str = USER_AGENT) -> Phone:
        """Who looks at pages from now on is this resident."""
        self.platform.web.holder = openid or self.who
        return Phone(self.url, agent)

    def file(self, openid: str = "") -> tuple[str, str]:
        """Number and path of a ticket that this resident files by writing to the account."""
        said = self.platform.text(openid or self.who, "确认提交").said or ""
        found = re.search(r"编号 ([\d-]+)。.*?(/t/[\w-]+)", said, re.DOTALL)
        assert found, said
        return found[1], found[2]

    def asked(self, path: str) -> list[int]:
        """The errcodes that calls of this path got."""
        return [code for called, code in self.platform.api.calls if called == path]


LOGIN_CALL, TICKET_CALL = "/sns/oauth2/access_token", "/cgi-bin/ticket/getticket"


@contextmanager
def running_world(directory: Path) -> Iterator[World]:
    """The whole service and the platform."""
    platform = WeChatPlatform(f"http://127.0.0.1:{(port := free_port())}")
    simulator = SimulatorServer(platform.api, platform.web.pages)
    settings = {
        "VAR_DIR": str(directory / "var"),
        "RATE_LIMIT": "0",
        "PUBLIC_URL": platform.service,
        "WECHAT_APP_ID": platform.account.app_id,
        "WECHAT_APP_SECRET": SECRET,
        "WECHAT_TOKEN": platform.account.token,
        "WECHAT_AES_KEY": platform.account.aes_key,
        "WECHAT_API_BASE": simulator.start(),
        "WECHAT_OPEN_BASE": simulator.url,
        "WECHAT_JSSDK_URL": simulator.url + SCRIPT,
    }
    app = create_app(load_settings({f"MINSHENG_{name}": value for name, value in settings.items()}), assistant=EchoingAssistant())
    with serving(app, port) as url:
        yield World(platform, simulator, replace(current_services()), url)
    app.extensions["background"].stop()
    simulator.stop()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "FETCH_MEDIA_EVERY", 0.1)
        with running_world(tmp_path_factory.mktemp("town")) as running:
            yield running


@pytest.fixture
def world(town: World) -> Iterator[World]:
    """The same for everybody, with residents of one's own."""
    install_services(town.services)
    town.platform.api.calls.clear()
    town.platform.phones.violations.clear()
    vars(town.platform.web).update(vars(Web(town.platform.api, lambda: urlsplit(town.url).netloc)))
    yield replace(town, who=f"oResident-{next(_residents):04d}", neighbour=f"oNeighbour-{next(_residents):04d}")
    town.platform.api.now = time.time


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[World]:
    """Nobody has ever written to the account, and its platform may go away."""
    with running_world(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def wechat(browser: Browser, world: World) -> Iterator[BrowserContext]:
    world.platform.web.holder = world.who
    fresh = browser.new_context(viewport={"width": 360, "height": 740}, locale="zh-CN", base_url=world.url, user_agent=USER_AGENT)
    fresh.set_default_timeout(8000)
    yield fresh
    fresh.close()
