"""What Rasa trains and serves of ours: the splitter, the reader and the place reader as one component.

Rasa trains one component after another. The three learn from the same texts and nothing from each other, so as parts of one
component they are fitted side by side, which a city that retrains waits for.
"""
from __future__ import annotations

import gzip
import logging
import pickle
from functools import partial
from pathlib import Path
from typing import Any

from rasa.engine.graph import ExecutionContext, GraphComponent
from rasa.engine.recipes.default_recipe import DefaultV1Recipe
from rasa.engine.storage.resource import Resource
from rasa.engine.storage.storage import ModelStorage
from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData

from bot.nlu.part import Part, state_file
from bot.nlu.places import PlaceReader
from bot.nlu.reader import PetitionReader
from bot.nlu.splitter import AppealSplitter
from bot.processes import together

logger = logging.getLogger(__name__)

# Rasa packs the archive at gzip's slowest level, which takes most of a minute over weights that are mostly nothing; what comes
# to it packed already costs it a second.
QUICKLY = 3
# In the order in which they read a message; fitted the longest first, so that the others fill what is left of the cores.
READING_ORDER: tuple[type[Part], ...] = (AppealSplitter, PetitionReader, PlaceReader)
FITTING_ORDER: tuple[type[Part], ...] = (PlaceReader, PetitionReader, AppealSplitter)


@DefaultV1Recipe.register(DefaultV1Recipe.ComponentType.INTENT_CLASSIFIER, is_trainable=True)
class PetitionParser(GraphComponent):
    """Sets what its parts set: `parts`, `intent`, `reading`, `draft_reading`, `place_spans`."""

    def __init__(self, model_storage: ModelStorage, resource: Resource) -> None:
        self._model_storage, self._resource = model_storage, resource
        self.parts: dict[type[Part], Part] = {kind: kind() for kind in READING_ORDER}

    @classmethod
    def create(
        cls, config: dict[str, Any], model_storage: ModelStorage, resource: Resource, execution_context: ExecutionContext
    ) -> PetitionParser:
        return cls(model_storage, resource)

    @classmethod
    def load(
        cls,
        config: dict[str, Any],
        model_storage: ModelStorage,
        resource: Resource,
        execution_context: ExecutionContext,
        **_: Any,
    ) -> PetitionParser:
        parser = cls(model_storage, resource)
        with model_storage.read_from(resource) as directory:
            for kind, part in parser.parts.items():
                with gzip.open(directory / state_file(kind), "rb") as file:
                    part.set_state(pickle.load(file))  # our own archive: whoever can replace it can replace the code too
        return parser

    def train(self, training_data: TrainingData) -> Resource:
        """Logs "learned PlaceReader" and the like as each part is done."""
        with self._model_storage.write_to(self._resource) as directory:
            together(
                [partial(self._fit, kind, training_data, directory) for kind in FITTING_ORDER],
                done=lambda number: logger.info("learned %s", FITTING_ORDER[number].__name__),
            )
        return self._resource

    def _fit(self, kind: type[Part], training_data: TrainingData, directory: Path) -> None:
        """In a process of its own, so what it learned is left in a file."""
        part = self.parts[kind]
        part.fit(training_data)
        with gzip.open(directory / state_file(kind), "wb", QUICKLY) as file:
            pickle.dump(part.get_state(), file, protocol=pickle.HIGHEST_PROTOCOL)

    def process(self, messages: list[Message], tracker: DialogueStateTracker) -> list[Message]:
        for message in messages:
            for part in self.parts.values():
                part.read(message, tracker)
        return messages
