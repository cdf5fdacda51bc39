"""A part of what reads a message: learns from the training texts, keeps that as one piece of state, adds what it finds to a message."""
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from rasa.shared.core.trackers import DialogueStateTracker
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData


class Part(ABC):

    @abstractmethod
    def fit(self, training_data: TrainingData) -> None:
        """Learn; afterwards get_state() holds what was learned."""

    @abstractmethod
    def get_state(self) -> Any:
        """What set_state() takes, to be pickled."""

    @abstractmethod
    def set_state(self, state: Any) -> None: ...

    @abstractmethod
    def read(self, message: Message, tracker: DialogueStateTracker) -> None:
        """Add what is found in the message's text to the message; `tracker` is the conversation it belongs to."""


def state_file(kind: type[Part]) -> str:
    """Where its state lies in the resource of the component."""
    return f"{kind.__name__}.pkl.gz"
