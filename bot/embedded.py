"""Rasa inside this process: its trained graph, policies, responses and our actions, without HTTP and without bookkeeping.

A turn does what Rasa's MessageProcessor does (understand, predict, act, until it listens again), minus what costs most of
its time: the task graph rebuilt for every call, the tracker copied for every action, JSON to and from an action server, and
a history replayed from its beginning. The conversation between turns is its slots; everything our rules and actions look at
is in them. docs/decisions/0002-embedded-rasa.md has the measurements.
"""
from __future__ import annotations

import asyncio
import logging
import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasa.core.actions.action import Action, RemoteAction, action_for_name_or_text
from rasa.core.channels.channel import CollectingOutputChannel, UserMessage
from rasa.core.nlg.response import TemplatedNaturalLanguageGenerator
from rasa.core.policies.policy import PolicyPrediction
from rasa.engine.constants import PLACEHOLDER_MESSAGE, PLACEHOLDER_TRACKER
from rasa.engine.graph import ExecutionContext, GraphNode, GraphSchema
from rasa.engine.loader import load_predict_graph_runner
from rasa.engine.runner.interface import GraphRunner
from rasa.engine.storage.local_model_storage import LocalModelStorage
from rasa.engine.storage.storage import ModelStorage
from rasa.shared.core.constants import ACTION_LISTEN_NAME
from rasa.shared.core.domain import Domain
from rasa.shared.core.events import ActionExecuted, BotUttered, Event, SlotSet, UserUttered, deserialise_events
from rasa.shared.core.trackers import DialogueStateTracker
from rasa_sdk import Tracker as SdkTracker
from rasa_sdk.executor import ActionExecutor, CollectingDispatcher

from bot.assistant import AssistantError, PreparedTurn, Turn, TurnResult, collect, rasa_text
from bot.db import StorageError

logger = logging.getLogger(__name__)

MAX_PREDICTIONS = 10
PROBE = "小区门口的路灯坏了"


class DirectGraphRunner(GraphRunner):
    """Runs a prediction graph in an order that is worked out once per target."""

    def __init__(
        self, graph_schema: GraphSchema, model_storage: ModelStorage, execution_context: ExecutionContext, hooks: Any = None
    ) -> None:
        self._schema = graph_schema
        self._nodes = {
            name: GraphNode.from_schema_node(name, node, model_storage, execution_context)
            for name, node in graph_schema.nodes.items()
        }
        self._orders: dict[str, list[str]] = {}

    @classmethod
    def create(
        cls, graph_schema: GraphSchema, model_storage: ModelStorage, execution_context: ExecutionContext, hooks: Any = None
    ) -> DirectGraphRunner:
        return cls(graph_schema, model_storage, execution_context, hooks)

    def run(self, inputs: dict[str, Any] | None = None, targets: list[str] | None = None) -> dict[str, Any]:
        values: dict[str, Any] = dict(inputs or {})
        for target in targets or self._schema.target_names:
            for name in self._order(target):
                if name in values:
                    continue
                node = self._schema.nodes[name]
                arguments = {parameter: values[provider] for parameter, provider in node.needs.items()}
                graph_node = self._nodes[name]
                values[name] = graph_node._fn(graph_node._component, **arguments)
        return {target: values[target] for target in targets or self._schema.target_names}

    def _order(self, target: str) -> list[str]:
        if target not in self._orders:
            ordered: list[str] = []

            def visit(name: str) -> None:
                if name in ordered or name not in self._schema.nodes:
                    return
                for provider in self._schema.nodes[name].needs.values():
                    visit(provider)
                ordered.append(name)

            visit(target)
            self._orders[target] = ordered
        return self._orders[target]


@dataclass(frozen=True)
class LoadedModel:
    version: str
    domain: Domain
    runner: GraphRunner
    nlu_target: str
    core_target: str
    actions: Mapping[str, Action]
    nlg: TemplatedNaturalLanguageGenerator
    # Policies see the intent and the actions of this turn, nothing else, unless a slot influences the conversation:
    # then what they predicted once for the same turn they predict again. None = slots do influence, ask every time.
    predictions: dict[tuple[str | None, ...], PolicyPrediction] | None


class EmbeddedAssistant:
    """Implements bot.assistant.Assistant on a model archive. load() swaps the model; turns under way keep theirs."""

    concurrency = 1  # turns compute under one interpreter lock; they wait for the disk after they have left (bot.db.flush)

    def __init__(self, model_path: Path) -> None:
        self._executor = ActionExecutor()
        self._executor.register_package("actions")
        self._loops = threading.local()
        self.load(model_path)

    def load(self, model_path: Path) -> None:
        """Raises AssistantError when the archive cannot be used; the model in service then stays."""
        try:
            with tempfile.TemporaryDirectory() as directory:
                metadata, runner = load_predict_graph_runner(
                    Path(directory), model_path, LocalModelStorage, DirectGraphRunner
                )
        except Exception as error:  # Rasa raises many kinds for a bad archive; all mean the same to us
            raise AssistantError(f"model {model_path.name} cannot be loaded: {error}") from error
        if metadata.core_target is None or metadata.nlu_target is None:
            raise AssistantError(f"model {model_path.name} lacks dialogue or understanding")
        domain = metadata.domain
        model = LoadedModel(
            version=model_path.name.removesuffix(".tar.gz"),
            domain=domain,
            runner=runner,
            nlu_target=metadata.nlu_target,
            core_target=metadata.core_target,
            actions={name: action_for_name_or_text(name, domain, None) for name in domain.action_names_or_texts},
            nlg=TemplatedNaturalLanguageGenerator(domain.responses),
            predictions=None if any(slot.influence_conversation for slot in domain.slots) else {},
        )
        try:  # an archive of another version of our components loads, but does not read
            _understand(model, UserMessage(PROBE), _tracker(model, "probe", None))
        except Exception as error:
            raise AssistantError(f"model {model_path.name} does not fit this version: {error!r}") from error
        self._model = model

    def serving_model(self) -> str:
        return self._model.version

    def parse(self, text: str) -> Mapping[str, Any]:
        model = self._model
        message = UserMessage(text)
        # UserMessage strips blanks, which would shift every offset; a leading "/" must not be taken for an intent payload.
        message.text = re.sub(r"^(\s*)/", r"\1／", text)
        return _understand(model, message, _tracker(model, "parse", None))

    def prepare(self, turn: Turn) -> PreparedTurn:
        model = self._model
        tracker = _tracker(model, turn.conversation_id, turn.state)
        message = UserMessage(rasa_text(turn), sender_id=turn.conversation_id, metadata={**turn.metadata, "model": model.version})
        try:
            parse_data = _understand(model, message, tracker)
        except Exception as error:
            raise AssistantError("the message could not be read") from error
        tracker.update(
            UserUttered(message.text, parse_data["intent"], parse_data["entities"], parse_data, metadata=message.metadata), model.domain
        )
        return _EmbeddedTurn(self, model, tracker)

    def drive(self, coroutine: Any) -> Any:
        """Rasa's interfaces are async; nothing in an embedded turn waits, so each thread keeps a loop of its own."""
        loop = getattr(self._loops, "loop", None)
        if loop is None:
            loop = self._loops.loop = asyncio.new_event_loop()
        return loop.run_until_complete(coroutine)

    async def act(self, model: LoadedModel, name: str, tracker: DialogueStateTracker) -> list[Event]:
        """Events of one action. Custom actions run right here on the same classes that `rasa run actions` serves."""
        action = model.actions[name]
        channel = CollectingOutputChannel()
        if not isinstance(action, RemoteAction):
            events: list[Event] = await action.run(channel, model.nlg, tracker, model.domain)
            return events
        run = self._executor.actions.get(name)
        if run is None:
            raise AssistantError(f"no action is called {name}")
        dispatcher = CollectingDispatcher()
        raw = await run(dispatcher, _sdk_tracker(tracker), {}) or []
        spoken = await RemoteAction._utter_responses(dispatcher.messages, channel, model.nlg, tracker)
        return [*spoken, *map(_event, raw)]


@dataclass(frozen=True)
class _EmbeddedTurn:
    assistant: EmbeddedAssistant
    model: LoadedModel
    tracker: DialogueStateTracker

    def run(self) -> TurnResult:
        try:
            messages = self.assistant.drive(self._predict_and_act())
        except (StorageError, AssistantError):
            raise
        except Exception as error:
            raise AssistantError("an action failed") from error
        return collect(messages, _state(self.model, self.tracker), self.model.version)

    async def _predict_and_act(self) -> list[Mapping[str, Any]]:
        spoken: list[Mapping[str, Any]] = []
        taken: tuple[str, ...] = ()
        for _ in range(MAX_PREDICTIONS):
            prediction = self._predict(taken)
            name = self.model.domain.action_names_or_texts[prediction.max_confidence_index]
            if name == ACTION_LISTEN_NAME:
                break
            self.tracker.update_with_events(prediction.events, self.model.domain)
            events = await self.assistant.act(self.model, name, self.tracker)
            self.tracker.update(ActionExecuted(name, prediction.policy_name, prediction.max_confidence), self.model.domain)
            self.tracker.update_with_events(events, self.model.domain)
            taken = (*taken, name)
            spoken += [_message(event) for event in events if isinstance(event, BotUttered)]
        return spoken

    def _predict(self, taken: tuple[str, ...]) -> PolicyPrediction:
        followup = self.tracker.followup_action
        if followup:
            self.tracker.clear_followup_action()
            return PolicyPrediction.for_action_name(self.model.domain, followup)
        known, latest = self.model.predictions, self.tracker.latest_message
        if known is None or latest is None or latest.entities:
            return self._ask_policies()
        key = (latest.intent.get("name"), *taken)
        if key not in known:
            known[key] = self._ask_policies()
        return known[key]

    def _ask_policies(self) -> PolicyPrediction:
        prediction: PolicyPrediction = self.model.runner.run({PLACEHOLDER_TRACKER: self.tracker}, [self.model.core_target])[
            self.model.core_target
        ]
        return prediction


def _understand(model: LoadedModel, message: UserMessage, tracker: DialogueStateTracker) -> dict[str, Any]:
    results = model.runner.run({PLACEHOLDER_MESSAGE: [message], PLACEHOLDER_TRACKER: tracker}, [model.nlu_target])
    parse_data = {"text": message.text, "intent": {"name": None, "confidence": 0.0}, "entities": []}
    parse_data.update(results[model.nlu_target][0].as_dict(only_output_properties=True))
    return parse_data


def _tracker(model: LoadedModel, sender_id: str, state: Mapping[str, Any] | None) -> DialogueStateTracker:
    """A tracker that stands where the last turn left it: listening, with these slots."""
    tracker = DialogueStateTracker(sender_id, model.domain.slots)
    tracker.update(ActionExecuted(ACTION_LISTEN_NAME), model.domain)
    for name, value in (state or {}).items():
        if name in tracker.slots:
            tracker.slots[name].value = value
    return tracker


def _state(model: LoadedModel, tracker: DialogueStateTracker) -> dict[str, Any]:
    return {slot.name: slot.value for slot in tracker.slots.values() if slot.value != slot.initial_value}


def _sdk_tracker(tracker: DialogueStateTracker) -> SdkTracker:
    latest = dict(tracker.latest_message.parse_data) if tracker.latest_message else {}
    return SdkTracker(
        tracker.sender_id, tracker.current_slot_values(), latest, [], False, None, {}, tracker.latest_action_name
    )


def _event(raw: Mapping[str, Any]) -> Event:
    if raw["event"] == "slot":
        return SlotSet(raw["name"], raw["value"])
    return deserialise_events([dict(raw)])[0]


def _message(event: BotUttered) -> Mapping[str, Any]:
    return {"text": event.text, "buttons": event.data.get("buttons"), "custom": event.data.get("custom")}




def open_embedded(paths: Sequence[Path]) -> EmbeddedAssistant:
    """The first of these archives that can be loaded. Raises AssistantError when none can."""
    for number, path in enumerate(paths):
        try:
            return EmbeddedAssistant(path)
        except AssistantError:
            if number == len(paths) - 1:
                raise
            logger.exception("model %s cannot serve, trying an earlier one", path.name)
    raise AssistantError("there is no model")
