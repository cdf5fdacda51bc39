"""A service that starts again: messages are taken in while its model loads, and a model that cannot be opened ends it."""
from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from bot.late import LateAssistant
from bot.settings import PROJECT_ROOT
from tests.servers import Process, ServerError, clean_environment, free_port, settings_as_variables
from tests.wechat_channel import ScriptedAssistant

STREET_LIGHT = "清江浦区桂花新村8号楼的路灯坏了三天了"


@pytest.fixture
def start(tmp_path: Path) -> Callable[[Path], Process]:
    def make(models: Path) -> Process:
        port = free_port()
        settings = {"port": str(port), "var_dir": str(tmp_path / "var"), "models_dir": str(models), "dispatch_url": "", "rate_limit": "0"}
        command = (sys.executable, "-W", "ignore", str(PROJECT_ROOT / "webhook.py"))
        environment = clean_environment(**settings_as_variables(settings))
        return Process("service", command, port=port, ready_path="/healthz", environment=environment, directory=tmp_path)

    return make


def test_message_that_comes_while_the_model_loads_is_answered_once_it_is_there(start: Callable[[Path], Process]) -> None:
    with start(PROJECT_ROOT / "models") as service:
        assert requests.get(f"{service.url}/readyz", timeout=10).status_code == 503, "nothing was to be shown: it was ready at once"
        answer = requests.post(f"{service.url}/api/chat", json={"sender": "early", "text": STREET_LIGHT}, timeout=120)
        assert "请核对" in answer.json()["messages"][0]["text"]
        assert requests.get(f"{service.url}/readyz", timeout=10).json()["model"]


def test_process_ends_when_no_model_can_be_opened(start: Callable[[Path], Process], tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "20260101-000000.tar.gz").write_bytes(b"no archive")
    service = start(tmp_path / "models")
    with pytest.raises(ServerError, match="no model could be opened"):
        service.start()
        while service.running:
            time.sleep(0.1)
        raise ServerError(service.log_end())


def test_who_needs_the_model_waits_for_it() -> None:
    may_open, opened = threading.Event(), threading.Event()

    def open_assistant() -> ScriptedAssistant:
        assert may_open.wait(30)
        return ScriptedAssistant()

    late = LateAssistant(open_assistant, opened=opened.set)
    asked: list[str] = []
    asking = threading.Thread(target=lambda: asked.append(str(late.parse("路灯坏了"))))
    asking.start()
    assert late.serving_model() == "" and not asked
    may_open.set()
    asking.join(30)
    assert asked and opened.wait(30) and late.serving_model() == ScriptedAssistant().serving_model()
