"""The one door to Rasa: a turn of dialogue, a parse, and which model serves. Embedded Agent or a remote Rasa server."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import requests

from bot.settings import Settings


class AssistantError(Exception):
    """Rasa cannot answer: no model, a failing component or action, an unreachable server."""


@dataclass(frozen=True)
class Button:
    title: str
    payload: str

    def as_dict(self) -> dict[str, str]:
        return {"title": self.title, "payload": self.payload}


@dataclass(frozen=True)
class Bubble:
    """One message of the bot. A button's payload is the plain text that a tap sends."""

    text: str
    buttons: tuple[Button, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"text": self.text, "buttons": [button.as_dict() for button in self.buttons]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Bubble:
        return cls(data["text"], tuple(Button(b["title"], b["payload"]) for b in data.get("buttons", ())))


@dataclass(frozen=True)
class Turn:
    """What the assistant needs for one turn. `state` is what it returned last time for this conversation."""

    conversation_id: str
    text: str
    kind: str
    metadata: Mapping[str, Any]
    state: Mapping[str, Any] | None


@dataclass(frozen=True)
class TurnResult:
    bubbles: tuple[Bubble, ...]
    tickets: tuple[Mapping[str, Any], ...]
    state: Mapping[str, Any]
    model: str | None = None  # that read the message and chose every action; None where another process keeps that to itself


class PreparedTurn(Protocol):
    def run(self) -> TurnResult:
        """Predict and act. Writes join the caller's transaction. Raises AssistantError, StorageError."""


class Reader(Protocol):
    def parse(self, text: str) -> Mapping[str, Any]:
        """Rasa's parse data of a text outside any conversation, not to be changed. Raises AssistantError."""

    def serving_model(self) -> str: ...


class Assistant(Reader, Protocol):
    concurrency: int  # in how many threads of this process turns run

    def prepare(self, turn: Turn) -> PreparedTurn:
        """Understand the message; changes nothing. Raises AssistantError."""


@runtime_checkable
class ReloadableAssistant(Assistant, Protocol):
    def load(self, model_path: Path) -> None:
        """Serve another model from now on. Raises AssistantError; the one in service then stays."""


# Messages that are not words reach Rasa as an intent payload; what they carry travels in the metadata.
KIND_PAYLOADS = {"location": "/share_location", "picture": "/send_picture", "scene": "/open_scene"}


def rasa_text(turn: Turn) -> str:
    """The text for Rasa. A resident's leading "/" must not be taken for an intent payload."""
    if turn.kind in KIND_PAYLOADS:
        return KIND_PAYLOADS[turn.kind]
    return turn.text.lstrip("/") or "？"


def collect(messages: list[Mapping[str, Any]], state: Mapping[str, Any], model: str | None = None) -> TurnResult:
    """Rasa's outgoing messages as bubbles; actions hand over the tickets of the turn in a `custom` message."""
    bubbles: list[Bubble] = []
    tickets: list[Mapping[str, Any]] = []
    for message in messages:
        tickets += (message.get("custom") or {}).get("tickets", [])
        if message.get("text"):
            bubbles.append(Bubble.from_dict({"text": message["text"], "buttons": message.get("buttons") or ()}))
    return TurnResult(tuple(bubbles), tuple(tickets), state, model)


class RemoteAssistant:
    """A Rasa server of its own (`rasa run` and `rasa run actions`), reached over its REST channel."""

    TIMEOUT_SECONDS = 20
    concurrency = 64  # they wait for another process

    def __init__(self, settings: Settings) -> None:
        self._url = settings.rasa_url.rstrip("/")
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=64)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def prepare(self, turn: Turn) -> PreparedTurn:
        """The whole exchange happens here: the action server writes from its own process and must not wait for our transaction.

        A repeated turn is harmless, because actions file under the draft's request key.
        """
        body = {"sender": turn.conversation_id, "message": rasa_text(turn), "metadata": dict(turn.metadata)}
        return Done(collect(self.post("/webhooks/rest/webhook", body), {}))

    def parse(self, text: str) -> Mapping[str, Any]:
        parsed: Mapping[str, Any] = self.post("/model/parse", {"text": text})
        return parsed

    def serving_model(self) -> str:
        try:
            answer = self._session.get(f"{self._url}/status", timeout=5).json()
        except (requests.RequestException, ValueError) as error:
            raise AssistantError(f"Rasa at {self._url} does not answer") from error
        return str(answer.get("model_file", "")).removesuffix(".tar.gz")

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        try:
            answer = self._session.post(self._url + path, json=body, timeout=self.TIMEOUT_SECONDS)
            answer.raise_for_status()
            return answer.json()
        except (requests.RequestException, ValueError) as error:
            raise AssistantError(f"Rasa at {self._url} does not answer") from error


@dataclass(frozen=True)
class Done:
    """A turn that is already over."""

    result: TurnResult

    def run(self) -> TurnResult:
        return self.result
